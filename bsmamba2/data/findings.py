"""What is known of a folder of songs with stems, as a table for people and as JSON for programs."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from bsmamba2.data.activity import StemActivity
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import StemLocation
from bsmamba2.stem_names import MIXTURE

Severity = Literal["error", "note"]
Kind = Literal["MUSDB18", "MUSDB18-HQ", "folders of stems"]

# Mixture minus sum of the stems where there is no difference.
LOWEST_DB = -200.0


@dataclass(frozen=True)
class Problem:
    """Something about a file or folder: an error that stops or spoils a training, or a note.

    Args:
        severity: Which of them.
        place: The file or folder, below the root.
        text: What is wrong, and perhaps what to do.
    """

    severity: Severity
    place: str
    text: str


@dataclass
class CheckedTrack:
    """What is known of one track.

    Args:
        split: Its folder.
        name: Artist and title.
        path: Its stem file or folder.
        sources: Where the mixture and each stem is read from.
        samples: Length that is used; None where it cannot be told.
        activities: What was found in the mixture and each stem that could be read whole.
        silent: Which of them are silent.
        active_shares: By stem, how many of the windows are active, from 0 to 1; None without a whole window.
        mixture_minus_sum_db: Level of the difference relative to the mixture, -200 where there is none; None where it
            cannot be told.
        problems: All that is wrong with it.
    """

    split: str
    name: str
    path: Path
    sources: Mapping[str, StemLocation] = field(default_factory=dict)
    samples: int | None = None
    activities: dict[str, StemActivity] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    active_shares: dict[str, float | None] = field(default_factory=dict)
    mixture_minus_sum_db: float | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def stems(self) -> list[str]:
        """Returns the names of its stems."""
        return [name for name in self.sources if name != MIXTURE]

    @property
    def seconds(self) -> float | None:
        """Returns the length that is used in seconds; None where it cannot be told."""
        return None if self.samples is None else self.samples / SAMPLE_RATE


@dataclass(frozen=True)
class DataReport:
    """All that `bsmamba2 check-data` says.

    Args:
        root: The folder.
        kind: What it is.
        tracks: What it holds.
        problems: All that is wrong, errors first.
        remarks: What else was done.
    """

    root: Path
    kind: Kind
    tracks: list[CheckedTrack]
    problems: list[Problem]
    remarks: list[str]

    @property
    def healthy(self) -> bool:
        """Returns whether there is no error; notes are none."""
        return all(problem.severity != "error" for problem in self.problems)

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
                "problems": [asdict(problem) for problem in track.problems],
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
        return json.dumps(content, indent=2, ensure_ascii=False)

    def summary(self) -> list[str]:
        """Returns in some lines what there is and whether it can be trained on."""
        lines = []
        for split, count in Counter(track.split for track in self.tracks).items():
            minutes = sum(track.seconds or 0 for track in self.tracks if track.split == split) / 60
            lines.append(f"{split}: {count} tracks, {minutes:.1f} minutes ({self.kind})")
        counts = Counter(problem.severity for problem in self.problems)
        verdict = "" if self.healthy else "; the errors have to be mended before a training"
        return [*lines, *self.remarks, f"{counts['error']} errors, {counts['note']} notes{verdict}"]

    def text(self) -> str:
        """Returns the report for people: a line per track, active windows in %, then what is wrong."""
        stems = list(dict.fromkeys(stem for track in self.tracks for stem in track.stems))
        widths = [max(7, len(stem)) for stem in stems]
        name_width = max((len(track.name) for track in self.tracks), default=0)
        header = [f"{stem:>{width}}" for stem, width in zip(stems, widths, strict=True)]
        lines = [_line("split", "active windows in %", "s", "stems", header, "mix-sum dB", "problems", name_width)]
        for track in self.tracks:
            shares = (track.active_shares.get(stem) for stem in stems)
            cells = [f"{_rounded(share, 100):>{width}}" for share, width in zip(shares, widths, strict=True)]
            count = Counter(problem.severity for problem in track.problems)
            said = ", ".join(f"{number} {severity}{'s'[: number > 1]}" for severity, number in sorted(count.items()))
            level = "exact" if track.mixture_minus_sum_db == LOWEST_DB else _rounded(track.mixture_minus_sum_db, 1, 1)
            seconds = _rounded(track.seconds, 1, 1)
            lines.append(
                _line(track.split, track.name, seconds, str(len(track.stems)), cells, level, said or "-", name_width)
            )
        listed = [f"{problem.severity}: {problem.place}: {problem.text}" for problem in self.problems]
        return "\n".join([*lines, "", *listed, *([""] if listed else []), *self.summary()])


def _rounded(value: float | None, factor: float, digits: int = 0) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"


def _line(
    split: str, name: str, seconds: str, count: str, cells: Sequence[str], level: str, problems: str, width: int
) -> str:
    width = max(width, len("active windows in %"))
    first = [f"{split:5}", f"{name:{width}}", f"{seconds:>7}", f"{count:>5}"]
    return "  ".join([*first, *cells, f"{level:>10}", problems])
