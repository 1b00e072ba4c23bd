"""The networks.

Shapes are written with these letters throughout:

b batch, c audio channel, n sample, f frequency bin, t frame, k band, d feature, s stem;
inside the scan the letters of the Mamba-2 paper: l length, h head, p head channel, g group, n state.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from bsmamba2.model.config import ModelConfig

if TYPE_CHECKING:
    from bsmamba2.model.contract import Network
    from bsmamba2.model.network import BSMamba2
    from bsmamba2.model.networks import make_network
    from bsmamba2.model.primeknet import PrimeKnet

__all__ = ["BSMamba2", "ModelConfig", "Network", "PrimeKnet", "make_network"]

if not TYPE_CHECKING:
    # Imported on first use, so that command lines are read without torch.
    _MODULES = {"BSMamba2": "network", "Network": "contract", "PrimeKnet": "primeknet", "make_network": "networks"}

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value
