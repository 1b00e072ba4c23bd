"""The mixer of BS-RoFormer (arXiv:2309.02612): attention with rotated positions, then a feed-forward map, in turn."""

from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.mixing import Mixer
from bsmamba2.model.norms import L2Norm

# Hidden width of the feed-forward map over dim.
FEED_FORWARD_EXPAND = 4
ROTATION_BASE = 10000.0


class RoFormer(Mixer):
    """Pairs of attention over the whole row and a feed-forward map, each with a residual; one direction only.

    Args:
        config: Uses dim, attention_heads, attention_headdim, attention_depth and output_norm.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([Attention(config), FeedForward(config.dim)]) for _ in range(config.attention_depth)
        )
        self.norm = L2Norm(config.dim) if config.output_norm == "mixer" else nn.Identity()
        self.inner_dim = max(3 * config.attention_heads * config.attention_headdim, FEED_FORWARD_EXPAND * config.dim)

    def forward(self, x: Tensor, folded: Any = None) -> Tensor:
        """Returns the mixed rows (rows, l, d) of x (rows, l, d)."""
        for attention, feed_forward in cast(Any, self.layers):
            x = attention(x) + x
            x = feed_forward(x) + x
        return cast(Tensor, self.norm(x))


class Attention(nn.Module):
    """Attention of all steps of a row to all, with rotated positions and one gate per step and head.

    Args:
        config: Uses dim, attention_heads and attention_headdim.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.attention_heads
        inner_dim = config.attention_heads * config.attention_headdim
        self.rotary_embed = Rotation(config.attention_headdim)
        self.norm = L2Norm(config.dim)
        self.to_qkv = nn.Linear(config.dim, 3 * inner_dim, bias=False)
        self.to_gates = nn.Linear(config.dim, config.attention_heads)
        self.to_out = nn.Sequential(nn.Linear(inner_dim, config.dim, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the attended rows (rows, l, d) of x (rows, l, d), without the residual."""
        u = self.norm(x)
        q, k, v = rearrange(self.to_qkv(u), "b l (qkv h e) -> qkv b h l e", qkv=3, h=self.heads)
        attended = F.scaled_dot_product_attention(self.rotary_embed(q), self.rotary_embed(k), v)
        gates = rearrange(self.to_gates(u).sigmoid(), "b l h -> b h l 1")
        return cast(Tensor, self.to_out(rearrange(attended * gates, "b h l e -> b l (h e)")))


class Rotation(nn.Module):
    """Rotates neighbouring pairs of channels by angles that grow with the position (arXiv:2104.09864).

    Args:
        headdim: Channels of a head, an even number.
    """

    freqs: Tensor

    def __init__(self, headdim: int) -> None:
        super().__init__()
        # Part of the published files, under this name, and not trained.
        self.register_buffer("freqs", ROTATION_BASE ** -(torch.arange(0, headdim, 2) / headdim))

    def forward(self, x: Tensor) -> Tensor:
        """Returns x (..., l, e) rotated, in the dtype of x; angles are in at least single precision."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        positions = torch.arange(x.shape[-2], dtype=dtype, device=x.device)
        angles = positions[:, None] * self.freqs.to(dtype)
        cosine, sine = angles.cos(), angles.sin()
        even, odd = x.unflatten(-1, (-1, 2)).to(dtype).unbind(-1)
        rotated = torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], dim=-1)
        return rotated.flatten(-2).to(x.dtype)


class FeedForward(nn.Module):
    """A norm and two linear maps with a GELU between them.

    Args:
        dim: Features per step.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden_dim = FEED_FORWARD_EXPAND * dim
        # The identity is in the place of the published dropout, which has no weights.
        self.net = nn.Sequential(
            L2Norm(dim), nn.Linear(dim, hidden_dim), nn.GELU(), nn.Identity(), nn.Linear(hidden_dim, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns the mapped steps (rows, l, d) of x (rows, l, d), without the residual."""
        return cast(Tensor, self.net(x))
