"""Features to a complex mask per stem (paper, section 3.3)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor, nn


class MaskEstimator(nn.Module):
    """One small network with a gated output per band.

    Args:
        bands: Widths of the bands in frequency bins.
        channels: Audio channels.
        dim: Features per band.
        depth: Linear maps per band, with Tanh between them.
        hidden_dim: Features between the linear maps.
    """

    def __init__(self, bands: Sequence[int], channels: int, dim: int, depth: int, hidden_dim: int) -> None:
        super().__init__()
        self.channels = channels
        self.to_freqs = nn.ModuleList(
            nn.Sequential(_perceptron(dim, depth, hidden_dim, 2 * width * channels * 2), nn.GLU()) for width in bands
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns the complex mask (b, c, f, t) of features (b, t, k, d), unbounded, in at least single precision."""
        bands = zip(self.to_freqs, x.unbind(dim=2), strict=True)
        mask = torch.cat([to_freqs(band) for to_freqs, band in bands], dim=-1)
        mask = mask.to(torch.promote_types(mask.dtype, torch.float32))
        mask = rearrange(mask, "b t (f c ri) -> b c f t ri", c=self.channels, ri=2)
        return torch.view_as_complex(mask.contiguous())


def _perceptron(inputs: int, depth: int, hidden_dim: int, outputs: int) -> nn.Sequential:
    dims = [inputs, *[hidden_dim] * (depth - 1), outputs]
    layers: list[nn.Module] = []
    for in_dim, out_dim in pairwise(dims):
        layers += [nn.Linear(in_dim, out_dim), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
