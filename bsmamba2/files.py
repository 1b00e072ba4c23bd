"""Writing so that no file is ever half there."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from bsmamba2.errors import InputError


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside a file and renames it to the file when the block ends well, else removes it.

    Raises:
        InputError: The folder cannot be made or written to.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{uuid4().hex}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise InputError(
            f"the folder {path.parent} cannot be written to ({error.strerror}); give another one"
        ) from error
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); free some space or give another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Makes a folder for output and tries it, so that no work is done that could not be saved.

    Raises:
        InputError: It cannot be made or written to.
    """
    with complete_file(folder / "probe") as temporary:
        temporary.write_bytes(b"")
    (folder / "probe").unlink()


def make_folder(folder: Path) -> None:
    """Makes a folder for output, with all above it.

    Raises:
        InputError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the output folder {folder} cannot be made ({error.strerror}); give another one") from error
