"""The scan of Mamba-2 (state-space duality, arXiv:2405.21060): its definition, and its fast form in matrix products.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t ⊗ B_t        state (p, n) per head, h_0 = 0
    y_t = h_t C_t

or, in reverse, the same from the last step to the first, with h_{t+1} in place of h_{t-1}.

Both functions take the same arguments and return the same y:

    x   (b, l, h, p)  input per head
    dt  (b, l, h)     step sizes, positive
    A   (h)           decay rates, negative
    B   (b, l, g, n)  input maps, one per group of h / g heads
    C   (b, l, g, n)  output maps, one per group of h / g heads
    reverse           whether the sequence runs from its last step to its first
    y   (b, l, h, p)  output in the dtype of x

Letters of the shapes: b row, l step, h head, p value of a head, n value of a state, g group of heads; in the fast form
also c chunk, q step inside a chunk, r head inside a group. In its formulas i, j and m are steps of one chunk, L is the
decay between two of them, and H is the state before a chunk.

Decays and carried states are in at least single precision, also under autocast.
"""

import math
from typing import Any

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

# Longest chunk of the chunked scan: at this length its products inside and between chunks cost about the same.
CHUNK_LENGTH = 64
# The fast products of 16-bit numbers on a GPU need sides that are multiples of this.
GPU_MULTIPLE = 8
# exp(-60) = 1e-26 is far below any rounding error, and processors slow down many times on still smaller numbers.
LOWEST_LOG_DECAY = -60.0


def ssd_sequential(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: bool = False) -> Tensor:
    """Returns y by the recurrence itself, step by step: the definition that the tests compare with."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    B, C = (repeat(t.to(dtype), "b l g n -> b l (g r) n", r=x.shape[2] // B.shape[2]) for t in (B, C))
    decay = torch.exp(dt.to(dtype) * A.to(dtype))  # (b, l, h)
    dtx = dt.to(dtype)[..., None] * x.to(dtype)  # (b, l, h, p)
    state = dtx.new_zeros(*dtx.shape[:1], *dtx.shape[2:], B.shape[-1])  # (b, h, p, n)
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
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, dt, B, C = (_chunks(t, *chunking(length, GPU_MULTIPLE if x.is_cuda else 1)) for t in (x, dt, B, C))
    dt = rearrange(dt.to(dtype), "b c q (g r) -> b c g r q", r=heads_per_group).contiguous()
    x = rearrange(x, "b c q (g r) p -> b c g r q p", r=heads_per_group)
    B, C = (rearrange(t, "b c q g n -> b c g 1 q n") for t in (B, C))
    log_decay = dt * rearrange(A.to(dtype), "(g r) -> g r 1", r=heads_per_group)  # (b, c, g, r, q)
    # What is multiplied with x is first brought to its dtype: a processor would convert all of x instead.
    dtx = dt[..., None].to(x.dtype) * x  # (b, c, g, r, q, p)

    # 1. Inside a chunk: y_i = Σ_j (C_i · B_j) L_ij dt_j x_j over j <= i, where the heads of a group share C Bᵀ.
    #    L_ij = exp(Σ_m dt_m A) over j < m <= i, in reverse over i <= m < j for j >= i.
    L = torch.exp(SegmentSums.apply(log_decay, reverse))  # (b, c, g, r, q, q)
    products = C @ B.mT  # (b, c, g, 1, q, q)
    scores = L * (products.triu() if reverse else products.tril())
    y = scores.to(x.dtype) @ dtx  # (b, c, g, r, q, p)
    if x.shape[1] > 1:
        # 2. From chunk to chunk: y_i += exp(Σ_m dt_m A) C_i H over m <= i, where H is the state before the chunk, and
        #    H <- exp(Σ_m dt_m A) H + Σ_j exp(Σ_m dt_m A) B_j ⊗ dt_j x_j over m > j; in reverse the other way round.
        first, last = (-1, 0) if reverse else (0, -1)
        weighted = L[..., last, :, None].to(x.dtype) * dtx  # (b, c, g, r, q, p)
        decay_from_start = (L[..., first] * log_decay[..., first, None].exp())[..., None]  # (b, c, g, r, q, 1)
        y = _with_carried(y, C, B, weighted, decay_from_start, reverse)
    else:
        y = rearrange(y, "b c g r q p -> b c q g r p")
    return rearrange(y, "b c q g r p -> b (c q) (g r) p")[:, :length].to(x.dtype)


def chunking(length: int, multiple: int = 1) -> tuple[int, int]:
    """Returns how many chunks the chunked scan cuts a sequence into, and their length: few, and equally long.

    Args:
        length: Steps of the sequence.
        multiple: What the length of the chunks is a multiple of.
    """
    count = math.ceil(length / CHUNK_LENGTH)
    return count, math.ceil(length / count / multiple) * multiple


def _chunks(t: Tensor, count: int, chunk_length: int) -> Tensor:
    """Cuts (b, l, ...) into (b, c, q, ...); the tail is padded with zeros, and dt = 0 leaves the state alone."""
    if padding := count * chunk_length - t.shape[1]:
        t = F.pad(t, (0, 0) * (t.ndim - 2) + (0, padding))
    return t.unflatten(1, (count, chunk_length))


def segment_sums(log_decay: Tensor, reverse: bool) -> Tensor:
    """Returns the sums of log decays (..., q) between steps j and i at [..., i, j], by their definition.

    They are over j < m <= i, in reverse over i <= m < j, and zero where i comes before j. `SegmentSums` computes the
    same in a fraction of the time.
    """
    steps = torch.arange(log_decay.shape[-1], device=log_decay.device)
    i, j, m = steps[:, None, None], steps[:, None], steps
    between = (i <= m) & (m < j) if reverse else (j < m) & (m <= i)
    return torch.where(between, log_decay[..., None, None, :], 0).sum(-1)


class SegmentSums(torch.autograd.Function):
    """`segment_sums` by differences of cumulative sums; meaningless, not zero, where i comes before j.

    Differences of rounded sums would lose three digits, in the gradient too: here the sums carry their rounding errors
    along, and the gradient is itself a sum over masked values. Results are between `LOWEST_LOG_DECAY` and 0.
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
        return (high - high.mT).add_(low).sub_(low.mT).clamp_(LOWEST_LOG_DECAY, 0.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: Tensor) -> None:
        """Keeps the direction; the gradient depends on no value."""
        ctx.reverse = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Returns for every m the sum of the gradients at all [i, j] whose sum contains step m."""
        if ctx.reverse:
            return gradient.cumsum(-2).triu(1).sum(-1), None
        return gradient.flip(-2).cumsum(-2).flip(-2).tril(-1).sum(-1), None


def _with_carried(y: Tensor, C: Tensor, B: Tensor, weighted: Tensor, decay_from_start: Tensor, reverse: bool) -> Tensor:
    """Returns y plus what the chunks before add to it (b, c, q, g, r, p); see `ssd_chunked`."""
    results = list(y.unbind(1))
    state = None
    order = range(len(results))
    decays = decay_from_start.to(C.dtype)
    for chunk in reversed(order) if reverse else order:
        if state is not None:
            results[chunk] = torch.addcmul(results[chunk], decays[:, chunk], C[:, chunk] @ state.to(C.dtype))
        added = (B[:, chunk].mT @ weighted[:, chunk]).to(decay_from_start.dtype)
        chunk_decay = decay_from_start[:, chunk, :, :, 0 if reverse else -1, :, None]
        state = added if state is None else torch.addcmul(added, chunk_decay, state)
    return torch.stack([rearrange(result, "b g r q p -> b q g r p") for result in results], dim=1)
