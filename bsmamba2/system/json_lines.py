"""Files of JSON lines that grow line by line, and of which every line is complete after a kill at any moment."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bsmamba2.errors import InputError
from bsmamba2.system.files import flush_file, make_folder, unwritable


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a file, without a last line that a kill left incomplete; none if there is no file.

    Raises:
        InputError: The file cannot be read, or a whole line is not a JSON object.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield _object(line, number, path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _object(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"line {number} of {path} is not a JSON object; remove the line")
    return value


class JsonLines:
    """Appends lines to a file, one process at a time.

    Args:
        path: The file; it is made, with its folder. An incomplete last line is removed.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        make_folder(path.parent)
        try:
            with path.open("a+b") as file:
                file.truncate(_whole_bytes(path))
        except OSError as error:
            raise unwritable(path, error) from error

    def append(self, value: Mapping[str, Any]) -> None:
        """Returns once a line is on the disk.

        Raises:
            OutputError: It cannot be written.
        """
        line = json.dumps(value).encode() + b"\n"
        try:
            # Opened for each line: they are minutes apart, and nothing is left open.
            with self._path.open("ab") as file:
                file.write(line)
            flush_file(self._path)
        except OSError as error:
            raise unwritable(self._path, error) from error


def _whole_bytes(path: Path) -> int:
    """Returns how many bytes the whole lines of a file have."""
    with path.open("rb") as file:
        return sum(len(line) for line in file if line.endswith(b"\n"))
