"""Resuming: the checkpoints of a run, the record in them, and which one to resume from."""

import logging
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, Checkpoint

from bsmamba2.errors import InputError
from bsmamba2.system.files import complete_file, flush_and_rename, remove_unfinished
from bsmamba2.version import __version__
from bsmamba2.weights.checkpoint import RECORD, TRAINING_SONGS

# Lightning's names for the folder of the runs and that of a run's checkpoints.
LIGHTNING_LOGS = "lightning_logs"
CHECKPOINTS_FOLDER = "checkpoints"
LAST_FILE = "last.ckpt"
PREVIOUS = "previous.ckpt"
NEW = "new.ckpt"

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


class ResumePoints(Checkpoint):
    """Writes `last.ckpt` at intervals, and keeps the one before as `previous.ckpt`.

    They are written between two optimiser steps, and at the end of an epoch after its validation.

    Args:
        every_steps: Optimiser steps between two checkpoints.
        every_minutes: Minutes after which a checkpoint is written even if fewer steps were made.
    """

    def __init__(self, every_steps: int = 100, every_minutes: float = 10.0) -> None:
        if every_steps < 1 or not every_minutes > 0:
            raise InputError(
                f"every_steps={every_steps}, every_minutes={every_minutes} is not allowed; give at least 1 and a time"
            )
        self.every_steps = every_steps
        self.every_minutes = every_minutes

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Picks the run's folder and removes leftovers of interrupted writes."""
        self.folder = Path(trainer.log_dir or trainer.default_root_dir) / CHECKPOINTS_FOLDER
        if trainer.is_global_zero:
            remove_unfinished(self.folder, Path(LAST_FILE).suffix)

    @property
    def path(self) -> Path:
        """The path of the newest checkpoint."""
        return self.folder / LAST_FILE

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts counting steps and minutes."""
        self.seen_step = self.saved_step = trainer.global_step
        self.saved_time = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a checkpoint if it is due and no accumulated gradient is pending; a validation comes first."""
        stepped = trainer.global_step > self.seen_step
        self.seen_step = trainer.global_step
        if not stepped or _validation_follows(trainer, batch_idx):
            return
        late = time.monotonic() - self.saved_time >= 60 * self.every_minutes
        due = trainer.global_step - self.saved_step >= self.every_steps or trainer.global_step == trainer.max_steps
        if trainer.strategy.broadcast(late) or due:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes a checkpoint if there was a step since the last one."""
        if trainer.global_step > self.saved_step:
            self._save(trainer)

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


def find_resume_point(root: Path) -> Path | None:
    """Returns the newest resumable checkpoint of the runs in a folder, or None if there is none.

    A damaged file is skipped in favour of the one before it, with a warning.

    Raises:
        InputError: All checkpoints of the newest run are damaged.
    """
    folders = (CHECKPOINTS_FOLDER, f"{LIGHTNING_LOGS}/*/{CHECKPOINTS_FOLDER}")
    found = [path for name in (LAST_FILE, PREVIOUS) for folder in folders for path in root.glob(f"{folder}/{name}")]
    if not found:
        return None
    newest = max(found, key=lambda path: path.stat().st_mtime).parent
    damaged: list[Path] = []
    for path in (newest / LAST_FILE, newest / PREVIOUS):
        if path.exists() and _is_whole(path):
            if path.name != LAST_FILE:
                log.warning("%s is %s; resuming from %s", newest / LAST_FILE, "damaged" if damaged else "missing", path)
            return path
        damaged += [path] if path.exists() else []
    raise InputError(
        f"{' and '.join(str(path) for path in damaged)} cannot be read; give --ckpt_path a different file, or leave "
        "it out to start from the beginning"
    )


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
