"""Whether all scans compute the same: outputs and gradients against the recurrence in double precision."""

import math
from functools import partial

import torch
from torch import Tensor

from benchmarks.command import Row
from bsmamba2.doctor import agreement
from bsmamba2.errors import InputError
from bsmamba2.model.scans import kernel_problem, ssd_kernel
from bsmamba2.model.ssd import ssd_chunked, ssd_sequential

SCANS = {"sequential": ssd_sequential, "chunked": ssd_chunked, "kernel": ssd_kernel}
LENGTHS = (1, 5, 17, 62, 130, 401)
# The kernel multiplies float32 in TF32, which keeps 10 bits of the mantissa.
TOLERANCES = {"sequential": 1e-5, "chunked": 1e-5, "kernel": 5e-3}
ERRORS = ("y", "x", "dt", "A", "B", "C", "difference")


def available_scans(device: torch.device) -> list[str]:
    """Returns the names of the scans that run on a device; the sequential one comes first."""
    return [name for name in SCANS if name != "kernel" or (device.type == "cuda" and kernel_problem() is None)]


def errors_of(name: str, length: int, reverse: bool, device: torch.device) -> Row:
    """Returns how far y and the five gradients of a scan in float32 are from the recurrence in float64 on the CPU."""
    arguments = scan_arguments(3, length, heads=4, headdim=16, groups=2, d_state=16)

    def reference(*values: Tensor) -> Tensor:
        return ssd_sequential(*(value.double() for value in values), reverse=reverse)

    errors = agreement(partial(SCANS[name], reverse=reverse), reference, arguments, str(device))
    return {"length": length, "direction": "backward" if reverse else "forward", "scan": name, **errors}


def scan_arguments(rows: int, length: int, heads: int, headdim: int, groups: int, d_state: int) -> dict[str, Tensor]:
    """Returns x, dt, A, B, C, always the same, with dt and A in the ranges the network starts from."""
    torch.manual_seed(0)
    dt = torch.exp(torch.empty(rows, length, heads).uniform_(math.log(1e-3), math.log(1e-1)))
    A = -torch.empty(heads).uniform_(1, 16)
    B, C = torch.randn(2, rows, length, groups, d_state)
    return {"x": torch.randn(rows, length, heads, headdim), "dt": dt, "A": A, "B": B, "C": C}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Returns RMS(actual − expected) / RMS(expected)."""
    actual, expected = actual.cpu().double(), expected.cpu().double()
    return ((actual - expected).norm() / expected.norm()).item()


def check(rows: list[Row]) -> None:
    """Checks the errors of scans.

    Raises:
        InputError: One is too large or NaN.
    """
    for row in rows:
        for name in ERRORS:
            if not row.get(name, 0.0) <= TOLERANCES[row["scan"]]:
                raise InputError(
                    f"the {row['scan']} scan disagrees with the recurrence at length {row['length']}: {name} "
                    f"{row[name]:.1e}, allowed is {TOLERANCES[row['scan']]:.0e}"
                )
