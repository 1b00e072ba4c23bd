"""Catalogues in processes of their own, which are killed, and what the next run makes of their results."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bsmamba2.audio.reading import audio_info
from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.system.files import sha256_of
from bsmamba2.weights.checkpoint import save_model
from tests import programs
from tests.conftest import PATIENCE_SECONDS

RATE = 44100
# A file: Lightning starts the other process by the same command line.
SCRIPT = str(Path(__file__).parents[2] / "scripts" / "separate.py")
# Stops when the first stem of a longer song has been written and is about to get its name.
STOPPING = """
import os, signal, sys
from bsmamba2.cli import main

def stop(event, arguments):
    if event == "os.rename" and os.path.getsize(arguments[0]) > 100_000:
        os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(stop)
sys.exit(main(["separate", *sys.argv[1:]]))
"""
OPTIONS = ["--manifest", "songs.csv", "--model", "model.safetensors", "--device", "cpu"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a folder with a model of four stems and three songs the current one."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    stems = ("drums", "bass", "other", "vocals")
    save_model(BSMamba2(replace(tiny_config, stems=stems)), Path("model.safetensors"))
    for name in ("a", "b", "c"):
        write(name)
    Path("songs.csv").write_text("path\na.wav\nb.wav\nc.wav\n")
    return tmp_path


def write(name: str, seconds: float = 0.1) -> None:
    write_audio(Path(f"{name}.wav"), (0.1 * torch.randn(2, round(RATE * seconds))).clamp(-1, 1), RATE)


def separate(*more: str) -> int:
    return main(["separate", *OPTIONS, *more])


def results(name: str = "stems.results/songs.*.jsonl") -> list[dict[str, Any]]:
    """Returns all results, of which every line must be whole."""
    return [json.loads(line) for path in sorted(Path().glob(name)) for line in path.read_text().splitlines()]


def statuses() -> dict[str, str]:
    """Returns the last status of each row."""
    return {result["name"]: result["status"] for result in sorted(results(), key=lambda each: each["finished"])}


def files(folder: str = "stems") -> dict[str, bytes]:
    """Returns all files of a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def refusal(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """Returns the only sentence of a run that does nothing."""
    assert separate(*more) in (1, 2)
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    return sentence.strip().partition("error: ")[2]


def test_each_row_is_separated_as_it_states_and_its_result_is_true() -> None:
    Path("songs.csv").write_text(
        'path,name,stems,start,duration\na.wav,album/one,,,\nb.wav,,"vocals,residual",0.02,0.05\nnone.wav,,bass,,\n'
    )
    assert separate("--stems", "drums,vocals") == 1
    assert sorted(files()) == [
        *("album/one/drums.wav", "album/one/vocals.wav"),
        *("b/residual.wav", "b/vocals.wav"),
    ]
    one, two, three = results()
    assert [each["number"] for each in (one, two, three)] == [1, 2, 3]
    assert [each["path"] for each in (one, two, three)] == ["a.wav", "b.wav", "none.wav"]
    assert [each["name"] for each in (one, two, three)] == ["album/one", "b", "none"]
    assert [each["status"] for each in (one, two, three)] == ["done", "done", "failed"]
    assert three["remark"] == "none.wav does not exist; check the path"
    assert three["files"] == []
    assert [each["audio_seconds"] for each in (one, two, three)] == [0.1, 0.05, None]
    assert audio_info(Path("stems/b/vocals.wav")).length == RATE // 20
    for each in (one, two):
        assert each["seconds_taken"] > 0
        for file in each["files"]:
            path = Path("stems", file["path"])
            assert (file["bytes"], file["sha256"]) == (path.stat().st_size, sha256_of(path))
    Path("two.csv").write_text("path\nb.wav\n")
    alone = ["separate", "b.wav", *OPTIONS[2:], "--output", "alone", "--stems", "residual,vocals"]
    assert main([*alone, "--start", "0.02", "--duration", "0.05"]) == 0
    assert files("alone")["b/vocals.wav"] == files()["b/vocals.wav"]


def test_a_second_run_separates_only_what_is_not_there() -> None:
    Path("b.wav").rename("later.wav")
    assert separate() == 1
    first = results()
    assert statuses() == {"a": "done", "b": "failed", "c": "done"}
    before = {path: path.stat().st_mtime_ns for path in Path("stems").rglob("*.wav")}
    Path("later.wav").rename("b.wav")
    # A file that is shorter than its result states is written again.
    os.truncate("stems/c/bass.wav", 100)
    assert separate() == 0
    assert [result["name"] for result in results()[len(first) :]] == ["b", "c"]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path.parent.name == "a")
    assert Path("stems/c/bass.wav").stat().st_size > 100
    whole = results()
    # No network is needed to find that there is nothing to do.
    assert separate() == 0
    assert results() == whole


def test_only_failed_rows_are_tried_again() -> None:
    Path("b.wav").rename("later.wav")
    assert separate() == 1
    Path("later.wav").rename("b.wav")
    write("d")
    Path("songs.csv").write_text("path\na.wav\nb.wav\nc.wav\nd.wav\n")
    assert separate("--retry-failed") == 0
    assert statuses() == {"a": "done", "b": "done", "c": "done"}
    assert separate("--retry-failed") == 0
    assert separate() == 0
    assert statuses() == dict.fromkeys("abcd", "done")


def test_files_of_something_else_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    Path("stems/b").mkdir(parents=True)
    Path("stems/b/vocals.wav").write_bytes(b"mine")
    advice = "stems/b/vocals.wav already exists; give another --output, or --overwrite or --skip-existing"
    assert refusal(capsys) == f"row 2 of songs.csv: {advice}"
    assert not Path("stems.results").exists()
    assert separate("--skip-existing") == 0
    assert Path("stems/b/vocals.wav").read_bytes() == b"mine"
    # Other options would give other stems.
    capsys.readouterr()
    assert refusal(capsys, "--overlap", "0.5").startswith("row 1 of songs.csv: stems/a/drums.wav already exists")
    assert separate("--overlap", "0.5", "--overwrite") == 0
    assert Path("stems/b/vocals.wav").read_bytes() != b"mine"
    assert len(results()) == 6


@pytest.mark.parametrize(
    ("row", "more", "sentence"),
    [
        (
            ",guitar,,",
            (),
            "row 2 of songs.csv: the stem 'guitar' cannot be written; with this model choose",
        ),
        (",,soon,", (), "row 2 of songs.csv: its start 'soon' is not a number; give seconds"),
        ("a,,,", (), "row 2 of songs.csv: its output name 'a' is that of row 1; give each its own name"),
        (",,,", ("c.wav",), "--manifest lists the songs, so 'c.wav' was not expected; give one of the two"),
        (",,,", ("--template", "{stem}.{ext}"), "a.wav and b.wav would both write stems/drums.wav; separate them"),
    ],
)
def test_what_cannot_be_used_is_reported_before_any_work(
    row: str, more: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("songs.csv").write_text(f"path,name,stems,start,duration\na.wav,,,,\nb.wav,{row}\n")
    assert refusal(capsys, *more).startswith(sentence)
    assert not Path("stems").exists()


def test_failed_songs_are_those_of_a_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["separate", "a.wav", "--retry-failed"]) == 2
    assert "--retry-failed is for the songs of a manifest; give --manifest too" in capsys.readouterr().err


@pytest.fixture
def killed() -> Iterator[Callable[..., None]]:
    """Returns what runs a command until it has stopped and a condition holds, then kills all that it has started."""
    if sys.platform == "win32":
        pytest.skip("Windows has no groups of processes")
    running: list[subprocess.Popen[bytes]] = []
    Path("stopping.py").write_text(STOPPING)

    def kill_once(is_reached: Callable[[], bool], *more: str) -> None:
        command = [sys.executable, "stopping.py", *OPTIONS, *more]
        process = programs.Popen(command, start_new_session=True, starts_copies=True)
        running.append(process)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_reached():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    yield kill_once
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def being_written(name: str) -> bool:
    return any(path.stat().st_size > 10_000 for path in Path("stems", name).glob(".*.part.wav"))


def test_a_killed_run_is_resumed(killed: Callable[..., None]) -> None:
    write("b", 1)
    killed(lambda: being_written("b"))
    assert statuses() == {"a": "done"}
    assert separate() == 0
    assert statuses() == dict.fromkeys("abc", "done")
    assert len(results()) == 3
    assert main(["separate", "a.wav", "b.wav", "c.wav", *OPTIONS[2:], "--output", "alone"]) == 0
    assert files() == files("alone")


def test_stems_whose_result_was_torn_by_a_kill_are_made_again() -> None:
    assert separate() == 0
    before = files()
    path = Path("stems.results/songs.0.jsonl")
    first, second, _ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:50])
    # As if the kill came between the moments when the one and the other stem appear.
    Path("stems/b/vocals.wav").unlink()
    assert separate() == 0
    assert [result["name"] for result in results()] == ["a", "b", "c"]
    assert files() == before


def test_two_processes_are_killed_and_resumed_without_mixing_lines(killed: Callable[..., None]) -> None:
    names = [*"abcdef"]
    for name in ("c", "d"):
        write(name, 1)
    for name in ("e", "f"):
        write(name)
    Path("songs.csv").write_text("path\n" + "".join(f"{name}.wav\n" for name in names))
    two = ("--devices", "2")
    killed(lambda: being_written("c") and being_written("d"), *two)
    assert {path.name: len(path.read_text().splitlines()) for path in Path("stems.results").glob("*.jsonl")} == {
        "songs.0.jsonl": 1,
        "songs.1.jsonl": 1,
    }
    with Path("stems.results/songs.1.jsonl").open("a") as torn:
        torn.write('{"number": 4, "pa')
    command = [sys.executable, SCRIPT, *OPTIONS, *two]
    ended = programs.run(command, timeout=PATIENCE_SECONDS, check=False, starts_copies=True)
    assert ended.returncode == 0
    assert sorted(result["name"] for result in results()) == names
    assert [result["number"] for result in results("stems.results/songs.0.jsonl")] == [1, 3, 5]
    assert [result["number"] for result in results("stems.results/songs.1.jsonl")] == [2, 4, 6]
    # What was begun by two can be finished by one.
    whole = results()
    assert separate() == 0
    assert results() == whole
    assert main(["separate", *(f"{name}.wav" for name in names), *OPTIONS[2:], "--output", "alone"]) == 0
    assert files() == files("alone")


def test_two_runs_of_one_manifest_do_not_write_to_one_file(
    killed: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    write("a", 1)
    found: list[int] = []

    def second_is_refused() -> bool:
        if being_written("a"):
            found.append(separate())
        return bool(found)

    killed(second_is_refused)
    assert found == [1]
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "songs.0.jsonl is being written by another process; wait for it to end, or give another --output" in error
