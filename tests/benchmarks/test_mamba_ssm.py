"""The benchmark as a user runs it, with its quick options."""

import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.mamba_ssm import Options, main
from benchmarks.networks import QUICK, random_network
from benchmarks.parts import Job, measure, segments_of
from bsmamba2.errors import InputError


def test_quick_run_shows_that_the_scans_agree_and_writes_its_figures(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, figure = tmp_path / "results.json", tmp_path / "results.png"
    # One thread: with more, a busy machine slows it down a hundredfold.
    options = ["--device", "cpu", "--quick", "--seconds", "0.1", "--files", "--repeats", "1", "--threads", "1"]
    assert main([*options, "--precisions", "float32", "--json", str(file), "--plot", str(figure)]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert "not run: the device is cpu" in printed.out
    assert "not measured: quick" in printed.out
    results = json.loads(file.read_text(encoding="utf-8"))
    tables = {"rates", "bandwidth", "bounds", "scans", "mixers", "network", "files"}
    assert results.keys() == {"environment", "agreement"} | tables
    for table in tables:
        assert all(row["threads"] == 1 for row in results[table])
    directions = {(row["length"], row["direction"]) for row in results["agreement"]}
    assert directions == {(n, way) for n in (1, 5, 17, 62, 130, 401) for way in ("forward", "backward")}
    for row in results["agreement"]:
        assert row["scan"] in {"sequential", "chunked"}
        assert max(row[name] for name in ("y", "x", "dt", "A", "B", "C")) < 1e-5
    assert [(row["inputs"], row["outputs"]) for row in results["rates"]] == [(16, 148), (64, 16)]
    assert [(row["rows"], row["length"], row["scan"]) for row in results["scans"]] == [
        (62, 101, "sequential"),
        (62, 101, "chunked"),
        (101, 62, "sequential"),
        (101, 62, "chunked"),
    ]
    assert all(row["difference"] < 1e-5 for row in results["scans"])
    assert [(row["over"], row["compiled"]) for row in results["mixers"]] == [("time", False), ("bands", False)]
    (network,) = results["network"]
    assert (network["audio_seconds"], network["precision"], network["runs"]) == (0.1, "float32", 1)
    for row in (*results["scans"], *results["mixers"], network):
        assert row["times_bound"] == pytest.approx(row["seconds"] / row["bound_seconds"])
        assert row["seconds"] > 0
    # Python with torch alone takes more; Windows has no such figure.
    assert network["peak_memory_mib"] > 100 or sys.platform == "win32"
    with Image.open(figure) as drawn:
        assert drawn.format == "PNG"


def test_a_file_is_bounded_by_all_its_segments() -> None:
    (song,) = measure(Job(QUICK, "cpu", 1, 1, compile=False, seconds=2.5))
    # Segments of 1 s that overlap by a quarter begin at 0, 0.75 and 1.5 s.
    assert segments_of(random_network(QUICK), 2.5) == 3
    assert segments_of(random_network(QUICK), 2.51) == 4
    (one,) = measure(Job(QUICK, "cpu", 1, 1, compile=False, seconds=1.0, batch=1))
    products = [row["bound_seconds"] * row["matrix_gflop_per_second"] for row in (song, one)]
    assert products[0] == pytest.approx(3 * products[1])
    assert (song["audio_seconds"], song["batch"]) == (2.5, 1)
    assert song["audio_per_second"] == pytest.approx(2.5 / song["seconds"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats=0"),
        ({"seconds": [0.0]}, r"seconds=\[0.0\]"),
        ({"files": [-1.0]}, r"files=\[-1.0\]"),
        ({"threads": [1, 0]}, r"threads=\[1, 0\]"),
        ({"batches": []}, r"batches=\[\]"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "config.yaml"], "is not a file of training options"),
        (["--config", "nothing.yaml"], "is not a file of training options"),
        (["--json", "config.yaml/results.json"], "config.yaml"),
    ],
)
def test_files_that_cannot_be_used_end_with_one_sentence(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("model: 3", encoding="utf-8")
    assert main(["--device", "cpu", *options]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("benchmark_mamba_ssm.py: error: ")
    assert printed.count("\n") == 1
    assert re.search(message, printed)
