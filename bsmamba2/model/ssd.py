"""The scan of Mamba-2 (state-space duality, arXiv:2405.21060), three times with one signature.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t ⊗ B_t        state (p, n) per head, h_0 = 0
    y_t = h_t C_t

or, in reverse, the same from the last step to the first, with h_{t+1} in the place of h_{t-1}.

Every function here takes the same arguments and returns the same y:

    x   (b, l, h, p)  input per head
    dt  (b, l, h)     step sizes, positive
    A   (h)           decay rates, negative
    B   (b, l, g, n)  input maps, one per group of h / g heads
    C   (b, l, g, n)  output maps, one per group of h / g heads
    reverse           whether the sequence runs from its last step to its first
    y   (b, l, h, p)  output in the dtype of x

Decays and carried states are kept in at least single precision, also under autocast.
"""

import functools
import importlib.util
import logging
import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.errors import InputError

Scan = Literal["auto", "sequential", "chunked", "kernel"]

# Longest chunk of the chunked scan: at this length its products inside and between chunks cost about the same.
CHUNK_LENGTH = 64
# exp(-60) = 1e-26 is nothing beside any rounding error; far below, processors compute many times slower.
LOWEST_LOG_DECAY = -60.0

log = logging.getLogger(__name__)


def ssd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, scan: Scan = "auto", *, reverse: bool = False
) -> Tensor:
    """Returns y by the scan asked for, or by the best one for the device of x.

    Raises:
        InputError: A scan was forced that does not exist or cannot run here.
    """
    # What is asked of the machine for the choice is nothing that torch.compile could follow into.
    if scan == "auto" or not torch.compiler.is_compiling():
        scan = choose_scan(x.device, scan, x.dtype)
    return _SCANS[scan](x, dt, A, B, C, reverse=reverse)


def choose_scan(device: torch.device, scan: Scan = "auto", dtype: torch.dtype = torch.float32) -> Scan:
    """Returns the scan that `ssd` runs on a device: the kernels on CUDA where they work, else the chunked one.

    Double precision is for the chunked one, since the kernels multiply in lower precision.

    Raises:
        InputError: A scan was forced that does not exist or cannot run here.
    """
    if scan == "auto":
        kernel = device.type == "cuda" and dtype != torch.float64 and kernel_problem() is None
        scan = "kernel" if kernel else "chunked"
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


def ssd_sequential(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: bool = False) -> Tensor:
    """Returns y by the recurrence itself, one step of time after the other: the definition, for tests."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    heads_per_group = x.shape[2] // B.shape[2]
    B, C = (repeat(t.to(dtype), "b l g n -> b l (g r) n", r=heads_per_group) for t in (B, C))
    decay = torch.exp(dt.to(dtype) * A.to(dtype))
    dtx = dt.to(dtype)[..., None] * x.to(dtype)
    state = dtx.new_zeros(*dtx.shape[:1], *dtx.shape[2:], B.shape[-1])
    # One y for all steps: small results kept between the large states would fragment the memory of a long sequence.
    y = torch.empty_like(dtx)
    steps = range(x.shape[1])
    for t in reversed(steps) if reverse else steps:
        state = decay[:, t, :, None, None] * state + dtx[:, t, :, :, None] * B[:, t, :, None, :]
        y[:, t] = (state * C[:, t, :, None, :]).sum(-1)
    return y.to(x.dtype)


def ssd_chunked(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: bool = False) -> Tensor:
    """Returns y by matrix products inside and between chunks of at most `CHUNK_LENGTH` steps; any length, any device.

    The work per step is proportional to the length of a chunk, the memory for the states to its inverse.
    Source: arXiv:2405.21060, section 6 and Listing 1.
    """
    length, heads_per_group = x.shape[1], x.shape[2] // B.shape[2]
    x, dt, B, C = (_chunks(t, *chunking(length)) for t in (x, dt, B, C))
    dtype = torch.promote_types(x.dtype, torch.float32)
    dt = rearrange(dt.to(dtype), "b c q (g r) -> b c g r q", r=heads_per_group).contiguous()
    dtx = dt[..., None] * rearrange(x, "b c q (g r) p -> b c g r q p", r=heads_per_group)
    log_decay = dt * rearrange(A.to(dtype), "(g r) -> g r 1", r=heads_per_group)
    B, C = (rearrange(t, "b c q g n -> b c g 1 q n") for t in (B, C))

    # 1. Inside a chunk: y_i = Σ_j (C_i · B_j) L_ij dt_j x_j over j <= i, where the heads of a group share C Bᵀ.
    #    L_ij = exp(Σ_m dt_m A) over j < m <= i, in reverse over i <= m < j for j >= i.
    L = torch.exp(SegmentSums.apply(log_decay, reverse))
    products = C @ B.mT
    scores = L * (products.triu() if reverse else products.tril())
    y = scores.to(x.dtype) @ dtx.to(x.dtype)
    if x.shape[1] > 1:
        # 2. From chunk to chunk: y_i += exp(Σ_m dt_m A) C_i H over m <= i, where H is the state before the chunk, and
        #    H <- exp(Σ_m dt_m A) H + Σ_j exp(Σ_m dt_m A) B_j ⊗ dt_j x_j over m > j; in reverse the other way round.
        first, last = (-1, 0) if reverse else (0, -1)
        weighted = L[..., last, :, None] * dtx
        decay_from_start = (L[..., first] * log_decay[..., first, None].exp())[..., None]
        y = _with_carried(y, C, B, weighted, decay_from_start, reverse)
    else:
        y = rearrange(y, "b c g r q p -> b c q g r p")
    return rearrange(y, "b c q g r p -> b (c q) (g r) p")[:, :length].to(x.dtype)


def chunking(length: int) -> tuple[int, int]:
    """Returns how many chunks the chunked scan cuts a sequence into, and their length: as few and equal as can be."""
    count = math.ceil(length / CHUNK_LENGTH)
    return count, math.ceil(length / count)


def _chunks(t: Tensor, count: int, chunk_length: int) -> Tensor:
    """Cuts (b, l, ...) into (b, c, q, ...); the tail is padded with zeros, and dt = 0 leaves the state alone."""
    if padding := count * chunk_length - t.shape[1]:
        t = F.pad(t, (0, 0) * (t.ndim - 2) + (0, padding))
    return t.unflatten(1, (count, chunk_length))


class SegmentSums(torch.autograd.Function):
    """The sums of log decays (..., q) between steps j and i at [..., i, j]; of no meaning where i comes before j.

    They are differences of cumulative sums. Those of rounded sums would lose three digits, in the gradient too: here
    the sums carry their rounding errors along, and the gradient is itself a sum over masked values. All sums are kept
    between `LOWEST_LOG_DECAY` and 0.
    """

    @staticmethod
    def forward(log_decay: Tensor, reverse: bool) -> Tensor:
        """Returns the sums over j < m <= i, in reverse over i <= m < j."""
        high = log_decay.cumsum(-1)
        before = F.pad(high[..., :-1], (1, 0))
        low = (log_decay - (high - before)).cumsum(-1)
        if reverse:
            high, low = before[..., None, :], F.pad(low[..., :-1], (1, 0))[..., None, :]
        else:
            high, low = high[..., None], low[..., None]
        return (high - high.mT).add_(low).sub_(low.mT).clamp_(LOWEST_LOG_DECAY, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: Tensor) -> None:
        """Keeps the direction; the gradient depends on no value."""
        ctx.reverse = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Returns for every m the sum of the gradients at all [i, j] whose sum holds step m."""
        if ctx.reverse:
            return gradient.cumsum(-2).triu(1).sum(-1), None
        return gradient.flip(-2).cumsum(-2).flip(-2).tril(-1).sum(-1), None


def _with_carried(y: Tensor, C: Tensor, B: Tensor, weighted: Tensor, decay_from_start: Tensor, reverse: bool) -> Tensor:
    """Returns y plus what the chunks before add to it (b, c, q, g, r, p); see `ssd_chunked`."""
    results = list(y.unbind(1))
    state = None
    order = range(len(results))
    for chunk in reversed(order) if reverse else order:
        if state is not None:
            results[chunk] = torch.addcmul(results[chunk], decay_from_start[:, chunk], C[:, chunk] @ state.to(C.dtype))
        added = B[:, chunk].mT @ weighted[:, chunk].to(B.dtype)
        chunk_decay = decay_from_start[:, chunk, :, :, 0 if reverse else -1, :, None]
        state = added.to(weighted.dtype) if state is None else torch.addcmul(added, chunk_decay, state)
    return torch.stack([rearrange(result, "b g r q p -> b q g r p") for result in results], dim=1)


def ssd_kernel(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: bool = False) -> Tensor:
    """Returns y by the fused kernels of mamba-ssm, which need a CUDA device."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    scan = kernel_module().mamba_chunk_scan_combined
    # The kernels know one direction only.
    x, dt, B, C = (t.flip(1) if reverse else t.contiguous() for t in (x, dt.to(dtype), B, C))
    y = scan(x, dt, A.to(dtype), B, C, chunk_size=256)
    return y.flip(1) if reverse else y


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
