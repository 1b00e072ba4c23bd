"""What each mixer costs in networks of one size, and the networks for speech, as a table in Markdown.

    python -m benchmarks.mixers
    python -m benchmarks.mixers --networks mamba2 mamba1 --dim 64 --depth 2 --seconds 2

Each is measured in a process of its own. The networks for speech have the sizes of their presets in configs/.

Multiply-adds are those of `benchmarks/bounds.py`. Times are medians of forward passes, and `times bound` is such a time
over that of the products at the rate that is measured around it; memory is what the first pass adds to the loaded
weights. The training steps are on one excerpt of noise, and the losses are those before the first
and the last of them. Exit status: 0 done, 1 something could not be measured, 2 wrong usage, 130 stopped by the user.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from benchmarks.bounds import META, bound_seconds, multiply_adds, network_multiply_adds
from benchmarks.command import Problems, Row, cell, check_positive, run
from benchmarks.networks import PROJECT, config_in
from benchmarks.parts import Job, memory_of, work
from benchmarks.processes import in_new_process
from benchmarks.timing import elapsed, interleaved, median_seconds
from benchmarks.training import training_step
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig, PrimeKnet
from bsmamba2.model.config import MIXER_OPTIONS
from bsmamba2.model.networks import make_network
from bsmamba2.model.stft import stft
from bsmamba2.system.devices import choose_device
from bsmamba2.training.module import SeparationModule

# Over time and over bands, by the name in the table.
PAIRS = {
    "mamba2": ("mamba2", "mamba2"),
    "roformer": ("roformer", "roformer"),
    "mamba2+roformer": ("mamba2", "roformer"),
    "mamba1": ("mamba1", "mamba1"),
    "rwkv6": ("rwkv6", "rwkv6"),
    "rwkv6+mamba2": ("rwkv6+mamba2", "rwkv6+mamba2"),
}
# Networks without such mixers, by the names of their configs.
SPEECH_NETWORKS = ("primeknet-mamba", "primek-net")
NETWORK_NAMES = (*PAIRS, *SPEECH_NETWORKS)


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        networks: Names of mixers, over time and over bands where they differ, and of networks for speech.
        dim: Features per band and frame of the networks with mixers.
        depth: Number of layers of the networks with mixers.
        seconds: Length of the audio of a pass.
        training_seconds: Length of the excerpt that is trained on.
        steps: Training steps.
        repeats: Timed passes.
        threads: Threads of the processor.
        precision: Precision of the matrix products.
        device: Where to compute, one of auto, cpu, cuda, mps.

    Raises:
        InputError: A number is out of range, or a network does not exist.
    """

    networks: Sequence[str] = NETWORK_NAMES
    dim: int = ModelConfig.dim
    depth: int = ModelConfig.depth
    seconds: float = 8.0
    training_seconds: float = 1.0
    steps: int = 100
    repeats: int = 3
    threads: int = 2
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"

    def __post_init__(self) -> None:
        check_positive(self, "dim", "depth", "seconds", "training_seconds", "steps", "repeats", "threads")
        for name in self.networks:
            if name not in NETWORK_NAMES:
                raise InputError(f"the network {name!r} does not exist; choose {', '.join(NETWORK_NAMES)}")


def benchmark(options: Options) -> int:
    """Prints a line per mixer; returns 1 if one could not be measured."""
    problems = Problems("mixers.py")
    columns: list[str] = []
    for row in rows_of(options, problems):
        if not columns:
            columns = list(row)
            print_line(name.replace("_", " ") for name in columns)
            print_line("---" for _ in columns)
        print_line(cell(row[name]) for name in columns)
    return int(bool(problems.messages))


def print_line(cells: Iterable[str]) -> None:
    """Prints a line of a table in Markdown."""
    print(f"| {' | '.join(cells)} |", flush=True)


def rows_of(options: Options, problems: Problems) -> Iterator[Row]:
    """Yields the row of each mixer that could be measured."""
    device = str(choose_device(options.device))
    for name in options.networks:
        config = network_config(name, dim=options.dim, depth=options.depth)
        job = Job(config, device, options.threads, options.repeats, False, options.precision, options.seconds, batch=1)
        with problems.skipping(name):
            yield {
                "network": name,
                **counts(config, options.seconds),
                **in_new_process(measure_pass, job),
                **in_new_process(measure_training, replace(job, seconds=options.training_seconds), options.steps),
            }


def network_config(name: str, **sizes: int) -> ModelConfig:
    """Returns a network for speech, or the one with a mixer; heads are at most as wide as a small one."""
    if name in SPEECH_NETWORKS:
        return config_in(PROJECT / "configs" / f"{name}.yaml")
    time_mixer, band_mixer = PAIRS[name]
    if "rwkv_headdim" in MIXER_OPTIONS[time_mixer]:
        sizes["rwkv_headdim"] = min(ModelConfig.rwkv_headdim, sizes.get("dim", ModelConfig.dim))
    return ModelConfig(time_mixer=time_mixer, band_mixer=band_mixer, **sizes)  # type: ignore[arg-type]


def counts(config: ModelConfig, seconds: float) -> Row:
    """Returns the parameters of a network in millions, and its multiply-adds per second of audio in billions."""
    with META:
        network = make_network(config)
    if isinstance(network, PrimeKnet):
        spectrum = stft(torch.empty(1, round(seconds * config.sample_rate), device=META), **network.transform)
        everything = multiply_adds(network.masked, spectrum)
    else:
        everything = network_multiply_adds(config, seconds)["everything"]
    return {
        "million_parameters": sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        "billion_products_per_second": everything["products"] / seconds / 1e9,
        "billion_elementwise_per_second": everything["elementwise"] / seconds / 1e9,
    }


def measure_pass(job: Job) -> Row:
    """Returns the time of a pass per second of audio and over its bound, and the memory that the first pass adds.

    The networks for speech have no bound: they consist of convolutions.
    """
    place = job.place
    torch.manual_seed(0)
    network = make_network(job.config).to(place).eval()
    run = work(job, network)
    memory, _ = memory_of(run, place)
    times_bound = None
    if isinstance(network, PrimeKnet):
        seconds = median_seconds(run, job.repeats, place, warm_up=0)
    else:
        seconds, rate, *_ = interleaved({"pass": run}, job.rate, job.repeats, place)["pass"]
        products = network_multiply_adds(job.config, job.seconds)["everything"]["products"]
        times_bound = seconds / bound_seconds(products, rate)
    return {
        "seconds_per_second": seconds / job.seconds,
        "times_bound": times_bound,
        "memory_mib": memory["over_weights_mib"],
    }


def measure_training(job: Job, steps: int) -> Row:
    """Returns the seconds that training steps take, and the loss before the first and the last of them."""
    place = job.place
    torch.manual_seed(0)
    step = training_step(
        SeparationModule(replace(job.config, segment_seconds=job.seconds)).to(place), 1, job.precision, place
    )
    losses: list[float] = []
    seconds = elapsed(lambda: losses.extend(step() for _ in range(steps)), place)
    return {"training_seconds": seconds, "first_loss": losses[0], "last_loss": losses[-1]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    return run("mixers.py", __doc__, Options, benchmark, arguments)


if __name__ == "__main__":
    sys.exit(main())
