"""What an evaluation found, as data: written track by track, gathered at its end, read again by reports."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from bsmamba2.errors import InputError
from bsmamba2.evaluation.scores import StemScores
from bsmamba2.system.files import complete_file

RUN = "run.json"
RESULTS = "results.json"
TRACKS_FOLDER = "tracks"
EXCERPTS_FOLDER = "excerpts"
FORMAT = 1

# The rows of every table: what is scored, then what gives its score a scale.
ESTIMATE = "estimate"
MIXTURE_ROW = "mixture"
HALF_ROW = "half the mixture"
SILENCE_ROW = "silence"
RATIO_MASK_ROW = "ideal ratio mask"
COMPLEX_MASK_ROW = "ideal complex mask"
SCALE_ROWS = (MIXTURE_ROW, HALF_ROW, SILENCE_ROW, RATIO_MASK_ROW, COMPLEX_MASK_ROW)


def chunk_row(seconds: float) -> str:
    """Returns the name of the row of the model given chunks of so many seconds."""
    return f"chunks of {seconds:g} s"


@dataclass(frozen=True)
class TrackResult:
    """The scores of one track.

    Args:
        name: Artist and title.
        key: Hash of the model, the settings and the data of this track: its scores hold for these alone.
        data_sha256: Hash of the audio files of the track.
        seconds: Its length in seconds.
        computing_seconds: Time its separation took, without reading and scoring; NaN for estimates from files.
        notes: What else there is to know, such as lengths that had to be adjusted.
        activity: By stem, 1 for each block of 100 ms in which the reference is active and 0 for the others.
        scores: By stem and row.
        excerpt: First second and last of what was kept for listening in EXCERPTS/{name}/: mixture.flac,
            {stem}.reference.flac and {stem}.estimate.flac; None where nothing was kept.
        excerpt_gain: What all of those files were multiplied by, below 1 where one would have been clipped.
        computed: When it was computed, on which device, and by which revision of the code.
    """

    name: str
    key: str
    data_sha256: str
    seconds: float
    computing_seconds: float
    notes: tuple[str, ...] = ()
    activity: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, StemScores]] = field(default_factory=dict)
    excerpt: tuple[float, float] | None = None
    excerpt_gain: float = 1.0
    computed: Mapping[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Writes it as JSON, whole or not at all."""
        with complete_file(path) as temporary:
            temporary.write_text(to_json(self), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "TrackResult":
        """Returns what `write` wrote.

        Raises:
            InputError: The file is damaged.
        """
        return cls.from_content(_read(path), path)

    @classmethod
    def from_content(cls, content: Mapping[str, Any], path: Path) -> "TrackResult":
        """Returns it from plain values; the path is for the error of values that are not such a result."""
        try:
            scores = {
                stem: {row: _stem_scores(values) for row, values in rows.items()}
                for stem, rows in content["scores"].items()
            }
            return cls(
                **{key: content[key] for key in ("name", "key", "data_sha256")},
                seconds=_number(content["seconds"]),
                computing_seconds=_number(content["computing_seconds"]),
                notes=tuple(content["notes"]),
                activity={stem: tuple(blocks) for stem, blocks in content["activity"].items()},
                scores=scores,
                excerpt=None if content["excerpt"] is None else tuple(content["excerpt"]),
                excerpt_gain=_number(content["excerpt_gain"]),
                computed=dict(content["computed"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} holds no results of this version; evaluate again with --overwrite") from error


@dataclass(frozen=True)
class Results:
    """All that an evaluation found.

    Args:
        description: How it came about, in sections (model or estimates, data, settings, software, hardware, time) of
            names and plain values.
        tracks: By name.
        failures: Why tracks have no scores, by name.
    """

    description: Mapping[str, Mapping[str, Any]]
    tracks: Mapping[str, TrackResult]
    failures: Mapping[str, str]

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems that were scored."""
        return tuple(dict.fromkeys(stem for track in self.tracks.values() for stem in track.scores))

    def rows(self, stem: str) -> tuple[str, ...]:
        """Returns the names of what was scored against a stem."""
        return tuple(dict.fromkeys(row for track in self.tracks.values() for row in track.scores.get(stem, ())))

    def values(self, stem: str, row: str, score: str) -> dict[str, float]:
        """Returns a score by track; NaN where it is undefined."""
        found = ((name, track.scores.get(stem, {}).get(row)) for name, track in self.tracks.items())
        return {name: getattr(scores, score) for name, scores in found if scores is not None}

    def write(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Writes FOLDER/results.json, with a summary that is derived from it and not read again."""
        content = {"format": FORMAT, "summary": summary, **_plain(self)}
        with complete_file(folder / RESULTS) as temporary:
            temporary.write_text(to_json(content), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Returns what `write` wrote.

        Raises:
            InputError: There is no results.json in the folder, or it is damaged or of another version.
        """
        path = folder / RESULTS
        if not path.is_file() and (folder / RUN).is_file():
            raise InputError(f"the evaluation in {folder} was not finished; give its command again, and it goes on")
        if not path.is_file():
            raise InputError(f"there is no {RESULTS} in {folder}; give a folder that `bsmamba2 evaluate` wrote")
        content = _read(path)
        parts = (content.get(part) for part in ("description", "tracks", "failures"))
        if content.get("format") != FORMAT or not all(isinstance(part, dict) for part in parts):
            raise InputError(f"{path} holds no results of this version; evaluate again with --overwrite")
        tracks = {name: TrackResult.from_content(track, path) for name, track in content["tracks"].items()}
        return cls(content["description"], tracks, content["failures"])


def to_json(content: Any) -> str:
    """Returns JSON without numbers it does not know: NaN is null, the infinities are "Infinity" and "-Infinity"."""
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # Bytes of a file name that are not UTF-8 are lone surrogates here, which JSON holds as escapes.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _number(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _stem_scores(values: Mapping[str, Any]) -> StemScores:
    if values.keys() != {field.name for field in fields(StemScores)}:
        raise KeyError("other scores than those of this version")
    windows = tuple(_number(value) for value in values["windows"])
    return StemScores(**{name: _number(value) for name, value in values.items() if name != "windows"}, windows=windows)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); evaluate again with --overwrite") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no results of this version; evaluate again with --overwrite")
    return content
