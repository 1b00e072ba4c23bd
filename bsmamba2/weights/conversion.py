"""Weights of any kind of checkpoint, written to a file that describes itself and holds nothing else."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.system.files import sha256_of
from bsmamba2.weights.checkpoint import (
    StateDict,
    described_config,
    holds_config,
    is_weight,
    network_of,
    network_weights,
    prefixed,
    read,
    save_model,
    stored_config,
    tensors,
)
from bsmamba2.weights.shapes import config_from_shapes
from bsmamba2.weights.store import recognised

AUTHORS_PREFIX = "model."
SUFFIX = ".safetensors"
RAW, EMA, ONLY = "raw", "EMA", "only"


def convert(
    input: Path,
    output: Path,
    weights: Literal["raw", "ema"] | None = None,
    overwrite: bool = False,
) -> str:
    """Writes the weights of a checkpoint to a safetensors file with their architecture, and returns what was written.

    The checkpoint is the authors', one of our training, or plain weights under the published names. No code inside it
    is ever run.

    Args:
        input: The checkpoint: a .ckpt, .pt or .safetensors file.
        output: The .safetensors file to write.
        weights: Which of them: raw, as the optimiser left them, or ema, averaged over the training. By itself ema
            where the checkpoint holds them, else what it holds.
        overwrite: Whether an existing output is replaced.

    Raises:
        InputError: The checkpoint cannot be read or does not hold these weights, or the output cannot be written.
    """
    _check_output(output, overwrite)
    if weights not in (None, "raw", "ema"):
        raise InputError(f"weights={weights!r} is not allowed; choose raw or ema, or leave it out")
    _check_sums(input)
    content = read(input, ignore_objects=True)
    config, held = _held(content, input)
    taken = _choice(held, weights, input)
    state = held[taken]()
    network = network_of(config or config_from_shapes(state, input), state, input)
    published = recognised(input)
    save_model(network, output)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    origin = f"\n{input} is the published model {published.name}" if published else ""
    return (
        f"wrote {output} with the {taken} weights of {input}: {parameters:,} parameters, sha256 {sha256_of(output)}"
        + origin
    )


def _check_output(output: Path, overwrite: bool) -> None:
    if output.suffix != SUFFIX:
        raise InputError(f"the output {output} does not end in {SUFFIX}, the only format that is written; rename it")
    if output.is_dir():
        raise InputError(f"the output {output} is a folder; give a file")
    if output.exists() and not overwrite:
        raise InputError(f"the output {output} exists already; allow overwriting or give another one")


def _check_sums(path: Path) -> None:
    """Raises InputError where bytes of a checkpoint have changed since it was saved; torch does not look."""
    if path.suffix == SUFFIX or not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    # Not only BadZipFile: damage can claim encryption, unknown compression, or offsets outside the file.
    except Exception as error:
        raise InputError(f"the model file {path} is damaged ({error}); fetch it again") from error
    if damaged:
        raise InputError(f"the model file {path} is damaged (in {damaged}); fetch it again")


def _held(content: dict[str, Any], path: Path) -> tuple[ModelConfig | None, dict[str, Callable[[], StateDict]]]:
    """Returns the architecture where the file tells it, and how to get each kind of weights it holds."""
    if "state_dict" not in content:
        return described_config(path), {ONLY: lambda: tensors(content, path)}
    if holds_config(content):
        config, first, averaged = stored_config(content, path), content["state_dict"], "current_model_state" in content
        # While it averages, Lightning puts the average in the place of the weights, and these aside.
        raw = content["current_model_state"] if averaged else first
        ema = {EMA: lambda: network_weights(first, path)} if averaged else {}
        return config, {RAW: lambda: network_weights(raw, path), **ema}
    return None, _authors(content, path)


def _authors(content: dict[str, Any], path: Path) -> dict[str, Callable[[], StateDict]]:
    raw = prefixed(content["state_dict"], AUTHORS_PREFIX, path)
    optimizers = content.get("optimizer_states")
    first = optimizers[0] if isinstance(optimizers, list) and optimizers else None
    if not isinstance(first, dict) or "ema" not in first:
        return {RAW: lambda: raw}
    return {RAW: lambda: raw, EMA: lambda: _named(first["ema"], raw, path)}


def _named(ema: object, raw: StateDict, path: Path) -> StateDict:
    """Returns a list of tensors under the names of others, which are in the same order."""
    remedy = "take the raw weights instead"
    if not isinstance(ema, list | tuple) or len(ema) != len(raw):
        count = f"{len(ema)} tensors" if isinstance(ema, list | tuple) else f"a {type(ema).__name__}"
        raise InputError(f"the EMA weights in {path} are {count} instead of a list of {len(raw)}; {remedy}")
    for (name, value), average in zip(raw.items(), ema, strict=True):
        if not is_weight(average) or average.shape != value.shape:
            found = f"the shape {tuple(average.shape)}" if is_weight(average) else f"a {type(average).__name__}"
            raise InputError(f"the EMA weights in {path} have {found} where {name} has {tuple(value.shape)}; {remedy}")
    return dict(zip(raw, ema, strict=True))


def _choice(held: dict[str, Callable[[], StateDict]], weights: str | None, path: Path) -> str:
    kinds = {name.lower(): name for name in held}
    if weights is None:
        return kinds.get("ema", next(iter(held)))
    if weights not in kinds:
        has = "one set that it calls neither raw nor ema" if ONLY in held else f"only {' and '.join(kinds)} weights"
        raise InputError(f"{path} holds no {weights} weights but {has}; leave the choice of weights out to take them")
    return kinds[weights]
