"""Weights of any kind of checkpoint, written to a file with their architecture and the names of the training songs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from bsmamba2.errors import InputError, UsageError
from bsmamba2.system.files import check_can_be_made, sha256_of
from bsmamba2.weights.headers import SAFETENSORS_SUFFIX


def convert(
    input: Path,
    output: Path,
    weights: Literal["raw", "ema"] | None = None,
    overwrite: bool = False,
    stems: Sequence[str] | None = None,
    hop_length: int | None = None,
) -> str:
    """Writes the weights of a checkpoint, with their architecture, to a safetensors file.

    The checkpoint is the authors', one of `bsmamba2 train`, or plain weights under the published names. No code inside
    it is ever run. Names of the songs that the weights were trained on are kept if the checkpoint has them.

    Args:
        input: The checkpoint: a .ckpt, .pt or .safetensors file.
        output: The .safetensors file to write.
        weights: Which weights: raw, as the optimiser left them, or ema, averaged over training; by default ema if
            present.
        overwrite: Replace an existing output.
        stems: Names of the stems in the order of the network, for a checkpoint that does not contain them.
        hop_length: Distance between frames in samples, for a checkpoint that does not contain it.

    Raises:
        InputError: The checkpoint cannot be read or does not have these weights, or the output cannot be written.
    """
    if weights not in (None, "raw", "ema"):
        raise UsageError(f"weights={weights!r} is not allowed; choose raw or ema, or leave it out")
    if not input.is_file():
        raise InputError(f"the checkpoint {input} {'is a folder' if input.is_dir() else 'does not exist'}; give a file")
    _check_output(output, overwrite)
    # Imported only now: it takes seconds, which the help, a wrong option or a wrong path need not wait for.
    from bsmamba2.weights.archives import check_sums
    from bsmamba2.weights.checkpoint import EMA, WeightsFile, save_model
    from bsmamba2.weights.store import recognised

    if input.suffix != SAFETENSORS_SUFFIX:
        check_sums(input)
    file = WeightsFile.read(input, foreign=True)
    published = recognised(input)
    if stems and file.config:
        raise InputError(
            f"the checkpoint {input} already names its stems ({', '.join(file.config.stems)}); leave --stems out"
        )
    taken = weights or file.preferred
    given = file.fields_of(None, hop_length) | ({"stems": stems} if stems else {})
    network = replace(file, published=published).network(taken, **given)
    save_model(network, output, file.training_songs)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    kind = taken.upper() if taken == EMA else taken
    songs = f"\nit contains the names of the songs that the weights were trained on: {len(file.training_songs):,}"
    origin = f"\n{input} is the published model {published.name}" if published else ""
    return (
        f"wrote {output} with the {kind} weights of {input}: {parameters:,} parameters, sha256 {sha256_of(output)}"
        + (songs if file.training_songs else "")
        + origin
    )


def _check_output(output: Path, overwrite: bool) -> None:
    if output.suffix != SAFETENSORS_SUFFIX:
        raise UsageError(
            f"the output {output} does not end in {SAFETENSORS_SUFFIX}, the only format that is written; rename it"
        )
    if output.is_dir():
        raise InputError(f"the output {output} is a folder; give a file")
    if output.exists() and not overwrite:
        raise InputError(f"the output {output} exists already; give another OUTPUT, or --overwrite")
    check_can_be_made(output.parent)
