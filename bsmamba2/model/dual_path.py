"""Mixing along one axis in both directions, and along time and bands in turn (paper, section 3.2)."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.mamba2 import Mamba2
from bsmamba2.model.norms import RMSNorm
from bsmamba2.model.ssd import Scan, rows_per_tile


class MambaBlock(nn.Module):
    """A Mamba-2 block with the norm before it and the skip connection around both.

    Args:
        config: Architecture of the network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.dim)
        self.mixer = Mamba2(config)

    def forward(self, x: Tensor, scan: Scan = "auto") -> Tensor:
        """Returns the mixed sequence (rows, l, d) of x (rows, l, d)."""
        return self.mixer(self.norm(x), scan) + x


class BidirectionalMixer(nn.Module):
    """Two blocks, one along the sequence and one against it, joined by a linear map.

    Args:
        config: Architecture of the network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.forward_blocks = nn.ModuleList([MambaBlock(config)])
        self.backward_blocks = nn.ModuleList([MambaBlock(config)])
        # Published as a transposed convolution of width 1: the weight (2d, d, 1) is that of a Linear, transposed.
        self.linear = nn.ConvTranspose1d(2 * config.dim, config.dim, 1)

    def forward(self, x: Tensor, scan: Scan = "auto") -> Tensor:
        """Returns the mixed sequence (rows, l, d) of x (rows, l, d)."""
        forward = self.forward_blocks[0](x, scan)
        backward = self.backward_blocks[0](x.flip(1), scan).flip(1)
        both = torch.cat([forward, backward], dim=-1)
        return F.linear(both, self.linear.weight.squeeze(-1).mT, self.linear.bias) + x


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
        x = self._mix(self[0], rearrange(x, "b t k d -> (b k) t d"), scan)
        x = self._mix(self[1], rearrange(x, "(b k) t d -> (b t) k d", b=batch), scan)
        return rearrange(x, "(b t) k d -> b t k d", b=batch)

    def _mix(self, mixer: nn.Module, x: Tensor, scan: Scan) -> Tensor:
        return torch.cat([mixer(rows, scan) for rows in x.split(rows_per_tile(x, self.channels))])
