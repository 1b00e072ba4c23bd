"""The network.

Shapes are written with these letters throughout:

b batch, c audio channel, n sample, f frequency bin, t frame, k band, d feature, s stem;
inside the scan the letters of the Mamba-2 paper: l length, h head, p head channel, g group, n state.
"""

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.network import BSMamba2

__all__ = ["BSMamba2", "ModelConfig"]
