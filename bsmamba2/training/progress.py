"""The progress bar of a training run."""

import math
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from bsmamba2.training.health import THROUGHPUT


class TrainingProgressBar(TQDMProgressBar):
    """Lightning's bar with the seconds of audio per second that `Health` measures, and the time left.

    The time left follows from the pace of this run, including validations and checkpoints. Without a limit of steps or
    epochs it is not shown.
    """

    # Number and end of the first step of this run.
    _first_step: tuple[int, float] | None = None

    def on_train_start(self, trainer: Trainer, *arguments: Any) -> None:
        """Starts the bar."""
        super().on_train_start(trainer, *arguments)
        self._first_step = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the bar."""
        # From the end of the first step, which is slower than the rest; a resumed run starts at a later step.
        if self._first_step is None:
            self._first_step = (trainer.global_step, time.perf_counter())
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Returns the values next to the bar: those of the module, audio_s/s, and the time left in d, h and m."""
        items: dict[str, Any] = super().get_metrics(trainer, pl_module)
        throughput = items.pop(THROUGHPUT, None)
        if throughput is not None:
            items["audio_s/s"] = f"{throughput:.1f}"
        seconds = self._seconds_left(trainer)
        if seconds is not None:
            items["left"] = _duration(seconds)
        return items

    def _seconds_left(self, trainer: Trainer) -> float | None:
        # Before training starts, the trainer would have to load the data to count the steps.
        if self._first_step is None or (steps := trainer.estimated_stepping_batches) in (-1, math.inf):
            return None
        first, start = self._first_step
        done = trainer.global_step - first
        return (time.perf_counter() - start) / done * max(0, steps - trainer.global_step) if done else None


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    days, hours = minutes // 1440, minutes // 60 % 24
    return (f"{days}d " if days else "") + (f"{hours}h " if minutes >= 60 else "") + f"{minutes % 60}m"
