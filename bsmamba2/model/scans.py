"""Which scan runs where: the chunked one anywhere, kernels of other packages on CUDA where they work."""

import functools
import importlib.util
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.selective import selective_chunked, selective_sequential
from bsmamba2.model.ssd import ssd_chunked, ssd_sequential
from bsmamba2.model.wkv import wkv_chunked, wkv_sequential

# That of Mamba-2, that of Mamba-1 and that of RWKV-6.
Recurrence = Literal["ssd", "selective", "wkv"]

log = logging.getLogger(__name__)


def ssd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, scan: Scan = "auto", *, reverse: bool = False
) -> Tensor:
    """Returns the y of `bsmamba2.model.ssd` by a scan, or by the best one for the device of x.

    Raises:
        InputError: The scan does not exist, or it cannot run here.
    """
    return _chosen("ssd", scan, x)(x, dt, A, B, C, reverse=reverse)


def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, scan: Scan = "auto", *, reverse: bool = False
) -> Tensor:
    """Returns the y of `bsmamba2.model.selective` by a scan, or by the best one for the device of x.

    Raises:
        InputError: The scan does not exist, or it cannot run here.
    """
    return _chosen("selective", scan, x)(x, dt, A, B, C, reverse=reverse)


def wkv(
    r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, beta: Tensor, scan: Scan = "auto", *, reverse: bool = False
) -> Tensor:
    """Returns the y of `bsmamba2.model.wkv` by a scan, or by the best one for the device of v.

    Raises:
        InputError: The scan does not exist, or it cannot run here.
    """
    return _chosen("wkv", scan, v)(r, k, v, log_w, beta, reverse=reverse)


def _chosen(recurrence: Recurrence, scan: Scan, x: Tensor) -> Callable[..., Tensor]:
    # torch.compile cannot trace the device queries that the choice needs.
    if scan == "auto" or not torch.compiler.is_compiling():
        scan = choose_scan(x.device, scan, x.dtype, recurrence)
    return _SCANS[recurrence][scan]


def choose_scan(
    device: torch.device,
    scan: Scan = "auto",
    dtype: torch.dtype = torch.float32,
    recurrence: Recurrence = "ssd",
) -> Scan:
    """Returns the scan that runs on a device: the kernels on CUDA where they work, else the chunked one.

    In double precision the chunked one runs, since the kernels compute in lower precision.

    Raises:
        InputError: The scan does not exist, or it cannot run here.
    """
    if scan == "auto":
        kernel = device.type == "cuda" and dtype != torch.float64 and kernel_problem(recurrence) is None
        scan = "kernel" if kernel else "chunked"
    elif scan not in _SCANS[recurrence]:
        raise InputError(f"scan={scan!r} does not exist; choose auto, {', '.join(_SCANS[recurrence])}")
    elif scan == "kernel":
        problem = kernel_problem(recurrence) if device.type == "cuda" else f"the input is on the device '{device.type}'"
        if problem:
            raise InputError(
                f"scan='kernel' cannot run: {problem}; it needs a CUDA device and {_KERNELS[recurrence].package} "
                "(requirements-cuda.txt), use scan='chunked' instead"
            )
    _log_choice(scan, str(device))
    return scan


@functools.cache
def _log_choice(scan: str, device: str) -> None:
    log.info("scan: %s on %s", scan, device)


def ssd_kernel(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: bool = False) -> Tensor:
    """Returns the y of `bsmamba2.model.ssd` by the fused kernels of mamba-ssm, which need a CUDA device."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    scan = kernel_module().mamba_chunk_scan_combined
    # The kernels support only one direction.
    x, dt, B, C = (t.flip(1) if reverse else t.contiguous() for t in (x, dt.to(dtype), B, C))
    y = scan(x, dt, A.to(dtype), B, C, chunk_size=256)
    return y.flip(1) if reverse else y


def selective_kernel(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: bool = False) -> Tensor:
    """Returns the y of `bsmamba2.model.selective` by the compiled kernel of mamba-ssm, which needs a CUDA device."""
    scan = kernel_module("selective").selective_scan_fn
    # The kernel runs in one direction, takes (b, p, l), and computes everything in the precision of x.
    x_, dt, B, C = ((t.flip(1) if reverse else t).float().mT.contiguous() for t in (x, dt, B, C))
    y = scan(x_, dt, A.float(), B, C).mT
    return (y.flip(1) if reverse else y).to(x.dtype)


def wkv_kernel(r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, beta: Tensor, *, reverse: bool = False) -> Tensor:
    """Returns the y of `bsmamba2.model.wkv` by the kernels of flash-linear-attention, which need a CUDA device."""
    dtype = torch.promote_types(v.dtype, torch.float32)
    scan = kernel_module("wkv").chunk_rwkv6
    # The kernels support only one direction.
    r, k, v, log_w = (t.flip(1) if reverse else t.contiguous() for t in (r, k, v, log_w.to(dtype)))
    y, _ = scan(r, k, v, log_w, beta.to(dtype), scale=1.0)
    return y.flip(1) if reverse else y


@functools.cache
def kernel_module(recurrence: Recurrence = "ssd") -> ModuleType:
    """Returns the module with the kernels of a scan: Triton's for Mamba-2 and RWKV-6, compiled ones for Mamba-1.

    `import mamba_ssm` asks for the compiled extension, which the scan of Mamba-2 does not use, and which an
    installation without a compiler lacks; then the package is entered without running its `__init__`.
    """
    name = _KERNELS[recurrence].module
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError):
        spec = importlib.util.find_spec("mamba_ssm") if name.startswith("mamba_ssm.") else None
        if spec is None:
            raise
        sys.modules["mamba_ssm"] = importlib.util.module_from_spec(spec)
        return importlib.import_module(name)


@functools.cache
def kernel_problem(recurrence: Recurrence = "ssd") -> str | None:
    """Returns why the kernels cannot run on this machine, or None; found by running them once on a tiny input."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if recurrence == "ssd" and importlib.util.find_spec("mamba_ssm") is not None:
        log.info("trying the kernels of mamba-ssm; their first use compiles and tunes them, which takes minutes")
    try:
        x = torch.ones(1, 16, 1, 16, device="cuda")
        if recurrence == "ssd":
            ssd_kernel(x, x[..., 0], -x[0, 0, :, 0], x, x)
        elif recurrence == "selective":
            selective_kernel(x[:, :, 0], x[:, :, 0], -x[0, :, 0], x[:, :, 0], x[:, :, 0])
        else:
            wkv_kernel(x, x, x, -x, x[0, 0])
        torch.cuda.synchronize()
    # An incomplete or mismatched build fails in many ways: at the import, in Triton's compiler or at the launch.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "no message")
        return f"{_KERNELS[recurrence].package} failed with {type(error).__name__} ({reason[:200]})"
    return None


class _Kernel(NamedTuple):
    package: str
    module: str


_SCANS: dict[Recurrence, dict[str, Callable[..., Tensor]]] = {
    "ssd": {"sequential": ssd_sequential, "chunked": ssd_chunked, "kernel": ssd_kernel},
    "selective": {"sequential": selective_sequential, "chunked": selective_chunked, "kernel": selective_kernel},
    "wkv": {"sequential": wkv_sequential, "chunked": wkv_chunked, "kernel": wkv_kernel},
}
_KERNELS: dict[Recurrence, _Kernel] = {
    "ssd": _Kernel("mamba-ssm", "mamba_ssm.ops.triton.ssd_combined"),
    "selective": _Kernel("mamba-ssm", "mamba_ssm.ops.selective_scan_interface"),
    "wkv": _Kernel("fla-core", "fla.ops.rwkv6"),
}
