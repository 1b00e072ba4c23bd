"""The command `bsmamba2 export`."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from bsmamba2.errors import InputError, UsageError
from bsmamba2.system.files import check_can_be_made
from bsmamba2.weights.registry import DEFAULT_MODEL, check_models_exist

SUFFIX = ".onnx"


def export(
    output: Path,
    model: str = DEFAULT_MODEL,
    stems: Sequence[str] | None = None,
    precision: Literal["float32", "float16", "int8"] = "float32",
    overwrite: bool = False,
) -> str:
    """Writes a model as an ONNX file, from the spectrum of a mixture to those of the stems.

    The file is run once, and how far it is from the network is printed. docs/export.md has a program that separates
    songs with it.

    Args:
        output: The file to write; its name ends in .onnx.
        model: Model to export: one of `bsmamba2 models`, or a file.
        stems: Only these stems, such as vocals.
        precision: Precision of the weights: float16 takes half the space, int8 a quarter for all matrices.
        overwrite: Replace a file that exists.

    Raises:
        InputError: The model cannot be loaded or exported, or the file cannot be written.
    """
    if output.suffix != SUFFIX:
        raise UsageError(f"the output {output} does not end in {SUFFIX}; rename it")
    if output.is_dir():
        raise InputError(f"the output {output} is a folder; give a file")
    if output.exists() and not overwrite:
        raise InputError(f"the output {output} exists already; give another OUTPUT, or --overwrite")
    check_can_be_made(output.parent)
    check_models_exist([model])
    # Imported only now: it takes seconds, which the help, a wrong option or a wrong path need not wait for.
    from bsmamba2.export.onnx_files import check_packages, export_error, export_onnx
    from bsmamba2.model import BSMamba2
    from bsmamba2.system.files import make_folder, sha256_of
    from bsmamba2.weights.checkpoint import load_model
    from bsmamba2.weights.store import find_model

    check_packages()
    path, published = find_model(model)
    network = load_model(model, only=stems)
    if not isinstance(network, BSMamba2):
        raise InputError(
            f"{model} is a {type(network).__name__}, which cannot be exported; give a BSMamba2, Mel-Band or BS-RoFormer"
        )
    make_folder(output.parent)
    licence = {"licence": published.licence} if published else {}
    export_onnx(network, output, precision, {"model": str(model), "model_sha256": sha256_of(path)} | licence)
    level = -20 * math.log10(export_error(output, network))
    size = output.stat().st_size / 1e6
    return f"{output} has {size:.1f} MB in {precision}; on noise, its error is {level:.0f} dB below its output"
