"""How fast training data loads: excerpts, and seconds of them, per second, for different numbers of workers.

    python -m benchmarks.loader --root ROOT --segment_seconds 8 --step_seconds 2.5

The other options are those of the training data, without `--data.`. Every excerpt consists of several stems. Files that
were read before come from memory, not from the disk: to measure the disk, use more data than fits into memory.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from benchmarks.command import Row, check_positive, exit_status, parser_of, print_table
from benchmarks.timing import elapsed
from bsmamba2.data.augment import Augmentation
from bsmamba2.data.datamodule import MusdbDataModule
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.options import with_underscores

PROGRAM = "loader.py"


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        workers: Numbers of processes to try.
        batches: Batches to measure.
        step_seconds: How long a training step takes, to compare with.
        step_excerpts: Excerpts in a training step.

    Raises:
        InputError: A number is out of range.
    """

    workers: Sequence[int] = (0, 1, 2, 4)
    batches: int = 50
    step_seconds: float | None = None
    step_excerpts: int = 60

    def __post_init__(self) -> None:
        check_positive(self, "batches", "step_seconds", "step_excerpts")
        if min(self.workers, default=-1) < 0:
            raise InputError(f"workers={self.workers} is not allowed; give numbers of at least 0")


def benchmark(options: Options, data: MusdbDataModule, segment_seconds: float) -> None:
    """Measures and prints a table.

    Raises:
        InputError: The data cannot be used.
    """
    data.setup("fit")
    print_table("Loading", rows_of(options, data, segment_seconds))


def rows_of(options: Options, data: MusdbDataModule, segment_seconds: float) -> Iterator[Row]:
    """Yields the row of each number of workers; `times_needed` is how many times the need of the step is loaded."""
    for workers in options.workers:
        data.workers = workers
        start_seconds, batch_seconds = measured(data, options.batches)
        rate = data.batch_size / batch_seconds
        row = {"workers": workers, "start_seconds": start_seconds, "excerpts_per_second": rate}
        row["audio_per_second"] = rate * segment_seconds
        if options.step_seconds:
            row["times_needed"] = rate * options.step_seconds / options.step_excerpts
        yield row


def measured(data: MusdbDataModule, batches: int) -> tuple[float, float]:
    """Returns the seconds before the loader runs steadily, and those of a batch from then on."""
    loader: Iterator[Any] = iter(())

    def start() -> None:
        nonlocal loader
        loader = iter(data.train_dataloader())
        # Each worker prepares two batches ahead before anyone measures.
        for _ in range(1 + 2 * data.workers):
            next(loader)

    return elapsed(start), elapsed(lambda: [next(loader) for _ in range(batches)]) / batches


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    parser = parser_of(PROGRAM, __doc__, Options)
    # The network's values, and what is chosen here.
    fixed: dict[str, Any] = {
        "sample_rate": ModelConfig.sample_rate,
        "channels": ModelConfig.channels,
        "targets": (),
        "seed": 0,
        "epoch_excerpts": sys.maxsize,
    }
    parser.add_class_arguments(MusdbDataModule, skip={*fixed, "workers"})
    given = parser.parse_args(with_underscores(sys.argv[1:] if arguments is None else arguments)).as_dict()
    own = {field.name: given.pop(field.name) for field in fields(Options)}
    augmentation = Augmentation(**given.pop("augmentation"))

    def run() -> None:
        options, data = Options(**own), MusdbDataModule(**fixed, **given, augmentation=augmentation)
        benchmark(options, data, given["segment_seconds"])

    return exit_status(PROGRAM, run)


if __name__ == "__main__":
    sys.exit(main())
