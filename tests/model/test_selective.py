"""The scan of Mamba-1: its fast form, forward and backward, is the recurrence."""

import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import Tensor

from bsmamba2.model import selective
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import kernel_problem, selective_scan
from bsmamba2.model.selective import selective_chunked, selective_sequential
from tests.model import test_ssd
from tests.model.test_ssd import NAMES, Arguments, detached, rms_ratio

LENGTHS = [1, 5, 16, 17, 62, 130]


def inputs(length: int, dtype: torch.dtype, dt_scale: float = 0.5, rows: int = 5) -> Arguments:
    """Returns x, dt, A, B, C of six channels with three states each."""
    torch.manual_seed(length)
    shapes = (rows, length, 6), (rows, length, 6), (6, 3), (rows, length, 3), (rows, length, 3)
    x, dt, A, B, C = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
    x, dt, A, B, C = (value.to(dtype).requires_grad_() for value in (x, dt_scale * dt.abs(), -(1 + 4 * A.abs()), B, C))
    return x, dt, A, B, C


outputs_and_gradients = partial(test_ssd.outputs_and_gradients, recurrence=selective_scan)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-5)])
def test_chunked_equals_sequential_forward_and_backward(
    length: int, reverse: bool, dtype: torch.dtype, tolerance: float
) -> None:
    exact = outputs_and_gradients("sequential", inputs(length, torch.float64), reverse)
    chunked = outputs_and_gradients("chunked", inputs(length, dtype), reverse)
    ratios = {name: rms_ratio(*pair) for name, pair in zip(NAMES, zip(chunked, exact, strict=True), strict=True)}
    # A sequence of one step has no decay, so its gradient is zero in both.
    assert all(ratio <= tolerance for ratio in ratios.values()), ratios


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_agree_with_finite_differences(reverse: bool) -> None:
    def scan(*arguments: Tensor) -> Tensor:
        return selective_chunked(*arguments, reverse=reverse)

    assert torch.autograd.gradcheck(scan, inputs(18, torch.float64, rows=2), fast_mode=True)
    assert torch.autograd.gradcheck(scan, inputs(3, torch.float64, rows=1))


def test_the_operation_keeps_to_what_torch_asks_of_operations() -> None:
    """Its results on tensors without data have the right shapes, and its gradient is that of autograd."""
    x, dt, A, B, C = inputs(18, torch.float32)
    torch.library.opcheck(selective.selective_steps, (x, dt, A.detach().mT.contiguous().requires_grad_(), B, C))


def test_the_definition_by_hand() -> None:
    """Two steps, one channel, two states: y2 = Σ C2 (exp(dt2 A) dt1 x1 B1 + dt2 x2 B2)."""
    x, dt = (torch.tensor(values, dtype=torch.float64).view(1, 2, 1) for values in ([2.0, 3.0], [0.1, 0.2]))
    A = torch.tensor([[-1.5, -2.5]], dtype=torch.float64)
    B, C = (torch.tensor([v], dtype=torch.float64) for v in ([[5.0, 6.0], [7.0, 8.0]], [[11.0, 12.0], [13.0, 14.0]]))
    first = 0.1 * 2 * B[0, 0]
    second = torch.exp(0.2 * A[0]) * first + 0.2 * 3 * B[0, 1]
    for scan in (selective_sequential, selective_chunked):
        y = scan(x, dt, A, B, C).flatten()
        assert torch.allclose(y, torch.stack([C[0, 0] @ first, C[0, 1] @ second]), rtol=1e-14)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dt_scale", [1e-3, 5.0, 20.0, 1e4])
def test_weak_and_strong_decays_are_exact_too(dt_scale: float, reverse: bool) -> None:
    """Within a chunk, strong ones decay to far less than the smallest float."""
    exact = outputs_and_gradients("sequential", inputs(70, torch.float64, dt_scale), reverse)
    double = outputs_and_gradients("chunked", inputs(70, torch.float64, dt_scale), reverse)
    single = outputs_and_gradients("chunked", inputs(70, torch.float32, dt_scale), reverse)
    assert all(value.isfinite().all() for value in single)
    # The gradient of A is the difference of the two ways where everything decays at once.
    compared = [index for index, value in enumerate(exact) if value.abs().max() > 1e-9]
    assert all(rms_ratio(double[index], exact[index]) <= 1e-13 for index in compared)
    assert all(rms_ratio(single[index], exact[index]) <= 1e-5 for index in compared)


def test_no_decay_is_below_what_processors_compute_fast_with() -> None:
    """Numbers near the smallest float take many times as long."""
    decay = torch.empty(3)
    selective._decay(torch.tensor(1.0), torch.tensor([-1.0, -95.0, -1e4]), decay)
    assert decay.tolist() == pytest.approx([0.36788, 8.7565e-27, 8.7565e-27], rel=1e-4, abs=0)


@pytest.mark.parametrize("scan", ["sequential", "chunked"])
def test_reverse_is_the_same_from_the_last_step_to_the_first(scan: Scan) -> None:
    x, dt, A, B, C = detached(inputs(101, torch.float64))
    flipped = selective_scan(x.flip(1), dt.flip(1), A, B.flip(1), C.flip(1), scan).flip(1)
    assert torch.allclose(selective_scan(x, dt, A, B, C, scan, reverse=True), flipped, rtol=1e-13)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_step_does_not_see_what_comes_after_it(reverse: bool) -> None:
    arguments = inputs(40, torch.float64)
    (gradient,) = torch.autograd.grad(selective_chunked(*arguments, reverse=reverse)[:, 17].sum(), arguments[0])
    reached = gradient.abs().sum((0, 2)) > 0
    seen = torch.arange(40) >= 17 if reverse else torch.arange(40) <= 17
    assert torch.equal(reached, seen)


def test_rows_do_not_depend_on_each_other() -> None:
    x, dt, A, B, C = inputs(62, torch.float64, rows=7)
    y = selective_chunked(x, dt, A, B, C)
    assert torch.allclose(y[:1], selective_chunked(x[:1], dt[:1], A, B[:1], C[:1]), rtol=1e-14)
    for gradient in torch.autograd.grad(y[4].square().sum(), (x, dt, B, C)):
        assert gradient[4].any()
        assert not gradient[[0, 1, 2, 3, 5, 6]].any()


def test_no_decay_is_exact_over_long_sequences() -> None:
    """The carried state must not fade by itself: with almost no decay y is a running sum."""
    ones = torch.ones(1, 300, 1)
    y = selective_chunked(ones, ones, torch.tensor([[-1e-12]]), ones, ones)
    assert torch.allclose(y.flatten(), torch.arange(1.0, 301))


def test_under_autocast_everything_is_in_single_precision() -> None:
    """A state carried in bfloat16 stops growing at 256: 256 + 1 is 256 there."""
    exact = outputs_and_gradients("chunked", inputs(130, torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        found = outputs_and_gradients("chunked", inputs(130, torch.float32))
        rounded = selective_chunked(*detached(inputs(130, torch.bfloat16)))
    assert all(torch.equal(*pair) for pair in zip(found, exact, strict=True))
    assert rounded.dtype == torch.bfloat16
    assert 1e-4 < rms_ratio(rounded, exact[0]) < 1e-2


MEMORY_PROGRAM = """
import torch
from bsmamba2.model.selective import selective_chunked
from bsmamba2.system.processes import peak_memory_bytes
torch.set_num_threads(1)

def step(length):
    x, dt, B, C = (torch.rand(2, length, 64 if n < 2 else 16, requires_grad=True) for n in range(4))
    selective_chunked(x, dt, -torch.rand(64, 16), B, C).sum().backward()

step(64)
before = peak_memory_bytes()
step(20_000)
print((peak_memory_bytes() - before) / 2**20)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not report the peak memory")
def test_gradients_of_a_long_sequence_keep_few_states() -> None:
    """All states would take 156 MiB, a value per channel and step 9.8 MiB."""
    result = subprocess.run([sys.executable, "-c", MEMORY_PROGRAM], capture_output=True, text=True, check=True)
    assert 20 < float(result.stdout) < 125


def test_the_compiled_scan_is_the_same_in_one_graph() -> None:
    """Also of a length that would take minutes if the loop over steps were unrolled."""
    arguments = inputs(2000, torch.float32, rows=1)
    compiled = torch.compile(selective_chunked, backend="aot_eager", fullgraph=True)
    exact, found = (
        [y, *torch.autograd.grad(y.square().sum(), arguments)]
        for y in (selective_chunked(*arguments), compiled(*arguments))
    )
    assert all(rms_ratio(*pair) < 1e-6 for pair in zip(found, exact, strict=True))


@pytest.mark.skipif(
    kernel_problem("selective") is not None, reason=f"no CUDA kernel here: {kernel_problem('selective')}"
)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_the_kernel_equals_sequential_forward_and_backward(length: int, reverse: bool) -> None:
    exact = outputs_and_gradients("sequential", inputs(length, torch.float64), reverse)
    arguments = detached(inputs(length, torch.float32), "cuda")
    for value in arguments:
        value.requires_grad_()
    kernel = outputs_and_gradients("kernel", arguments, reverse)
    assert all(rms_ratio(k.cpu(), e) <= 1e-3 for k, e in zip(kernel, exact, strict=True))
