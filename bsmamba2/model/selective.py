"""The selective scan of Mamba-1 (arXiv:2312.00752, section 3): its definition, and a faster form.

    h_t = exp(dt_t A) ∘ h_{t-1} + dt_t x_t ⊗ B_t      state (p, n), h_0 = 0
    y_t = h_t C_t

or, in reverse, the same from the last step to the first, with h_{t+1} in place of h_{t-1}.

Both functions take the same arguments and return the same y:

    x   (b, l, p)  input per channel
    dt  (b, l, p)  step sizes, positive
    A   (p, n)     decay rates, negative
    B   (b, l, n)  input maps, one for all channels
    C   (b, l, n)  output maps, one for all channels
    reverse        whether the sequence runs from its last step to its first
    y   (b, l, p)  output in the dtype of x

Letters of the shapes: b row, l step, p channel, n value of a state; in the faster form also c chunk, q step inside a
chunk.

Each channel and state has its own decay, so there is no form in matrix products like that of Mamba-2. Decays and states
are in at least single precision, also under autocast.
"""

import math
from typing import Any

import torch
from torch import Tensor

from bsmamba2.model.ssd import LOWEST_LOG_DECAY

# One state in so many is kept for the gradient; with 16 values per channel they take as much memory as x.
CHUNK_STEPS = 16
# Rows that the gradient processes at once on a CPU, where the states of a chunk should stay in the cache.
CPU_ROWS = 4


def selective_sequential(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: bool = False) -> Tensor:
    """Returns y by the recurrence itself, step by step: the definition that the tests compare with."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    dt, A, B, C = (t.to(dtype) for t in (dt, A, B, C))
    dtx = dt * x.to(dtype)  # (b, l, p)
    state = dtx.new_zeros(len(x), *A.shape)  # (b, p, n)
    y = torch.empty_like(dtx)
    steps = range(x.shape[1])
    for t in reversed(steps) if reverse else steps:
        state = torch.exp(dt[:, t, :, None] * A) * state + dtx[:, t, :, None] * B[:, t, None, :]
        y[:, t] = (state * C[:, t, None, :]).sum(-1)
    return y.to(x.dtype)


def selective_chunked(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *, reverse: bool = False) -> Tensor:
    """Returns y by the recurrence in place; the gradient computes the states again, chunk by chunk; any device."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    x_, dt, B, C = ((t.flip(1) if reverse else t).to(dtype) for t in (x, dt, B, C))
    y, _ = selective_steps(x_, dt, A.to(dtype).mT.contiguous(), B, C)
    return (y.flip(1) if reverse else y).to(x.dtype)


# The two loops over steps are operations of their own, since torch.compile would unroll them.
@torch.library.custom_op("bsmamba2::selective_steps", mutates_args=())
def selective_steps(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Returns y (b, l, p) and the state before each chunk (c, b, n, p) along the sequence; A is transposed, (n, p)."""
    y, kept = _results_of_steps(x, dt, A, B, C)
    dtx = dt * x
    state = torch.zeros_like(kept[0])
    decay = torch.empty_like(state)
    with torch.autocast(x.device.type, enabled=False):
        for t in range(x.shape[1]):
            if t % CHUNK_STEPS == 0:
                kept[t // CHUNK_STEPS] = state
            state.mul_(_decay(dt[:, t, None], A, decay)).addcmul_(dtx[:, t, None], B[:, t, :, None])
            y[:, t, None] = C[:, t, None] @ state
    return y, kept


@torch.library.custom_op("bsmamba2::selective_gradients", mutates_args=())
def selective_gradients(
    dy: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of x, dt, A, B and C for the gradient of y, with what `selective_steps` kept."""
    gradients = _results_of_gradients(dy, x, dt, A, B, C, kept)
    dA = gradients[2].zero_()
    rows = CPU_ROWS if x.device.type == "cpu" else len(x)
    buffers = A.new_empty(3, CHUNK_STEPS + 1, min(rows, len(x)), *A.shape)
    with torch.autocast(x.device.type, enabled=False):
        for first in range(0, len(x), rows):
            after: Tensor | None = None
            for chunk in reversed(range(len(kept))):
                place = (slice(first, first + rows), slice(chunk * CHUNK_STEPS, (chunk + 1) * CHUNK_STEPS))
                dy_, x_, dt_, B_, C_ = (t[place].transpose(0, 1) for t in (dy, x, dt, B, C))  # (q, b, ...)
                dx, ddt, _, dB, dC = (t[place].transpose(0, 1) if t is not dA else t for t in gradients)
                decay, states, dstates = (buffer[: len(x_) + 1, : x_.shape[1]] for buffer in buffers)
                decay, dstates = decay[:-1], dstates[:-1]  # (q, b, n, p)
                before, states = states[:-1], states[1:]

                # 1. The states of the chunk again, from the one before it.
                dtx = dt_ * x_
                _decay(dt_[:, :, None], A, decay)
                before[0] = kept[chunk, place[0]]
                torch.mul(dtx[:, :, None], B_[..., None], out=states)
                for t in range(len(x_)):
                    states[t].addcmul_(decay[t], before[t])

                # 2. The gradients of the states, from the last one to the first.
                torch.mul(dy_[:, :, None], C_[..., None], out=dstates)
                if after is not None:
                    dstates[-1] += after
                for t in reversed(range(len(x_) - 1)):
                    dstates[t].addcmul_(decay[t + 1], dstates[t + 1])
                after = decay[0] * dstates[0]

                # 3. The gradients of what the states are made of; that of dt A is decay ∘ state before ∘ gradient.
                dC.copy_((states @ dy_[..., None])[..., 0])
                dB.copy_((dstates @ dtx[..., None])[..., 0])
                ddtx = (B_[:, :, None] @ dstates)[:, :, 0]
                ddtA = decay.mul_(before).mul_(dstates)
                torch.mul(ddtx, dt_, out=dx)
                torch.addcmul(torch.mul(ddtA, A, out=dstates).sum(2), ddtx, x_, out=ddt)
                dA += ddtA.mul_(dt_[:, :, None]).sum((0, 1))
    return gradients


def _decay(dt: Tensor, A: Tensor, out: Tensor) -> Tensor:
    """Writes exp(dt A) to `out` and returns it; below `LOWEST_LOG_DECAY` processors would be slow."""
    return torch.mul(dt, A, out=out).clamp_(min=LOWEST_LOG_DECAY).exp_()


@selective_steps.register_fake
def _results_of_steps(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(math.ceil(x.shape[1] / CHUNK_STEPS), len(x), *A.shape)


@selective_gradients.register_fake
def _results_of_gradients(
    dy: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dx, ddt, dA, dB, dC = (torch.empty_like(t) for t in (x, dt, A, B, C))
    return dx, ddt, dA, dB, dC


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    return selective_gradients(dy, *ctx.saved_tensors)


selective_steps.register_autograd(_backward, setup_context=_keep)
