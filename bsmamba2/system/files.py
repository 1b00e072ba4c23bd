"""Writing files so that none is ever incomplete, and hashes of files and texts."""

import contextlib
import errno
import hashlib
import itertools
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from bsmamba2.errors import InputError, OutputError

# Errors of a file system that has no fsync; the flushing is then left to it.
NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
# Name of the file in a folder that is locked.
LOCK = ".lock"
# File systems allow 255 bytes, or as many characters; this leaves room for what is appended.
LONGEST_NAME_BYTES = 240

log = logging.getLogger(__name__)


@contextlib.contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path next to a file, which replaces the file if the block succeeds and is removed if it fails.

    After the block the file is on the disk: `path` has the old or the new content even if the power fails.

    Raises:
        OutputError: The folder cannot be made or written to, or the disk is full.
    """
    temporary = _temporary_file(path.parent, path.suffix)
    try:
        yield temporary
        flush_and_rename(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> OutputError:
    """Returns the error for a file that the system refuses to write, with advice that fits the reason."""
    shorter = error.errno == errno.ENAMETOOLONG
    advice = "shorten its name" if shorter else "free some space or give another folder"
    return OutputError(f"{path} cannot be written ({error.strerror}); {advice}")


def flush_and_rename(source: Path, target: Path) -> None:
    """Renames a file within its folder, after its content has reached the disk, and flushes the new name too.

    Raises:
        OSError: The content cannot be flushed or the file cannot be renamed.
    """
    # Before the rename: a file system may write the name first, and a power failure would leave an empty file.
    flush_file(source)
    source.replace(target)
    flush_folder(target.parent)


def flush_file(path: Path) -> None:
    """Returns once the content of a file is on the disk.

    Raises:
        OSError: The content cannot be flushed.
    """
    with path.open("r+b") as file:
        _flush(file.fileno())


def flush_folder(folder: Path) -> None:
    """Returns once the names of the files in a folder are on the disk.

    Raises:
        OSError: They cannot be flushed.
    """
    # Windows cannot open folders. Elsewhere a folder may be writable and not readable; its files are complete even so.
    with contextlib.suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            _flush(descriptor)
        finally:
            os.close(descriptor)


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FSYNC:
            raise


@contextlib.contextmanager
def locked(folder: Path, refusal: str | None = None) -> Iterator[None]:
    """Locks a folder, which is made if needed, for this process while the block runs.

    The system releases the lock of a process that has ended in any way. A file system without locks is reported.

    Args:
        folder: The folder.
        refusal: The error if another process has locked it; None to wait for that process.

    Raises:
        InputError: Another process has locked the folder, and there is a refusal.
        OutputError: It cannot be made or written to.
    """
    # Imported here, so that the usage of the command line is printed without delay.
    from filelock import FileLock, Timeout

    check_writable(folder)
    lock = FileLock(folder / LOCK)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock.acquire(timeout=0))
        except Timeout:
            if refusal is not None:
                raise InputError(refusal) from None
            log.info("waiting for another process that writes to %s", folder)
            stack.enter_context(lock.acquire())
        except NotImplementedError:
            log.warning("%s is on a file system without locks; do not let two processes write to it", folder)
        yield


def remove_unfinished(folder: Path, suffix: str) -> None:
    """Removes the temporary files that a killed program left in a folder, if the folder exists.

    Args:
        folder: Where `complete_file` was writing.
        suffix: Suffix of the files that were written.
    """
    if folder.is_dir():
        for file in folder.glob(f".*{suffix}"):
            if re.fullmatch(r"\.[0-9a-f]{32}", file.stem):
                file.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Makes a folder for output and writes to it, so that no work is done whose results could not be saved.

    Raises:
        OutputError: It cannot be made or written to.
    """
    _temporary_file(folder).unlink()


def check_can_be_made(folder: Path) -> None:
    """Checks that a folder for output can be made and written to, without making it.

    Raises:
        OutputError: It cannot.
    """
    # Not Path.exists, which fails if a name is too long.
    nearest = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(parent))
    if not os.path.isdir(nearest):
        raise OutputError(f"the output folder {folder} cannot be made: {nearest} is a file; give another one")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"the output folder {folder} cannot be written to: {nearest} is protected; give another one")


def _temporary_file(folder: Path, suffix: str = "") -> Path:
    make_folder(folder)
    temporary = folder / f".{uuid4().hex}{suffix}"
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be written to ({error.strerror}); give another one") from error
    return temporary


def make_folder(folder: Path) -> None:
    """Makes a folder for output, and its parents.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError:
            # One by one: Path.mkdir calls itself for each parent, and there can be a thousand.
            missing = itertools.takewhile(lambda place: not os.path.isdir(place), (folder, *folder.parents))
            for place in reversed(list(missing)):
                place.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"the output folder {folder} cannot be made ({error.strerror}); give another one") from error


@contextlib.contextmanager
def fresh_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder while the block runs; one that a killed program left is emptied.

    Raises:
        OutputError: It cannot be made.
    """
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_files(paths: Sequence[Path], top: Path) -> None:
    """Removes files below a folder, and the folders between that are then empty."""
    for path in paths:
        path.unlink(missing_ok=True)
    folders = {parent for path in paths for parent in path.parents if top in parent.parents}
    for folder in sorted(folders, key=lambda each: len(each.parts), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()


def short_name(name: str, longest_bytes: int = LONGEST_NAME_BYTES) -> str:
    """Returns a name for a file or folder: a name that is too long is cut and ends with its hash."""
    whole = os.fsencode(name)
    if len(whole) <= longest_bytes:
        return name
    ending = f"-{sha256_of_text(name)[:12]}"
    # Not in the middle of a character.
    return whole[: longest_bytes - len(ending)].decode(errors="ignore").rstrip(" .") + ending


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


def git_blob_of(path: Path) -> str:
    """Returns the hash that git gives a file, in hexadecimal: SHA-1 of its size and content.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: digest).hexdigest()
    except OSError as error:
        raise InputError(f"the file {path} cannot be read ({error.strerror}); check the path") from error


def sha256_of_text(text: str) -> str:
    """Returns the SHA-256 of a text in hexadecimal; file names that are not UTF-8 may be in it."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
