"""The parallel block of GroundThink: RWKV-6 and Mamba-2 on the same input, joined by learned gains."""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.mamba import FoldedMamba
from bsmamba2.model.mamba2 import Mamba2
from bsmamba2.model.mixing import in_precision
from bsmamba2.model.norms import RMSNorm, rms_normalized
from bsmamba2.model.rwkv6 import RWKV6, FoldedRWKV6
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import Recurrence

INITIAL_GAIN = 0.5


class FoldedParallel(NamedTuple):
    """What both branches fold, and what follows the norm of each: its weight, its gain and the map after the block."""

    branches: tuple[FoldedRWKV6, FoldedMamba]
    maps: tuple[Tensor, Tensor]  # (d, d) each


class RWKV6Mamba2(nn.Module):
    """The sum of an `RWKV6` and a `Mamba2` of the same input, each normalised and with a gain per feature.

    Args:
        config: Uses dim, depth and the options of both.
        layer: Number of the layer in the network, from 0.
        reverse: Whether each step sees itself and the future, instead of itself and the past.

    Attributes:
        recurrences: Which recurrences it computes.
        inner_dim: Values per step inside it.
    """

    recurrences: ClassVar[tuple[Recurrence, ...]] = ("wkv", "ssd")

    def __init__(self, config: ModelConfig, layer: int = 0, reverse: bool = False) -> None:
        super().__init__()
        self.rwkv6 = RWKV6(config, layer, reverse)
        self.mamba2 = Mamba2(config, reverse)
        self.rwkv_out_norm, self.mamba_out_norm = RMSNorm(config.dim), RMSNorm(config.dim)
        self.rwkv_gain = nn.Parameter(torch.full((config.dim,), INITIAL_GAIN))
        self.mamba_gain = nn.Parameter(torch.full((config.dim,), INITIAL_GAIN))
        # Zeros, as in an RWKV6 alone, have a gradient that the norm after them makes several hundred times larger.
        self.rwkv6.output.reset_parameters()
        self.inner_dim = self.rwkv6.inner_dim + self.mamba2.inner_dim

    @property
    def scan(self) -> Scan:
        """Which scan of `bsmamba2.model.scans` both branches run."""
        return self.mamba2.scan

    @scan.setter
    def scan(self, scan: Scan) -> None:
        self.rwkv6.scan = self.mamba2.scan = scan

    def forward(self, u: Tensor) -> Tensor:
        """Returns the mixed sequence (b, l, d) of u (b, l, d); both scans start at zero in every row."""
        of_rwkv6 = self.rwkv_gain * self.rwkv_out_norm(self.rwkv6(u))
        return of_rwkv6 + self.mamba_gain * self.mamba_out_norm(self.mamba2(u))

    def fold(self, before: Tensor, after: Tensor) -> FoldedParallel:
        """Returns what `folded_forward` needs for after · self(before ∘ u).

        Args:
            before: Weight (d,) of the norm that u comes from.
            after: Map (d, d) of the output.
        """
        gains = (self.rwkv_gain * self.rwkv_out_norm.weight, self.mamba_gain * self.mamba_out_norm.weight)
        return FoldedParallel(
            (self.rwkv6.fold(before), self.mamba2.fold(before)),
            (in_precision(after * gains[0]), in_precision(after * gains[1])),
        )

    def folded_forward(self, u: Tensor, folded: FoldedParallel) -> Tensor:
        """Returns after · self(before ∘ u), (b, l, d) of u (b, l, d), with what `fold` returns."""
        of_rwkv6 = self.rwkv6.folded_forward(u, folded.branches[0])
        of_mamba2 = self.mamba2.folded_forward(u, folded.branches[1])
        maps = folded.maps
        return F.linear(rms_normalized(of_rwkv6), maps[0]) + F.linear(rms_normalized(of_mamba2), maps[1])
