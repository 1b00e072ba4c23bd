"""The networks that are measured: random weights, sizes from the files of training options."""

from pathlib import Path
from typing import Any

import torch
import yaml

from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.separation.settings import Precision

PROJECT = Path(__file__).parents[1]
QUICK = ModelConfig(dim=16, depth=1, headdim=16, d_state=8, segment_seconds=1.0)

CONFIG_SECTIONS = ("model", "data", "trainer")


def config_sections(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the parts model, data and trainer of a YAML file of training options; a missing one is empty.

    Raises:
        InputError: It cannot be read or contains something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _not_options(path, error) from error
    found: dict[str, Any] = content if isinstance(content, dict) else dict.fromkeys(CONFIG_SECTIONS, content)
    parts = {name: found.get(name, {}) for name in CONFIG_SECTIONS}
    if not all(isinstance(part, dict) for part in parts.values()):
        raise _not_options(path, f"its {' or '.join(CONFIG_SECTIONS)} is not a mapping")
    return parts


def config_in(path: Path) -> ModelConfig:
    """Returns the architecture in a YAML file of training options.

    Raises:
        InputError: It cannot be read or contains something else.
    """
    try:
        return ModelConfig.from_dict(config_sections(path)["model"].get("network") or {})
    except TypeError as error:
        raise _not_options(path, error) from error


def random_network(config: ModelConfig, device: torch.device | str = "cpu", compiled: bool = False) -> BSMamba2:
    """Returns a network in eval mode with random weights, always the same."""
    torch.manual_seed(0)
    network = BSMamba2(config).to(device).eval()
    if compiled:
        network.compile()
    return network


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Returns the context in which matrix products have a precision."""
    return torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")


def _not_options(path: Path, reason: object) -> InputError:
    line = next(iter(str(reason).splitlines()), type(reason).__name__)
    return InputError(f"{path} is not a file of training options ({line}); give one like configs/small.yaml")
