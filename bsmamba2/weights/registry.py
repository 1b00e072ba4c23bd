"""The published models: the one in this package and those that can be downloaded. The data is in registry.toml."""

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bsmamba2.errors import InputError, UsageError
from bsmamba2.stem_names import INSTRUMENTAL, VOCALS

REGISTRY = Path(__file__).with_suffix(".toml")
# A model, or several; one name may also be a list of names with commas.
ModelNames = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class PublishedScore:
    """A score as the publisher or a public leaderboard states it.

    Args:
        stem: The stem that was scored.
        measure: What was measured; SDR in its variants is in dB.
        data: The songs.
        value: The score.
    """

    stem: str
    measure: str
    data: str
    value: float


@dataclass(frozen=True)
class PublishedModel:
    """Published weights.

    Args:
        name: Name of the model in this package.
        file_name: Name of the published file, also in the cache.
        note: What it is, as a clause.
        network: The kind and size of the network.
        stems: The stems that it estimates, in the order of its outputs.
        parameters: Number of trained parameters.
        size_bytes: Size of the file; rounded if `sha256` is empty.
        sha256: SHA-256 of the file in hexadecimal; empty if its publisher states only the hash that git gives it.
        urls: Addresses of the file, which are tried in this order; none if it cannot be downloaded.
        source: Where the weights come from: a web page, or this package.
        credit: Who made it.
        licence: Licence of the weights as the publisher states it; the part before a comma is its short name.
        hop_length: Distance between its frames in samples.
        segment_seconds: Length in seconds of the segments that its publisher separates.
        scores: Published scores, the most telling first.
        overlap: Share of a segment by which the publisher's segments overlap; None if it is not stated.
        residual: Name of the song without all its stems; empty if that has no name of its own.
        target: The publisher's name of its only stem; empty if it is not stated.
        packaged: Whether the file is part of this package.
        git_blob: Hash that git gives the file, in hexadecimal, for an entry without `sha256`.
    """

    name: str
    file_name: str
    note: str
    network: str
    stems: tuple[str, ...]
    parameters: int
    size_bytes: int
    sha256: str
    urls: tuple[str, ...]
    source: str
    credit: str
    licence: str
    hop_length: int
    segment_seconds: float
    scores: tuple[PublishedScore, ...]
    overlap: float | None = None
    residual: str = ""
    target: str = ""
    packaged: bool = False
    git_blob: str = ""

    @property
    def exact_bytes(self) -> int | None:
        """Size of the file; None if it is only known rounded."""
        return self.size_bytes if self.sha256 else None

    @property
    def stated_hash(self) -> tuple[str, str]:
        """The kind of the hash that the file must have, and the hash."""
        return ("sha256", self.sha256) if self.sha256 else ("git blob hash", self.git_blob)

    @property
    def available(self) -> tuple[str, ...]:
        """The stems that can be made with it: those that it estimates, and what is left of the song without them."""
        differences = [self.residual or None, INSTRUMENTAL if VOCALS in self.stems else None]
        return tuple(dict.fromkeys([*self.stems, *filter(None, differences)]))

    @property
    def architecture(self) -> dict[str, Any]:
        """What the shapes of its weights do not determine, as fields of `ModelConfig`."""
        return {
            "stems": self.stems,
            "residual": self.residual,
            "hop_length": self.hop_length,
            "segment_seconds": self.segment_seconds,
        }


@dataclass(frozen=True)
class Preset:
    """Models and options for a purpose.

    Args:
        name: Name of the preset.
        note: What it is for, as a clause.
        models: Names of published models.
        options: Options of `bsmamba2 separate` by name, with their values.
    """

    name: str
    note: str
    models: tuple[str, ...]
    options: Mapping[str, Any]


_REGISTERED = tomllib.loads(REGISTRY.read_text(encoding="utf-8"))


def _models() -> Iterator[PublishedModel]:
    for entry in _REGISTERED["models"]:
        entry["scores"] = tuple(PublishedScore(**score) for score in entry["scores"])
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in entry.items()}
        yield PublishedModel(**values)


PUBLISHED_MODELS: dict[str, PublishedModel] = {model.name: model for model in _models()}
PRESETS: dict[str, Preset] = {
    name: Preset(name, entry["note"], tuple(entry["models"]), entry["options"])
    for name, entry in _REGISTERED["presets"].items()
}
DEFAULT_MODEL = next(model.name for model in PUBLISHED_MODELS.values() if model.packaged)


def published_model(name: str) -> PublishedModel:
    """Returns the published model of a name.

    Raises:
        InputError: The model does not exist.
    """
    if name not in PUBLISHED_MODELS:
        raise UsageError(f"there is no published model {name!r}; {suggestion(name)}")
    return PUBLISHED_MODELS[name]


def model_names(models: ModelNames) -> list[str]:
    """Returns the names of models, each of which may be a list with commas unless a file of that name exists.

    Raises:
        InputError: There is none, or one is empty.
    """
    given = [str(models)] if isinstance(models, str | Path) else [str(model) for model in models]
    names = [name.strip() for one in given for name in ([one] if os.path.exists(one) else one.split(","))]
    if not names or "" in names:
        raise UsageError(f"{','.join(given)!r} has an empty name; give --model A,B")
    return names


def check_models_exist(models: ModelNames, ensemble: str | None = None) -> list[str]:
    """Returns the names of models, each of which is a published model or a file, without reading it.

    Args:
        models: The models.
        ensemble: How they are combined, if that was given.

    Raises:
        InputError: One is neither.
        UsageError: A single model is to be combined.
    """
    names = model_names(models)
    if ensemble is not None and len(names) == 1:
        raise UsageError(
            f"--ensemble {ensemble} combines several models, but {names[0]} is one; give --model once more, or leave "
            "--ensemble out"
        )
    for name in names:
        if name not in PUBLISHED_MODELS and not os.path.exists(name):
            raise InputError(
                f"the model {name} is neither a file nor a published model; check the path or the name; "
                f"{suggestion(Path(name).name)}"
            )
    return names


def suggestion(name: str) -> str:
    """Returns a clause with the names of published models that are similar to a misspelt one, otherwise all names."""
    spelled = name.lower().replace("_", "-")
    parts = [known for known in PUBLISHED_MODELS if len(spelled) > 2 and spelled in known]
    similar = get_close_matches(spelled, PUBLISHED_MODELS)
    if found := list(dict.fromkeys([*parts, *similar])):
        return f"did you mean {' or '.join(found)}? `bsmamba2 models` lists all"
    return f"choose one of {', '.join(PUBLISHED_MODELS)}"
