"""Time over bound of the scan, a mixer, the network and the separation of whole files, each in a process of its own."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from benchmarks.agreement import SCANS, available_scans, relative_error, scan_inputs
from benchmarks.bounds import (
    MIXERS,
    bound_seconds,
    matrix_rate,
    memory_bandwidth,
    mixer_multiply_adds,
    multiply_adds,
    network_rate,
    projected_dim,
    rate_rows,
    scan_multiply_adds,
    tile_shapes,
)
from benchmarks.command import Row
from benchmarks.timing import Timing, interleaved, peak_memory_mib, present_memory_mib
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.ssd import choose_scan
from bsmamba2.separation.separator import Separator
from bsmamba2.weights.checkpoint import load_model, save_model

Precision = Literal["float32", "bfloat16"]

BLOCK_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """What to measure, and where.

    Args:
        model: File of the network.
        device: A torch device.
        threads: Of the processor.
        repeats: Timed runs.
        compile: Whether the compiled network takes turns with the eager one.
        precision: Of the matrix products.
        seconds: Length of the audio.
        batch: Pieces of audio in one pass of the network; None to separate a file.
    """

    model: Path
    device: str
    threads: int
    repeats: int
    compile: bool
    precision: Precision = "float32"
    seconds: float = 0.0
    batch: int | None = None

    @property
    def place(self) -> torch.device:
        """Where to run, after the number of threads is set."""
        torch.set_num_threads(self.threads)
        return torch.device(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """What the matrix products multiply."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


def measure_parts(job: Job, config: ModelConfig, copy_bytes: int) -> dict[str, list[Row]]:
    """Returns the tables of what is smaller than the network, after writing one with random weights if none is there.

    Args:
        job: What to measure.
        config: Architecture of the network.
        copy_bytes: Size of the tensor whose copy tells the memory bandwidth.
    """
    if not job.model.exists():
        torch.manual_seed(0)
        save_model(BSMamba2(config), job.model)
    tables = measure_rates(job, config, copy_bytes) | {"mixers": measure_mixers(job, config)}
    return tables | ({"scans": measure_scans(job, config)} if job.precision == "float32" else {})


def measure_rates(job: Job, config: ModelConfig, copy_bytes: int) -> dict[str, list[Row]]:
    """Returns the rates of matrix products at the network's own shapes, and the memory bandwidth."""
    place = job.place
    setting: Row = {"threads": job.threads, "precision": job.precision}
    rates = []
    for inputs, outputs in ((config.dim, projected_dim(config)), (config.d_inner, config.dim)):
        rate = matrix_rate(place, inputs, outputs, rate_rows(config, place), job.dtype)
        rates.append(setting | {"rows": rate_rows(config, place), "inputs": inputs, "outputs": outputs})
        rates[-1] |= {"gflop_per_second": rate / 1e9}
    copied = [{"threads": job.threads, "gb_per_second": memory_bandwidth(place, copy_bytes) / 1e9}]
    return {"rates": rates, "bounds": bounds(job, config, 1e9 * rates[0]["gflop_per_second"])} | (
        {"bandwidth": copied} if job.precision == "float32" else {}
    )


def bounds(job: Job, config: ModelConfig, rate: float) -> list[Row]:
    """Returns the operations of one segment by part of the network, and the seconds they take at a rate."""
    parts = multiply_adds(config, config.segment_seconds)
    counts = parts | {"mixers": sum(parts[name] for name in MIXERS), "everything": sum(parts.values())}
    return [
        {"threads": job.threads, "precision": job.precision, "part": part}
        | {"multiply_adds": count, "bound_seconds": bound_seconds(count, rate)}
        | {"bound_per_audio_second": bound_seconds(count, rate) / config.segment_seconds}
        for part, count in counts.items()
    ]


def measure_scans(job: Job, config: ModelConfig) -> list[Row]:
    """Returns the times of all scans at the tiles of the network, and how far their y is from the sequential one's."""
    place = job.place
    rows: list[Row] = []
    for axis, (count, length) in tile_shapes(config, place).items():
        inputs = scan_inputs(count, length, config.heads, config.headdim, config.ngroups, config.d_state)
        inputs = [t.to(place) for t in inputs]
        with torch.inference_mode():
            runs = {name: partial(SCANS[name], *inputs) for name in available_scans(place)}
            results = {name: run() for name, run in runs.items()}
            timings = interleaved(runs, partial(network_rate, config, place, torch.float32), job.repeats, place)
        count_of_all = count * length * scan_multiply_adds(config, length)
        for name, timing in timings.items():
            rows.append({"threads": job.threads, "over": axis, "rows": count, "length": length, "scan": name})
            rows[-1] |= _over_bound(timing, count_of_all)
            rows[-1] |= {"times_faster": timings["sequential"].seconds / timing.seconds}
            rows[-1] |= {"difference": relative_error(results[name], results["sequential"])}
    return rows


def measure_mixers(job: Job, config: ModelConfig) -> list[Row]:
    """Returns the times of one mixer over time and one over bands, at the tiles of the network."""
    place = job.place
    networks = {compiled: load_model(job.model, compile=compiled).to(place) for compiled in _variants(job)}
    rate = partial(network_rate, config, place, job.dtype)
    rows: list[Row] = []
    for index, (axis, (count, length)) in enumerate(tile_shapes(config, place).items()):
        x = torch.randn(count, length, config.dim, device=place)
        with _inference(job, place):
            runs = {}
            for compiled, network in networks.items():
                mixer = network.layers[0][index]  # type: ignore[index]
                runs[compiled] = partial(mixer, x, choose_scan(place), mixer.fold())
                runs[compiled]()
            timings = interleaved(runs, _outside_autocast(rate, place), job.repeats, place)
        for compiled, timing in timings.items():
            rows.append({"threads": job.threads, "over": axis, "rows": count, "length": length})
            rows[-1] |= {"precision": job.precision, "compiled": compiled}
            rows[-1] |= _over_bound(timing, count * length * mixer_multiply_adds(config, length))
    return rows


def measure(job: Job) -> list[Row]:
    """Returns the times of the eager and, if asked for, of the compiled network, and the peak memory of the eager one.

    They are what `load_model` returns; compiled or not, they take turns.
    """
    place = job.place
    network = load_model(job.model).to(place)
    config = network.config
    runs = {False: work(job, network)}
    memory, result = _memory_of(runs[False], place)
    sdr_db = None
    if job.precision != "float32" and job.batch:
        sdr_db = signal_to_distortion(result, work(replace(job, precision="float32"), network)())
    if job.compile:
        runs[True] = work(job, load_model(job.model, compile=True).to(place))
        runs[True]()
    timings = interleaved(runs, partial(network_rate, config, place, job.dtype), job.repeats, place)
    passes = job.batch or segments_of(network, job.seconds)
    parts = multiply_adds(config, job.seconds if job.batch else config.segment_seconds)
    mixers = passes * sum(parts[name] for name in MIXERS)
    rows: list[Row] = []
    for compiled, timing in timings.items():
        rows.append({"audio_seconds": job.seconds, "batch": job.batch or Separator(network, device=place).batch_size})
        rows[-1] |= {"threads": job.threads, "precision": job.precision, "compiled": compiled}
        rows[-1] |= _over_bound(timing, mixers)
        rows[-1] |= {"times_bound_of_all": rows[-1]["times_bound"] * mixers / (passes * sum(parts.values()))}
        rows[-1] |= {"audio_per_second": (job.batch or 1) * job.seconds / timing.seconds}
        rows[-1] |= {"sdr_db": sdr_db, "peak_memory_mib": None, "over_weights_mib": None}
    rows[0] |= memory
    return rows


def measure_compiled_memory(job: Job) -> Row:
    """Returns the peak memory of a first pass of the compiled network, with its compilation."""
    place = job.place
    return _memory_of(work(job, load_model(job.model, compile=True).to(place)), place)[0]


def work(job: Job, network: BSMamba2) -> Callable[[], Tensor]:
    """Returns one pass of a network over noise, or the separation of a file of noise, read and dropped in blocks."""
    place, config = torch.device(job.device), network.config
    if job.batch is None:
        separator = Separator(network, device=place, precision=job.precision)
        return partial(_separate, separator, job.seconds)
    samples = max(1, round(job.seconds * config.sample_rate))
    mixture = 0.1 * torch.randn(job.batch, config.channels, samples, generator=torch.Generator().manual_seed(0))
    mixture = mixture.to(place)

    def one_pass() -> Tensor:
        with _inference(job, place):
            return network(mixture)

    return one_pass


def segments_of(network: BSMamba2, seconds: float) -> int:
    """Returns the segments in which a `Separator` with its own settings separates a file."""
    separator = Separator(network, device=next(network.parameters()).device)
    samples = round(seconds * network.config.sample_rate)
    return 1 + max(0, math.ceil((samples - separator.segment) / separator.hop))


def signal_to_distortion(estimate: Tensor, reference: Tensor) -> float:
    """Returns 10 log10(Σ reference² / Σ (estimate − reference)²) in dB."""
    estimate, reference = estimate.double(), reference.double()
    return (10 * (reference.square().sum() / (estimate - reference).square().sum()).log10()).item()


def _separate(separator: Separator, seconds: float) -> Tensor:
    """Separates noise and returns the last samples."""
    config = separator.network.config
    generator = torch.Generator().manual_seed(0)
    samples, block = max(1, round(seconds * config.sample_rate)), round(BLOCK_SECONDS * config.sample_rate)

    def noise() -> Iterator[Tensor]:
        for start in range(0, samples, block):
            yield 0.1 * torch.randn(config.channels, min(block, samples - start), generator=generator)

    for _, estimates in separator.stream(noise(), config.sample_rate):
        last = estimates[config.stems[0]]
    return last


def _variants(job: Job) -> list[bool]:
    return [False, True] if job.compile else [False]


@contextlib.contextmanager
def _inference(job: Job, place: torch.device) -> Iterator[None]:
    with torch.inference_mode(), torch.autocast(place.type, job.dtype, enabled=job.precision != "float32"):
        yield


def _outside_autocast(rate: Callable[[], float], place: torch.device) -> Callable[[], float]:
    def measured() -> float:
        with torch.autocast(place.type, enabled=False):
            return rate()

    return measured


def _memory_of(run: Callable[[], Tensor], place: torch.device) -> tuple[Row, Tensor]:
    """Returns the peak memory of a process up to the end of its first run, what of it the run added, and its result."""
    loaded = present_memory_mib(place)
    result = run()
    peak = peak_memory_mib(place)
    added = None if peak is None or loaded is None else peak - loaded
    return {"peak_memory_mib": peak, "over_weights_mib": added}, result


def _over_bound(timing: Timing, count: float) -> Row:
    bound = bound_seconds(count, timing.rate)
    return {
        "seconds": timing.seconds,
        "runs": timing.runs,
        "matrix_gflop_per_second": timing.rate / 1e9,
        "bound_seconds": bound,
        "times_bound": timing.seconds / bound,
    }
