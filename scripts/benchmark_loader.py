"""How fast the data loader of the training is: excerpts, and seconds of them, per second, for numbers of workers.

The options are those of the training's data, without `--data.`. Every excerpt is as many stems. Files that were read
before come from memory, not from the disk: to measure the disk, give data larger than that.
"""

import sys
import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser

from bsmamba2.data.augment import Augmentation
from bsmamba2.data.datamodule import MusdbDataModule
from bsmamba2.model import ModelConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints a table."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    # What the network says otherwise, apart from the segment; and what is chosen here.
    fixed: dict[str, Any] = {
        "sample_rate": ModelConfig.sample_rate,
        "channels": ModelConfig.channels,
        "targets": (),
        "seed": 0,
        "epoch_excerpts": sys.maxsize,
    }
    parser.add_class_arguments(MusdbDataModule, skip={*fixed, "workers"})
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4], help="numbers of processes to try")
    parser.add_argument("--batches", type=int, default=50, help="batches to measure")
    parser.add_argument("--step_seconds", type=float, help="how long a training step takes, to compare with")
    parser.add_argument("--step_excerpts", type=int, default=60, help="excerpts in a training step")
    options = parser.parse_args(arguments).as_dict()
    measured = {name: options.pop(name) for name in ("workers", "batches", "step_seconds", "step_excerpts")}
    augmentation = Augmentation(**options.pop("augmentation"))
    data = MusdbDataModule(**fixed, **options, augmentation=augmentation)
    data.setup("fit")
    print(f"{'workers':>7} {'start s':>8} {'excerpts/s':>11} {'audio s/s':>10}")
    for workers in measured["workers"]:
        data.workers = workers
        start_seconds, batch_seconds = _measure(data, measured["batches"])
        rate = data.batch_size / batch_seconds
        row = f"{workers:7} {start_seconds:8.2f} {rate:11.1f} {rate * options['segment_seconds']:10.1f}"
        if measured["step_seconds"]:
            need = measured["step_excerpts"] / measured["step_seconds"]
            row += f"   {rate / need:.2f} times what the step needs ({need:.1f} excerpts/s)"
        print(row, flush=True)
    return 0


def _measure(data: MusdbDataModule, batches: int) -> tuple[float, float]:
    """Returns the seconds before the loader runs steadily, and those of a batch from then on."""
    started = time.monotonic()
    loader = iter(data.train_dataloader())
    # Two batches for each worker are made ahead while nobody measures.
    for _ in range(1 + 2 * data.workers):
        next(loader)
    ready = time.monotonic()
    for _ in range(batches):
        next(loader)
    return ready - started, (time.monotonic() - ready) / batches


if __name__ == "__main__":
    sys.exit(main())
