"""Resuming: the checkpoints of a run, the record in them, and which one to resume from."""

import logging
import math
import os
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from bsmamba2.errors import InputError
from bsmamba2.system.files import complete_file, flush_and_rename, remove_unfinished
from bsmamba2.system.stopping import DeferredStop
from bsmamba2.version import __version__
from bsmamba2.weights.headers import RECORD, TRAINING_SONGS

# Lightning's names for the folder of a run's checkpoints, and the files of its options and its log.
CHECKPOINTS_FOLDER = "checkpoints"
CONFIG_FILE = "config.yaml"
METRICS_TABLE = "metrics.csv"
LAST_FILE = "last.ckpt"
PREVIOUS = "previous.ckpt"
NEW = "new.ckpt"
# What is logged of every step, and of nothing else.
LOSS = "train/loss"

log = logging.getLogger(__name__)


class CompleteCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically: to a temporary file in the same folder, renamed once it is complete."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a checkpoint; an existing one of that name is kept until the new one is complete.

        Raises:
            InputError: It cannot be written, for instance because the disk is full.
        """
        with complete_file(Path(path)) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:
                # torch reports an OSError in its writer like this.
                raise OSError(0, next(iter(str(error).splitlines()))) from error


class OrderedExcerpts(Protocol):
    """Data for training whose excerpts are numbered, so that a run can resume at any of them.

    Attributes:
        seed: Start of all randomness in the excerpts.
        data_hash: Hash of what they are made of.
        batch_size: Excerpts in a batch, per device.
        epoch_excerpts: Excerpts in an epoch, over all devices.
        next_excerpt: Number of the first excerpt to use.
        training_songs: Names of the songs that they are made of.
    """

    seed: int
    data_hash: str
    batch_size: int
    epoch_excerpts: int
    next_excerpt: int
    training_songs: Sequence[str]


class RunRecord(Callback):
    """Records in every checkpoint what made it, and resumes only with the same data in the same order.

    Args:
        config: All options of the run, as YAML.
        data: The data that the run is trained on.
        initial_songs: Names of the songs that the weights at its start were trained on.
    """

    def __init__(self, config: str, data: OrderedExcerpts, initial_songs: Iterable[str] = ()) -> None:
        self.config = config
        self.data = data
        self.earlier_songs = set(initial_songs)
        self.next_excerpt = self.seen_step = 0
        self.metrics: dict[str, float] = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the excerpts up to the last optimiser step; those accumulated since then are used again on resume."""
        size = self.data.epoch_excerpts
        if trainer.is_last_batch:
            self.next_excerpt = (trainer.current_epoch + 1) * size
        elif trainer.global_step > self.seen_step:
            self.next_excerpt = trainer.current_epoch * size + (batch_idx + 1) * self._batch_over_devices(trainer)
        self.seen_step = trainer.global_step

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the record."""
        self.metrics |= {name: value.item() for name, value in trainer.callback_metrics.items()}
        checkpoint[RECORD] = {
            "version": __version__,
            "config": self.config,
            "metrics": self.metrics,
            "next_excerpt": self.next_excerpt,
            TRAINING_SONGS: sorted({*self.data.training_songs, *self.earlier_songs}),
            **self._of_order(trainer),
        }
        used = self.next_excerpt % self.data.epoch_excerpts
        _end_epoch(checkpoint["loops"]["fit_loop"], used // self._batch_over_devices(trainer))

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Moves the data to where the run stopped.

        Raises:
            InputError: The excerpts of this run would differ from those of the checkpoint.
        """
        record = checkpoint[RECORD]
        now = self._of_order(trainer)
        for name, value in now.items():
            if record[name] != value:
                raise InputError(
                    f"the checkpoint was trained with {name}={record[name]} and this run has {value}, so its excerpts "
                    "would differ; give the same data and options, or start from the weights with --model.init_from"
                )
        self.next_excerpt = self.data.next_excerpt = record["next_excerpt"]
        self.seen_step = checkpoint["global_step"]
        self.metrics = record["metrics"]
        # Those of the weights that the run once started from are in it; older versions recorded none.
        self.earlier_songs |= set(record.get(TRAINING_SONGS, ()))

    def _of_order(self, trainer: Trainer) -> dict[str, Any]:
        """Returns the values that determine the order of the excerpts."""
        return {
            "seed": self.data.seed,
            "data_hash": self.data.data_hash,
            "epoch_excerpts": self.data.epoch_excerpts,
            "batch_over_devices": self._batch_over_devices(trainer),
        }

    def _batch_over_devices(self, trainer: Trainer) -> int:
        return self.data.batch_size * trainer.world_size


class WeightsCheck(Protocol):
    """Checks the weights of a training run."""

    def check_weights(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        """Checks the weights on a batch.

        Raises:
            InputError: They have diverged.
        """


class ResumePoints(Checkpoint):
    """Writes `last.ckpt` at intervals, and keeps the one before as `previous.ckpt`.

    They are written before the first step, between two optimiser steps, and at the end of an epoch after its
    validation. Only weights with a finite loss are written, so that a run that diverges can be resumed from before.
    Ctrl-C or a signal to stop takes effect after the current step, and the validation that follows it, and a last
    checkpoint; the second one takes effect at once.

    Args:
        every_steps: Optimiser steps between two checkpoints.
        every_minutes: Minutes after which a checkpoint is written even if fewer steps were made.

    Attributes:
        best: Writes the best checkpoints; these are in the same folder.
        weights_check: Refuses weights that have diverged.
        start: The checkpoint that the run resumes, if it does.
    """

    best: ModelCheckpoint
    weights_check: WeightsCheck
    start: Path | None = None

    def __init__(self, every_steps: int = 100, every_minutes: float = 10.0) -> None:
        if every_steps < 1 or not every_minutes > 0:
            raise InputError(
                f"every_steps={every_steps}, every_minutes={every_minutes} is not allowed; give at least 1 and a time"
            )
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self._stop = DeferredStop()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Picks the folder and removes leftovers of interrupted writes.

        Raises:
            InputError: The folder has checkpoints of a different run.
        """
        self.folder = Path(self.best.dirpath or trainer.default_root_dir)
        resumed = self.start is not None and self.start.absolute().parent == self.folder.absolute()
        if not resumed and _has_resume_point(self.folder):
            raise InputError(
                f"{self.folder} contains the checkpoints of a run, which this one would replace; resume that run with "
                "--ckpt_path last, or give another --trainer.default_root_dir"
            )
        if trainer.is_global_zero:
            remove_unfinished(self.folder, Path(LAST_FILE).suffix)

    @property
    def path(self) -> Path:
        """The path of the newest checkpoint."""
        return self.folder / LAST_FILE

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting steps and minutes, and writes the first checkpoint of the run."""
        self.seen_step = self.saved_step = trainer.global_step
        self.saved_time = time.monotonic()
        if not trainer.strategy.broadcast(_has_resume_point(self.folder)):
            self._save(trainer)
        # Now, because Lightning's own handlers would stop in the middle of a step.
        self._stop.listen()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a checkpoint if it is due and no accumulated gradient is pending; a validation comes first.

        Raises:
            InputError: The weights have diverged.
        """
        stepped = trainer.global_step > self.seen_step
        self.seen_step = trainer.global_step
        if not stepped:
            return
        validated = _validation_follows(trainer, batch_idx)
        late = time.monotonic() - self.saved_time >= 60 * self.every_minutes
        due = trainer.global_step - self.saved_step >= self.every_steps or trainer.global_step == trainer.max_steps
        stopping = self._stopping(trainer)
        if trainer.strategy.broadcast(late) or due or validated or stopping:
            self.weights_check.check_weights(trainer, pl_module, batch)
            if not validated:
                self._save(trainer)
        if stopping and not validated:
            self._stop.stop()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes a checkpoint if there was a step since the last one."""
        if trainer.global_step > self.saved_step:
            self._save(trainer)
        if self._stopping(trainer):
            self._stop.stop()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the handlers of signals."""
        self._stop.restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restores the handlers of signals."""
        self._stop.restore()

    def _stopping(self, trainer: Trainer) -> bool:
        return trainer.strategy.reduce_boolean_decision(self._stop.number is not None, all=False)

    def _save(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return  # A trial of a few batches is not resumed.
        self.saved_step, self.saved_time = trainer.global_step, time.monotonic()
        new, last, previous = (self.folder / name for name in (NEW, LAST_FILE, PREVIOUS))
        try:
            trainer.save_checkpoint(new, weights_only=False)
        except InputError as error:
            log.error("%s; the older %s is kept, and training continues", error, last)
            # The other processes are waiting at the barrier at the end of saving.
            trainer.strategy.barrier()
            return
        if trainer.is_global_zero:
            if last.exists():
                last.replace(previous)
            flush_and_rename(new, last)


def advice_to_resume(trainer: Trainer) -> str:
    """Returns what to do about weights that have diverged, which names the checkpoint from before."""
    paths = [callback.path for callback in trainer.checkpoint_callbacks if isinstance(callback, ResumePoints)]
    kept = next((path for path in paths if path.exists()), None)
    return f"{f'resume from {kept}' if kept else 'start again'} with a lower --model.learning_rate"


def learning_rate(trainer: Trainer) -> float:
    """Returns the learning rate of the last step; NaN outside training."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return max((float(group["lr"]) for group in groups), default=math.nan)


def _validation_follows(trainer: Trainer, batch_index: int) -> bool:
    """Returns whether a validation or the end of an epoch follows this batch: resuming here would skip it."""
    if trainer.check_val_every_n_epoch is None:
        batch_index = trainer.fit_loop.total_batch_idx
    every = trainer.val_check_batch
    return trainer.is_last_batch or (isinstance(every, int) and (batch_index + 1) % every == 0)


def _end_epoch(fit_loop: dict[str, Any], used_batches: int) -> None:
    """Corrects the position in the epoch of a saved state of Lightning's loop that marks the epoch as processed.

    Lightning marks an epoch as completed only after the checkpoint is written; a run limited by steps would then count
    its batches as those of the next epoch. It also marks an epoch as processed that was stopped halfway.

    Args:
        fit_loop: The state, which is modified.
        used_batches: Batches of the epoch that the optimiser has used; 0 if the epoch is over.
    """
    epochs, batches = fit_loop["epoch_progress"], fit_loop["epoch_loop.batch_progress"]
    if epochs["current"]["processed"] != epochs["current"]["started"]:
        return
    for count in (epochs["current"], epochs["total"]):
        if used_batches:
            count["processed"] -= 1
        else:
            count["completed"] = count["processed"]
    unused = batches["current"]["ready"] - used_batches if used_batches else 0
    batches["current"] = dict.fromkeys(batches["current"], used_batches)
    batches["total"] = {name: number - unused for name, number in batches["total"].items()}
    batches["is_last_batch"] = False


def find_resume_point(folders: Sequence[Path], below: Path | None) -> Path | None:
    """Returns the newest resumable checkpoint, or None if there is none.

    A damaged file is skipped in favour of the one before it, with a warning.

    Args:
        folders: Where to look first.
        below: Folder in which, at any depth, to look if there is none.

    Raises:
        InputError: All checkpoints of the newest run are damaged, or there are files of a run without the checkpoint to
            resume it from.
    """
    found = [folder for folder in folders if _has_resume_point(folder)]
    if not found and below is not None:
        found = [Path(folder) for folder, _, files in os.walk(below) if {LAST_FILE, PREVIOUS} & set(files)]
    if not found:
        _check_nothing_lost(folders, below)
        return None
    newest = max(found, key=lambda folder: max(path.stat().st_mtime for path in _resume_points(folder)))
    damaged: list[Path] = []
    for path in _resume_points(newest):
        if _is_whole(path):
            if path.name != LAST_FILE:
                log.warning("%s is %s; resuming from %s", newest / LAST_FILE, "damaged" if damaged else "missing", path)
            return path
        damaged.append(path)
    raise InputError(
        f"{' and '.join(str(path) for path in damaged)} cannot be read; give --ckpt_path a different file, or leave "
        "it out to start from the beginning"
    )


def _resume_points(folder: Path) -> list[Path]:
    return [folder / name for name in (LAST_FILE, PREVIOUS) if (folder / name).exists()]


def _has_resume_point(folder: Path) -> bool:
    return bool(_resume_points(folder))


def _check_nothing_lost(folders: Sequence[Path], below: Path | None) -> None:
    """Refuses to start where a run has left other checkpoints, or a log, and its resume point is gone."""
    walked = [Path(folder) for folder, _, _ in os.walk(below)] if below is not None else []
    for folder in [*folders, *(folder for folder in walked if folder.name == CHECKPOINTS_FOLDER)]:
        for path in sorted(folder.glob("*.ckpt")):
            raise InputError(
                f"{folder} has checkpoints, but neither {LAST_FILE} nor {PREVIOUS}; give one of them, such as "
                f"--ckpt_path {path}, or leave --ckpt_path out to start from the beginning"
            )
    for run in [*(folder.parent for folder in folders), *walked]:
        if (run / CONFIG_FILE).exists() and _has_log(run):
            raise InputError(
                f"{run} has the log of a run, but its checkpoints are not there; give the newest of them with "
                "--ckpt_path, or leave --ckpt_path out to start from the beginning"
            )


def _has_log(run: Path) -> bool:
    """Returns whether a run has logged a step; if it has, it has written a checkpoint."""
    for table in run.glob(f"{Path(METRICS_TABLE).stem}*.csv"):
        with table.open(encoding="utf-8") as file:
            if LOSS in file.readline():
                return True
    if not any(run.glob("events.out.tfevents.*")):
        return False
    return LOSS in EventAccumulator(str(run), {"scalars": 1}).Reload().Tags()["scalars"]


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
