"""Time and memory of a training step, each setting in a process of its own, and the days of a whole training run.

    python -m benchmarks.training --configs configs/bsmamba2.yaml --batch_sizes 1 5 --precisions float32 bfloat16

A step is forward, loss, backward and optimiser on one batch of noise. On a GPU the peak is that of PyTorch's allocator,
on a CPU that of the process. Exit status: 0 done, 1 something could not be measured, 2 wrong usage, 130 stopped by the
user.
"""

import itertools
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Literal

import torch

from benchmarks.bounds import META
from benchmarks.command import Problems, Row, check_positive, print_table, run
from benchmarks.memory import peak_memory_mib
from benchmarks.networks import autocast, config_in, config_sections
from benchmarks.processes import in_new_process
from benchmarks.timing import elapsed
from bsmamba2.data.datamodule import MusdbDataModule
from bsmamba2.data.excerpts import Excerpts
from bsmamba2.model.networks import make_network
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import kernel_problem
from bsmamba2.separation.settings import Precision
from bsmamba2.system.devices import choose_device
from bsmamba2.training.losses import LossConfig
from bsmamba2.training.module import SeparationModule

SECONDS_PER_DAY = 86_400
YesNo = Literal["no", "yes"]


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        configs: YAML files of training options.
        batch_sizes: Excerpts in a batch.
        precisions: Precisions of the matrix products.
        scans: Scans, by default the chunked one and, where they work, the kernels.
        recompute: Whether the backward pass computes each layer again.
        compile: Whether the network is compiled.
        steps: Timed steps, of which the median counts, after one to warm up.
        device: Where to compute, one of auto, cpu, cuda, mps.

    Raises:
        InputError: A number is out of range.
    """

    configs: Sequence[Path] = (Path("configs/bsmamba2.yaml"),)
    batch_sizes: Sequence[int] = (1,)
    precisions: Sequence[Precision] = ("float32",)
    scans: Sequence[Scan] | None = None
    recompute: Sequence[YesNo] = ("no", "yes")
    compile: Sequence[YesNo] = ("no",)
    steps: int = 3
    device: str = "auto"

    def __post_init__(self) -> None:
        check_positive(self, "batch_sizes", "steps")


@dataclass(frozen=True)
class TrainingSetting:
    """One way to train."""

    config: Path
    batch: int
    precision: Precision
    scan: Scan
    recompute: bool
    compile: bool


def benchmark(options: Options) -> int:
    """Prints a line per setting; returns 1 if one could not be measured."""
    problems = Problems("training.py")
    print_table(
        "Training steps; days: of the whole training run in the config at this speed", rows_of(options, problems)
    )
    return int(bool(problems.messages))


def rows_of(options: Options, problems: Problems) -> Iterator[Row]:
    """Yields the row of each setting that could be measured."""
    for config in options.configs:
        scans = options.scans or scans_of(config)
        settings = (options.batch_sizes, options.precisions, scans, options.recompute, options.compile)
        for batch, precision, scan, recompute, compiled in itertools.product(*settings):
            setting = TrainingSetting(config, batch, precision, scan, recompute == "yes", compiled == "yes")
            with problems.skipping(setting):
                measured = in_new_process(measure_setting, setting, options.steps, options.device)
                yield vars(setting) | {"config": config.stem} | measured


def scans_of(config: Path) -> list[Scan]:
    """Returns the scans that are measured for a file of training options; auto for a network that runs none.

    Raises:
        InputError: The file cannot be read or contains something else.
    """
    with META:
        runs_one = bool(make_network(config_in(config)).recurrences)
    if not runs_one:
        return ["auto"]
    return ["chunked"] if kernel_problem() else ["kernel", "chunked"]


def measure_setting(setting: TrainingSetting, steps: int, device: str) -> Row:
    """Returns the median time of a step in seconds, the audio per second, the peak memory, and the days of training.

    Raises:
        InputError: The config, the scan or the device cannot be used.
    """
    options, network, place = config_sections(setting.config), config_in(setting.config), choose_device(device)
    torch.manual_seed(0)
    module = SeparationModule(
        network,
        LossConfig(**options["model"].get("loss", {})),
        scan=setting.scan,
        recompute=setting.recompute,
        compile=setting.compile,
    ).to(place)
    step = training_step(module, setting.batch, setting.precision, place)
    step_seconds = statistics.median([elapsed(step, place) for _ in range(steps + 1)][1:])
    speed = setting.batch * network.segment / network.sample_rate / step_seconds
    peak = peak_memory_mib(place)
    row: Row = {
        "step_seconds": step_seconds,
        "audio_per_second": speed,
        "peak_gib": None if peak is None else peak / 1024,
    }
    if epochs := options["trainer"].get("max_epochs"):
        default = signature(MusdbDataModule).parameters["epoch_excerpts"].default
        audio = epochs * options["data"].get("epoch_excerpts", default) * network.segment / network.sample_rate
        row |= {"training_hours": audio / 3600, "days": audio / speed / SECONDS_PER_DAY}
    return row


def training_step(
    module: SeparationModule, batch: int, precision: Precision, place: torch.device
) -> Callable[[], float]:
    """Returns a function that trains on one batch of noise, always the same, and returns the loss."""
    network = module.network.config
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    module.on_fit_start()
    optimizer = module.optimizer()
    shape = (batch, network.channels, network.segment)
    excerpts = Excerpts({stem: 0.1 * torch.randn(shape, device=place) for stem in (*network.stems, "rest")}, [])

    def step() -> float:
        with autocast(place, precision):
            value = module.training_step(excerpts, 0)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value.item()

    return step


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    return run("training.py", __doc__, Options, benchmark, arguments)


if __name__ == "__main__":
    sys.exit(main())
