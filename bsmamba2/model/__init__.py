"""The network.

Shapes are written with these letters throughout:

b batch, c audio channel, n sample, f frequency bin, t frame, k band, d feature, s stem;
inside the scan the letters of the Mamba-2 paper: l length, h head, p head channel, g group, n state.
"""

from typing import TYPE_CHECKING

from bsmamba2.model.config import ModelConfig

if TYPE_CHECKING:
    from bsmamba2.model.network import BSMamba2

__all__ = ["BSMamba2", "ModelConfig"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Imports the network on first use, so that command lines are read without torch."""
        if name != "BSMamba2":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from bsmamba2.model.network import BSMamba2

        globals()[name] = BSMamba2
        return BSMamba2
