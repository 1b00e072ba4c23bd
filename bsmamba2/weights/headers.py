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
    """Returns the architectures of published models and of files that state theirs at their beginning.

    Args:
        models: Names of published models, and files.

    Returns:
        None if one is not known before its weights are read.
    """
    configs = [_published(name) if name in PUBLISHED_MODELS else _stated(Path(name)) for name in models]
    known = [config for config in configs if config is not None]
    return known if len(known) == len(configs) else None


def _published(name: str) -> ModelConfig:
    return ModelConfig(**PUBLISHED_MODELS[name].architecture)


def _stated(path: Path) -> ModelConfig | None:
    """Returns the architecture that a file states; a file that cannot be read is reported when it is loaded."""
    if path.suffix != SAFETENSORS_SUFFIX:
        return None
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            content: Any = json.loads(file.read(length)) if length <= MOST_HEADER_BYTES else {}
        return ModelConfig.from_dict(json.loads(content["__metadata__"][ARCHITECTURE]))
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None
