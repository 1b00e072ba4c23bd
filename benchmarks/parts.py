"""Time over bound of the scan, a mixer, the network and the separation of whole files, each in a process of its own."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.agreement import SCANS, available_scans, relative_error, scan_arguments
from benchmarks.bounds import (
    META,
    bound_seconds,
    linear_shapes,
    matrix_rate,
    memory_bandwidth,
    meta_network,
    multiply_adds,
    network_multiply_adds,
    network_rate,
    rate_rows,
    tile_shapes,
)
from benchmarks.command import Row
from benchmarks.memory import peak_memory_mib, present_memory_mib
from benchmarks.networks import autocast, random_network
from benchmarks.timing import Timing, interleaved
from bsmamba2.model import BSMamba2, ModelConfig, Network
from bsmamba2.separation.separator import Separator
from bsmamba2.separation.settings import Precision

BLOCK_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """What to measure, and where.

    Args:
        config: Architecture of the network.
        device: A torch device.
        threads: Threads of the processor.
        repeats: Timed runs.
        compile: Whether the compiled network takes turns with the eager one.
        precision: Precision of the matrix products.
        seconds: Length of the audio.
        batch: Pieces of audio in one pass of the network; None to separate a file.
    """

    config: ModelConfig
    device: str
    threads: int
    repeats: int
    compile: bool
    precision: Precision = "float32"
    seconds: float = 0.0
    batch: int | None = None

    @property
    def place(self) -> torch.device:
        """The device, after the number of threads is set."""
        torch.set_num_threads(self.threads)
        return torch.device(self.device)

    @property
    def rate(self) -> Callable[[], float]:
        """Measures the operations per second by which the bounds are computed, outside of autocast."""
        place, dtype = self.place, getattr(torch, self.precision)

        def measured() -> float:
            with torch.autocast(place.type, enabled=False):
                return network_rate(self.config, place, dtype)

        return measured


def measure_parts(job: Job, copy_bytes: int) -> dict[str, list[Row]]:
    """Returns the tables of what is smaller than the network.

    Args:
        job: What to measure.
        copy_bytes: Size of the tensor whose copy gives the memory bandwidth.
    """
    tables = measure_rates(job) | {"mixers": measure_mixers(job)}
    if job.precision == "float32":
        bandwidth = memory_bandwidth(job.place, copy_bytes) / 1e9
        tables |= {"bandwidth": [{"threads": job.threads, "gb_per_second": bandwidth}], "scans": measure_scans(job)}
    return tables


def measure_rates(job: Job) -> dict[str, list[Row]]:
    """Returns the rates of the linear maps in the mixers, and the bounds of one segment that follow from the first."""
    place, config = job.place, job.config
    setting: Row = {"threads": job.threads, "precision": job.precision}
    rows, rates = rate_rows(config, place), []
    for inputs, outputs in linear_shapes(config):
        rate = matrix_rate(place, inputs, outputs, rows, getattr(torch, job.precision))
        rates.append(setting | {"rows": rows, "inputs": inputs, "outputs": outputs, "gflop_per_second": rate / 1e9})
    rate = 1e9 * rates[0]["gflop_per_second"]
    bounds = []
    for part, count in network_multiply_adds(config, config.segment_seconds).items():
        bound = bound_seconds(count["products"], rate)
        bounds.append(setting | {"part": part, "products": count["products"], "elementwise": count["elementwise"]})
        bounds[-1] |= {"bound_seconds": bound, "bound_per_audio_second": bound / config.segment_seconds}
    return {"rates": rates, "bounds": bounds}


def measure_scans(job: Job) -> list[Row]:
    """Returns the times of the scans of Mamba-2 at the tiles of the network, and how far y is from the definition.

    Other mixers are left out.
    """
    place, config = job.place, job.config
    rows: list[Row] = []
    mixers = meta_network(config).mixers()
    for (axis, (count, length)), mixer in zip(tile_shapes(config, place).items(), mixers, strict=False):
        if "ssd" not in mixer.recurrences:
            continue
        arguments = scan_arguments(count, length, config.heads, config.headdim, config.ngroups, config.d_state)
        products = multiply_adds(SCANS["chunked"], *(t.to(META) for t in arguments.values()))["products"]
        with torch.inference_mode():
            inputs = [t.to(place) for t in arguments.values()]
            runs = {name: partial(SCANS[name], *inputs) for name in available_scans(place)}
            results = {name: run() for name, run in runs.items()}
            timings = interleaved(runs, job.rate, job.repeats, place)
        for name, timing in timings.items():
            rows.append({"threads": job.threads, "over": axis, "rows": count, "length": length, "scan": name})
            rows[-1] |= _over_bound(timing, products)
            rows[-1] |= {"times_faster": timings["sequential"].seconds / timing.seconds}
            rows[-1] |= {"difference": relative_error(results[name], results["sequential"])}
    return rows


def measure_mixers(job: Job) -> list[Row]:
    """Returns the times of one mixer over time and one over bands, at the tiles of the network."""
    place, config = job.place, job.config
    networks = {compiled: random_network(config, place, compiled) for compiled in [False, True][: 1 + job.compile]}
    rows: list[Row] = []
    for index, (axis, (count, length)) in enumerate(tile_shapes(config, place).items()):
        x = torch.randn(count, length, config.dim, device=place)
        products = multiply_adds(_folded(meta_network(config), index), x.to(META))["products"]
        with _inference(job, place):
            runs = {}
            for compiled, network in networks.items():
                runs[compiled] = partial(_folded(network, index), x)
                runs[compiled]()
            timings = interleaved(runs, job.rate, job.repeats, place)
        for compiled, timing in timings.items():
            rows.append({"threads": job.threads, "over": axis, "rows": count, "length": length})
            rows[-1] |= {"precision": job.precision, "compiled": compiled}
            rows[-1] |= _over_bound(timing, products)
    return rows


def measure(job: Job) -> list[Row]:
    """Returns the times of the eager and, if asked for, of the compiled network, and the peak memory of the eager one.

    Compiled or not, they take turns.
    """
    place, config = job.place, job.config
    network = random_network(config, place)
    runs = {False: work(job, network)}
    memory, result = memory_of(runs[False], place)
    sdr_db = None
    if job.precision != "float32" and job.batch:
        exact = work(replace(job, precision="float32"), network)()
        sdr_db = -20 * math.log10(relative_error(result, exact))
    if job.compile:
        runs[True] = work(job, random_network(config, place, compiled=True))
        runs[True]()
    timings = interleaved(runs, job.rate, job.repeats, place)
    passes = job.batch or segments_of(network, job.seconds)
    parts = network_multiply_adds(config, job.seconds if job.batch else config.segment_seconds)
    mixers, everything = parts["mixers"]["products"], parts["everything"]["products"]
    rows: list[Row] = []
    for compiled, timing in timings.items():
        rows.append({"audio_seconds": job.seconds, "batch": job.batch or Separator(network, device=place).batch_size})
        rows[-1] |= {"threads": job.threads, "precision": job.precision, "compiled": compiled}
        rows[-1] |= _over_bound(timing, passes * mixers)
        rows[-1] |= {"times_bound_of_all": rows[-1]["times_bound"] * mixers / everything}
        rows[-1] |= {"audio_per_second": (job.batch or 1) * job.seconds / timing.seconds}
        rows[-1] |= {"sdr_db": sdr_db, "peak_memory_mib": None, "over_weights_mib": None}
    rows[0] |= memory
    return rows


def measure_compiled_memory(job: Job) -> Row:
    """Returns the peak memory of a first pass of the compiled network, with its compilation."""
    place = job.place
    return memory_of(work(job, random_network(job.config, place, compiled=True)), place)[0]


def work(job: Job, network: Network) -> Callable[[], Tensor]:
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


def segments_of(network: Network, seconds: float) -> int:
    """Returns the segments in which a `Separator` with its own settings separates a file."""
    separator = Separator(network, device=next(network.parameters()).device)
    samples = round(seconds * network.config.sample_rate)
    return 1 + max(0, math.ceil((samples - separator.segment) / separator.hop))


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


def _folded(network: BSMamba2, index: int) -> Callable[[Tensor], Tensor]:
    """Returns a mixer of the first layer with its maps composed ahead, as a layer does once for all tiles."""
    mixer = list(network.mixers())[index]
    return partial(mixer, folded=mixer.fold())


@contextlib.contextmanager
def _inference(job: Job, place: torch.device) -> Iterator[None]:
    with torch.inference_mode(), autocast(place, job.precision):
        yield


def memory_of(run: Callable[[], Tensor], place: torch.device) -> tuple[Row, Tensor]:
    """Returns the peak memory up to the end of a process's first run, the part that the run added, and the result."""
    loaded = present_memory_mib(place)
    result = run()
    peak = peak_memory_mib(place)
    added = None if peak is None or loaded is None else peak - loaded
    return {"peak_memory_mib": peak, "over_weights_mib": added}, result


def _over_bound(timing: Timing, products: int) -> Row:
    bound = bound_seconds(products, timing.rate)
    return {
        "seconds": timing.seconds,
        "runs": timing.runs,
        "spread": timing.spread,
        "matrix_gflop_per_second": timing.rate / 1e9,
        "bound_seconds": bound,
        "times_bound": timing.seconds / bound,
    }
