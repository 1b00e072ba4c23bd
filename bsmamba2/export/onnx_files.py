"""ONNX files of networks, from spectrum to spectrum (opset 18), in three precisions.

The Fourier transforms stay outside: ONNX has no inverse. A file has the input `spectrum` (b, c, f, t, 2) and the output
`estimates` (b, s, c, f, t, 2), of any number of segments of one length, and states in its metadata how to transform.
"""

import contextlib
import importlib.util
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from bsmamba2.errors import InputError
from bsmamba2.export.spectrum_network import SpectrumNetwork
from bsmamba2.model import BSMamba2, Network
from bsmamba2.model.stft import stft
from bsmamba2.system.files import complete_file
from bsmamba2.version import __version__

ExportPrecision = Literal["float32", "float16", "int8"]
# What torch's exporter and the conversions need; they are the extra `onnx`.
EXPORT_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPSET = 18
# Recurrences whose loops over steps ONNX would need once per step.
UNEXPORTABLE = {"selective": "mamba1", "wkv": "rwkv6"}
# Squares of small values and exponents of decays need the range of float32. The last two are for bands that overlap:
# onnxruntime adds only float32 at places.
FLOAT32_OPERATIONS = (
    *("CumSum", "Exp", "LayerNormalization", "Pow", "ReduceL2", "ReduceMean", "ReduceSum", "Softplus"),
    *("ScatterElements", "ScatterND"),
)


def export_onnx(
    network: BSMamba2, output: Path, precision: ExportPrecision = "float32", metadata: dict[str, str] | None = None
) -> None:
    """Writes a network as an ONNX file, whole or not at all.

    Args:
        network: The network, on the CPU; segments of its config are what the file takes.
        output: The file, which is replaced.
        precision: That of the weights: float16 is half as large, and int8 a quarter for all matrix products.
        metadata: More to state in the file, such as the licence.

    Raises:
        InputError: The network has a mixer that cannot be exported, or the file cannot be written.
        ModuleNotFoundError: A package is not installed.
    """
    if precision not in get_args(ExportPrecision):
        raise InputError(f"precision={precision!r} is not allowed; choose {', '.join(get_args(ExportPrecision))}")
    loops = {UNEXPORTABLE[name] for name in network.recurrences if name in UNEXPORTABLE}
    if loops:
        raise InputError(
            f"networks with {' and '.join(sorted(loops))} cannot be exported: their scans run step by step, which ONNX "
            "would repeat thousands of times; export one with mamba2 or roformer"
        )
    check_packages()
    with tempfile.TemporaryDirectory() as folder, complete_file(output) as unfinished:
        exact = unfinished if precision == "float32" else Path(folder) / "float32.onnx"
        _export(network, exact, describe(network) | {"precision": precision} | (metadata or {}))
        if precision != "float32":
            reduced(exact, unfinished, precision)


def check_packages() -> None:
    """Checks that what an export needs is installed.

    Raises:
        ModuleNotFoundError: A package is not.
    """
    for package in EXPORT_PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)


def export_error(path: Path, network: BSMamba2) -> float:
    """Returns the RMS of the difference between an exported file and its network over that of its output, on noise."""
    import onnxruntime

    config = network.config
    noise = 0.1 * torch.randn(1, config.channels, config.segment, generator=torch.Generator().manual_seed(0))
    spectrum = torch.view_as_real(stft(noise, **network.transform)).contiguous()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (estimates,) = session.run(None, {"spectrum": spectrum.numpy()})
    with torch.inference_mode():
        expected = SpectrumNetwork(network)(spectrum)
    difference = torch.from_numpy(estimates) - expected
    return float(difference.square().mean().sqrt() / expected.square().mean().sqrt())


def describe(network: Network) -> dict[str, str]:
    """Returns what a program needs to know to use the exported file: names and values as text, lists as JSON."""
    config = network.config
    return {
        "stems": json.dumps(config.stems),
        "channels": str(config.channels),
        "sample_rate": str(config.sample_rate),
        "segment": str(config.segment),
        "n_fft": str(config.n_fft),
        "window_length": str(config.window_length),
        "hop_length": str(config.hop_length),
        "architecture": json.dumps(config.to_dict()),
        "made_by": f"bsmamba2 {__version__}",
    }


def _export(network: BSMamba2, path: Path, metadata: dict[str, str]) -> None:
    config = network.config
    audio = torch.zeros(2, config.channels, config.segment)
    spectrum = torch.view_as_real(stft(audio, **network.transform)).contiguous()
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            SpectrumNetwork(network).eval(),
            (spectrum,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["spectrum"],
            output_names=["estimates"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    if program is None:
        raise TypeError("torch.onnx.export returned no program, though dynamo=True was given")
    program.model.metadata_props.update(metadata)
    program.save(str(path))


def reduced(path: Path, output: Path, precision: Literal["float16", "int8"]) -> None:
    """Writes an exported file in float32 with its weights in a lower precision."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.transformers import float16

    with _quiet():
        if precision == "int8":
            quantization.quantize_dynamic(path, output, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"])
            return
        blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *FLOAT32_OPERATIONS]
        model = float16.convert_float_to_float16(onnx.load(path), keep_io_types=True, op_block_list=blocked)
        onnx.save(model, output)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the exporter and the converters print, log and warn from the user."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
