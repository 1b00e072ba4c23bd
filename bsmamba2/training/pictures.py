"""Spectrograms and audio of validation songs for TensorBoard."""

import logging
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from bsmamba2.audio.spectrograms import loudest_stretch, spectrograms
from bsmamba2.errors import InputError
from bsmamba2.model import Network

SONGS_SHOWN = 3
SHOWN_SECONDS = 10.0

log = logging.getLogger(__name__)


class Pictures(Callback):
    """Logs spectrograms and audio of the first three songs of a validation.

    They show the ten seconds in which the estimated stems are loudest. An image has mixture, estimate and reference one
    above the other. With several processes, only the main process logs, and only the songs that it validates.

    Args:
        every_n_validations: Images and audio are logged at the first of this many validations; 1 for every validation.
    """

    def __init__(self, every_n_validations: int = 1) -> None:
        super().__init__()
        if every_n_validations < 1:
            raise InputError(f"every_n_validations={every_n_validations} is not allowed; give at least 1")
        self.every_n_validations = every_n_validations
        self._validations = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns the number of validations."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the number of validations."""
        self._validations = state_dict["validations"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reports that nothing is logged if TensorBoard is not the logger."""
        if trainer.is_global_zero and _writer(trainer) is None:
            log.info("no images and audio of validation songs are logged, because TensorBoard is not the logger")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Logs a song.

        Args:
            trainer: The trainer.
            pl_module: A module with a `network`.
            outputs: Result of validation_step: name, mixture (c, n), estimates and references (s, c, n).
            batch: The song.
            batch_idx: Its number.
            dataloader_idx: Always 0.
        """
        writer = None if trainer.sanity_checking or not trainer.is_global_zero else _writer(trainer)
        if writer is None:
            return
        if batch_idx < SONGS_SHOWN and self._validations % self.every_n_validations == 0:
            network = cast(Network, pl_module.network)
            self._write_song(writer, outputs, network.config.stems, network.config.sample_rate, trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts the validations."""
        self._validations += not trainer.sanity_checking

    def _write_song(
        self, writer: SummaryWriter, song: dict[str, Any], stems: tuple[str, ...], sample_rate: int, step: int
    ) -> None:
        name, references = song["name"], song["references"]
        excerpt = loudest_stretch(references, round(SHOWN_SECONDS * sample_rate))
        mixture = song["mixture"][..., excerpt].mean(0)
        sounds = {"mixture": mixture} if self._validations == 0 else {}
        for stem, estimate, reference in zip(stems, song["estimates"], references, strict=True):
            estimate, reference = estimate[..., excerpt].mean(0), reference[..., excerpt].mean(0)
            sounds[f"{stem} estimate"] = estimate
            if self._validations == 0:
                sounds[f"{stem} reference"] = reference
            image = spectrograms(torch.stack([mixture, estimate, reference]), sample_rate)
            writer.add_image(f"val_pictures/{name}/{stem}: mixture, estimate, reference", image, step)
        for kind, audio in sounds.items():
            writer.add_audio(f"val_audio/{name}/{kind}", audio.clamp(-1, 1)[None], step, sample_rate)


def _writer(trainer: Trainer) -> SummaryWriter | None:
    logger = next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
    return None if logger is None else logger.experiment
