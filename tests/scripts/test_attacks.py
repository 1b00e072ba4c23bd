"""A few of the attacks of the scripts, which the scripts make by the hundred."""

import os
import sys
from pathlib import Path

import pytest

from tests import programs

SCRIPTS = Path(__file__).parents[2] / "scripts"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the scripts fork")


def run(script: str, *arguments: str) -> str:
    done = programs.run(
        [sys.executable, str(SCRIPTS / script), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_runs_that_are_stopped_end_as_others() -> None:
    shown = run("attack_runs.py", "--hits", "4", "--tracks", "3", "--seed", "1")
    for command in ("train", "evaluate", "check-data", "index"):
        assert f"{command}: SIG" in shown
    assert "every run ended as one that was never stopped" in shown


def test_hostile_weights_end_in_one_sentence() -> None:
    assert "28 files, 0 of which were not answered as they should" in run("attack_checkpoints.py", "--files", "28")


def test_a_run_that_loses_something_is_noticed(tmp_path: Path) -> None:
    """The script fails for a program that starts again from nothing where it should resume."""
    whole = (SCRIPTS / "attack_runs.py").read_text(encoding="utf-8")
    forgetful = whole.replace(', "--ckpt_path", "last"', "")
    shorter = forgetful.replace("max_epochs: 3", "max_epochs: 1")
    assert len({whole, forgetful, shorter}) == 3
    (tmp_path / "attack_runs.py").write_text(shorter, encoding="utf-8")
    # This seed stops the run twice, each time after half of it.
    options = ["--hits", "1", "--commands", "train", "--tracks", "3", "--seed", "54"]
    done = programs.run(
        [sys.executable, str(tmp_path / "attack_runs.py"), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (SCRIPTS.parent, SCRIPTS)))},
        check=False,
    )
    assert done.returncode == 1
    # A second run in addition to the first.
    assert "too many values to unpack" in done.stderr
