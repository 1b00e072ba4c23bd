"""What can be chosen on the page: models, presets and formats, as JSON."""

import os
from collections.abc import Sequence
from typing import Any

from bsmamba2.server.messages import CHOICES, SongSettings
from bsmamba2.weights.registry import PRESETS, PUBLISHED_MODELS, PublishedModel
from bsmamba2.weights.store import place_of

# From this size on, a model is slow on a CPU, and a preview is made first.
LARGE_MODEL_BYTES = 100_000_000


def model_offers(given: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the published models, and those of the command line that are files.

    Args:
        given: The models of the command line.
    """
    files = [
        {"name": name, "file": True, "here": True, "large": is_large(name)}
        for name in given
        if name not in PUBLISHED_MODELS
    ]
    return [*files, *(_offer(model) for model in PUBLISHED_MODELS.values() if is_here(model) or model.urls)]


def preset_offers() -> list[dict[str, Any]]:
    """Returns the presets."""
    return [
        {"name": preset.name, "note": preset.note, "models": preset.models, "options": dict(preset.options)}
        for preset in PRESETS.values()
    ]


def default_choices(defaults: SongSettings) -> dict[str, Any]:
    """Returns what is chosen at first, and what there is to choose from."""
    stem_settings = defaults.stem_settings
    return {
        "model": ",".join(defaults.models),
        "overlap": defaults.settings.overlap,
        "preview": defaults.preview,
        "downmix": stem_settings.downmix,
        "choices": CHOICES,
        **{name: getattr(stem_settings, name) for name in CHOICES},
    }


def is_large(name: str) -> bool:
    """Returns whether a model, given by its name or file, is slow on a CPU."""
    if name in PUBLISHED_MODELS:
        return PUBLISHED_MODELS[name].size_bytes >= LARGE_MODEL_BYTES
    return os.path.isfile(name) and os.path.getsize(name) >= LARGE_MODEL_BYTES


def is_here(model: PublishedModel) -> bool:
    """Returns whether the file of a model is on this machine."""
    return place_of(model).is_file()


def _offer(model: PublishedModel) -> dict[str, Any]:
    first = model.scores[0]
    return {
        "name": model.name,
        "file": False,
        "note": model.note,
        "stems": model.available,
        "size_bytes": model.size_bytes,
        "score": f"{first.stem} {first.value:.2f} dB {first.measure}, {first.data}",
        "licence": model.licence,
        "credit": model.credit,
        "large": is_large(model.name),
        "here": is_here(model),
    }
