"""The command `bsmamba2 models`: text, or JSON."""

from dataclasses import asdict
from json import dumps

from bsmamba2.errors import InputError
from bsmamba2.text_table import text_table
from bsmamba2.weights.registry import PUBLISHED_MODELS, PublishedModel, published_model
from bsmamba2.weights.store import NOT_DOWNLOADED, OK, damaged_file, download, place_of, verify


def list_models(json: bool = False) -> str:
    """Lists the published models, and where their files are on this machine.

    Args:
        json: Print JSON.
    """
    paths = [(model, place_of(model)) for model in PUBLISHED_MODELS.values()]
    places = [(model, str(path) if path.is_file() else None) for model, path in paths]
    if json:
        return _to_json([asdict(model) | {"path": place} for model, place in places])
    return "\n\n".join(_description(model, place) for model, place in places)


def download_model(name: str, json: bool = False) -> str:
    """Downloads a published model and prints its path; replaces a damaged file.

    The file is in the user's cache; the packaged model is only checked.

    Args:
        name: Name of the model.
        json: Print JSON.

    Raises:
        InputError: The model does not exist, or it could not be downloaded.
    """
    model = published_model(name)
    path = download(model)
    if json:
        return _to_json({"name": name, "path": str(path), "size_bytes": model.size_bytes, "sha256": model.sha256})
    return f"{name} is complete in {path} ({model.size_bytes:,} bytes, sha256 {model.sha256})"


def verify_models(json: bool = False) -> str:
    """Checks the packaged and the downloaded models.

    The state of each is printed: ok or not downloaded.

    Args:
        json: Print JSON.

    Raises:
        InputError: A file is damaged.
    """
    states = verify()
    damaged = [
        str(damaged_file(model, place_of(model), states[model.name]))
        for model in PUBLISHED_MODELS.values()
        if states[model.name] not in ((OK,) if model.packaged else (OK, NOT_DOWNLOADED))
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
    table = text_table([(f"  {name}", value) for name, value in rows.items()], left=(0, 1), longest_name=60)
    return f"{model.name}\n{table}"
