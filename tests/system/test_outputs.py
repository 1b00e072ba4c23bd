import os
import subprocess
import sys
from pathlib import Path

import pytest

from bsmamba2.errors import OccupiedError, OutputError
from bsmamba2.system.outputs import complete_files, remove_leftovers, spool_folder

# Writes a file as long as its standard input is open.
WRITER = """
import sys
from pathlib import Path
from bsmamba2.system.outputs import complete_files, spool_folder
paths = [Path(name) for name in sys.argv[1:]]
with complete_files(paths) as temporaries, spool_folder(paths[0]) as spool:
    (spool / "part").write_bytes(b"part")
    for temporary in temporaries.values():
        temporary.write_bytes(b"new")
    print("begun", flush=True)
    sys.stdin.read()
"""


def writer(*paths: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, *map(str, paths)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_files_appear_together(tmp_path: Path) -> None:
    first, second = tmp_path / "in" / "a.wav", tmp_path / "b.flac"
    with complete_files([first, second]) as temporaries:
        assert [temporary.parent for temporary in temporaries.values()] == [first.parent, second.parent]
        assert [temporary.suffix for temporary in temporaries.values()] == [".wav", ".flac"]
        for temporary in temporaries.values():
            temporary.write_bytes(b"new")
        assert not first.exists()
        assert not second.exists()
    assert first.read_bytes() == second.read_bytes() == b"new"
    assert sorted(tmp_path.rglob("*")) == [second, first.parent, first]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_files_alone(tmp_path: Path, error: type[BaseException]) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"old")
    with pytest.raises(error), complete_files(paths) as temporaries, spool_folder(paths[0]) as spool:  # noqa: PT012
        temporaries[paths[0]].write_bytes(b"half")
        (spool / "part").write_bytes(b"part")
        raise error
    assert [path.read_bytes() for path in paths] == [b"old", b"old"]
    assert sorted(tmp_path.iterdir()) == paths


def test_files_that_exist_are_replaced_only_if_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(OccupiedError, match="a has appeared meanwhile"), complete_files([path], overwrite=False):
        pass
    assert path.read_bytes() == b"old"
    with complete_files([path]) as temporaries:
        temporaries[path].write_bytes(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_one_process_at_a_time_writes_a_file(tmp_path: Path) -> None:
    shared, ours, theirs = (tmp_path / name for name in ("shared", "ours", "theirs"))
    with writer(shared, theirs) as process:
        before = sorted(tmp_path.iterdir())
        remove_leftovers([shared, theirs])
        with (
            pytest.raises(OccupiedError, match="shared is being written by another process"),
            complete_files([ours, shared]),
        ):
            pass
        assert sorted(tmp_path.iterdir()) == before
        with complete_files([ours]) as temporaries:
            temporaries[ours].write_bytes(b"ours")
        process.communicate(timeout=600)
    assert process.returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "shared", "theirs"]


@pytest.mark.parametrize("again", [True, False])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, again: bool) -> None:
    path, other = tmp_path / "a.wav", tmp_path / "b.wav"
    for killed in (path, other):
        with writer(killed) as process:
            process.kill()
    assert len(list(tmp_path.iterdir())) == 6
    if again:
        with complete_files([path]) as temporaries:
            temporaries[path].write_bytes(b"new")
        path.unlink()
    else:
        remove_leftovers([path])
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers([other])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"), complete_files([tmp_path / "file" / "a"]):
        pass
    with pytest.raises(OutputError, match=r"too long\); shorten its name$"), complete_files([tmp_path / (300 * "a")]):
        pass
    assert os.listdir(tmp_path) == ["file"]
