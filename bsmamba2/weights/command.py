"""The command `bsmamba2 models`."""

from dataclasses import asdict
from json import dumps

from bsmamba2.errors import InputError
from bsmamba2.weights.registry import PUBLISHED_MODELS, PublishedModel, published_model
from bsmamba2.weights.store import NOT_DOWNLOADED, OK, damaged_file, download, place_of, verify


def list_models(json: bool = False) -> str:
    """Returns all that is known of the published models, and where this machine has them, as a table.

    Args:
        json: Whether it is JSON for programs instead.
    """
    paths = {model.name: place_of(model, None) for model in PUBLISHED_MODELS.values()}
    places = {name: str(path) if path.is_file() else None for name, path in paths.items()}
    if json:
        return _to_json([asdict(model) | {"path": places[model.name]} for model in PUBLISHED_MODELS.values()])
    return "\n\n".join(_description(model, places[model.name]) for model in PUBLISHED_MODELS.values())


def download_model(name: str, json: bool = False) -> str:
    """Downloads a published model to the user's cache and returns where it lies; a damaged file there is replaced.

    The one in the package is there already, and only checked.

    Args:
        name: Name of the model.
        json: Whether the answer is JSON for programs.

    Raises:
        InputError: There is no such model, or it could not be fetched.
    """
    model = published_model(name)
    path = download(model)
    if json:
        return _to_json({"name": name, "path": str(path), "size_bytes": model.size_bytes, "sha256": model.sha256})
    return f"{name} is complete in {path} ({model.size_bytes:,} bytes, sha256 {model.sha256})"


def verify_models(json: bool = False) -> str:
    """Returns the state of each published model in the package and the user's cache: not downloaded, or ok.

    Args:
        json: Whether the answer is JSON for programs.

    Raises:
        InputError: A file is damaged.
    """
    states = verify()
    damaged = [
        str(damaged_file(PUBLISHED_MODELS[name], place_of(PUBLISHED_MODELS[name], None), state))
        for name, state in states.items()
        if not (state == OK or (state == NOT_DOWNLOADED and not PUBLISHED_MODELS[name].packaged))
    ]
    if damaged:
        raise InputError("; ".join(damaged))
    return _to_json(states) if json else "\n".join(f"{name}: {state}" for name, state in states.items())


def _to_json(content: object) -> str:
    return dumps(content, indent=2, ensure_ascii=False)


def _description(model: PublishedModel, place: str | None) -> str:
    rows = {
        "what": model.note,
        "stems": ", ".join(model.stems),
        "parameters": f"{model.parameters:,}",
        "file": f"{model.file_name}, {model.size_bytes:,} bytes",
        "sha256": model.sha256,
        "source": model.source,
        "licence": model.licence,
        **{what: f"{score:.2f}" for what, score in model.scores.items()},
        "here": place or "no",
    }
    return "\n".join([model.name, *(f"  {name:36} {value}" for name, value in rows.items())])
