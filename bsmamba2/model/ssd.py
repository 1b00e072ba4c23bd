"""The scan of Mamba-2 (state-space duality, arXiv:2405.21060), three times with one signature.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t ⊗ B_t        state (p, n) per head, h_0 = 0
    y_t = h_t C_t

Every function here takes the same arguments and returns the same y:

    x   (b, l, h, p)  input per head
    dt  (b, l, h)     step sizes, positive
    A   (h)           decay rates, negative
    B   (b, l, g, n)  input maps, one per group of h / g heads
    C   (b, l, g, n)  output maps, one per group of h / g heads
    y   (b, l, h, p)  output in the dtype of x

Decays and carried states are kept in at least single precision, also under autocast.
"""

import functools
import importlib.util
import logging
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Literal

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.errors import InputError

Scan = Literal["auto", "sequential", "chunked", "kernel"]

# Values per tile on a CPU: the 1024 inner channels of the published network over some 2000 steps stay in its cache.
CPU_TILE = 2048 * 1024

log = logging.getLogger(__name__)


def ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, scan: Scan = "auto") -> Tensor:
    """Returns y by the scan asked for, or by the best one for the device of x.

    Raises:
        InputError: A scan was forced that does not exist or cannot run here.
    """
    if scan == "auto" and x.dtype == torch.float64:
        scan = "chunked"  # the kernels multiply in lower precision
    # What is asked of the machine for the choice is nothing that torch.compile could follow into.
    if scan == "auto" or not torch.compiler.is_compiling():
        scan = choose_scan(x.device, scan)
    return _SCANS[scan](x, dt, A, B, C)


def choose_scan(device: torch.device, scan: Scan = "auto") -> Scan:
    """Returns the scan that `ssd` runs on a device: the kernels on CUDA where they work, else the chunked one.

    Raises:
        InputError: A scan was forced that does not exist or cannot run here.
    """
    if scan == "auto":
        scan = "kernel" if device.type == "cuda" and kernel_problem() is None else "chunked"
    elif scan not in _SCANS:
        raise InputError(f"scan={scan!r} does not exist; choose auto, {', '.join(_SCANS)}")
    elif scan == "kernel":
        problem = kernel_problem() if device.type == "cuda" else f"the input is on the device '{device.type}'"
        if problem:
            raise InputError(
                f"scan='kernel' cannot run: {problem}; it needs a CUDA device and mamba-ssm "
                "(requirements-cuda.txt), use scan='chunked' instead"
            )
    _log_choice(scan, str(device))
    return scan


@functools.cache
def _log_choice(scan: str, device: str) -> None:
    log.info("scan: %s on %s", scan, device)


def rows_per_tile(x: Tensor, channels: int) -> int:
    """Returns how many rows of x (rows, l, ...) to compute at a time: on a CPU so few that they stay in its cache.

    Args:
        x: Input whose rows do not depend on each other.
        channels: Values per step that the computation makes of it.
    """
    return max(1, CPU_TILE // (x.shape[1] * channels) if x.device.type == "cpu" else x.shape[0])


def ssd_sequential(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Returns y by the recurrence itself, one step of time after the other: the definition, for tests."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    heads_per_group = x.shape[2] // B.shape[2]
    B, C = (repeat(t.to(dtype), "b l g n -> b l (g r) n", r=heads_per_group) for t in (B, C))
    decay = torch.exp(dt.to(dtype) * A.to(dtype))
    dtx = dt.to(dtype)[..., None] * x.to(dtype)
    state = dtx.new_zeros(*dtx.shape[:1], *dtx.shape[2:], B.shape[-1])
    # One y for all steps: small results kept between the large states would fragment the memory of a long sequence.
    y = torch.empty_like(dtx)
    for t in range(x.shape[1]):
        state = decay[:, t, :, None, None] * state + dtx[:, t, :, :, None] * B[:, t, :, None, :]
        y[:, t] = (state * C[:, t, :, None, :]).sum(-1)
    return y.to(x.dtype)


def ssd_chunked(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_length: int = 64) -> Tensor:
    """Returns y by matrix products inside and between chunks of chunk_length steps; any length, any device.

    The work per step is proportional to chunk_length, the memory for the states to its inverse.
    Source: arXiv:2405.21060, section 6 and Listing 1.
    """
    rows = rows_per_tile(x, x.shape[2] * x.shape[3])
    tiles = zip(*(t.split(rows) for t in (x, dt, B, C)), strict=True)
    return torch.cat([_ssd_chunked_tile(x, dt, A, B, C, chunk_length) for x, dt, B, C in tiles])


def _ssd_chunked_tile(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_length: int) -> Tensor:
    length, heads_per_group = x.shape[1], x.shape[2] // B.shape[2]
    chunk_length = min(chunk_length, length)
    padding = -length % chunk_length
    x, dt, B, C = (_chunks(t, chunk_length, padding) for t in (x, dt, B, C))
    dtype = torch.promote_types(x.dtype, torch.float32)
    dt = dt.to(dtype)
    dtx = rearrange(dt[..., None] * x, "b c q (g r) p -> b c g q r p", r=heads_per_group)
    B, C = (rearrange(t, "b c q g n -> b c g q n") for t in (B, C))
    log_decay = rearrange(dt * A.to(dtype), "b c q (g r) -> b c g r q", r=heads_per_group)

    # 1. Inside a chunk: y_i = Σ_{j<=i} (C_i · B_j) L_ij dt_j x_j, where the heads of a group share C Bᵀ.
    L_transposed = torch.exp(_segment_sums(log_decay))
    scores_transposed = (B @ C.mT)[:, :, :, None] * L_transposed
    y = scores_transposed.mT.to(dtx.dtype) @ rearrange(dtx, "b c g q r p -> b c g r q p")
    y = rearrange(y, "b c g r q p -> b c g q r p")
    if x.shape[1] > 1:
        # 2. From chunk to chunk: y_i += exp(Σ_{m<=i} dt_m A) C_i H, where H is the state before the chunk, and
        #    H <- exp(Σ_m dt_m A) H + Σ_j exp(Σ_{m>j} dt_m A) B_j ⊗ dt_j x_j.
        decay_to_end = rearrange(L_transposed[..., -1], "b c g r q -> b c g q r 1")
        added = rearrange(decay_to_end * dtx, "b c g q r p -> b c g q (r p)")
        decay_from_start = rearrange(log_decay.cumsum(-1).exp(), "b c g r q -> b c g q r")
        chunk_decay = decay_from_start[..., -1:, :].repeat_interleave(x.shape[-1], dim=-1)
        y = y + decay_from_start[..., None] * _carried(C, B, added, chunk_decay).view_as(y)
    return rearrange(y, "b c g q r p -> b (c q) (g r) p")[:, :length].to(x.dtype)


def _chunks(t: Tensor, chunk_length: int, padding: int) -> Tensor:
    """Cuts (b, l, ...) into (b, c, q, ...); the tail is padded with zeros, and dt = 0 leaves the state alone."""
    if padding:
        t = F.pad(t, (0, 0) * (t.ndim - 2) + (0, padding))
    return t.unflatten(1, (-1, chunk_length))


def _segment_sums(log_decay: Tensor) -> Tensor:
    """Returns Σ_{j<m<=i} log_decay_m at [..., j, i], and -inf where i < j; log_decay is (..., q).

    The sum runs over masked values: differences of one cumulative sum would lose three digits. The -inf is there
    before the exponential: masking after it gives NaN gradients.
    """
    ones = log_decay.new_ones(log_decay.shape[-1], log_decay.shape[-1])
    sums = (log_decay[..., None, :] * ones.triu(1)).cumsum(-1)
    return sums + torch.full_like(ones, -torch.inf).tril(-1)


def _carried(C: Tensor, B: Tensor, added: Tensor, chunk_decay: Tensor) -> Tensor:
    """Returns C times the state before each chunk; all arguments are (b, c, g, q, ...), see `ssd_chunked`."""
    state = chunk_decay.new_zeros(*B[:, 0].mT.shape[:-1], added.shape[-1])
    carried = []
    for chunk in range(B.shape[1]):
        carried.append(C[:, chunk] @ state.to(C.dtype))
        state = chunk_decay[:, chunk] * state + B[:, chunk].mT @ added[:, chunk].to(B.dtype)
    return torch.stack(carried, dim=1)


def ssd_kernel(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Returns y by the fused kernels of mamba-ssm, which need a CUDA device."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    scan = kernel_module().mamba_chunk_scan_combined
    return scan(x.contiguous(), dt.to(dtype), A.to(dtype), B.contiguous(), C.contiguous(), chunk_size=256)


@functools.cache
def kernel_module() -> ModuleType:
    """Returns the module of mamba-ssm that holds the Triton kernels of the scan.

    `import mamba_ssm` asks for a compiled extension that this scan does not use, and that an installation without a
    compiler does not have; then the package is entered without running its `__init__`.
    """
    name = "mamba_ssm.ops.triton.ssd_combined"
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError):
        spec = importlib.util.find_spec("mamba_ssm")
        if spec is None:
            raise
        sys.modules["mamba_ssm"] = importlib.util.module_from_spec(spec)
        return importlib.import_module(name)


@functools.cache
def kernel_problem() -> str | None:
    """Returns why the kernels cannot run on this machine, or None; found by running them once on a tiny input."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    try:
        x = torch.ones(1, 16, 1, 16, device="cuda")
        ssd_kernel(x, x[..., 0], -x[0, 0, :, 0], x, x)
        torch.cuda.synchronize()
    # An incomplete or mismatched build fails in many ways, at the import, in Triton's compiler or at the launch.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "no message")
        return f"mamba-ssm failed with {type(error).__name__} ({reason[:200]})"
    return None


_SCANS: dict[str, Callable[..., Tensor]] = {
    "sequential": ssd_sequential,
    "chunked": ssd_chunked,
    "kernel": ssd_kernel,
}
