"""The benchmark as a user runs it, with its quick options, and the bounds it measures against."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import benchmark_mamba_ssm
from benchmarks import plots
from benchmarks.agreement import check
from benchmarks.bounds import MIXERS, frames, mixer_multiply_adds, multiply_adds, tile_shapes
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.dual_path import DualPathLayer
from bsmamba2.model.stft import stft

TINY = ModelConfig(
    dim=4, depth=3, bands=(2, 3), stems=("a", "b"), channels=1, expand=2, headdim=4, d_state=5, ngroups=2,
    mask_expand=3, n_fft=8, window_length=8, hop_length=2, sample_rate=100,
)  # fmt: skip


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """Returns what a run on the CPU with one thread gives: with more, a busy machine slows it down a hundredfold."""
    return subprocess.run(
        [sys.executable, benchmark_mamba_ssm.__file__, "--device", "cpu", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_quick_run_shows_that_the_scans_agree_and_writes_its_figures(tmp_path: Path) -> None:
    file, picture = tmp_path / "results.json", tmp_path / "results.png"
    options = ("--quick", "--seconds", "[0.1]", "--repeats", "1", "--precisions", "[float32]")
    done = run(*options, "--json", str(file), "--plot", str(picture))
    assert (done.returncode, done.stderr) == (0, "")
    assert "not run: the device is cpu" in done.stdout
    assert "not measured: quick" in done.stdout
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
    (network,), (song,) = results["network"], results["files"]
    assert (network["audio_seconds"], network["precision"], network["runs"]) == (0.1, "float32", 1)
    assert song["audio_seconds"] == 2.5
    for row in (*results["scans"], *results["mixers"], network, song):
        assert row["times_bound"] == pytest.approx(row["seconds"] / row["bound_seconds"])
        assert row["seconds"] > 0
    # Python with torch alone takes more; Windows has no such figure.
    assert network["peak_memory_mib"] is None or network["peak_memory_mib"] > 100
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"


def test_multiply_adds_of_a_tiny_network_are_those_counted_by_hand() -> None:
    # 1.3 s are 130 samples, 66 frames: two chunks of 33 over time, one of 2 over bands. d_inner is 8, heads are 2, and
    # 2 * 8 + 2 * 2 * 5 + 2 = 38 channels are projected.
    tokens = 3 * 66 * 2
    assert multiply_adds(TINY, 1.3) == {
        "projections_in": 2 * tokens * (2 * 4 * 38),
        "projections_out": 2 * tokens * (2 * 8 * 4 + 4 * 4),
        "scan_over_time": 2 * tokens * (33 * 5 * 2 + 33 * 8 + 5 * 8 + 5 * 8),
        "scan_over_bands": 2 * tokens * (2 * 5 * 2 + 2 * 8),
        "band_split": 66 * (4 + 6) * 4,
        "masks": 2 * 66 * ((4 * 12 + 12 * 8) + (4 * 12 + 12 * 12)),
    }


def test_multiply_adds_are_those_the_network_runs() -> None:
    network = BSMamba2(TINY)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.randn(1, 1, 40))
    folding = 3 * 2 * 2 * 4 * 4 * 8  # of the projections out with the join, once per mixer
    assert counter.get_total_flops() == 2 * (sum(multiply_adds(TINY, 0.4).values()) + folding)


def test_the_published_network_takes_131_tera_multiply_adds_for_a_segment_in_its_mixers() -> None:
    config = ModelConfig()
    parts = multiply_adds(config, 8)
    mixers = sum(parts[name] for name in MIXERS)
    assert mixers == pytest.approx(1.31e12, rel=0.01)
    assert mixers == 6 * 62 * 801 * (mixer_multiply_adds(config, 801) + mixer_multiply_adds(config, 62))


@pytest.mark.parametrize("samples", [1, 441, 1025, 44_099, 44_100])
def test_frames_are_those_of_the_spectrum(samples: int) -> None:
    spectrum = stft(torch.zeros(1, samples), n_fft=2048, window_length=2048, hop_length=441)
    assert frames(ModelConfig(), samples / 44_100) == spectrum.shape[-1]


def test_tiles_are_those_the_network_cuts() -> None:
    config = ModelConfig(depth=1, bands=(64,) * 15 + (65,), segment_seconds=1.3)
    layer = DualPathLayer(config)
    shapes: list[tuple[int, int]] = []

    def record(_: object, given: tuple[Tensor, ...]) -> None:
        shapes.append((given[0].shape[0], given[0].shape[1]))

    for mixer in layer:
        mixer.register_forward_pre_hook(record)
    with torch.inference_mode():
        layer(torch.randn(1, frames(config, 1.3), 16, config.dim))
    over_time, over_bands = tile_shapes(config, torch.device("cpu")).values()
    assert len(shapes) == 6
    assert set(shapes) == {over_time, over_bands} == {(6, 131), (44, 16)}


def results(**changes: Any) -> dict[str, Any]:
    """Returns results of the network at two lengths, eager and compiled."""
    setting = {"batch": 1, "threads": 2, "precision": "float32", "times_bound": 2.0, "peak_memory_mib": None}
    lengths = [(8.0, False, 0.5), (1.0, False, 0.25), (8.0, True, 0.75)]
    rows = [setting | {"audio_seconds": s, "compiled": c, "audio_per_second": speed} for s, c, speed in lengths]
    return {"environment": {"device": "cpu", "processor": "any", "torch": "2"}, "network": rows, "files": [], **changes}


def test_a_picture_is_drawn_of_results(tmp_path: Path) -> None:
    source, picture = tmp_path / "results.json", tmp_path / "results.png"
    source.write_text(json.dumps(results()), encoding="utf-8")
    assert plots.main([str(source), str(picture)]) == 0
    with Image.open(picture) as drawn:
        assert drawn.size == (1200, 900)
    curves = plots.curves_of("one pass", results()["network"], "audio_seconds", "audio_per_second")
    assert curves == [
        ("one pass, float32, eager", [1.0, 8.0], [0.25, 0.5]),
        ("one pass, float32, compiled", [8.0], [0.75]),
    ]


@pytest.mark.parametrize("content", ["no JSON", "[]", "{}", json.dumps(results(network=[{"batch": 1}]))])
def test_a_picture_of_anything_else_ends_with_one_sentence(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "results.json"
    source.write_text(content, encoding="utf-8")
    assert plots.main([str(source), str(tmp_path / "results.png")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [source]


def test_unknown_options_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark_mamba_ssm.main(["--nothing"])
    assert ended.value.code == 2
    assert "nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "0"], "repeats=0"),
        (["--threads", "[1,0]"], r"threads=\[1, 0\]"),
        (["--batches", "[]"], r"batches=\[\]"),
        (["--config", "config.yaml"], "is no file of training options"),
        (["--config", "nothing.yaml"], "is no file of training options"),
        (["--json", "config.yaml/results.json"], "config.yaml"),
    ],
)
def test_options_out_of_range_end_with_one_sentence(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("model: 3", encoding="utf-8")
    assert benchmark_mamba_ssm.main(["--device", "cpu", *options]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert re.search(message, printed)


def test_a_config_tells_the_architecture() -> None:
    config = benchmark_mamba_ssm.read_config(Path(__file__).parents[2] / "configs" / "small.yaml")
    assert (config.dim, config.depth, len(config.bands)) == (192, 4, 48)
    assert benchmark_mamba_ssm.read_config(Path(__file__).parents[2] / "configs" / "bsmamba2.yaml") == ModelConfig()


@pytest.mark.parametrize("error", [2e-5, float("nan")])
def test_scans_that_disagree_end_the_run_with_one_sentence(error: float) -> None:
    row = {"length": 17, "scan": "chunked", "y": 1e-7, "dt": error}
    with pytest.raises(SystemExit, match="chunked scan disagrees with the recurrence at length 17: dt"):
        check([row])
