"""What each mixer costs in networks of one size, as a table in Markdown, each in a process of its own.

    python -m benchmarks.mixers
    python -m benchmarks.mixers --mixers mamba2 mamba1 --dim 64 --depth 2 --seconds 2

Multiply-adds are those of `benchmarks/bounds.py`. Times are medians of forward passes; memory is what the first pass
adds to the loaded weights. The training steps are on one excerpt of noise, and the losses are those before the first
and the last of them. Exit status: 0 done, 1 something could not be measured, 2 wrong usage, 130 stopped by the user.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.bounds import meta_network, network_multiply_adds
from benchmarks.command import Problems, Row, cell, check_positive, run
from benchmarks.parts import Job
from benchmarks.parts import measure as measure_pass
from benchmarks.processes import in_new_process
from benchmarks.timing import elapsed
from benchmarks.training import training_step
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.model.config import MIXER_OPTIONS
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


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        mixers: Names of mixers, over time and over bands where they differ.
        dim: Features per band and frame.
        depth: Number of layers.
        seconds: Length of the audio of a pass.
        training_seconds: Length of the excerpt that is trained on.
        steps: Training steps.
        repeats: Timed passes.
        threads: Threads of the processor.
        device: Where to compute, one of auto, cpu, cuda, mps.

    Raises:
        InputError: A number is out of range, or a mixer does not exist.
    """

    mixers: Sequence[str] = tuple(PAIRS)
    dim: int = ModelConfig.dim
    depth: int = ModelConfig.depth
    seconds: float = 8.0
    training_seconds: float = 1.0
    steps: int = 100
    repeats: int = 3
    threads: int = 2
    device: str = "auto"

    def __post_init__(self) -> None:
        check_positive(self, "dim", "depth", "seconds", "training_seconds", "steps", "repeats", "threads")
        for mixer in self.mixers:
            if mixer not in PAIRS:
                raise InputError(f"the mixer {mixer!r} does not exist; choose {', '.join(PAIRS)}")


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
    for name in options.mixers:
        config = network_config(name, dim=options.dim, depth=options.depth)
        job = Job(config, device, options.threads, options.repeats, compile=False, seconds=options.seconds, batch=1)
        with problems.skipping(name):
            (forward,) = in_new_process(measure_pass, job)
            yield {
                "mixer": name,
                **counts(config, options.seconds),
                "seconds_per_second": 1 / forward["audio_per_second"],
                "memory_mib": forward["over_weights_mib"],
                **in_new_process(measure_training, replace(job, seconds=options.training_seconds), options.steps),
            }


def network_config(name: str, **sizes: int) -> ModelConfig:
    """Returns the network with a mixer, the other options at their defaults; in a small one, heads as wide as it is."""
    time_mixer, band_mixer = PAIRS[name]
    if "rwkv_headdim" in MIXER_OPTIONS[time_mixer]:
        sizes["rwkv_headdim"] = min(ModelConfig.rwkv_headdim, sizes.get("dim", ModelConfig.dim))
    return ModelConfig(time_mixer=time_mixer, band_mixer=band_mixer, **sizes)  # type: ignore[arg-type]


def counts(config: ModelConfig, seconds: float) -> Row:
    """Returns the parameters of a network in millions, and its multiply-adds per second of audio in billions."""
    everything = network_multiply_adds(config, seconds)["everything"]
    return {
        "million_parameters": sum(parameter.numel() for parameter in meta_network(config).parameters()) / 1e6,
        "billion_products_per_second": everything["products"] / seconds / 1e9,
        "billion_elementwise_per_second": everything["elementwise"] / seconds / 1e9,
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
