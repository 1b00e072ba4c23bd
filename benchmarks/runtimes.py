"""One segment of real music through a network in each precision, by PyTorch and by onnxruntime: time and SDR.

    python -m benchmarks.runtimes
    python -m benchmarks.runtimes --config configs/bsmamba2.yaml --runs float32 bfloat16 --json runtimes.json

The runs take turns. Each is compared with the first, which is float32 in PyTorch: `over_float32` is its time over that
one's, and `sdr_db` the distance of its stems. `times_bound` is the time over that of all matrix products of the network
at the rate that was measured around the runs, in bfloat16 for bfloat16 and in float32 for the rest. In `int8` the maps
of Mamba mixers have weights in 8 bits per output channel, and their inputs are rounded to 8 bits as they come. Exit
status: 0 done, 1 something could not be measured, 2 wrong usage, 130 stopped by the user.
"""

import math
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.agreement import relative_error
from benchmarks.bounds import bound_seconds, network_multiply_adds, network_rate
from benchmarks.command import Problems, Row, check_positive, print_facts, print_table, run, write_json
from benchmarks.networks import autocast, config_in
from benchmarks.timing import CPU, interleaved
from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.demo import example_song
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2
from bsmamba2.model.bidirectional import BidirectionalMixer
from bsmamba2.model.stft import istft, stft
from bsmamba2.stem_names import MIXTURE
from bsmamba2.system.versions import hardware, package_version, versions
from bsmamba2.weights.checkpoint import load_model
from bsmamba2.weights.registry import DEFAULT_MODEL

Runtime = Literal[
    "float32", "float32-compiled", "bfloat16", "bfloat16-compiled", "int8", "onnx-float32", "onnx-float16", "onnx-int8"
]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
ONNX = "onnx-"
Pass = Callable[[], Tensor]
# The largest number of 8 bits with a sign.
INT8_MAX = 127


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        model: Published model, or file of weights.
        config: YAML file with an architecture, for random weights instead of a model.
        song: Music at the sampling rate of the network, by default the short song of the demo.
        start: Where the segment begins in the song, in seconds.
        runs: What takes turns after float32 in PyTorch.
        repeats: Timed runs, of which the median counts, after one to warm up.
        threads: Threads to compute with, by default as many as torch chooses.
        json: File for the results; an existing one is replaced.

    Raises:
        InputError: A number is out of range.
    """

    model: str = DEFAULT_MODEL
    config: Path | None = None
    song: Path | None = None
    start: float = 0.0
    runs: Sequence[Runtime] = RUNTIMES
    repeats: int = 5
    threads: int = torch.get_num_threads()
    json: Path | None = None

    def __post_init__(self) -> None:
        check_positive(self, "repeats", "threads")
        if not 0 <= self.start < math.inf:
            raise InputError(f"start={self.start:g} is not allowed; give 0 or more seconds")


class Int8Weight:
    """A linear map without bias, (out, in), with weights in 8 bits per output, in the place of its weight.

    Args:
        weight: The map in float32.
    """

    def __init__(self, weight: Tensor) -> None:
        # In double precision, as torch keeps them.
        scales = weight.abs().amax(1).double().clamp(min=1e-12) / INT8_MAX
        zeros = torch.zeros_like(scales, dtype=torch.int64)
        self.dtype = weight.dtype
        with warnings.catch_warnings():
            # torch announces that it will remove tensors of 8 bits.
            warnings.simplefilter("ignore", UserWarning)
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
            self.packed = torch.ops.quantized.linear_prepack(rounded, None)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Tensor:
        """Computes F.linear(x, weight, bias)."""
        if function is not F.linear:
            return NotImplemented
        x, weight, *bias = args
        y = torch.ops.quantized.linear_dynamic(x, weight.packed)
        return sum(filter(lambda value: value is not None, bias), start=y)


def benchmark(options: Options) -> int:
    """Measures and prints; returns 1 if something could not be measured.

    Raises:
        InputError: The model, the config or the song cannot be used.
    """
    torch.set_num_threads(options.threads)
    network, problems = chosen_network(options), Problems("runtimes.py")
    environment = {
        **hardware(CPU),
        **versions(),
        "onnxruntime": package_version("onnxruntime") or "not installed",
        "threads": options.threads,
        "network": str(options.config or options.model),
    }
    print_facts(environment)
    rows = print_table("One segment", rows_of(options, network, problems))
    write_json(options.json, {"environment": environment, "runs": rows, "problems": problems.messages})
    return int(bool(problems.messages))


def chosen_network(options: Options) -> BSMamba2:
    """Returns the network to measure.

    Raises:
        InputError: It cannot be loaded, or is of another kind.
    """
    torch.manual_seed(0)
    network = BSMamba2(config_in(options.config)).eval() if options.config else load_model(options.model)
    if not isinstance(network, BSMamba2):
        raise InputError(f"{options.model} is a {type(network).__name__}; give a BSMamba2, Mel-Band or BS-RoFormer")
    return network


def music_of(options: Options, network: BSMamba2) -> Tensor:
    """Returns a segment of music (1, c, n); a song that is too short is repeated.

    Raises:
        InputError: The song cannot be read, or has another sampling rate or number of channels.
    """
    config = network.config
    if options.song:
        song, rate = read_audio(options.song), audio_info(options.song).sample_rate
    else:
        song, rate = example_song().read(MIXTURE), SAMPLE_RATE
    start = round(options.start * rate)
    if (rate, len(song)) != (config.sample_rate, config.channels) or start >= song.shape[-1]:
        raise InputError(
            f"{options.song or 'the song'} has {len(song)} channels at {rate} Hz and {song.shape[-1] / rate:g} s; give "
            f"one with {config.channels} channels at {config.sample_rate} Hz, longer than start={options.start:g}"
        )
    song = song[:, start:]
    return song.repeat(1, math.ceil(config.segment / song.shape[-1]))[None, :, : config.segment]


def rows_of(options: Options, network: BSMamba2, problems: Problems) -> Iterator[Row]:
    """Yields the row of each run that could be measured."""
    mixture, config = music_of(options, network), network.config
    products = network_multiply_adds(config, config.segment_seconds)["everything"]["products"]
    names: list[Runtime] = ["float32", *(name for name in options.runs if name != "float32")]
    with tempfile.TemporaryDirectory() as folder:
        passes: dict[Runtime, Pass] = {}
        stems: dict[Runtime, Tensor] = {}
        for name in names:
            with problems.skipping(name, Exception):
                one_pass = pass_of(name, network, mixture, Path(folder), options.threads)
                stems[name] = one_pass()
                passes[name] = one_pass
        dtypes = {dtype_of(name) for name in passes}
        rates: dict[torch.dtype, list[float]] = {dtype: [] for dtype in dtypes}

        def rate() -> float:
            for dtype in dtypes:
                rates[dtype].append(network_rate(config, CPU, dtype))
            return rates[torch.float32][-1]

        timings = interleaved(passes, rate, options.repeats, CPU)
    for name, timing in timings.items():
        speed = statistics.median(rates[dtype_of(name)])
        error = relative_error(stems[name], stems["float32"])
        yield {
            "run": name,
            "seconds": timing.seconds,
            "spread": timing.spread,
            "per_audio_second": timing.seconds / config.segment_seconds,
            "over_float32": timing.seconds / timings["float32"].seconds,
            "matrix_gflop_per_second": speed / 1e9,
            "times_bound": timing.seconds / bound_seconds(products, speed),
            "sdr_db": -20 * math.log10(error) if error else None,
        }


def dtype_of(name: Runtime) -> torch.dtype:
    """Returns the dtype of products whose rate gives the bound of a run."""
    return torch.bfloat16 if name.startswith("bfloat16") else torch.float32


def pass_of(name: Runtime, network: BSMamba2, mixture: Tensor, folder: Path, threads: int) -> Pass:
    """Returns what computes the stems (1, s, c, n) of the mixture (1, c, n).

    Raises:
        InputError: The network has no maps in 8 bits.
        ModuleNotFoundError: What an export needs is not installed.
    """
    if name.startswith(ONNX):
        return _by_onnx(name.removeprefix(ONNX), network, mixture, folder, threads)
    precision, _, compiled = name.partition("-")
    if compiled or precision == "int8":
        copied = BSMamba2(network.config).eval()
        copied.load_state_dict(network.state_dict())
        network = copied
    if compiled:
        network.compile()
    if precision == "int8":
        to_int8(network)

    def one_pass() -> Tensor:
        with torch.inference_mode(), autocast(CPU, "bfloat16" if precision == "bfloat16" else "float32"):
            return network(mixture)

    return one_pass


def to_int8(network: BSMamba2) -> None:
    """Gives the mixers of a network maps in 8 bits, made once.

    Raises:
        InputError: It has a mixer without maps before and after a Mamba.
    """
    for mixer in network.mixers():
        folded = mixer.fold()
        if not isinstance(mixer, BidirectionalMixer) or not all(hasattr(block, "into") for block in folded.blocks):
            raise InputError("int8 is for networks with mamba2 or mamba1 alone; leave it out of --runs")
        with torch.no_grad():
            blocks = tuple(
                block._replace(into=Int8Weight(block.into), out=Int8Weight(block.out)) for block in folded.blocks
            )
            folded = folded._replace(blocks=blocks, skip=Int8Weight(folded.skip))
        mixer.fold = partial(_given, folded)  # type: ignore[method-assign]


def _given(value: Any) -> Any:
    return value


def _by_onnx(precision: str, network: BSMamba2, mixture: Tensor, folder: Path, threads: int) -> Pass:
    """Returns the pass of an exported file; the Fourier transforms stay in PyTorch."""
    import onnxruntime

    from bsmamba2.export.onnx_files import export_onnx, reduced

    path, exact = folder / f"{precision}.onnx", folder / "float32.onnx"
    if not exact.exists():
        export_onnx(network, exact)
    if path != exact:
        reduced(exact, path, cast(Any, precision))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

    def one_pass() -> Tensor:
        spectrum = torch.view_as_real(stft(mixture, **network.transform)).contiguous()
        (estimates,) = session.run(None, {"spectrum": spectrum.numpy()})
        return istft(torch.view_as_complex(torch.from_numpy(estimates)), length=mixture.shape[-1], **network.transform)

    return one_pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    return run("runtimes.py", __doc__, Options, benchmark, arguments)


if __name__ == "__main__":
    sys.exit(main())
