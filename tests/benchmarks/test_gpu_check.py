"""The check of a GPU, as far as it runs without one."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_check
from bsmamba2.errors import InputError
from tests import programs
from tests.conftest import PATIENCE_SECONDS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up as Linux lists them")


def test_a_training_is_resumed_and_the_results_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", programs.Popen)
    options = ["--output", str(tmp_path), "--minutes", "30", "--device", "cpu", "--quick"]
    assert gpu_check.main([*options, "--parts", "training and resuming"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert [(part["part"], part["status"]) for part in summary["parts"]] == [("training and resuming", 0)]
    assert "resuming from" in (tmp_path / "training-and-resuming.log").read_text(encoding="utf-8")


def test_a_command_is_stopped_at_its_limit_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    program = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"

    class Begun(programs.Popen):
        """A program that has started its own before its time is looked at, however busy the machine is."""

        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            wait_until(lambda: path.read_text().endswith("\n"))

    monkeypatch.setattr(subprocess, "Popen", Begun)
    with path.open("w") as log:
        assert gpu_check.run_until(("-c", program), log.fileno(), time.monotonic()) == "stopped at its limit"
    started = int(path.read_text())
    wait_until(lambda: not is_running(started))


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_running(process: int) -> bool:
    """Whether a process runs; of one that has ended, nobody may have asked for its status yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_parts_and_their_order(tmp_path: Path) -> None:
    names = [part.name for part in gpu_check.parts_of(gpu_check.Options(tmp_path))]
    assert names.index("chunked") < names.index("kernels") < names.index("doctor")
    with pytest.raises(InputError, match="the part 'speed' does not exist; choose chunked, "):
        gpu_check.Options(tmp_path, parts=["speed"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--output", str(tmp_path / "results"), "--device", "cuda"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "results").exists()
