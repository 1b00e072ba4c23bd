"""BSMamba2: music source separation with band-split, dual-path, bidirectional Mamba-2 (arXiv:2508.14556)."""

from importlib import import_module
from typing import TYPE_CHECKING

from bsmamba2.errors import InputError
from bsmamba2.version import __version__ as __version__

if TYPE_CHECKING:
    from bsmamba2.model import BSMamba2, ModelConfig
    from bsmamba2.separation.separator import Separator
    from bsmamba2.separation.settings import SeparationSettings
    from bsmamba2.weights.checkpoint import load_model, save_model

__all__ = ["BSMamba2", "InputError", "ModelConfig", "SeparationSettings", "Separator", "load_model", "save_model"]

if not TYPE_CHECKING:
    # Imported on first use, so that `bsmamba2 --help` need not wait for torch.
    _MODULES = {
        "BSMamba2": "model",
        "ModelConfig": "model",
        "SeparationSettings": "separation.settings",
        "Separator": "separation.separator",
        "load_model": "weights.checkpoint",
        "save_model": "weights.checkpoint",
    }
    _FOLDERS = {"evaluation", "metrics", "model", "separation", "training", "weights"}

    def __getattr__(name: str) -> object:
        if name in _FOLDERS:
            return import_module(f"{__name__}.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
