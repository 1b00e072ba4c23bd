"""Results of an evaluation as data: written after each track, gathered at the end, and read by reports."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from bsmamba2.errors import InputError
from bsmamba2.evaluation.scores import SCORES, StemScores
from bsmamba2.system.files import complete_file, short_name

RUN = "run.json"
RESULTS = "results.json"
TRACKS_FOLDER = "tracks"
EXCERPTS_FOLDER = "excerpts"
FORMAT = 1

# The rows of every table: the estimate, then the floors and oracles that its scores are judged against.
ESTIMATE = "estimate"
MIXTURE_ROW = "mixture"
HALF_ROW = "half the mixture"
SILENCE_ROW = "silence"
RATIO_MASK_ROW = "ideal ratio mask"
COMPLEX_MASK_ROW = "ideal complex mask"
SCALE_ROWS = (MIXTURE_ROW, HALF_ROW, SILENCE_ROW, RATIO_MASK_ROW, COMPLEX_MASK_ROW)

# What a model was trained on: the song that is scored, or other songs of its artist.
TrainedOn = Literal["song", "artist"]


def chunk_row(seconds: float) -> str:
    """Returns the name of the row of a model that was given chunks of this length."""
    return f"chunks of {seconds:g} s"


@dataclass(frozen=True)
class TrackResult:
    """The scores of one track.

    Args:
        name: Artist and title.
        key: Hash of the model, the settings and the data of this track, which the scores depend on.
        data_sha256: Hash of the audio files of the track.
        seconds: Length in seconds.
        computing_seconds: Time of the separation without reading and scoring; NaN for estimates from files.
        notes: Remarks to show, such as an adjusted length.
        activity: By stem, 1 for each block of 100 ms in which the reference is active, else 0.
        scores: By stem and row.
        excerpt: Start and end in seconds of the excerpt kept for listening in excerpts/{name}/: mixture.flac,
            {stem}.reference.flac and {stem}.estimate.flac; None if nothing was kept.
        excerpt_gain: Factor applied to all of those files, below 1 if one would have clipped.
        computed: Time, device and revision of the code of the computation.
        trained_on: Whether the model was trained on this song or on others of its artist; None if neither is known.
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
    trained_on: TrainedOn | None = None

    def write(self, path: Path) -> None:
        """Writes the result as JSON, completely or not at all."""
        with complete_file(path) as temporary:
            temporary.write_text(to_json(self), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "TrackResult":
        """Returns a result from the file that `write` wrote.

        Raises:
            InputError: The file is damaged.
        """
        return cls.from_content(_read(path), path)

    @classmethod
    def from_content(cls, content: Mapping[str, Any], path: Path) -> "TrackResult":
        """Returns a result from plain values.

        Scores that the values lack are NaN: the result is of a version without them. Scores that are not in `SCORES`
        are ignored: this version has no label, unit or direction to show and compare them with.

        Args:
            content: The values, as read from JSON.
            path: The file they are from, for the error message.

        Raises:
            InputError: The values are not a result.
        """
        try:
            scores = {
                stem: {row: _stem_scores(values) for row, values in rows.items()}
                for stem, rows in content["scores"].items()
            }
            _check_names([content["name"], *scores])
            return cls(
                **{key: content[key] for key in ("name", "key", "data_sha256")},
                seconds=_number(content["seconds"]),
                computing_seconds=_number(content["computing_seconds"]),
                notes=tuple(content["notes"]),
                activity={stem: tuple(blocks) for stem, blocks in content["activity"].items()},
                scores=scores,
                excerpt=None if content["excerpt"] is None else tuple(content["excerpt"]),
                # The first version had neither of these.
                excerpt_gain=_number(content.get("excerpt_gain", 1.0)),
                computed=dict(content.get("computed", {})),
                trained_on=_trained_on(content.get("trained_on")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} has no results of this version; evaluate again with --overwrite") from error


@dataclass(frozen=True)
class Results:
    """The results of an evaluation.

    Args:
        description: Model or estimates, data, settings, software, hardware and time: sections of names and plain
            values.
        tracks: By name.
        failures: Reasons why tracks could not be scored, by name.
    """

    description: Mapping[str, Mapping[str, Any]]
    tracks: Mapping[str, TrackResult]
    failures: Mapping[str, str]

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems that were scored."""
        return tuple(dict.fromkeys(stem for track in self.tracks.values() for stem in track.scores))

    def rows(self, stem: str) -> tuple[str, ...]:
        """Returns the names of the rows of a stem."""
        return tuple(dict.fromkeys(row for track in self.tracks.values() for row in track.scores.get(stem, ())))

    def values(self, stem: str, row: str, score: str) -> dict[str, float]:
        """Returns a score by track; NaN if it is undefined."""
        found = ((name, track.scores.get(stem, {}).get(row)) for name, track in self.tracks.items())
        return {name: scores[score] for name, scores in found if scores is not None}

    def write(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Writes FOLDER/results.json, with a derived summary that `read` ignores."""
        content = {"format": FORMAT, "summary": summary, **_plain(self)}
        with complete_file(folder / RESULTS) as temporary:
            temporary.write_text(to_json(content), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Returns the results that `write` wrote.

        Raises:
            InputError: The folder has no results.json, or the file is damaged or of an incompatible version.
        """
        path = folder / RESULTS
        if not path.is_file() and (folder / RUN).is_file():
            raise InputError(f"the evaluation in {folder} was not finished; run the command again to resume it")
        if not path.is_file():
            raise InputError(f"there is no {RESULTS} in {folder}; give a folder that `bsmamba2 evaluate` wrote")
        content = _read(path)
        parts = (content.get(part) for part in ("description", "tracks", "failures"))
        if content.get("format") != FORMAT or not all(isinstance(part, dict) for part in parts):
            raise InputError(f"{path} has no results of this version; evaluate again with --overwrite")
        tracks = {name: TrackResult.from_content(track, path) for name, track in content["tracks"].items()}
        return cls(content["description"], tracks, content["failures"])


def excerpts_folder(run: Path, track: str) -> Path:
    """Returns the folder of the excerpts of a track in the folder of a run."""
    return run / EXCERPTS_FOLDER / short_name(track)


def to_json(content: Any) -> str:
    """Returns strict JSON: NaN becomes null, the infinities become "Infinity" and "-Infinity"."""
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # Bytes of a file name that are not UTF-8 are lone surrogates in Python; JSON stores them as escapes.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, StemScores):
        value = {**value.values, "windows": value.windows}
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


def _check_names(names: Iterable[Any]) -> None:
    """Checks that no name leads out of the folder in which the files of a track are."""
    for name in names:
        if not isinstance(name, str) or name in ("", "..") or Path(name).name != name or "\0" in name:
            raise ValueError(f"{name!r} is not the name of a file")


def _trained_on(value: Any) -> TrainedOn | None:
    if value not in (None, *get_args(TrainedOn)):
        raise ValueError(value)
    return value


def _stem_scores(values: Mapping[str, Any]) -> StemScores:
    known = {name: _number(values[name]) for name in SCORES if name in values}
    return StemScores(known, tuple(map(_number, values["windows"])))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); evaluate again with --overwrite") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} has no results of this version; evaluate again with --overwrite")
    return content
