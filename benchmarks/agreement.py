"""Whether all scans compute the same: outputs and gradients against the recurrence in double precision."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.command import Row
from bsmamba2.model.scans import kernel_problem, ssd_kernel
from bsmamba2.model.ssd import ssd_chunked, ssd_sequential

SCANS = {"sequential": ssd_sequential, "chunked": ssd_chunked, "kernel": ssd_kernel}
ARGUMENTS = ("x", "dt", "A", "B", "C")
LENGTHS = (1, 5, 17, 62, 130, 401)
# The kernel multiplies float32 in TF32, which keeps 10 bits of the mantissa.
TOLERANCES = {"sequential": 1e-5, "chunked": 1e-5, "kernel": 5e-3}


def available_scans(device: torch.device) -> list[str]:
    """Returns the names of the scans that run on a device; the sequential one comes first."""
    return [name for name in SCANS if name != "kernel" or (device.type == "cuda" and kernel_problem() is None)]


def agreement(name: str, length: int, reverse: bool, device: torch.device) -> Row:
    """Returns how far y and the five gradients of a scan in float32 are from the recurrence in float64 on the CPU."""
    inputs = scan_inputs(3, length, heads=4, headdim=16, groups=2, d_state=16)
    weight = torch.randn_like(inputs[0])
    expected = with_gradients(partial(ssd_sequential, reverse=reverse), [t.double() for t in inputs], weight.double())
    actual = with_gradients(partial(SCANS[name], reverse=reverse), [t.to(device) for t in inputs], weight.to(device))
    errors = [relative_error(*pair) for pair in zip(actual, expected, strict=True)]
    row = {"length": length, "direction": "backward" if reverse else "forward", "scan": name}
    return {**row, **dict(zip(("y", *ARGUMENTS), errors, strict=True))}


def scan_inputs(rows: int, length: int, heads: int, headdim: int, groups: int, d_state: int) -> list[Tensor]:
    """Returns x, dt, A, B, C, always the same, with dt and A in the ranges the network starts from."""
    torch.manual_seed(0)
    dt = torch.exp(torch.empty(rows, length, heads).uniform_(math.log(1e-3), math.log(1e-1)))
    A = -torch.empty(heads).uniform_(1, 16)
    B, C = torch.randn(2, rows, length, groups, d_state)
    return [torch.randn(rows, length, heads, headdim), dt, A, B, C]


def with_gradients(scan: Callable[..., Tensor], inputs: list[Tensor], weight: Tensor) -> list[Tensor]:
    """Returns y and the gradients of the weighted sum of y."""
    inputs = [t.requires_grad_() for t in inputs]
    y = scan(*inputs)
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), inputs)]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Returns RMS(actual − expected) / RMS(expected); the gradient of A is 0 at length 1, hence the floor."""
    actual, expected = actual.cpu().double(), expected.cpu().double()
    rms = expected.square().mean().sqrt().clamp(min=1e-30)
    return ((actual - expected).square().mean().sqrt() / rms).item()


def check(rows: list[Row]) -> None:
    """Stops with one sentence at the first error that is too large or NaN.

    Raises:
        SystemExit: There is one.
    """
    for row in rows:
        for name in ("y", *ARGUMENTS, "difference"):
            if not row.get(name, 0.0) <= TOLERANCES[row["scan"]]:
                raise SystemExit(
                    f"benchmark_mamba_ssm.py: error: the {row['scan']} scan disagrees with the recurrence at length "
                    f"{row['length']}: {name} {row[name]:.1e}, allowed is {TOLERANCES[row['scan']]:.0e}"
                )
