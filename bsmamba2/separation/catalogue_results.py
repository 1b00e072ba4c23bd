"""What the runs of a catalogue have done with each row, as JSON lines that the next run reads.

Each process writes a file of its own, so that lines never mix, also on a file system of several machines. A second file
lists the rows that it begins: after a kill between the moment when the stems appear and that when their result is
written, they are known to be its own, and can be replaced.
"""

import contextlib
import glob
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bsmamba2.separation.manifest import CatalogueRow
from bsmamba2.system.json_lines import JsonLines, read_json_lines
from bsmamba2.system.outputs import reserved

RESULTS_SUFFIX, BEGUN_SUFFIX = ".jsonl", ".begun"
# A song in these states has files.
WITH_FILES = ("done", "incomplete", "skipped")


class CatalogueResults:
    """The results of all rows of a manifest that earlier runs have written, by any of their processes.

    Args:
        manifest: The manifest.
        output: Folder of the stems; the results are next to it.
        options: Returns a text that stands for all options that change the stems of a row.
    """

    def __init__(self, manifest: Path, output: Path, options: Callable[[CatalogueRow], str]) -> None:
        absolute = Path(os.path.abspath(output))
        self.folder = absolute.with_name(f"{absolute.name}.results")
        self._manifest, self._options = manifest.stem, options
        self._results: dict[str, dict[str, Any]] = {}
        for path in self._files(RESULTS_SUFFIX):
            for result in read_json_lines(path):
                before = self._results.setdefault(result.get("name", ""), result)
                if before.get("finished", "") <= result.get("finished", ""):
                    self._results[result.get("name", "")] = result
        begun = (line for path in self._files(BEGUN_SUFFIX) for line in read_json_lines(path))
        self._begun = {(line.get("name"), line.get("options")) for line in begun}

    def _files(self, suffix: str) -> list[Path]:
        return sorted(self.folder.glob(f"{glob.escape(self._manifest)}.*{suffix}"))

    def file(self, process: int, suffix: str = RESULTS_SUFFIX) -> Path:
        """Returns the file that a process writes, by its number from 0."""
        return self.folder / f"{self._manifest}.{process}{suffix}"

    def is_failed(self, row: CatalogueRow) -> bool:
        """Returns whether the last result of a row is a failure."""
        return self._results.get(row.name, {}).get("status") == "failed"

    def is_begun(self, row: CatalogueRow) -> bool:
        """Returns whether a row was begun with the same options, so that files of it are those of an earlier run."""
        return (row.name, self._options(row)) in self._begun

    def is_finished(self, row: CatalogueRow, sizes: Callable[[], Mapping[str, int | None]]) -> bool:
        """Returns whether a row was separated with the same options, and its files are as they were written.

        Args:
            row: The row.
            sizes: Returns the size in bytes of each of its files, by its path below the output; None if it is missing.
        """
        result = self._results.get(row.name, {})
        known = {"path": row.path, "options": self._options(row)}
        return (
            result.get("status") in WITH_FILES
            and result.items() >= known.items()
            and {file["path"]: file["bytes"] for file in result["files"]} == sizes()
        )

    @contextlib.contextmanager
    def writer(self, process: int) -> Iterator["ResultWriter"]:
        """Gives what writes the results of a process while the block runs.

        Raises:
            OccupiedError: Another run writes them.
            OutputError: They cannot be written.
        """
        with reserved(self.file(process)):
            lines = JsonLines(self.file(process)), JsonLines(self.file(process, BEGUN_SUFFIX))
            yield ResultWriter(*lines, self._options)


class ResultWriter:
    """Writes the results of one process.

    Args:
        results: The file of results.
        begun: The file of rows that were begun.
        options: As of `CatalogueResults`.
    """

    def __init__(self, results: JsonLines, begun: JsonLines, options: Callable[[CatalogueRow], str]) -> None:
        self._results, self._begun, self._options = results, begun, options

    def begin(self, row: CatalogueRow) -> None:
        """Notes that files of a row may appear from now on."""
        self._begun.append({"name": row.name, "options": self._options(row)})

    def finish(self, row: CatalogueRow, facts: Mapping[str, Any]) -> None:
        """Writes the result of a row, with what there is to state about it."""
        self._results.append(
            {
                "number": row.number,
                "path": row.path,
                "name": row.name,
                **facts,
                "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "options": self._options(row),
            }
        )
