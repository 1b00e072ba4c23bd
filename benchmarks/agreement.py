"""Whether all scans compute the same: outputs and gradients against the recurrence in double precision."""

import math
from functools import partial

import torch
from torch import Tensor

from benchmarks.command import Row
from benchmarks.networks import autocast
from bsmamba2.doctor import agreement
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import kernel_problem, ssd_kernel
from bsmamba2.model.ssd import ssd_chunked, ssd_sequential
from bsmamba2.separation.settings import Precision

SCANS = {"sequential": ssd_sequential, "chunked": ssd_chunked, "kernel": ssd_kernel}
SCAN_LENGTHS = (1, 5, 17, 62, 130, 401)
# The kernel multiplies float32 in TF32, which keeps 10 bits of the mantissa.
TOLERANCES = {"sequential": 1e-5, "chunked": 1e-5, "kernel": 5e-3}
# A small network in the sizes that the kernels want.
NETWORK = ModelConfig(
    dim=64,
    depth=2,
    bands=(8,) * 8 + (961,),
    expand=2,
    headdim=32,
    d_state=64,
    mask_expand=2,
    hop_length=128,
    segment_seconds=1.0,
)
# Some 80 frames: more than one chunk of the scan.
SAMPLES = 10_000
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


def network_errors(scan: Scan, precision: Precision, device: torch.device) -> Row:
    """Returns how far a small network is from itself with the recurrence in float64 on the CPU.

    `output` is for a moment of noise, `gradients` for all parameters together, of the sum of the output's squares.
    """
    torch.manual_seed(0)
    exact = BSMamba2(NETWORK).double()
    exact.set_scan("sequential")
    mixture = 0.1 * torch.randn(1, NETWORK.channels, SAMPLES, dtype=torch.float64)
    network = BSMamba2(NETWORK).to(device)
    network.load_state_dict(exact.state_dict())
    network.set_scan(scan)
    with autocast(device, precision):
        output = network(mixture.to(device, torch.float32))
    expected = exact(mixture)
    for result in (output, expected):
        result.square().sum().backward()
    gradients = [
        torch.cat([p.grad.flatten().cpu().double() for p in module.parameters() if p.grad is not None])
        for module in (network, exact)
    ]
    errors = {"output": relative_error(output, expected), "gradients": relative_error(*gradients)}
    return {"scan": scan, "precision": precision, **errors}


def scan_arguments(rows: int, length: int, heads: int, headdim: int, groups: int, d_state: int) -> dict[str, Tensor]:
    """Returns x, dt, A, B, C, always the same, with dt and A in the ranges the network starts from."""
    torch.manual_seed(0)
    dt = torch.exp(torch.empty(rows, length, heads).uniform_(math.log(1e-3), math.log(1e-1)))
    A = -torch.empty(heads).uniform_(1, 16)
    B, C = torch.randn(2, rows, length, groups, d_state)
    return {"x": torch.randn(rows, length, heads, headdim), "dt": dt, "A": A, "B": B, "C": C}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Returns RMS(actual − expected) / RMS(expected)."""
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
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
