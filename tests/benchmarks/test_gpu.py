"""The benchmark on a GPU, as far as it runs without one."""

import pytest
import torch

from benchmarks import gpu
from benchmarks.agreement import network_errors
from benchmarks.bounds import network_multiply_adds
from benchmarks.command import Problems
from benchmarks.networks import QUICK
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2
from bsmamba2.model.mamba2 import Mamba2
from bsmamba2.separation.settings import Precision


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batches": [1, 0]}, r"batches=\[1, 0\]"), ({"repeats": 0}, "repeats=0"), ({"minutes": -1.0}, "minutes=-1 ")],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gpu.Options(**options)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_one_sentence_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gpu.py: error: torch sees no CUDA device")
    assert captured.err.count("\n") == 1


def test_the_authors_arrangement_is_the_same_network() -> None:
    torch.manual_seed(0)
    ours = BSMamba2(QUICK).eval()
    theirs = gpu.authors_network(QUICK, lambda: Mamba2(QUICK)).eval()
    theirs.load_state_dict(ours.state_dict())
    mixture = 0.1 * torch.randn(2, 2, 4410)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(mixture), ours(mixture), rtol=1e-4, atol=1e-6)


def test_a_training_step_changes_the_weights_and_a_forward_pass_does_not() -> None:
    torch.manual_seed(0)
    network, mixture = BSMamba2(QUICK), 0.1 * torch.randn(1, 2, 4410)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    setting = gpu.Setting("ours", "chunked", False, "float32", "training", 1)
    gpu.forward(network, mixture, setting)()
    assert all(weight.equal(before[name]) for name, weight in network.state_dict().items())
    gpu.training_pass(network, mixture, setting)()
    assert any(not weight.equal(before[name]) for name, weight in network.state_dict().items())


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_a_small_network_agrees_with_the_recurrence_forward_and_backward(
    precision: Precision, tolerance: float
) -> None:
    row = network_errors("chunked", precision, torch.device("cpu"))
    assert 0 < row["output"] < tolerance
    assert 0 < row["gradients"] < tolerance


def test_share_counts_all_passes_at_the_rate() -> None:
    count = network_multiply_adds(QUICK, 2.0)["everything"]["products"]
    assert gpu.share_of_rate(QUICK, 2.0, 3, 6.0, rate=count) == pytest.approx(1.0)


def test_settings_leave_out_what_cannot_run() -> None:
    options = gpu.Options(precisions=["bfloat16"], batches=[1, 2])
    problems = Problems("gpu.py")
    chosen = gpu.settings(options, problems)
    arrangements = {(setting.arrangement, setting.scan) for setting in chosen}
    if problems.messages:
        assert "the kernels and the authors' arrangement were not measured" in problems.messages[0]
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
    assert gpu.best([authors, own], "forward") == [own]
    assert gpu.best([authors], "forward") == []
