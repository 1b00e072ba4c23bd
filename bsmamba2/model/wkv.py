"""The recurrence of RWKV-6 (Finch, arXiv:2404.05892), called WKV: its definition, and a faster form.

    y_t = r_t (S_{t-1} + diag(beta) k_t v_tᵀ)       state (e, e) per head, S_0 = 0
    S_t = diag(exp(log_w_t)) S_{t-1} + k_t v_tᵀ

or, in reverse, the same from the last step to the first, with S_{t+1} in place of S_{t-1}. A step sees itself through
beta only, and the state that it reads has not yet decayed by its own log_w.

Both functions take the same arguments and return the same y:

    r      (b, l, h, e)  receptances, what a step reads from the state
    k      (b, l, h, e)  keys
    v      (b, l, h, e)  values
    log_w  (b, l, h, e)  logarithms of the decays per channel of the keys, at most 0
    beta   (h, e)        weight of the step itself
    reverse              whether the sequence runs from its last step to its first
    y      (b, l, h, e)  output in the dtype of v

Letters of the shapes: b row, l step, h head, e channel of a head; in the faster form also c chunk, q step inside a
chunk. There S (b, c, h, e, e) has the state before each chunk.

Decays and states are in at least single precision, also under autocast.
"""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.model.ssd import LOWEST_LOG_DECAY

# The fastest on a CPU: inside a chunk, work per step grows with its length, across chunks it falls.
WKV_CHUNK_STEPS = 8


def wkv_sequential(r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, beta: Tensor, *, reverse: bool = False) -> Tensor:
    """Returns y by the recurrence itself, step by step: the definition that the tests compare with."""
    dtype = torch.promote_types(v.dtype, torch.float32)
    r, k, v_, log_w, beta = (t.to(dtype) for t in (r, k, v, log_w, beta))
    S = v_.new_zeros(*v_[:, 0].shape, v_.shape[-1])  # (b, h, e, e)
    y = torch.empty_like(v_)
    steps = range(v.shape[1])
    for t in reversed(steps) if reverse else steps:
        kv = k[:, t, :, :, None] * v_[:, t, :, None, :]
        y[:, t] = (r[:, t, :, :, None] * (S + beta[..., None] * kv)).sum(-2)
        S = torch.exp(log_w[:, t, :, :, None]) * S + kv
    return y.to(v.dtype)


def wkv_chunked(r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, beta: Tensor, *, reverse: bool = False) -> Tensor:
    """Returns y by differences of time inside chunks and matrix products across them; any device, exact at any decay.

    Keys are never divided by decays, and a decay between two steps is a sum over the steps between them, not a
    difference of two long sums: both would lose all digits where decays are strong.
    """
    dtype = torch.promote_types(v.dtype, torch.float32)
    length = v.shape[1]
    # Steps of zeros at the end change nothing before them, and leave an empty state empty.
    padding = -length % WKV_CHUNK_STEPS
    r, k, v_, log_w = (
        rearrange(F.pad(t, (0, 0, 0, 0, 0, padding)), "b (c q) h e -> b c h q e", q=WKV_CHUNK_STEPS).to(dtype)
        for t in (r, k, v, log_w)
    )
    y = _scores(r, k, log_w, beta.to(dtype), reverse) @ v_ + _across(r, k, v_, log_w, reverse)
    return rearrange(y, "b c h q e -> b (c q) h e")[:, :length].to(v.dtype)


def _scores(r: Tensor, k: Tensor, log_w: Tensor, beta: Tensor, reverse: bool) -> Tensor:
    """Returns how much each step reads of the values of each step of its own chunk, (b, c, h, q, q)."""
    steps = r.shape[-2]
    scores = torch.diag_embed((r * beta[:, None] * k).sum(-1))
    # For each pair of steps, the sum of log_w over the steps between them.
    between = torch.zeros_like(log_w)
    for lag in range(1, steps):
        earlier, later = slice(None, steps - lag), slice(lag, None)
        reading, read = (earlier, later) if reverse else (later, earlier)
        product = r[..., reading, :] * k[..., read, :]
        between = between[..., earlier, :]
        if lag > 1:
            between = between + log_w[..., lag - 1 : steps - 1, :]
            product = product * _decay(between)
        scores = scores + torch.diag_embed(product.sum(-1), lag if reverse else -lag)
    return scores


def _across(r: Tensor, k: Tensor, v: Tensor, log_w: Tensor, reverse: bool) -> Tensor:
    """Returns what each step (b, c, h, q, e) reads from the chunks before its own, or after it in reverse."""
    from_start = F.pad(log_w[..., :-1, :].cumsum(-2), (0, 0, 1, 0))
    to_end = F.pad(log_w[..., 1:, :].flip(-2).cumsum(-2).flip(-2), (0, 0, 0, 1))
    reading, read = (to_end, from_start) if reverse else (from_start, to_end)
    added = ((k * _decay(read)).mT @ v).to(log_w.dtype)
    S = wkv_states(_decay(log_w.sum(-2)), added, reverse)
    return (r * _decay(reading)) @ S


def _decay(log_w: Tensor) -> Tensor:
    """Returns exp(log_w); below `LOWEST_LOG_DECAY` processors would be slow."""
    return log_w.clamp(min=LOWEST_LOG_DECAY).exp()


# The loop over chunks is an operation of its own, since torch.compile would unroll it.
@torch.library.custom_op("bsmamba2::wkv_states", mutates_args=())
def wkv_states(decay: Tensor, added: Tensor, reverse: bool) -> Tensor:
    """Returns the state before each chunk (b, c, h, e, e): that before the last one, decayed, and what it added.

    Args:
        decay: Decay over each chunk, by channel of the keys (b, c, h, e).
        added: What each chunk adds to the state (b, c, h, e, e).
        reverse: Whether the chunks run from the last to the first.
    """
    S = torch.empty_like(added)
    chunks = range(added.shape[1])
    state = torch.zeros_like(added[:, 0])
    for chunk in reversed(chunks) if reverse else chunks:
        S[:, chunk] = state
        state = torch.addcmul(added[:, chunk], decay[:, chunk, :, :, None], state)
    return S


@wkv_states.register_fake
def _states_like(decay: Tensor, added: Tensor, reverse: bool) -> Tensor:
    return torch.empty_like(added)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], output)
    ctx.reverse = inputs[2]


def _backward(ctx: Any, dS: Tensor) -> tuple[Tensor, Tensor, None]:
    """The gradients of what was added are states too: they run the other way."""
    decay, S = ctx.saved_tensors
    dadded = wkv_states(decay, dS.contiguous(), not ctx.reverse)
    return (dadded * S).sum(-1), dadded, None


wkv_states.register_autograd(_backward, setup_context=_keep)
