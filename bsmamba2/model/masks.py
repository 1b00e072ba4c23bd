"""Features to a complex mask per stem (paper, section 3.3)."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.bands import band_groups, linear_per_band


class MaskEstimator(nn.Module):
    """One small network with a gated output per band; a bin in several bands gets the mean of their masks.

    Args:
        bands: Widths of the bands in frequency bins.
        starts: First bin of each band.
        channels: Audio channels.
        dim: Features per band.
        depth: Linear maps per band, with Tanh between them.
        hidden_dim: Features between the linear maps.
    """

    def __init__(
        self, bands: Sequence[int], starts: Sequence[int], channels: int, dim: int, depth: int, hidden_dim: int
    ) -> None:
        super().__init__()
        self.channels, self.bands = channels, tuple(bands)
        self.bins: Tensor | None
        self.counts: Tensor | None
        bins = [start + bin for start, width in zip(starts, bands, strict=True) for bin in range(width)]
        counts = Counter(bins)
        in_order = bins == list(range(len(bins)))
        # Not part of the weights: they follow from the config.
        self.register_buffer("bins", None if in_order else torch.tensor(bins), persistent=False)
        per_bin = None if in_order else torch.tensor([counts[bin] for bin in sorted(counts)])
        self.register_buffer("counts", per_bin, persistent=False)
        self.to_freqs = nn.ModuleList(
            nn.Sequential(_perceptron(dim, depth, hidden_dim, 2 * width * channels * 2), nn.GLU()) for width in bands
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns the complex mask (b, c, f, t) of features (b, t, k, d), unbounded, in at least single precision."""
        return self.in_groups(x, band_groups(self.bands, x.device))

    def in_groups(self, x: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
        """Returns the same as `forward`; the bands of a group, all of one width, are computed together."""
        batch = x.shape[0]
        features = rearrange(x, "b t k d -> k (b t) d")
        masks: dict[int, Tensor] = {}
        for bands in groups:
            together = torch.stack([features[band] for band in bands])
            masks |= zip(bands, self._masks(together, bands), strict=True)
        mask = torch.cat([masks[band] for band in range(len(masks))], dim=-1)
        mask = mask.to(torch.promote_types(mask.dtype, torch.float32))
        mask = rearrange(mask, "(b t) (f c ri) -> b c f t ri", b=batch, c=self.channels, ri=2)
        if self.bins is not None and self.counts is not None:
            sums = mask.new_zeros(*mask.shape[:2], len(self.counts), *mask.shape[3:])
            mask = sums.index_add(2, self.bins, mask) / self.counts[:, None, None]
        return torch.view_as_complex(mask.contiguous())

    def _masks(self, x: Tensor, bands: Sequence[int]) -> Tensor:
        """Returns the masks (k, n, values) of bands of one width, of their features (k, n, d)."""
        perceptrons = [cast(nn.Sequential, cast(nn.Sequential, self.to_freqs[band])[0]) for band in bands]
        for layers in zip(*perceptrons, strict=True):
            x = linear_per_band(x, layers) if isinstance(layers[0], nn.Linear) else layers[0](x)
        return F.glu(x)


def _perceptron(inputs: int, depth: int, hidden_dim: int, outputs: int) -> nn.Sequential:
    dims = [inputs, *[hidden_dim] * (depth - 1), outputs]
    layers: list[nn.Module] = []
    for in_dim, out_dim in pairwise(dims):
        layers += [nn.Linear(in_dim, out_dim), nn.Tanh()]
    return nn.Sequential(*layers[:-1])
