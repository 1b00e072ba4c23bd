"""The network from spectrum to spectrum, in real numbers and in one piece, as other runtimes can compute it."""

from itertools import cycle

import torch
from einops import rearrange
from torch import Tensor, nn

from bsmamba2.model import BSMamba2

# How the layers mix over time and over bands in turn: rows that do not depend on each other.
MIXED_ROWS = ("(b k) t d", "(b t) k d")


class SpectrumNetwork(nn.Module):
    """A network without the Fourier transforms around it, and with what its mixers compute from weights alone.

    Args:
        network: The network whose weights it shares, on the CPU.
    """

    @torch.no_grad()
    def __init__(self, network: BSMamba2) -> None:
        super().__init__()
        self.network = network
        self.folded = [mixer.fold() for mixer in network.mixers()]

    def forward(self, spectrum: Tensor) -> Tensor:
        """Returns the spectra of the stems (b, s, c, f, t, 2) of that of a mixture (b, c, f, t, 2).

        The last axis has the real and the imaginary parts.
        """
        mixture = torch.view_as_complex(spectrum)
        x = self.network.band_split(mixture)
        _, frames, bands, _ = x.shape
        # As in the layers, but without tiles, each of which would be a copy of the mixer in the graph.
        for mixer, folded, rows in zip(self.network.mixers(), self.folded, cycle(MIXED_ROWS), strict=False):
            mixed = mixer(rearrange(x, f"b t k d -> {rows}"), folded)
            x = rearrange(mixed, f"{rows} -> b t k d", t=frames, k=bands)
        x = self.network.final_norm(x)
        estimates = [torch.view_as_real(estimator(x) * mixture) for estimator in self.network.mask_estimators]
        return torch.stack(estimates, dim=1)
