import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import bsmamba2.model.ssd
from bsmamba2.errors import InputError
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import choose_scan, kernel_module, kernel_problem, ssd
from bsmamba2.model.ssd import GPU_MULTIPLE, SegmentSums, chunking, segment_sums, ssd_chunked, ssd_sequential
from tests import programs

Arguments = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

LENGTHS = [1, 5, 17, 62, 130, 401]
NAMES = ("y", "x", "dt", "A", "B", "C")


def inputs(length: int, dtype: torch.dtype, groups: int = 1, dt_scale: float = 0.5) -> Arguments:
    """Returns x, dt, A, B, C of two rows and four heads."""
    torch.manual_seed(length)
    shapes = (2, length, 4, 8), (2, length, 4), (4,), (2, length, groups, 16), (2, length, groups, 16)
    x, dt, A, B, C = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    x, dt, A, B, C = (value.to(dtype).requires_grad_() for value in (x, dt_scale * dt.abs(), -(1 + 4 * A.abs()), B, C))
    return x, dt, A, B, C


def detached(arguments: Arguments, device: str = "cpu") -> Arguments:
    x, dt, A, B, C = (value.detach().to(device) for value in arguments)
    return x, dt, A, B, C


def outputs_and_gradients(
    scan: Scan, arguments: Arguments, reverse: bool = False, recurrence: Callable[..., Tensor] = ssd
) -> list[Tensor]:
    y = recurrence(*arguments, scan=scan, reverse=reverse)
    torch.manual_seed(0)
    weights = torch.randn(y.shape, dtype=torch.float64).to(y)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), arguments)]


def rms_ratio(value: Tensor, reference: Tensor) -> float:
    difference = (value.double() - reference.double()).square().mean().sqrt()
    return (difference / reference.double().square().mean().sqrt().clamp(min=1e-30)).item()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_chunked_equals_sequential_forward_and_backward(
    length: int, groups: int, reverse: bool, dtype: torch.dtype, tolerance: float
) -> None:
    exact = outputs_and_gradients("sequential", inputs(length, torch.float64, groups), reverse)
    chunked = outputs_and_gradients("chunked", inputs(length, dtype, groups), reverse)
    ratios = {name: rms_ratio(*pair) for name, pair in zip(NAMES, zip(chunked, exact, strict=True), strict=True)}
    # A sequence of one step has no decay, so its gradient is zero in both.
    assert all(ratio <= tolerance for ratio in ratios.values()), ratios


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_chunks_for_a_gpu_compute_the_same(length: int, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    count, chunk_length = chunking(length, GPU_MULTIPLE)
    assert chunk_length % GPU_MULTIPLE == 0
    assert count * chunk_length >= length
    arguments = inputs(length, torch.float64)
    expected = outputs_and_gradients("chunked", arguments, reverse)
    monkeypatch.setattr(bsmamba2.model.ssd, "chunking", lambda length, _: chunking(length, GPU_MULTIPLE))
    for value, exact in zip(outputs_and_gradients("chunked", arguments, reverse), expected, strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-10, atol=1e-10)


def test_the_definition_by_hand() -> None:
    """Two steps, one head, one channel, one state: y2 = C2 (exp(dt2 A) dt1 x1 B1 + dt2 x2 B2)."""
    x, B, C = (torch.tensor(v, dtype=torch.float64).view(1, 2, 1, 1) for v in ([2.0, 3.0], [5.0, 7.0], [11.0, 13.0]))
    dt, A = torch.tensor([0.1, 0.2], dtype=torch.float64).view(1, 2, 1), torch.tensor([-1.5], dtype=torch.float64)
    first = 0.1 * 2 * 5
    second = torch.exp(torch.tensor(-0.3, dtype=torch.float64)) * first + 0.2 * 3 * 7
    for scan in (ssd_sequential, ssd_chunked):
        assert torch.allclose(scan(x, dt, A, B, C).flatten(), torch.stack([11 * torch.tensor(first), 13 * second]))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dt_scale", [1e-3, 5.0, 20.0, 1e4])
def test_weak_and_strong_decays_are_exact_too(dt_scale: float, reverse: bool) -> None:
    """With strong ones most sums of log decays lie far below what a float can hold as a factor."""
    arguments = inputs(130, torch.float64, dt_scale=dt_scale)
    exact = outputs_and_gradients("sequential", arguments, reverse)
    double = outputs_and_gradients("chunked", arguments, reverse)
    assert all(rms_ratio(*pair) <= 1e-12 for pair in zip(double, exact, strict=True) if pair[1].abs().max() > 1e-9)
    single = outputs_and_gradients("chunked", inputs(130, torch.float32, dt_scale=dt_scale), reverse)
    assert all(rms_ratio(*pair) <= 1e-5 for pair in zip(single, exact, strict=True) if pair[1].abs().max() > 1e-9)
    assert all(value.isfinite().all() for value in single)


@pytest.mark.parametrize("scan", ["sequential", "chunked"])
def test_reverse_is_the_same_from_the_last_step_to_the_first(scan: Scan) -> None:
    x, dt, A, B, C = detached(inputs(101, torch.float64))
    flipped = ssd(x.flip(1), dt.flip(1), A, B.flip(1), C.flip(1), scan).flip(1)
    assert torch.allclose(ssd(x, dt, A, B, C, scan, reverse=True), flipped, rtol=1e-12)


def test_no_decay_is_exact_over_long_sequences() -> None:
    """The carried state must not fade by itself: with almost no decay y is a running sum."""
    length = 300
    ones = torch.ones(1, length, 1, 1)
    y = ssd_chunked(ones, ones[..., 0], torch.tensor([-1e-12]), ones, ones)
    assert torch.allclose(y.flatten(), torch.arange(1.0, length + 1))


def test_within_bfloat16_under_autocast() -> None:
    arguments = detached(inputs(401, torch.float32))
    exact = ssd_sequential(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        y = ssd_chunked(*arguments)
    assert 1e-5 < rms_ratio(y, exact) < 1e-2


def test_states_stay_in_single_precision_under_autocast() -> None:
    """A state carried in bfloat16 stops growing at 256: 256 + 1 is 256 there."""
    length = 2048
    ones = torch.ones(1, length, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        y = ssd_chunked(ones, ones[..., 0], torch.tensor([-1e-12]), ones, ones)
    assert y[0, -1].item() == pytest.approx(length, rel=1e-2)


def test_rows_do_not_depend_on_each_other() -> None:
    x, dt, A, B, C = detached(inputs(62, torch.float64))
    alone = ssd_chunked(x[:1], dt[:1], A, B[:1], C[:1])
    assert torch.equal(ssd_chunked(x, dt, A, B, C)[:1], alone)


def test_auto_is_chunked_on_a_cpu() -> None:
    arguments = detached(inputs(17, torch.float32))
    assert choose_scan(torch.device("cpu")) == "chunked"
    assert torch.equal(ssd(*arguments), ssd_chunked(*arguments))
    assert torch.equal(ssd(*arguments, scan="sequential"), ssd_sequential(*arguments))


def test_forced_kernel_without_cuda_says_why() -> None:
    arguments = detached(inputs(5, torch.float32))
    with pytest.raises(InputError, match=r"scan='kernel' cannot run: the input is on the device 'cpu'.*scan='chunked'"):
        ssd(*arguments, scan="kernel")


def test_unknown_scan_is_an_error() -> None:
    with pytest.raises(InputError, match="scan='fast' does not exist; choose auto, sequential, chunked, kernel"):
        choose_scan(torch.device("cpu"), "fast")  # type: ignore[arg-type]


def test_the_choice_is_logged_once() -> None:
    program = (
        "import logging, torch; logging.basicConfig(level='INFO')\n"
        "from bsmamba2.model.scans import Scan, choose_scan\n"
        "for _ in range(3): choose_scan(torch.device('cpu'))"
    )
    result = programs.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr.count("scan: chunked on cpu") == 1


def test_equals_the_reference_of_mamba_ssm() -> None:
    """Its own check of the kernels runs on a CPU, where the package and triton are installed."""
    try:
        reference = kernel_module().ssd_chunk_scan_combined_ref
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"mamba-ssm is not installed here ({error})")
    x, dt, A, B, C = detached(inputs(64, torch.float64))
    assert rms_ratio(ssd_chunked(x, dt, A, B, C), reference(x, dt, A, B, C, chunk_size=16)) < 1e-6


@pytest.mark.skipif(kernel_problem() is not None, reason=f"no CUDA kernels here: {kernel_problem()}")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_kernels_equal_sequential_forward_and_backward(length: int, reverse: bool) -> None:
    exact = outputs_and_gradients("sequential", inputs(length, torch.float64), reverse)
    arguments = detached(inputs(length, torch.float32), "cuda")
    for value in arguments:
        value.requires_grad_()
    kernel = outputs_and_gradients("kernel", arguments, reverse)
    # The kernels multiply in TF32.
    assert all(rms_ratio(k.cpu(), e) <= 5e-3 for k, e in zip(kernel, exact, strict=True))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_segment_sums_equal_their_definition_with_the_gradient(length: int, reverse: bool) -> None:
    torch.manual_seed(length)
    log_decay = -torch.rand(2, length, dtype=torch.float64).requires_grad_()
    defined = torch.ones(length, length, dtype=torch.bool)
    defined = defined.triu() if reverse else defined.tril()
    results = []
    for sums in (SegmentSums.apply(log_decay / length, reverse), segment_sums(log_decay / length, reverse)):
        kept = torch.where(defined, sums, 0)
        weights = torch.arange(length * length, dtype=torch.float64).view(length, length).sin()
        results.append([kept, *torch.autograd.grad((kept * weights).sum(), log_decay)])
    assert all(torch.allclose(fast, exact, rtol=1e-12, atol=1e-12) for fast, exact in zip(*results, strict=True))
