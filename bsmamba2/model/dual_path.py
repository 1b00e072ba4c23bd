"""Mixing along one axis in both directions, and along time and bands in turn (paper, section 3.2)."""

import math
from typing import NamedTuple, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.mamba2 import Mamba2
from bsmamba2.model.norms import RMSNorm, rms_normalized
from bsmamba2.model.ssd import Scan

# Values per tile on a CPU: the 1024 inner channels of the published network over some 1000 steps stay in its cache.
CPU_TILE = 1024 * 1024


def rows_per_tile(rows: int, length: int, channels: int, device: torch.device) -> int:
    """Returns how many of all rows a mixer takes at once: on a CPU so few that they stay in its cache, elsewhere all.

    Args:
        rows: All rows.
        length: Steps of a row.
        channels: Values per step inside the mixer.
        device: Where it computes.
    """
    most = max(1, CPU_TILE // (length * channels)) if device.type == "cpu" else rows
    return math.ceil(rows / math.ceil(rows / most))


class FoldedBlock(NamedTuple):
    """The linear maps of a block, composed with what comes directly before or after them."""

    into: Tensor  # (in_proj, d): the weight of the norm, then the projection
    taps: Tensor  # (d_conv, channels): the convolution
    out: Tensor  # (d, d_inner): the weight of the gated norm, the projection, then the block's half of the join


class Folded(NamedTuple):
    """All linear maps of a `BidirectionalMixer`; they hold no parameters of their own."""

    blocks: tuple[FoldedBlock, FoldedBlock]
    skip: Tensor  # (d, d): the join of the two skip connections


class MambaBlock(nn.Module):
    """The weights of a Mamba-2 block and of the norm before it.

    Args:
        config: Architecture of the network.
        reverse: Whether it runs against the sequence.
    """

    def __init__(self, config: ModelConfig, reverse: bool) -> None:
        super().__init__()
        self.norm = RMSNorm(config.dim)
        self.mixer = Mamba2(config, reverse)


class BidirectionalMixer(nn.Module):
    """Two Mamba-2 blocks, one along the sequence and one against it, joined by a linear map.

    As published, each block has a norm before it and a skip connection around both: with M a block's mixing of the
    normalised x, the result is join([M_forward + x, M_backward + x]) + x.

    Args:
        config: Architecture of the network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.forward_blocks = nn.ModuleList([MambaBlock(config, reverse=False)])
        self.backward_blocks = nn.ModuleList([MambaBlock(config, reverse=True)])
        # Published as a transposed convolution of width 1: the weight (2d, d, 1) is that of a Linear, transposed.
        self.linear = nn.ConvTranspose1d(2 * config.dim, config.dim, 1)

    def fold(self) -> Folded:
        """Returns the maps that `forward` applies: fewer and smaller than the published ones, equal but for rounding.

        The two norms before the blocks differ in their weights only, and the projection out of a block and the join
        are two linear maps after each other.
        """
        joins = self.linear.weight.squeeze(-1).mT.chunk(2, dim=-1)
        forward, backward = (
            FoldedBlock(
                block.mixer.in_proj.weight * block.norm.weight,
                block.mixer.taps(),
                join @ (block.mixer.out_proj.weight * block.mixer.norm.weight),
            )
            for block, join in zip((*self.forward_blocks, *self.backward_blocks), joins, strict=True)
        )
        return Folded((forward, backward), joins[0] + joins[1])

    def forward(self, x: Tensor, scan: Scan = "auto", folded: Folded | None = None) -> Tensor:
        """Returns the mixed sequence (rows, l, d) of x (rows, l, d).

        Args:
            x: Rows that do not depend on each other.
            scan: Which scan of `bsmamba2.model.ssd` to run.
            folded: What `fold` returns, if it is called once for several x.
        """
        folded = folded or self.fold()
        normalized = rms_normalized(x)
        mixed = x + F.linear(x, folded.skip, self.linear.bias)
        for block, maps in zip((*self.forward_blocks, *self.backward_blocks), folded.blocks, strict=True):
            y = block.mixer.mix(F.linear(normalized, maps.into), maps.taps, scan)
            mixed = mixed + F.linear(y, maps.out)
        return mixed


class DualPathLayer(nn.ModuleList):
    """A mixer over time, every band on its own, then a mixer over bands, every frame on its own.

    Args:
        config: Architecture of the network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__([BidirectionalMixer(config), BidirectionalMixer(config)])
        self.channels = config.d_inner

    def forward(self, x: Tensor, scan: Scan = "auto") -> Tensor:
        """Returns mixed features (b, t, k, d) of features (b, t, k, d)."""
        batch = x.shape[0]
        over_time, over_bands = cast(tuple[BidirectionalMixer, BidirectionalMixer], tuple(self))
        x = self._mix(over_time, rearrange(x, "b t k d -> (b k) t d"), scan)
        x = self._mix(over_bands, rearrange(x, "(b k) t d -> (b t) k d", b=batch), scan)
        return rearrange(x, "(b t) k d -> b t k d", b=batch)

    def _mix(self, mixer: BidirectionalMixer, x: Tensor, scan: Scan) -> Tensor:
        """Returns what a mixer makes of x (rows, l, d), tile by tile.

        All tiles are of one size, since a compiled mixer is made for one; the last may repeat rows of the one before.
        """
        folded = mixer.fold()
        rows = rows_per_tile(len(x), x.shape[1], self.channels, x.device)
        mixed = [mixer(tile, scan, folded) for tile in x.split(rows)[: len(x) // rows]]
        if rest := len(x) % rows:
            mixed.append(mixer(x[-rows:], scan, folded)[-rest:])
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)
