"""Files of one result that appear together, and that one process at a time writes."""

import contextlib
import logging
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from bsmamba2.errors import OccupiedError
from bsmamba2.system.files import flush_file, flush_folder, make_folder, sha256_of_text, unwritable

# A lock that its holder removes at this moment can be had at the next attempt.
PATIENCE_SECONDS = 0.2
LOCK_SUFFIX, SPOOL_SUFFIX = ".lock", ".spool"

log = logging.getLogger(__name__)


@contextlib.contextmanager
def complete_files(paths: Collection[Path], overwrite: bool = True) -> Iterator[dict[Path, Path]]:
    """Yields temporary paths by the paths of files, which they replace together if the block succeeds.

    While the block runs, another process that wants to write one of the files in this way is refused. What killed
    processes left behind of them is removed, and what this one makes, if the block fails. After the block the files are
    on the disk.

    Raises:
        OccupiedError: Another process writes one of the files; or one exists, and overwrite is false.
        OutputError: A folder cannot be made or written to, or the disk is full.
    """
    with contextlib.ExitStack() as stack:
        # In one order, so that of two processes with several files in common one gets all of them.
        for path in sorted(paths):
            stack.enter_context(reserved(path))
        present = [path for path in paths if os.path.lexists(path)]
        if present and not overwrite:
            raise OccupiedError(f"{present[0]} has appeared meanwhile; another process has written it")
        temporaries = {path: _temporary(path) for path in paths}
        try:
            for temporary in temporaries.values():
                stack.callback(temporary.unlink, missing_ok=True)
                temporary.touch()
            yield temporaries
            for temporary in temporaries.values():
                flush_file(temporary)
            for path, temporary in temporaries.items():
                temporary.replace(path)
            for folder in {path.parent for path in paths}:
                flush_folder(folder)
        except OSError as error:
            raise unwritable(next(iter(paths)), error) from error


@contextlib.contextmanager
def spool_folder(path: Path) -> Iterator[Path]:
    """Yields a hidden folder next to a file of `complete_files`, which is removed after the block.

    Raises:
        OutputError: It cannot be made.
    """
    folder = _hidden(path, SPOOL_SUFFIX)
    try:
        folder.mkdir()
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(paths: Collection[Path]) -> None:
    """Removes what killed processes left behind of files that `complete_files` wrote, and nothing of living ones."""
    for path in paths:
        if any(map(os.path.lexists, (*_leftovers(path), _hidden(path, LOCK_SUFFIX)))):
            with contextlib.suppress(OccupiedError), reserved(path):
                pass


@contextlib.contextmanager
def reserved(path: Path) -> Iterator[None]:
    """Keeps other processes from writing a file; the system releases the lock of a process that has ended in any way.

    Raises:
        OccupiedError: Another process writes the file.
        OutputError: Its folder cannot be made or written to.
    """
    make_folder(path.parent)
    file = _hidden(path, LOCK_SUFFIX)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=PATIENCE_SECONDS)
    except Timeout:
        raise OccupiedError(
            f"{path} is being written by another process; wait for it to end, or give another --output"
        ) from None
    except NotImplementedError:
        log.warning("%s is on a file system without locks; do not let two processes write to it", path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        for leftover in _leftovers(path):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        yield
    finally:
        # Before the release, so that it is not another process's lock. Windows removes it by itself.
        with contextlib.suppress(OSError):
            file.unlink()
        lock.release()


def _temporary(path: Path) -> Path:
    return _hidden(path, f".part{path.suffix}")


def _hidden(path: Path, suffix: str) -> Path:
    """Returns the path of a hidden file or folder next to a file, the same in every process."""
    return path.with_name(f".{sha256_of_text(os.path.normcase(path.name))[:32]}{suffix}")


def _leftovers(path: Path) -> tuple[Path, Path]:
    return _temporary(path), _hidden(path, SPOOL_SUFFIX)
