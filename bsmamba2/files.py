"""Writing so that no file is ever half there."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bsmamba2.errors import InputError


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside a file and renames it to the file when the block ends well, else removes it.

    Raises:
        InputError: The folder cannot be made or written to.
    """
    make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise InputError(
            f"the folder {path.parent} cannot be written to ({error.strerror}); give another one"
        ) from error
    try:
        yield Path(name)
        os.replace(name, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); free some space or give another folder"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def make_folder(folder: Path) -> None:
    """Makes a folder for output, with all above it.

    Raises:
        InputError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the output folder {folder} cannot be made ({error.strerror}); give another one") from error
