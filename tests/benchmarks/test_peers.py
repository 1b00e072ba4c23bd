"""The benchmarks beside the peers and on a GPU, as far as they run without the network and without a GPU."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, peers
from benchmarks.bounds import multiply_adds
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.mamba2 import Mamba2

TINY = ModelConfig(dim=16, depth=1, headdim=16, d_state=8)


def test_networks_are_measured_though_a_peer_cannot_be_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A file where the folder of the environments should be: nothing is installed.
    (tmp_path / "peers").touch()
    file = tmp_path / "results.json"
    short = ["--quick", "--seconds", "0.1", "--repeats", "2", "--threads", "1", "--only", "full", "demucs"]
    assert peers.main([*short, "--folder", str(tmp_path / "peers"), "--json", str(file)]) == 1
    assert "the network 'demucs' could not be prepared" in capsys.readouterr().err
    results = json.loads(file.read_text(encoding="utf-8"))
    assert len(results["problems"]) == 1
    (network,) = results["networks"]
    parameters = sum(parameter.numel() for parameter in BSMamba2(TINY).parameters())
    assert (network["name"], network["parameters"], len(network["times"])) == ("full", parameters, 2)
    assert network["per_audio_second"] == pytest.approx(sum(network["times"]) / 2 / 0.1)


def test_ratios_are_ours_over_each_peer() -> None:
    rows = [{"name": name, "per_audio_second": time} for name, time in (("full", 3.0), ("small", 1.0), ("demucs", 2.0))]
    assert peers.with_ratios(rows) == [*rows[:2], rows[2] | {"ratios": {"full": 1.5, "small": 0.5}}]


def test_values_out_of_range_end_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert peers.main(["--repeats", "0"]) == 1
    assert "repeats=0" in capsys.readouterr().err
    assert gpu.main(["--batches", "1", "0"]) == 1
    assert "batches=[1, 0]" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_one_sentence_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gpu.py: error: torch sees no CUDA device")
    assert captured.err.count("\n") == 1


def test_the_authors_arrangement_is_the_same_network() -> None:
    torch.manual_seed(0)
    ours = BSMamba2(TINY).eval()
    theirs = gpu.authors_network(TINY, lambda: Mamba2(TINY)).eval()
    theirs.load_state_dict(ours.state_dict())
    mixture = 0.1 * torch.randn(2, 2, 4410)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(mixture), ours(mixture), rtol=1e-4, atol=1e-6)


def test_a_training_step_changes_the_weights() -> None:
    torch.manual_seed(0)
    network = BSMamba2(TINY)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    setting = gpu.Setting("ours", "chunked", False, "float32", "training", 1)
    gpu.training_step(network, 0.1 * torch.randn(1, 2, 4410), setting)()
    assert any(not weight.equal(before[name]) for name, weight in network.state_dict().items())


def test_share_counts_all_passes_at_the_rate() -> None:
    count = sum(multiply_adds(TINY, 2.0).values())
    assert gpu.share_of_rate(TINY, 2.0, 3, 6.0, rate=count) == pytest.approx(1.0)


def test_settings_leave_out_what_cannot_run() -> None:
    options = gpu.parser().parse_args(["--precisions", "bfloat16", "--batches", "1", "2"])
    problems: list[str] = []
    chosen = gpu.settings(options, problems)
    arrangements = {(setting.arrangement, setting.scan) for setting in chosen}
    if problems:
        assert "the kernels and the authors' arrangement were not measured" in problems[0]
        assert arrangements == {("ours", "chunked")}
        assert len(chosen) == 2 * 2 * 2
    else:
        assert arrangements == {("authors", "kernel"), ("ours", "kernel"), ("ours", "chunked")}
        assert len(chosen) == 2 * 2 * (1 + 2 * 2)


def test_rows_are_compared_with_the_authors_of_the_same_kind_and_batch() -> None:
    authors = {"arrangement": gpu.AUTHORS, "kind": "forward", "batch": 4, "seconds": 6.0, "audio_per_second": 1.0}
    own = {"arrangement": "ours", "kind": "forward", "batch": 4, "seconds": 2.0, "audio_per_second": 3.0}
    assert gpu.over_authors(own, [authors]) == {"over_authors": 3.0}
    assert gpu.over_authors(own | {"batch": 1}, [authors]) == {}
    assert gpu.best([authors, own], "forward") == own
    assert gpu.best([authors], "forward") is None


def test_worker_that_dies_is_told_in_one_sentence(tmp_path: Path) -> None:
    options = Namespace(seconds=0.1, threads=1, quick=True)
    (tmp_path / "full.safetensors").write_bytes(b"no weights")
    with (
        pytest.raises(peers.WorkerError, match=r"the network 'full' ended with status 1 .*damaged"),
        peers.started("full", options, tmp_path),
    ):
        pass
