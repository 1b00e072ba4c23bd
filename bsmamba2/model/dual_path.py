"""Mixing over time and over bands in turn (paper, section 3.2), in tiles that stay in a processor's cache."""

import math
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.mixers import MIXERS
from bsmamba2.model.mixing import Mixer

# Values per tile on a CPU: the 1024 inner channels of the published network over some 1000 steps stay in its cache.
CPU_TILE = 1024 * 1024


class DualPathLayer(nn.ModuleList):
    """A mixer over time, every band on its own, then a mixer over bands, every frame on its own.

    Args:
        config: Architecture of the network.
        layer: Its number in the network, from 0.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__([MIXERS[config.time_mixer](config, layer), MIXERS[config.band_mixer](config, layer)])

    def forward(self, x: Tensor) -> Tensor:
        """Returns mixed features (b, t, k, d) of features (b, t, k, d)."""
        batch = x.shape[0]
        over_time, over_bands = cast(tuple[Mixer, Mixer], tuple(self))
        x = mixed_in_tiles(over_time, rearrange(x, "b t k d -> (b k) t d"))
        x = mixed_in_tiles(over_bands, rearrange(x, "(b k) t d -> (b t) k d", b=batch))
        return rearrange(x, "(b t) k d -> b t k d", b=batch)


def mixed_in_tiles(mixer: Mixer, x: Tensor) -> Tensor:
    """Returns the output (rows, l, d) of a mixer for x (rows, l, d), computed tile by tile.

    All tiles are of one size, since a compiled mixer is made for one; the last may repeat rows of the one before.
    """
    folded = mixer.fold()
    rows = rows_per_tile(len(x), x.shape[1], mixer.inner_dim, x.device)
    mixed = [mixer(tile, folded) for tile in x.split(rows)[: len(x) // rows]]
    if rest := len(x) % rows:
        mixed.append(mixer(x[-rows:], folded)[-rest:])
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def rows_per_tile(rows: int, length: int, inner_dim: int, device: torch.device) -> int:
    """Returns how many rows a mixer processes at once: few enough to stay in the cache on a CPU, elsewhere all.

    Args:
        rows: All rows.
        length: Steps of a row.
        inner_dim: Values per step inside the mixer.
        device: Where it computes.
    """
    most = max(1, CPU_TILE // (length * inner_dim)) if device.type == "cpu" else rows
    return math.ceil(rows / math.ceil(rows / most))
