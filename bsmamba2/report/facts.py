"""The runs of a report, and the facts that it shows of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import ESTIMATE, RESULTS, Results
from bsmamba2.evaluation.statistics import Summary, count_windows, summarise_results, windows_by_track
from bsmamba2.evaluation.training_songs import training_warnings
from bsmamba2.report.plots import Series
from bsmamba2.report.texts import plain

# Section and name in the description, and label, of the facts that are shown first, in their order.
KEY_FACTS = (
    ("settings", "protocol", "protocol"),
    ("model", "name", "model"),
    ("model", "sha256", "model sha256"),
    ("model", "parameters", "model parameters"),
    ("model", "training_songs", "training songs"),
    ("estimates", "folder", "estimates"),
    ("data", "root", "root"),
    ("data", "split", "split"),
    ("data", "sha256", "data sha256"),
    ("separation", "segment_seconds", "segment seconds"),
    ("separation", "overlap", "overlap"),
    ("separation", "ensemble", "ensemble"),
    ("software", "bsmamba2", "bsmamba2"),
    ("software", "revision", "revision"),
    ("hardware", "device", "device"),
    ("hardware", "processor", "processor"),
    ("hardware", "processor cores", "processor cores"),
    ("time", "finished", "finished"),
    ("time", "seconds_per_second_of_audio", "seconds per second of audio"),
)
HASHES = ("sha256", "revision")
# Section and name of paths on the machine of the evaluation; a page to publish contains only their last part.
PATHS = (("data", "root"), ("model", "name"), ("estimates", "folder"))
HASH_LENGTH = 12


@dataclass(frozen=True)
class Fact:
    """A fact about a run.

    Args:
        label: What it is.
        text: Its value.
        short: The beginning of a long hash; else empty.
    """

    label: str
    text: str
    short: str = ""


@dataclass(frozen=True)
class ReportedRun:
    """A run as the report shows it.

    Args:
        number: Its number among the runs, from 0.
        letter: Its short name if there are several runs, else empty.
        name: Its unique name.
        folder: Its folder.
        results: Its results, without paths of the machine.
    """

    number: int
    letter: str
    name: str
    folder: Path
    results: Results

    @cached_property
    def summaries(self) -> Mapping[str, Mapping[str, Mapping[str, Summary]]]:
        """Summaries over tracks by stem, row and score."""
        return summarise_results(self.results)

    @property
    def protocol(self) -> str:
        """Name of the protocol; "unknown" if the description lacks it."""
        return self._described("settings", "protocol") or "unknown"

    @property
    def split(self) -> str:
        """Name of the split; empty if the description lacks it."""
        return self._described("data", "split")

    @property
    def css_class(self) -> str:
        """Its class in the page, which sets its colour."""
        return self.series().css_class

    @property
    def training_warnings(self) -> list[str]:
        """Sentences about the tracks that the model was trained on."""
        return training_warnings(self.results.tracks)

    def series(self, row: str = ESTIMATE) -> Series:
        """Returns how a row of this run is labelled and drawn."""
        if not self.letter:
            return Series(row, self.number)
        return Series(f"{self.letter}  {self.name if row == ESTIMATE else row}", self.number)

    def estimates(self, stem: str, score: str) -> dict[str, float]:
        """Returns a score of the estimates by track."""
        return self.results.values(stem, ESTIMATE, score)

    def windows(self, stem: str, row: str) -> tuple[int, int]:
        """Returns the number of defined windows of a row, and of all its windows."""
        return count_windows(windows_by_track(self.results, stem, row).values())

    def key_facts(self) -> list[Fact]:
        """Returns the facts that are shown first."""
        description = self.results.description
        return [
            _fact(label, name, description[section][name])
            for section, name, label in KEY_FACTS
            if name in description.get(section, {})
        ]

    def all_facts(self) -> dict[str, list[Fact]]:
        """Returns everything in the description by its section."""
        return {
            section: [Fact(name.replace("_", " "), plain(value)) for name, value in values.items()]
            for section, values in self.results.description.items()
        }

    def _described(self, section: str, name: str) -> str:
        return str(self.results.description.get(section, {}).get(name, ""))


def read_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """Returns the runs in some folders, with unique names.

    Raises:
        InputError: A folder has no results, or they are damaged.
    """
    runs: list[ReportedRun] = []
    for number, folder in enumerate(folders):
        results = _publishable(folder, Results.read(folder))
        letter = "" if len(folders) == 1 else chr(ord("A") + number) if number < 26 else str(number + 1)
        given = folder.resolve().name or str(folder)
        name, copies = given, 1
        while name in {run.name for run in runs}:
            copies += 1
            name = f"{given} ({copies})"
        runs.append(ReportedRun(number, letter, name, folder, results))
    return runs


def _publishable(folder: Path, results: Results) -> Results:
    """Returns results without the paths of the machine that computed them."""
    if not all(isinstance(section, Mapping) for section in results.description.values()):
        raise InputError(f"the description in {folder / RESULTS} is damaged; evaluate again with --overwrite")
    description = {section: dict(values) for section, values in results.description.items()}
    shorter: dict[str, str] = {}
    for section, name in PATHS:
        value = description.get(section, {}).get(name)
        # An ensemble has a list of models.
        paths = value if isinstance(value, list) else [value]
        shorter |= {path: Path(path).name for path in paths if isinstance(path, str) and Path(path).name}
        if isinstance(value, list):
            description[section][name] = [shorter.get(str(path), path) for path in value]
        elif isinstance(value, str) and value in shorter:
            description[section][name] = shorter[value]

    def shortened(text: str) -> str:
        for path in sorted(shorter, key=len, reverse=True):
            text = text.replace(path, shorter[path])
        return text

    tracks = {name: replace(track, notes=tuple(map(shortened, track.notes))) for name, track in results.tracks.items()}
    return Results(description, tracks, {name: shortened(str(reason)) for name, reason in results.failures.items()})


def _fact(label: str, name: str, value: Any) -> Fact:
    text = plain(value)
    return Fact(label, text, f"{text[:HASH_LENGTH]}…" if name in HASHES and len(text) > HASH_LENGTH else "")
