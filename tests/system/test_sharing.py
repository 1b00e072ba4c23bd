"""Songs shared by processes: each test starts two, which takes seconds."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from bsmamba2.audio.writing import write_audio
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2
from bsmamba2.separation.command import separate_files
from bsmamba2.separation.paths import Destination
from bsmamba2.separation.settings import SeparationSettings
from bsmamba2.system.processes import Processes
from bsmamba2.system.sharing import share_out
from tests import programs

# A file: Lightning starts the other process by the same command line.
SCRIPT = str(Path(__file__).parents[2] / "scripts" / "separate.py")
OPTIONS = ["--model", "model.ckpt", "--device", "cpu", "--devices", "2"]
# A process of a pair takes seconds to start, so one pair shares six files and then fewer songs than processes.
TWICE = """
import sys
from bsmamba2.cli import main

command = ["separate", *sys.argv[1:]]
statuses = main([*command, "songs"]), main([*command, "songs/a.wav", "--output", "fewer"])
sys.exit(10 * statuses[0] + statuses[1])
"""
NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, tiny_network: BSMamba2, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a folder with a model of random weights and five songs the current one."""
    monkeypatch.chdir(tmp_path)
    state = {f"network.{name}": value for name, value in tiny_network.state_dict().items()}
    content = {"state_dict": state, "hyper_parameters": {"network": asdict(tiny_network.config)}}
    torch.save(content, "model.ckpt")
    for seed, name in enumerate(NAMES):
        write(Path("songs", f"{name}.wav"), 4410, seed)
    return tmp_path


def write(path: Path, length: int, seed: int = 0) -> None:
    write_audio(path, 0.2 * torch.randn(2, length, generator=torch.Generator().manual_seed(seed)).clamp(-4, 4), 44100)


def files(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_songs_are_shared_by_two_processes(folder: Path) -> None:
    """The standard input is closed, as in many batch systems."""
    Path("songs/broken.mp3").write_text("no audio")
    Path("twice.py").write_text(TWICE)
    before = sorted(Path().iterdir())
    closed = [] if sys.platform == "win32" else ["sh", "-c", 'exec "$0" "$@" <&-']
    command = [*closed, sys.executable, str(folder / "twice.py"), *OPTIONS]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    stderr = result.stderr
    assert result.returncode == 10, stderr
    assert sorted(re.findall(r"^done: songs/(\w)\.wav -> stems", stderr, re.MULTILINE)) == NAMES
    assert len(re.findall(r"^failed: songs/broken\.mp3 is damaged", stderr, re.MULTILINE)) == 1
    assert len(re.findall(r"^float32 ", stderr, re.MULTILINE)) == 2 + 1
    assert stderr.count("done 5, skipped 0, failed 1\n") == 1
    assert stderr.count("bsmamba2: error: 1 of 6 files could not be separated; the first: songs/broken.mp3 ") == 1
    assert len(re.findall(r"^done: songs/a\.wav -> fewer", stderr, re.MULTILINE)) == 1
    assert stderr.count("done 1, skipped 0, failed 0\n") == 1
    # Lightning and PyTorch print nothing and leave no files.
    strangers = [
        line
        for line in stderr.splitlines()
        if not re.match(r"model |scan: |float32 |done|failed: |  done: |  failed: |bsmamba2: error: ", line)
    ]
    assert strangers == []
    assert result.stdout == ""
    assert sorted(Path().iterdir()) == sorted([*before, Path("fewer"), Path("stems")])
    separate_files(
        [Path("songs", f"{name}.wav") for name in NAMES],
        "model.ckpt",
        Destination(Path("alone")),
        settings=SeparationSettings(device="cpu"),
    )
    assert files("stems") == files("alone")
    assert files("fewer") == {name: content for name, content in files("alone").items() if name.startswith("a/")}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_stopped_program_takes_the_other_process_with_it() -> None:
    for name in ("x", "y"):
        write(Path(f"{name}.wav"), 44100 * 120)
    command = [sys.executable, SCRIPT, *OPTIONS, "x.wav", "y.wav"]
    with programs.Popen(command, stderr=subprocess.PIPE, text=True, starts_copies=True) as process:
        try:
            deadline = time.monotonic() + 600
            while sum(path.stat().st_size > 10_000 for path in Path("stems").glob("*/.*")) < 4:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            # The pipe ends when both processes have.
            stderr = process.communicate(timeout=600)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert files("stems") == {}
    assert "Traceback" not in stderr


def test_an_option_that_no_process_can_use_is_reported_once() -> None:
    with pytest.raises(InputError, match="segment_seconds=1e-09"):
        separate_files(
            ["songs"], "model.ckpt", settings=SeparationSettings(1e-9, device="cpu"), processes=Processes(devices=2)
        )
    assert not Path("stems").exists()


@pytest.mark.parametrize(("devices", "num_nodes"), [(2, 1), (1, 2)])
def test_the_standard_input_cannot_be_shared(devices: int, num_nodes: int) -> None:
    with pytest.raises(InputError, match="several processes cannot share the standard input"):
        separate_files(["-"], "model.ckpt", processes=Processes(devices, num_nodes))


@pytest.mark.parametrize(("device", "strategy"), [("nonsense", "auto"), ("cpu", "nonsense"), ("xla", "auto")])
def test_devices_that_cannot_be_used(device: str, strategy: str) -> None:
    with pytest.raises(InputError, match=r"^2 devices on 1 machines cannot be used \(.+\); change the options$"):
        share_out([1], lambda device: lambda item: item, device, Processes(2, 1, strategy))
