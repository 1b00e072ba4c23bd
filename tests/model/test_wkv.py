"""The scan of RWKV-6: its fast form, forward and backward, is the recurrence."""

from functools import partial

import pytest
import torch
from torch import Tensor

from bsmamba2.model import wkv
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import kernel_problem
from bsmamba2.model.scans import wkv as wkv_scan
from bsmamba2.model.wkv import wkv_chunked, wkv_sequential
from tests.model import test_ssd
from tests.model.test_ssd import Arguments, detached, rms_ratio

# Shorter than a chunk, as long, and with a rest.
LENGTHS = [2, 8, 9, 62, 130]


def inputs(length: int, dtype: torch.dtype, decay: float = 1.0, rows: int = 3, width: int = 4) -> Arguments:
    """Returns r, k, v, log_w, beta of two heads; log_w is -decay times numbers around 1."""
    torch.manual_seed(length)
    shapes = [(rows, length, 2, width)] * 4 + [(2, width)]
    r, k, v, exponents, beta = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    r, k, v, log_w, beta = (
        value.to(dtype).requires_grad_() for value in (r, k, v, -decay * torch.exp(exponents), beta)
    )
    return r, k, v, log_w, beta


outputs_and_gradients = partial(test_ssd.outputs_and_gradients, recurrence=wkv_scan)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-15), (torch.float32, 1e-6)])
def test_chunked_equals_sequential_forward_and_backward(
    length: int, reverse: bool, dtype: torch.dtype, tolerance: float
) -> None:
    exact = outputs_and_gradients("sequential", inputs(length, torch.float64), reverse)
    chunked = outputs_and_gradients("chunked", inputs(length, dtype), reverse)
    # Of two steps, no decay is between them, so its gradient is zero in both.
    for found, expected in zip(chunked, exact, strict=True):
        assert (rms_ratio(found, expected) if expected.any() else found.abs().max()) <= tolerance


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("decay", [1e-3, 0.1, 10.0, 50.0, 1e4])
def test_weak_and_strong_decays_are_exact_too(decay: float, reverse: bool) -> None:
    """Keys over cumulative decays would overflow, and differences of cumulative sums would lose digits."""
    exact = outputs_and_gradients("sequential", inputs(70, torch.float64, decay), reverse)
    double = outputs_and_gradients("chunked", inputs(70, torch.float64, decay), reverse)
    single = outputs_and_gradients("chunked", inputs(70, torch.float32, decay), reverse)
    assert all(value.isfinite().all() for value in single)
    # The gradient of the decays is zero where everything decays at once.
    compared = [index for index, value in enumerate(exact) if value.abs().max() > 1e-9]
    assert len(compared) >= 5
    assert all(rms_ratio(double[index], exact[index]) <= 1e-15 for index in compared)
    assert all(rms_ratio(single[index], exact[index]) <= 1e-6 for index in compared)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_agree_with_finite_differences(reverse: bool) -> None:
    def scan(*arguments: Tensor) -> Tensor:
        return wkv_chunked(*arguments, reverse=reverse)

    assert torch.autograd.gradcheck(scan, inputs(18, torch.float64, rows=1, width=2), fast_mode=True)
    assert torch.autograd.gradcheck(scan, inputs(3, torch.float64, rows=1, width=2))


@pytest.mark.parametrize("reverse", [False, True])
def test_the_operation_keeps_to_what_torch_asks_of_operations(reverse: bool) -> None:
    """Its results on tensors without data have the right shapes, and its gradient is that of autograd."""
    decay, added = torch.rand(2, 5, 3, 4, requires_grad=True), torch.randn(2, 5, 3, 4, 4, requires_grad=True)
    torch.library.opcheck(wkv.wkv_states, (decay, added, reverse))


def test_the_definition_by_hand() -> None:
    """Three steps, one head of one channel: y3 = r3 (w2 k1 v1 + k2 v2 + beta k3 v3)."""
    r, k, v, w = (
        torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1)
        for values in ([2.0, 3.0, 5.0], [7.0, 11.0, 13.0], [17.0, 19.0, 23.0], [0.5, 0.25, 0.125])
    )
    beta = torch.tensor([[0.1]], dtype=torch.float64)
    first, second, third = 7.0 * 17, 11.0 * 19, 13.0 * 23
    expected = [2 * 0.1 * first, 3 * (first + 0.1 * second), 5 * (0.25 * first + second + 0.1 * third)]
    for scan in (wkv_sequential, wkv_chunked):
        assert scan(r, k, v, w.log(), beta).flatten().tolist() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("scan", ["sequential", "chunked"])
def test_reverse_is_the_same_from_the_last_step_to_the_first(scan: Scan) -> None:
    r, k, v, log_w, beta = detached(inputs(101, torch.float64))
    flipped = wkv_scan(r.flip(1), k.flip(1), v.flip(1), log_w.flip(1), beta, scan).flip(1)
    assert torch.allclose(wkv_scan(r, k, v, log_w, beta, scan, reverse=True), flipped, rtol=1e-13)


def test_no_decay_is_exact_over_long_sequences() -> None:
    """The carried state must not fade by itself: with almost no decay y is a running sum."""
    ones = torch.ones(1, 300, 1, 1)
    y = wkv_chunked(ones, ones, ones, -1e-12 * ones, torch.ones(1, 1))
    assert torch.allclose(y.flatten(), torch.arange(1.0, 301))


def test_under_autocast_states_are_in_single_precision() -> None:
    """A state carried in bfloat16 would stop growing: chunks of 8 steps add nothing to 4096 there."""
    ones = torch.ones(1, 12_000, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        y = wkv_chunked(ones, ones, ones, -1e-12 * ones, torch.ones(1, 1))
        rounded = wkv_chunked(*detached(inputs(130, torch.bfloat16)))
    assert torch.allclose(y.flatten(), torch.arange(1.0, 12_001), rtol=1e-2)
    assert rounded.dtype == torch.bfloat16
    assert 1e-4 < rms_ratio(rounded, wkv_chunked(*detached(inputs(130, torch.float32)))) < 2e-2


def test_a_single_step_sees_itself_alone() -> None:
    r, k, v, log_w, beta = detached(inputs(1, torch.float64))
    expected = (r * beta * k).sum(-1, keepdim=True) * v
    for scan in (wkv_sequential, wkv_chunked):
        assert torch.allclose(scan(r, k, v, log_w, beta), expected, rtol=1e-14)


def test_the_compiled_scan_is_the_same_in_one_graph() -> None:
    """Also of a length that would take minutes if the loop over chunks were unrolled."""
    arguments = inputs(4000, torch.float32, rows=1)
    compiled = torch.compile(wkv_chunked, backend="aot_eager", fullgraph=True)
    exact, found = (
        [y, *torch.autograd.grad(y.square().sum(), arguments)] for y in (wkv_chunked(*arguments), compiled(*arguments))
    )
    assert all(rms_ratio(*pair) < 1e-6 for pair in zip(found, exact, strict=True))


@pytest.mark.skipif(kernel_problem("wkv") is not None, reason=f"no CUDA kernel here: {kernel_problem('wkv')}")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_kernel_equals_sequential_forward_and_backward(length: int, reverse: bool) -> None:
    exact = outputs_and_gradients("sequential", inputs(length, torch.float64, width=32), reverse)
    arguments = detached(inputs(length, torch.float32, width=32), "cuda")
    for value in arguments:
        value.requires_grad_()
    kernel = outputs_and_gradients("kernel", arguments, reverse)
    for found, expected in zip(kernel, exact, strict=True):
        assert (rms_ratio(found.cpu(), expected) if expected.any() else found.abs().max()) <= 5e-3
