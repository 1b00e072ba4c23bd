import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import steps
from bsmamba2.errors import InputError
from tests import programs

CONFIG = """
model:
  network: {dim: 8, depth: 1, bands: [500, 525], headdim: 8, d_state: 8, expand: 1, segment_seconds: 0.1}
  loss: {stft: 0.0}
  warmup_steps: 1000
  schedule: cosine
data: {batch_size: 2, workers: 0}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Returns a file of training options."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def test_a_training_run_is_measured_and_its_parts_add_up(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", programs.Popen)
    results = tmp_path / "steps.json"
    options = ["--configs", str(config), "--processes", "1", "--threads", "1", "--steps", "3", "--warm_up", "1"]
    assert steps.main([*options, "--json", str(results)]) == 0
    (row,) = json.loads(results.read_text(encoding="utf-8"))["steps"]
    assert (row["config"], row["batch"], row["processes"]) == ("config", 2, 1)
    assert row["times_bound"] == pytest.approx(row["step_seconds"] / row["bound_seconds"])
    assert row["audio_per_second"] == pytest.approx(2 * 0.1 / row["step_seconds"])
    assert all(row[part] > 0 for part in ("loading", "forward", "loss", "backward", "optimiser", "averaging", "health"))
    assert sum(row[part] for part in steps.STEP_PARTS) == pytest.approx(sum(row["actions"].values()))


def test_an_action_takes_what_those_inside_it_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 6.0, 10.0])
    monkeypatch.setattr("benchmarks.steps.time.perf_counter", lambda: next(clock))
    times = steps.OwnTimes()
    times.start("outer")
    times.start("inner")
    times.stop("inner")
    times.stop("outer")
    assert times.seconds == {"between actions": 1, "outer": 2 + 4, "inner": 3}


def test_a_batch_that_cannot_be_shared_is_refused(config: Path, tmp_path: Path) -> None:
    setting = steps.StepSetting(config, 2, "float32", False, processes=3, threads=3)
    with pytest.raises(InputError, match=r"3 processes cannot share the batch of 2 in .* and 3 threads equally"):
        steps.measure_steps(setting, steps.Options(), tmp_path, tmp_path)


def test_a_training_run_that_fails_is_one_sentence(config: Path, tmp_path: Path) -> None:
    setting = steps.StepSetting(config, 2, "float32", False, processes=1, threads=1)
    with pytest.raises(InputError, match=r"bsmamba2 train ended with status 1: .*none"):
        steps.trained(setting, steps.Options(), tmp_path / "none", tmp_path)


@pytest.mark.parametrize("options", [{"processes": [0]}, {"threads": 0}, {"steps": 0}, {"warm_up": 0}])
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="is not allowed; give values above 0"):
        steps.Options(**options)  # type: ignore[arg-type]
