"""Spectrum to bands: every band becomes one feature vector per frame (paper, section 3.1)."""

from collections.abc import Sequence
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from bsmamba2.model.norms import L2Norm, l2_normalized


class BandSplit(nn.Module):
    """One norm and one linear map per band.

    Args:
        bands: Widths of the bands in frequency bins.
        starts: First bin of each band.
        channels: Audio channels.
        dim: Features per band.
    """

    def __init__(self, bands: Sequence[int], starts: Sequence[int], channels: int, dim: int) -> None:
        super().__init__()
        self.first = [start * channels * 2 for start in starts]
        self.inputs = [width * channels * 2 for width in bands]
        self.to_features = nn.ModuleList(
            nn.Sequential(L2Norm(inputs), nn.Linear(inputs, dim)) for inputs in self.inputs
        )

    def forward(self, spectrum: Tensor) -> Tensor:
        """Returns features (b, t, k, d) of a complex spectrum (b, c, f, t), in at least single precision.

        A band's inputs are ordered bin first, then channel, then real and imaginary part.
        """
        return self.in_groups(spectrum, band_groups(self.inputs, spectrum.device))

    def in_groups(self, spectrum: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
        """Returns the same as `forward`; the bands of a group, all of one width, are computed together."""
        batch = spectrum.shape[0]
        x = rearrange(torch.view_as_real(spectrum), "b c f t ri -> (b t) (f c ri)")
        features: dict[int, Tensor] = {}
        for bands in groups:
            rows = torch.stack([x.narrow(-1, self.first[band], self.inputs[band]) for band in bands])  # (k, b t, i)
            norms, linears = zip(*(self.to_features[band] for band in bands), strict=True)
            normalized = l2_normalized(rows) * torch.stack([norm.gamma for norm in norms])[:, None]
            features |= zip(bands, linear_per_band(normalized, linears), strict=True)
        in_order = torch.stack([features[band] for band in range(len(features))], dim=1)
        return rearrange(in_order, "(b t) k d -> b t k d", b=batch).to(spectrum.real.dtype)


def band_groups(widths: Sequence[int], device: torch.device) -> list[list[int]]:
    """Returns which bands are computed together: on CUDA all of one width, elsewhere each alone.

    A band is so little work that starting it takes a GPU longer than computing it.
    """
    if device.type != "cuda":
        return [[band] for band in range(len(widths))]
    groups: dict[int, list[int]] = {}
    for band, width in enumerate(widths):
        groups.setdefault(width, []).append(band)
    return list(groups.values())


def linear_per_band(x: Tensor, linears: Sequence[nn.Linear]) -> Tensor:
    """Returns the outputs (k, n, o) of one linear map per band, all of one size, for x (k, n, i)."""
    if len(linears) == 1:
        return cast(Tensor, linears[0](x))
    weights, biases = zip(*((linear.weight, linear.bias) for linear in linears), strict=True)
    return torch.baddbmm(torch.stack(biases)[:, None], x, torch.stack(weights).mT)
