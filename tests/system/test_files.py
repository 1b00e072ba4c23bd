import errno
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bsmamba2.errors import InputError, OutputError
from bsmamba2.system.files import (
    check_writable,
    complete_file,
    flush_and_rename,
    locked,
    make_folder,
    remove_unfinished,
    sha256_of,
    sha256_of_text,
    short_name,
)

needs_folder_fsync = pytest.mark.skipif(os.name == "nt", reason="Windows cannot open folders")


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "song.wav"
    with complete_file(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (path.parent, ".wav")
        temporary.write_bytes(b"first")
        assert not path.exists()
    with complete_file(path) as temporary:
        temporary.write_bytes(b"second")
        assert path.read_bytes() == b"first"
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(b"old")
    with pytest.raises(error), complete_file(path) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


class Spy:
    """Records which files are flushed and renamed, and does both."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str, int]] = []
        flush, rename = os.fsync, Path.replace

        def fsync(descriptor: int) -> None:
            status = os.fstat(descriptor)
            self.calls.append(("flush", str(status.st_ino), status.st_size))
            flush(descriptor)

        def replace(source: Path, target: Path) -> Path:
            self.calls.append(("rename", str(source.stat().st_ino), source.stat().st_size))
            return rename(source, target)

        patch.setattr(os, "fsync", fsync)
        patch.setattr(Path, "replace", replace)


@needs_folder_fsync
def test_a_file_is_on_the_disk_before_its_rename_and_then_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    with complete_file(tmp_path / "song.wav") as temporary:
        temporary.write_bytes(bytes(1000))
    file, folder = str((tmp_path / "song.wav").stat().st_ino), str(tmp_path.stat().st_ino)
    assert [call[:2] for call in spy.calls] == [("flush", file), ("rename", file), ("flush", folder)]
    assert spy.calls[0][2] == 1000  # all of it had been written


def failing(number: int, fails: Callable[[int], bool]) -> Callable[[int], None]:
    """Returns an fsync that fails for some of the descriptors."""
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        if fails(descriptor):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    return fsync


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_file_systems_without_fsync_are_tolerated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "fsync", failing(number, lambda descriptor: True))
    with complete_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_a_file_that_cannot_be_flushed_does_not_replace_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, lambda descriptor: True))
    with (
        pytest.raises(OutputError, match=rf"a\.txt cannot be written \({os.strerror(errno.EIO)}\); free some space"),
        complete_file(path) as temporary,
    ):
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@needs_folder_fsync
def test_a_folder_that_must_not_be_read_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refusing(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if Path(path) == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *arguments, **options)

    (tmp_path / "source").write_text("whole")
    monkeypatch.setattr(os, "open", refusing)
    flush_and_rename(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "whole"


def test_a_missing_or_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for use in (make_folder, check_writable, lambda folder: complete_file(folder / "a.txt").__enter__()):
        with pytest.raises(
            OutputError, match=r"the output folder .*file/inner cannot be made \(.+\); give another one"
        ):
            use(tmp_path / "file" / "inner")
    check_writable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a folder that nobody can write to")
def test_a_folder_that_nobody_can_write_to_is_an_error() -> None:
    with pytest.raises(OutputError, match=r"the folder /proc cannot be written to \(.+\); give another one"):
        check_writable(Path("/proc"))


def test_only_temporary_files_of_the_suffix_are_removed(tmp_path: Path) -> None:
    kept = {".hidden.ckpt", "last.ckpt", f".{'0' * 31}.ckpt", f".{'0' * 32}.wav"}
    for name in (*kept, f".{'0a' * 16}.ckpt"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path, ".ckpt")
    remove_unfinished(tmp_path / "none", ".ckpt")
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_hashes(tmp_path: Path) -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    path = tmp_path / "file"
    path.write_bytes(b"")
    assert sha256_of(path) == sha256_of_text("") == empty
    path.write_text("Größe", encoding="utf-8")
    assert sha256_of(path) == sha256_of_text("Größe")
    name = b"\xff.wav"
    assert sha256_of_text(name.decode("utf-8", "surrogateescape")) == hashlib.sha256(name).hexdigest()
    with pytest.raises(InputError, match=r"the file .*none cannot be read \(No such file or directory\); check"):
        sha256_of(tmp_path / "none")


HOLDER = """
import sys, time
from pathlib import Path
from bsmamba2.system.files import locked
with locked(Path(sys.argv[1]), "refused"):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Returns another process that has locked the folder, until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "folder")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_locked_folder_is_refused_until_its_process_ends(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^in use$"), locked(tmp_path / "folder", "in use"):
        pass
    # A process that is killed cannot release its lock.
    holder.kill()
    holder.wait()
    with locked(tmp_path / "folder", "in use"):
        pass


def test_a_locked_folder_is_waited_for(
    holder: subprocess.Popen[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    threading.Timer(0.5, holder.kill).start()
    with caplog.at_level("INFO", "bsmamba2"), locked(tmp_path / "folder"):
        assert holder.wait(10) != 0
    assert f"waiting for another process that writes to {tmp_path / 'folder'}" in caplog.text


@pytest.mark.parametrize("name", ["x" * 240, "Änne - Ça & là", "\udcff" * 240])
def test_names_that_are_short_enough_are_kept(name: str) -> None:
    assert short_name(name) == name


@pytest.mark.parametrize("name", ["x" * 241, "夜" * 100, "\udcff" * 241, "x" * 226 + " " * 20])
def test_long_names_are_cut_and_stay_different(name: str, tmp_path: Path) -> None:
    shorter = short_name(name)
    assert len(os.fsencode(shorter)) <= 240
    assert short_name(f"{name}2") != shorter
    (tmp_path / f"{shorter}.reference.flac").touch()
    assert len(os.fsencode(short_name(name, 100))) <= 100
