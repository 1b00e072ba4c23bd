"""Entry points of torch.hub: `torch.hub.load(FOLDER, "separator", source="local")`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bsmamba2 import BSMamba2, Separator

dependencies = [
    "av",
    "einops",
    "filelock",
    "mutagen",
    "numpy",
    "platformdirs",
    "safetensors",
    "soundfile",
    "soxr",
    "torch",
]


def separator(model: str = "small-vocals", **settings: Any) -> "Separator":
    """Returns what separates audio with a model.

    Args:
        model: Name of a published model, or a file.
        **settings: Fields of `bsmamba2.SeparationSettings`, such as `overlap=0.5`.
    """
    # Here, because every name of this file is an entry point.
    from bsmamba2 import Separator

    return Separator(model, **settings)


def network(model: str = "small-vocals") -> "BSMamba2":
    """Returns the network of a model, in eval mode on the CPU.

    Args:
        model: Name of a published model, or a file.
    """
    from bsmamba2 import load_model

    return load_model(model)
