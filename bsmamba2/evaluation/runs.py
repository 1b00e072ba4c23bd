"""The folder of an evaluation: its files, the settings it was made with, and how a stopped evaluation resumes."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import (
    EXCERPTS_FOLDER,
    RESULTS,
    RUN,
    TRACKS_FOLDER,
    TrackResult,
    excerpts_folder,
    to_json,
)
from bsmamba2.stem_names import MIXTURE
from bsmamba2.system.files import complete_file, locked, remove_unfinished, sha256_of_text, short_name

REPORT = "report.html"
REPORT_DATA = "report.json"
ESTIMATES = "estimates"
MUSEVAL = "museval"
# Files written at the end from the results of all tracks.
GATHERED = (RESULTS, REPORT, REPORT_DATA)
# Folders of files by track, each with the pattern of its files.
WRITTEN = {TRACKS_FOLDER: "*.json", EXCERPTS_FOLDER: "*/*.flac", ESTIMATES: "*/*.wav", MUSEVAL: "*/*.json"}


def check_no_other_files(folder: Path) -> None:
    """Checks that an evaluation into a folder would replace only what an evaluation wrote.

    Raises:
        InputError: It would replace other files.
    """
    existing = next((name for name in (*GATHERED, *WRITTEN) if (folder / name).exists()), None)
    if existing and not (folder / RUN).exists():
        raise InputError(f"{folder / existing} exists and was not written by an evaluation; give another --output")


@dataclass(frozen=True)
class Run:
    """The folder of one evaluation.

    Args:
        folder: Its path.
        identity: Everything that the scores depend on except the data: the hash of the model and the settings.
    """

    folder: Path
    identity: Mapping[str, Any]

    @contextlib.contextmanager
    def opened(self, overwrite: bool) -> Iterator[None]:
        """Prepares the folder and locks it for this process; a run with the same identity is resumed.

        Raises:
            InputError: The folder contains results with a different identity and overwrite is not set, or files that no
                evaluation wrote and that would be replaced; another program is evaluating into it; or it is not
                writable.
        """
        path = self.folder / RUN
        check_no_other_files(self.folder)
        with locked(
            self.folder, f"another evaluation is writing to {self.folder}; wait for it, or give another --output"
        ):
            changed = self._changed(path) if path.exists() else ""
            if changed and not overwrite:
                raise InputError(
                    f"{self.folder} contains results with other settings ({changed}); give another --output, or "
                    "--overwrite"
                )
            self._clear(everything=bool(changed))
            with complete_file(path) as temporary:
                temporary.write_text(to_json(self.identity), encoding="utf-8")
            yield

    def key(self, data_sha256: str) -> str:
        """Returns the hash of everything that the scores of a track depend on."""
        return sha256_of_text(json.dumps([self.identity, data_sha256], sort_keys=True))

    def record(self, track: str) -> Path:
        """Returns the path of the result of a track."""
        return self.folder / TRACKS_FOLDER / f"{short_name(track)}.json"

    def found(self, track: str, key: str) -> TrackResult | None:
        """Returns the existing result of a track; None if it has a different key, is damaged or lacks a file."""
        path = self.record(track)
        if not path.is_file():
            return None
        try:
            result = TrackResult.read(path)
        except InputError:
            return None
        return result if result.key == key and all(file.is_file() for file in self._kept(result)) else None

    def excerpts(self, track: str) -> Path:
        """Returns the folder of the excerpts of a track."""
        return excerpts_folder(self.folder, track)

    def estimates(self, track: str) -> Path:
        """Returns the folder of the estimates of a track."""
        return self.folder / ESTIMATES / short_name(track)

    def museval(self, split: str, track: str) -> Path:
        """Returns the path of museval's file of a track, laid out as museval does."""
        return self.folder / MUSEVAL / split / f"{short_name(track)}.json"

    def _kept(self, result: TrackResult) -> Iterator[Path]:
        """Yields the files that belong to a result."""
        names = [f"{short_name(stem)}.{kind}" for stem in result.scores for kind in ("reference", "estimate")]
        if result.excerpt is not None:
            yield from (self.excerpts(result.name) / f"{name}.flac" for name in (MIXTURE, *names))
        if self.identity.get("save_estimates"):
            yield from (self.estimates(result.name) / f"{short_name(stem)}.wav" for stem in result.scores)

    def _changed(self, path: Path) -> str:
        """Returns how the identity of the existing run differs from this one's; empty if it does not."""
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return f"{RUN} cannot be read: {error}"
        now = json.loads(to_json(self.identity))
        if not isinstance(before, dict):
            return f"{RUN} describes no evaluation"
        if before.keys() != now.keys():
            kinds = ["estimates" if "estimates" in one else "a model" for one in (before, now)]
            return f"of {kinds[0]}, not {kinds[1]}" if kinds[0] != kinds[1] else "of a different version"
        return "; ".join(f"{name} was {before[name]} and is {now[name]}" for name in now if before[name] != now[name])

    def _clear(self, everything: bool) -> None:
        """Removes gathered files and leftovers of interrupted writes, or everything that an evaluation wrote."""
        for name in GATHERED:
            (self.folder / name).unlink(missing_ok=True)
        for folder, pattern in WRITTEN.items():
            top = self.folder / folder
            suffix = Path(pattern).suffix
            for inner in (top, *(path for path in top.glob("*") if path.is_dir())):
                remove_unfinished(inner, suffix)
            if everything:
                for file in top.glob(pattern):
                    file.unlink()
                for inner in (*(path for path in top.glob("*") if path.is_dir()), top):
                    # A folder with files of other programs is kept.
                    with contextlib.suppress(OSError):
                        inner.rmdir()
