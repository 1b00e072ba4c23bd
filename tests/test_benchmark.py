"""The benchmark as a user runs it, with its quick options."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmark_mamba_ssm.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """Returns what a run on the CPU with one thread gives: with more, a busy machine slows it down a hundredfold."""
    return subprocess.run(
        [sys.executable, str(BENCHMARK), "--device", "cpu", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_quick_run_shows_that_the_scans_agree_and_writes_its_figures(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    done = run("--quick", "--seconds", "[0.1]", "--repeats", "1", "--json", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert "not run: the device is cpu" in done.stdout
    results = json.loads(file.read_text(encoding="utf-8"))
    assert results.keys() == {"environment", "agreement", "scans", "network"}
    assert {row["length"] for row in results["agreement"]} == {1, 5, 17, 62, 130, 401}
    for row in results["agreement"]:
        assert row["scan"] in {"sequential", "chunked"}
        assert max(row[name] for name in ("y", "x", "dt", "A", "B", "C")) < 1e-5
    assert [(row["rows"], row["length"], row["scan"]) for row in results["scans"]] == [
        (3, 801, "sequential"),
        (3, 801, "chunked"),
        (40, 62, "sequential"),
        (40, 62, "chunked"),
    ]
    assert all(row["difference"] < 1e-5 and row["seconds"] > 0 for row in results["scans"])
    (network,) = results["network"]
    assert (network["audio_seconds"], network["precision"], network["runs"]) == (0.1, "float32", 1)
    # The weights alone are 183 MiB; Windows has no such figure.
    assert network["peak_memory_mib"] is None or network["peak_memory_mib"] > 183


def test_wrong_options_end_with_one_sentence() -> None:
    unknown, not_allowed = run("--nothing"), run("--repeats", "0")
    assert unknown.returncode == 2
    assert "nothing" in unknown.stderr
    assert not_allowed.returncode == 1
    assert not_allowed.stderr.count("\n") == 1
    assert "repeats=0 is not allowed" in not_allowed.stderr


@pytest.mark.parametrize("error", [2e-5, float("nan")])
def test_scans_that_disagree_end_the_run_with_one_sentence(error: float) -> None:
    check = runpy.run_path(str(BENCHMARK))["check"]
    row = {"length": 17, "scan": "chunked", "y": 1e-7, "dt": error}
    with pytest.raises(SystemExit, match="chunked scan disagrees with the recurrence at length 17: dt"):
        check([row])
