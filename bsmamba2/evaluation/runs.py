"""The folder of an evaluation: what is in it, what it holds for, and what of it a stopped one can go on from."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import EXCERPTS, RESULTS, TRACKS, TrackResult
from bsmamba2.files import check_writable, complete_file, remove_unfinished

RUN = "run.json"
REPORT = "report.html"
REPORT_DATA = "report.json"
ESTIMATES = "estimates"
MUSEVAL = "museval"

Identity = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """The folder of one evaluation.

    Args:
        folder: Where it lies.
        identity: All that its scores depend on but the data: hash of the model, and the settings.
    """

    folder: Path
    identity: Identity

    def open(self, overwrite: bool) -> None:
        """Makes the folder ready: a new one is made, one of the same identity is gone on with.

        Raises:
            InputError: The folder holds results of another identity, or a file of a name that would be written, and
                overwrite is not set; or it cannot be written to.
        """
        path = self.folder / RUN
        if overwrite:
            self._clear()
        elif path.exists():
            self._check_identity(path)
        else:
            there = next((name for name in (RESULTS, REPORT, TRACKS) if (self.folder / name).exists()), None)
            if there:
                raise InputError(f"{self.folder / there} is already there; give another --output, or --overwrite")
        check_writable(self.folder)
        with complete_file(path) as temporary:
            temporary.write_text(json.dumps(self.identity, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        for folder in (self.folder, *self.folder.glob("*/"), *self.folder.glob("*/*/")):
            for suffix in (".json", ".flac", ".wav", ".html"):
                remove_unfinished(folder, suffix)

    def key(self, data_sha256: str) -> str:
        """Returns the hash of all that the scores of a track depend on."""
        return hashlib.sha256(json.dumps([self.identity, data_sha256], sort_keys=True).encode()).hexdigest()

    def record(self, track: str) -> Path:
        """Returns where the result of a track is written."""
        return self.folder / TRACKS / f"{track}.json"

    def found(self, track: str, key: str) -> TrackResult | None:
        """Returns the result of a track that is there already, unless it is of other data or damaged."""
        path = self.record(track)
        if not path.is_file():
            return None
        try:
            result = TrackResult.read(path)
        except InputError:
            return None
        return result if result.key == key else None

    def excerpts(self, track: str) -> Path:
        """Returns the folder of what is kept of a track for listening."""
        return self.folder / EXCERPTS / track

    def estimates(self, track: str) -> Path:
        """Returns the folder of the estimates of a track."""
        return self.folder / ESTIMATES / track

    def museval(self, split: str, track: str) -> Path:
        """Returns where museval's file of a track lies, as in its own folders."""
        return self.folder / MUSEVAL / split / f"{track}.json"

    def _check_identity(self, path: Path) -> None:
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); give another --output, or --overwrite") from error
        now = json.loads(json.dumps(self.identity))
        if not isinstance(before, dict):
            raise InputError(f"{path} describes no evaluation; give another --output, or --overwrite")
        changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
        if changed:
            said = "; ".join(f"{name} was {before.get(name)} and is {now.get(name)}" for name in changed)
            raise InputError(
                f"{self.folder} holds results of other settings ({said}); give another --output, or --overwrite"
            )

    def _clear(self) -> None:
        for name in (RUN, RESULTS, REPORT, REPORT_DATA):
            (self.folder / name).unlink(missing_ok=True)
        for name in (TRACKS, EXCERPTS, ESTIMATES, MUSEVAL):
            shutil.rmtree(self.folder / name, ignore_errors=True)
