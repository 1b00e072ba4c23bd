"""What a model gives, known before it is loaded or downloaded."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bsmamba2.errors import InputError
from bsmamba2.model.config import ModelConfig
from bsmamba2.weights.registry import PUBLISHED_MODELS

# Keys of what made a checkpoint, and of the training songs in it.
RECORD, TRAINING_SONGS = "bsmamba2", "training_songs"
# Keys in the metadata of a safetensors file.
ARCHITECTURE, SONGS_METADATA = f"{RECORD}.architecture", f"{RECORD}.{TRAINING_SONGS}"
SAFETENSORS_SUFFIX = ".safetensors"
# The header of a safetensors file is no longer.
MOST_HEADER_BYTES = 100_000_000


def known_configs(models: Sequence[str]) -> list[ModelConfig] | None:
    """Returns architectures with the stems of published models, and those that files state at their beginning.

    The sizes of a published network are not known before its weights are read: here they are the defaults.

    Args:
        models: Names of published models, and files.

    Returns:
        None if the stems of one are not known before its weights are read.
    """
    configs = [_published(name) if name in PUBLISHED_MODELS else _stated(Path(name)) for name in models]
    known = [config for config in configs if config is not None]
    return known if len(known) == len(configs) else None


def from_json(text: str | bytes, what: str, path: Path) -> Any:
    """Returns the value of a text in a file.

    Raises:
        InputError: It is not JSON, or too deep.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the {what} in {path} is not JSON ({error}); convert the original again") from error


def config_of(values: object, path: Path) -> ModelConfig:
    """Returns the architecture that a file states as plain values.

    Raises:
        InputError: They are no architecture.
    """
    if not isinstance(values, dict):
        raise InputError(f"the network config in {path} is a {type(values).__name__}; convert the original again")
    try:
        return ModelConfig.from_dict(values)
    # An InputError, or a number that Python does not print or compute with.
    except (ValueError, OverflowError) as error:
        raise InputError(f"the network config in {path} cannot be used: {error}") from error


def _published(name: str) -> ModelConfig:
    return ModelConfig(**PUBLISHED_MODELS[name].architecture)


def _stated(path: Path) -> ModelConfig | None:
    """Returns the architecture that a file states; a file that cannot be read is reported when it is loaded."""
    if path.suffix != SAFETENSORS_SUFFIX:
        return None
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = from_json(file.read(length) if length <= MOST_HEADER_BYTES else b"", "header", path)
        return config_of(from_json(header["__metadata__"][ARCHITECTURE], "network config", path), path)
    except (OSError, InputError, KeyError, TypeError):
        return None
