"""The folder of a session: what is uploaded and made is in it until it is complete, and it is removed at the end."""

import contextlib
import logging
import os
import shutil
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from bsmamba2.errors import OutputError
from bsmamba2.separation.paths import portable_name
from bsmamba2.stem_names import PUNCTUATION
from bsmamba2.system.files import LOCK, make_folder, short_name, unwritable

# Hidden, as it may be next to the results.
PREFIX = ".bsmamba2-open-"
LONGEST_FOLDER_BYTES = 120
BEGINNING_SECONDS = 60.0

log = logging.getLogger(__name__)


@contextlib.contextmanager
def session_folder(output: Path | None) -> Iterator[Path]:
    """Gives a folder for this session, and removes those of sessions that were killed.

    Args:
        output: Where the results are kept; the folder is inside, so that a complete song is moved there at once. None
            for the system's folder of temporary files.

    Raises:
        OutputError: It cannot be made.
    """
    place = Path(tempfile.gettempdir()) if output is None else output
    if output is not None:
        make_folder(output)
    _remove_leftovers(place)
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    except OSError as error:
        raise unwritable(place, error) from error
    try:
        with FileLock(folder / LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(place: Path) -> None:
    """Removes the folders of sessions whose process has ended in any way."""
    for folder in place.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, Timeout, NotImplementedError):
            # Those of other users, and links, are none of ours.
            if folder.is_symlink() or folder.stat().st_uid != getattr(os, "getuid", lambda: 0)():
                continue
            # A session that begins now has made it and not locked it yet.
            if not (folder / LOCK).exists() and time.time() - folder.stat().st_mtime < BEGINNING_SECONDS:
                continue
            lock = FileLock(folder / LOCK)
            lock.acquire(timeout=0)
            lock.release()
            shutil.rmtree(folder)
            log.info("removed %s, which a killed session left behind", folder)


def remove_all(paths: Iterable[Path]) -> None:
    """Removes files and folders; what cannot be removed now is removed with the folder of the session."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def free_bytes(folder: Path) -> int:
    """Returns the free space of the disk that a folder is on, in bytes."""
    return shutil.disk_usage(folder).free


def safe_name(name: str) -> str:
    """Returns a name as one part of a path: what a request gives decides nothing else about it."""
    kept = "".join(
        character if character in PUNCTUATION or unicodedata.category(character)[0] in "LMN" else "_"
        for character in unicodedata.normalize("NFC", name)
    )
    return portable_name(short_name(kept.strip(" .-") or "song", LONGEST_FOLDER_BYTES))


def move_to_output(source: Path, output: Path, folders: Sequence[str], title: str) -> Path:
    """Moves a folder to a new one of the output that is named by a song, and returns that.

    Args:
        source: The folder, on the same disk.
        output: Where results are kept.
        folders: Folders of the song below it.
        title: Name of the song; a number is added if there is such a folder already.

    Raises:
        OutputError: It cannot be moved.
    """
    parent = output.joinpath(*map(safe_name, folders))
    make_folder(parent)
    number = 1
    while True:
        target = parent / (safe_name(title) if number == 1 else f"{safe_name(title)} ({number})")
        try:
            # Fails if it exists, so that nothing is replaced.
            target.mkdir()
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            raise unwritable(target, error) from error
        try:
            source.replace(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                target.rmdir()
            raise OutputError(f"{target} cannot be written ({error.strerror}); give another --output") from error
        return target
