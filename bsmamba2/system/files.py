"""Writing so that no file is ever half there."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from bsmamba2.errors import InputError, OutputError


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside a file and renames it to the file when the block ends well, else removes it.

    Raises:
        OutputError: The folder cannot be made or written to, or the disk is full.
    """
    temporary = _temporary_file(path.parent, path.suffix)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); free some space or give another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path, suffix: str) -> None:
    """Removes the temporary files of `complete_file` that a killed program left in a folder, if there is one."""
    if folder.is_dir():
        for file in folder.glob(f".*{suffix}"):
            if re.fullmatch(r"\.[0-9a-f]{32}", file.stem):
                file.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Makes a folder for output and tries it, so that no work is done that could not be saved.

    Raises:
        OutputError: It cannot be made or written to.
    """
    _temporary_file(folder).unlink()


def _temporary_file(folder: Path, suffix: str = "") -> Path:
    make_folder(folder)
    temporary = folder / f".{uuid4().hex}{suffix}"
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be written to ({error.strerror}); give another one") from error
    return temporary


def make_folder(folder: Path) -> None:
    """Makes a folder for output, with all above it.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the output folder {folder} cannot be made ({error.strerror}); give another one") from error


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"the file {path} cannot be read ({error.strerror}); check the path") from error
