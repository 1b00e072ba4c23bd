"""What is found in a folder of songs with stems, as a table and as JSON."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from bsmamba2.audio.reading import AudioInfo
from bsmamba2.data.activity import StemActivity
from bsmamba2.data.track_files import StemLocation
from bsmamba2.data.tracks import track_name
from bsmamba2.printable import printable
from bsmamba2.stem_names import MIXTURE
from bsmamba2.text_table import text_table

Severity = Literal["error", "note"]
Kind = Literal["MUSDB18", "MUSDB18-HQ", "folders of stems"]

# Mixture minus sum of the stems if they are equal.
LOWEST_DB = -200.0


@dataclass(frozen=True)
class Problem:
    """Something about a file or folder: an error, which prevents or spoils training, or a note.

    Args:
        severity: Which of them.
        place: The file or folder, relative to the root.
        text: What is wrong, and perhaps what to do.
    """

    severity: Severity
    place: str
    text: str


@dataclass(frozen=True)
class CheckedTrack:
    """What was measured of one track.

    Args:
        path: Its stem file or folder.
        sources: Where the mixture and each stem is read from.
        unused: Its other audio files, and why each is not used.
        infos: Length, rate and channels of the mixture and each stem that can be opened.
        samples: Length that is used; None if nothing can be opened.
        activities: The active windows of the mixture and each stem that could be read to its end.
        silent: Which of them are silent.
        active_shares: By stem, the share of windows that are active, from 0 to 1; None without a whole window.
        mixture_minus_sum_db: Level of the difference relative to the mixture, -200 if there is none; None if it cannot
            be computed.
        faults: Why something could not be read: the stem, or None for the whole track, and a sentence.
    """

    path: Path
    sources: Mapping[str, StemLocation] = field(default_factory=dict)
    unused: Mapping[Path, str] = field(default_factory=dict)
    infos: Mapping[str, AudioInfo] = field(default_factory=dict)
    samples: int | None = None
    activities: Mapping[str, StemActivity] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    active_shares: Mapping[str, float | None] = field(default_factory=dict)
    mixture_minus_sum_db: float | None = None
    faults: Sequence[tuple[str | None, str]] = ()

    @property
    def name(self) -> str:
        """Artist and title."""
        return track_name(self.path)

    @property
    def split(self) -> str:
        """The folder it is in: train, valid or test."""
        return self.path.parent.name

    @property
    def place(self) -> str:
        """Its stem file or folder, relative to the root."""
        return self._place(self.path)

    @property
    def stems(self) -> list[str]:
        """The names of its stems."""
        return [name for name in self.sources if name != MIXTURE]

    @property
    def seconds(self) -> float | None:
        """The length that is used in seconds; None if nothing can be opened."""
        return None if self.samples is None else self.samples / next(iter(self.infos.values())).sample_rate

    def problem(self, severity: Severity, text: str, stem: str | None = None, file: Path | None = None) -> Problem:
        """Returns a problem of the track, of one of its stems, or of a file in its folder."""
        path = file or (self.sources[stem][0] if stem is not None else self.path)
        # Sentences about a file begin with its path, which the place repeats.
        text = text.removeprefix(f"{path} ")
        if stem is not None and path == self.path:
            text = f"its {'' if stem == MIXTURE else 'stem '}{stem} {text}"
        return Problem(severity, self._place(path), text)

    def _place(self, path: Path) -> str:
        return path.relative_to(self.path.parent.parent).as_posix()


@dataclass(frozen=True)
class DataReport:
    """Everything that `bsmamba2 check-data` reports.

    Args:
        root: The folder.
        kind: What it is.
        tracks: The tracks in it.
        problems: Everything that is wrong, errors first.
        remarks: What else was done.
    """

    root: Path
    kind: Kind
    tracks: Sequence[CheckedTrack]
    problems: Sequence[Problem]
    remarks: Sequence[str] = ()

    @property
    def healthy(self) -> bool:
        """Whether there is no error; notes are not errors."""
        return all(problem.severity != "error" for problem in self.problems)

    def problems_of(self, track: CheckedTrack) -> list[Problem]:
        """Returns the problems of a track and of the files in its folder."""
        return [
            problem
            for problem in self.problems
            if problem.place == track.place or problem.place.startswith(f"{track.place}/")
        ]

    def to_json(self) -> str:
        """Returns the report as JSON."""
        tracks = [
            {
                "split": track.split,
                "name": track.name,
                "seconds": track.seconds,
                "stems": track.stems,
                "active_shares": track.active_shares,
                "mixture_minus_sum_db": track.mixture_minus_sum_db,
                "problems": [asdict(problem) for problem in self.problems_of(track)],
            }
            for track in self.tracks
        ]
        content = {
            "healthy": self.healthy,
            "root": str(self.root),
            "kind": self.kind,
            "tracks": tracks,
            "problems": [asdict(problem) for problem in self.problems],
            "summary": self.summary(),
        }
        return json.dumps(content, indent=2)

    def summary(self) -> list[str]:
        """Returns a few lines: the size of each split, the remarks, and whether it can be trained on."""
        lines = []
        for split, count in Counter(track.split for track in self.tracks).items():
            minutes = sum(track.seconds or 0 for track in self.tracks if track.split == split) / 60
            lines.append(f"{split}: {count} tracks, {minutes:.1f} minutes ({self.kind})")
        counts = Counter(problem.severity for problem in self.problems)
        verdict = "" if self.healthy else "; fix the errors before training"
        return [*lines, *self.remarks, f"{counts['error']} errors, {counts['note']} notes{verdict}"]

    def text(self) -> str:
        """Returns the report as text: a line per track with its active windows in %, then the problems."""
        stems = list(dict.fromkeys(stem for track in self.tracks for stem in track.stems))
        rows = [["split", "active windows in %", "s", "stems", *stems, "mix-sum dB", "problems"]]
        for track in self.tracks:
            shares = [_rounded(track.active_shares.get(stem), 100) for stem in stems]
            counts = Counter(problem.severity for problem in self.problems_of(track))
            count = ", ".join(f"{number} {severity}{'s'[: number > 1]}" for severity, number in sorted(counts.items()))
            level = "exact" if track.mixture_minus_sum_db == LOWEST_DB else _rounded(track.mixture_minus_sum_db, 1, 1)
            first = [track.split, track.name, _rounded(track.seconds, 1, 1), str(len(track.stems))]
            rows.append([*first, *shares, level, count or "-"])
        table = text_table(rows, left=(0, 1, len(rows[0]) - 1))
        listed = [printable(f"{problem.severity}: {problem.place}: {problem.text}") for problem in self.problems]
        return "\n".join([table, "", *listed, *([""] if listed else []), *map(printable, self.summary())])


def _rounded(value: float | None, factor: float, digits: int = 0) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"
