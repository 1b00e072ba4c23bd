"""What is known of the files of a dataset from earlier runs, so that only those that changed are read."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from bsmamba2.data.track_files import StemLocation
from bsmamba2.system.files import complete_file, make_folder

# A file with this many times as many lines as files is written again without those of earlier states.
MOST_LINES_PER_FILE = 3


@dataclass(frozen=True)
class StemState:
    """The state of a stem's file, and how much of it is used; what is known of a stem belongs to one state.

    Args:
        file: Path of the file, relative to the dataset if it is in it.
        stream: Number of the stream in a stem file.
        bytes: Size of the file.
        modified_ns: Its modification time in nanoseconds since 1970.
        samples: Length that is used.
    """

    file: str
    stream: int | None
    bytes: int
    modified_ns: int
    samples: int


class ActivityCache:
    """The activities of stems by the state of their files, in a file of lines that several processes may append to.

    A line is complete as soon as its stem was scanned, so that an interrupted scan resumes. A line that is not complete
    is ignored.

    Args:
        path: The file; it is made when the first activity is added.
        root: Folder of the dataset.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.path = path
        self._root = str(root) + os.sep
        self._known: dict[StemState, dict[str, Any]] = {}
        lines = 0
        for line in self._lines():
            lines += 1
            try:
                fields = json.loads(line)
                self._known[StemState(**fields["state"])] = dict(fields["activity"])
            # Half a line of a process that was killed, or two that were written at once.
            except (ValueError, TypeError, KeyError):
                continue
        files = {(state.file, state.stream) for state in self._known}
        if lines > MOST_LINES_PER_FILE * len(files):
            self._write_again()

    def state(self, source: StemLocation, samples: int) -> StemState:
        """Returns the present state of a stem."""
        path, stream = source
        found = path.stat()
        return StemState(str(path).removeprefix(self._root), stream, found.st_size, found.st_mtime_ns, samples)

    def get(self, state: StemState) -> Mapping[str, Any] | None:
        """Returns the fields of the activity of a stem in a state; None if it is not known."""
        return self._known.get(state)

    @contextmanager
    def opened(self) -> Iterator["ActivityCache"]:
        """Opens the file to add activities while the block runs.

        Raises:
            OutputError: The folder cannot be made.
        """
        make_folder(self.path.parent)
        with self.path.open("a", encoding="utf-8") as self._file:
            # Ends half a line.
            self._file.write("\n" if self._file.tell() else "")
            yield self

    def add(self, state: StemState, activity: Mapping[str, Any]) -> None:
        """Adds the fields of the activity of a stem."""
        self._known[state] = dict(activity)
        _write_line(self._file, state, activity)
        self._file.flush()

    def _lines(self) -> Iterator[str]:
        try:
            with self.path.open(encoding="utf-8", errors="replace") as file:
                yield from (line for line in file if line.strip())
        except FileNotFoundError:
            return

    def _write_again(self) -> None:
        latest = {(state.file, state.stream): state for state in self._known}
        self._known = {state: self._known[state] for state in latest.values()}
        with complete_file(self.path) as temporary, temporary.open("w", encoding="utf-8") as file:
            for state, activity in self._known.items():
                _write_line(file, state, activity)


def _write_line(file: TextIO, state: StemState, activity: Mapping[str, Any]) -> None:
    file.write(json.dumps({"state": asdict(state), "activity": activity}) + "\n")
