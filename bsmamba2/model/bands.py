"""Spectrum to bands: every band becomes one feature vector per frame (paper, section 3.1)."""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from bsmamba2.model.norms import L2Norm


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
        x = rearrange(torch.view_as_real(spectrum), "b c f t ri -> b t (f c ri)")
        features = [
            to_features(x.narrow(-1, first, inputs))
            for to_features, first, inputs in zip(self.to_features, self.first, self.inputs, strict=True)
        ]
        return torch.stack(features, dim=2).to(spectrum.real.dtype)
