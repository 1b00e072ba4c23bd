import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from benchmarks import runtimes
from bsmamba2.audio.writing import write_audio
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2
from bsmamba2.weights.checkpoint import save_model
from tests.conftest import TINY


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Returns the file of a tiny network with random weights."""
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    save_model(BSMamba2(TINY), path)
    return path


def test_each_run_has_a_time_a_bound_and_a_distance_from_float32(model: Path, tmp_path: Path) -> None:
    results = tmp_path / "runtimes.json"
    runs = ["--runs", "bfloat16", "int8", "--repeats", "1", "--threads", "1"]
    assert runtimes.main(["--model", str(model), *runs, "--json", str(results)]) == 0
    rows = {row["run"]: row for row in json.loads(results.read_text(encoding="utf-8"))["runs"]}
    assert list(rows) == ["float32", "bfloat16", "int8"]
    assert rows["float32"]["sdr_db"] is None
    assert rows["float32"]["over_float32"] == 1
    assert 30 < rows["bfloat16"]["sdr_db"] < 80
    assert 15 < rows["int8"]["sdr_db"] < 70
    for row in rows.values():
        assert row["over_float32"] == pytest.approx(row["seconds"] / rows["float32"]["seconds"])
        assert row["per_audio_second"] == pytest.approx(row["seconds"] / TINY.segment_seconds)


def test_an_exported_file_gives_the_same_stems(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    network, mixture = BSMamba2(TINY).eval(), 0.1 * torch.randn(1, 2, TINY.segment)
    stems = runtimes.pass_of("onnx-float32", network, mixture, tmp_path, 1)()
    with torch.inference_mode():
        torch.testing.assert_close(stems, network(mixture), rtol=0, atol=1e-5)
    coarse = runtimes.pass_of("onnx-int8", network, mixture, tmp_path, 1)()
    assert 1e-4 < (coarse - stems).norm() / stems.norm() < 0.3


def test_a_map_in_8_bits_is_near_the_exact_one() -> None:
    x, weight, bias = torch.randn(3, 5, 16), torch.randn(32, 16), torch.randn(32)
    y = F.linear(x, runtimes.Int8Weight(weight), bias)  # type: ignore[arg-type]
    exact = F.linear(x, weight, bias)
    assert 1e-4 < (y - exact).norm() / exact.norm() < 0.02


def test_maps_in_8_bits_are_for_mamba_alone() -> None:
    network = BSMamba2(replace(TINY, band_mixer="roformer", attention_heads=1, attention_headdim=4))
    with pytest.raises(InputError, match="int8 is for networks with mamba2 or mamba1 alone"):
        runtimes.to_int8(network)


def test_music_begins_where_asked_and_fills_a_segment(tmp_path: Path) -> None:
    song = 0.1 * torch.randn(2, 44_100)
    write_audio(tmp_path / "song.wav", song, 44_100)
    options = runtimes.Options(song=tmp_path / "song.wav", start=0.95)
    music = runtimes.music_of(options, BSMamba2(TINY))
    begin = round(0.95 * 44_100)
    assert music.shape == (1, 2, TINY.segment)
    torch.testing.assert_close(music[0, :, : 44_100 - begin], song[:, begin:], rtol=0, atol=1e-4)
    torch.testing.assert_close(music[0, :, 44_100 - begin], song[:, begin], rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="has 2 channels at 44100 Hz and 1 s; give one with 2 channels at 44100 Hz"):
        runtimes.music_of(replace(options, start=1.0), BSMamba2(TINY))


@pytest.mark.parametrize("options", [{"repeats": 0}, {"threads": 0}, {"start": -1.0}])
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="is not allowed; give"):
        runtimes.Options(**options)  # type: ignore[arg-type]
