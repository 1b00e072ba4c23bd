"""The command `bsmamba2 models`: text, or JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from json import dumps
from string import ascii_lowercase
from textwrap import wrap

from bsmamba2.errors import InputError
from bsmamba2.system.files import sha256_of
from bsmamba2.text_table import text_table
from bsmamba2.weights.registry import PRESETS, PUBLISHED_MODELS, PublishedModel, published_model
from bsmamba2.weights.store import NOT_DOWNLOADED, OK, damaged_file, download, place_of, verify

# So that an entry fits a terminal of 80 columns, except for addresses.
VALUE_COLUMNS = 54


def list_models(names: Sequence[str] = (), stems: Sequence[str] | None = None, json: bool = False) -> str:
    """Lists the published models and the presets, or prints all that is known about some models.

    Args:
        names: Names of models to print everything about; by default a table of all models.
        stems: Only models that give all these stems.
        json: Print JSON: everything about each model.

    Raises:
        InputError: A model does not exist, or no model gives the stems.
    """
    models = [published_model(name) for name in names] or list(PUBLISHED_MODELS.values())
    if stems:
        giving = [model for model in models if set(stems) <= set(model.available)]
        if not giving:
            known = dict.fromkeys(stem for model in models for stem in model.available)
            raise InputError(f"no model gives {' and '.join(stems)}; the stems are {', '.join(known)}")
        models = giving
    if json:
        return _to_json([asdict(model) | {"path": _path_here(model)} for model in models])
    return "\n\n".join(_description(model) for model in models) if names else _overview(models)


def download_models(names: Sequence[str], json: bool = False) -> str:
    """Downloads published models and prints their paths; replaces damaged files.

    The files are in the user's cache; the packaged model is only checked.

    Args:
        names: Names of the models.
        json: Print JSON.

    Raises:
        InputError: A model does not exist, or it could not be downloaded.
    """
    # All names are checked before the first download.
    models = [published_model(name) for name in names]
    paths = [(model, download(model)) for model in models]
    if json:
        return _to_json(
            [
                {
                    "name": model.name,
                    "path": str(path),
                    "size_bytes": path.stat().st_size,
                    "sha256": model.sha256 or sha256_of(path),
                }
                for model, path in paths
            ]
        )
    return "\n".join(
        f"{model.name} is complete in {path} ({path.stat().st_size:,} bytes, {' '.join(model.stated_hash)})"
        for model, path in paths
    )


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


def _path_here(model: PublishedModel) -> str | None:
    path = place_of(model)
    return str(path) if path.is_file() else None


def _overview(models: Sequence[PublishedModel]) -> str:
    """Returns a table of models, with a letter at each score for what was measured on which songs."""
    letters: dict[str, str] = {}
    rows = [("name", "stems", "size", "score", "licence", "here")]
    for model in models:
        single, first = len(model.stems) == 1, model.scores[0]
        protocol = f"{first.measure}, {first.data}" + ("" if single else f", {first.stem}")
        letter = letters.setdefault(protocol, ascii_lowercase[len(letters)])
        rows.append(
            (
                model.name,
                model.stems[0] if single else f"{len(model.stems)} stems",
                _size(model.size_bytes),
                f"{first.value:.2f} {letter}",
                model.licence.partition(",")[0],
                "yes" if _path_here(model) else "no",
            )
        )
    lines = ["score: as published, in dB but for PESQ; compare only the same letter and stem"]
    lines += [f"{letter}: {protocol}" for protocol, letter in letters.items()]
    lines += ["`bsmamba2 models NAME` prints all that is known about a model."]
    presets = _presets(models)
    lines += ["", presets] if presets else []
    return "\n".join([text_table(rows, left=(0, 1, 4, 5)), "", *lines])


def _presets(models: Sequence[PublishedModel]) -> str:
    """Returns a table of the presets that need only some models, with what they would download; empty if none do."""
    listed = {model.name: model for model in models}
    presets = [preset for preset in PRESETS.values() if set(preset.models) <= listed.keys()]
    rows = [("preset", "gives", "models", "downloads")]
    for preset in presets:
        missing = [listed[name] for name in preset.models if not _path_here(listed[name])]
        size = _size(sum(model.size_bytes for model in missing)) if missing else "nothing"
        rows.append((preset.name, preset.note, ", ".join(preset.models), size))
    lines = [text_table(rows, left=(0, 1, 2)), "", "`bsmamba2 separate SONG --preset NAME` uses a preset."]
    return "\n".join(lines) if presets else ""


def _description(model: PublishedModel) -> str:
    overlap = "" if model.overlap is None else f", which overlap by {model.overlap:.0%}"
    target = f" (published as {model.target})" if model.target.lower() not in ("", *model.stems) else ""
    entry = [
        ("what", model.note),
        ("stems", ", ".join(model.stems) + target),
        ("rest of the song", model.residual or "no name"),
        ("network", f"{model.network}, {model.parameters:,} parameters"),
        ("published with", f"segments of {model.segment_seconds:g} s{overlap}; hop of {model.hop_length} samples"),
        *((f"{score.measure}, {score.stem}", f"{score.value:.2f}, {score.data}") for score in model.scores),
        ("credit", model.credit),
        ("licence", model.licence),
        ("source", model.source),
        *(("address", url) for url in model.urls),
        ("file", f"{model.file_name}, {'' if model.exact_bytes else 'about '}{model.size_bytes:,} bytes"),
        model.stated_hash,
        ("here", _path_here(model) or "no"),
    ]
    rows = [
        (f"  {name}" if line == 0 else "", text)
        for name, value in entry
        for line, text in enumerate(wrap(value, VALUE_COLUMNS, break_long_words=False, break_on_hyphens=False))
    ]
    return f"{model.name}\n{text_table(rows, left=(0, 1))}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
