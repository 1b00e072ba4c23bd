"""Spectrograms and audio of validation songs for TensorBoard."""

import logging
import math
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2
from bsmamba2.model.stft import stft

EXCERPTS = 3
EXCERPT_SECONDS = 10.0
N_FFT = 4096
COLUMNS = 800
ROWS = 160
LOWEST_HZ = 40.0
RANGE_DB = 80.0
# From silence to full scale, ever brighter: black, violet, red, orange, light yellow.
COLOURS = ((0, 0, 8), (72, 18, 120), (200, 45, 85), (250, 150, 40), (255, 255, 200))

log = logging.getLogger(__name__)


class Pictures(Callback):
    """Writes what the first three songs of each validation look and sound like.

    Of a song, the ten seconds are taken in which the estimated stems are loudest. A picture shows mixture, estimate and
    reference one above the other. In a training of several processes only the main one writes, of the songs it gets.

    Args:
        every_n_validations: Pictures and audio are written at the first of so many validations; 1 for each.
    """

    def __init__(self, every_n_validations: int = 1) -> None:
        super().__init__()
        if every_n_validations < 1:
            raise InputError(f"every_n_validations={every_n_validations} is not allowed; give at least 1")
        self.every_n_validations = every_n_validations
        self._validations = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns how many validations there were."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self._validations = state_dict["validations"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says where nothing can be written."""
        if trainer.is_global_zero and _writer(trainer) is None:
            log.info("no pictures and audio of validation songs are kept, because TensorBoard is not the logger")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes what there is of a song.

        Args:
            trainer: The trainer.
            pl_module: A module with a `network`.
            outputs: Of its validation_step: name, mixture (c, n), estimates and references (s, c, n), scores by name.
            batch: The song.
            batch_idx: Its number.
            dataloader_idx: Of which there is only one.
        """
        writer = None if trainer.sanity_checking or not trainer.is_global_zero else _writer(trainer)
        if writer is None:
            return
        if batch_idx < EXCERPTS and self._validations % self.every_n_validations == 0:
            network = cast(BSMamba2, pl_module.network)
            self._write_song(writer, outputs, network.config.stems, network.config.sample_rate, trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Counts the validations."""
        self._validations += not trainer.sanity_checking

    def _write_song(
        self, writer: SummaryWriter, song: dict[str, Any], stems: tuple[str, ...], sample_rate: int, step: int
    ) -> None:
        name, references = song["name"], song["references"]
        excerpt = _loudest(references, round(EXCERPT_SECONDS * sample_rate))
        mixture = song["mixture"][..., excerpt].mean(0)
        sounds = {"mixture": mixture} if self._validations == 0 else {}
        for stem, estimate, reference in zip(stems, song["estimates"], references, strict=True):
            estimate, reference = estimate[..., excerpt].mean(0), reference[..., excerpt].mean(0)
            sounds[f"{stem} estimate"] = estimate
            if self._validations == 0:
                sounds[f"{stem} reference"] = reference
            picture = spectrograms(torch.stack([mixture, estimate, reference]), sample_rate)
            writer.add_image(f"val_pictures/{name}/{stem}: mixture, estimate, reference", picture, step)
        for kind, audio in sounds.items():
            writer.add_audio(f"val_audio/{name}/{kind}", audio.clamp(-1, 1)[None], step, sample_rate)


def spectrograms(audio: Tensor, sample_rate: int) -> Tensor:
    """Returns a picture (3, height, width) in 8 bits of the spectrograms of audio (k, n), one above the other.

    Colours span the 80 dB below the peak of the first one; frequency rises from 40 Hz to half the sampling rate (Hz),
    linearly at first and then logarithmically (mel).
    """
    hop = max(1, math.ceil(audio.shape[-1] / COLUMNS))
    power = stft(audio, n_fft=N_FFT, window_length=N_FFT // 2, hop_length=hop).abs().square()
    rows = _rows(sample_rate, power) @ power
    peak = rows[0].max().clamp(min=torch.finfo(rows.dtype).tiny)
    level = (1 + 10 / RANGE_DB * (rows / peak).clamp(min=1e-30).log10()).clamp(0, 1)
    coloured = _coloured(level.flip(-2))
    line = coloured.new_full((3, 4, coloured.shape[-1]), 255)
    parts = [part for picture in coloured for part in (line, picture)]
    return torch.cat(parts[1:], dim=1)


def _rows(sample_rate: int, power: Tensor) -> Tensor:
    """Returns the means (row, bin) over the bins that each row covers, or its share of a bin where it is narrower."""
    mels = torch.linspace(math.log1p(LOWEST_HZ / 700), math.log1p(sample_rate / 2 / 700), ROWS + 1)
    # The bin b reaches from b - 1/2 to b + 1/2.
    edges = (700 * mels.expm1() * N_FFT / sample_rate + 0.5).to(power)
    bins = torch.arange(N_FFT // 2 + 1).to(power)
    shared = torch.minimum(edges[1:, None], bins + 1) - torch.maximum(edges[:-1, None], bins)
    shared = shared.clamp(min=0)
    return shared / shared.sum(1, keepdim=True)


def _coloured(level: Tensor) -> Tensor:
    """Returns colours (k, 3, h, w) in 8 bits of levels (k, h, w) from 0 to 1."""
    colours = torch.tensor(COLOURS).to(level)
    position = level * (len(COLOURS) - 1)
    lower = position.long().clamp(max=len(COLOURS) - 2)
    mixed = torch.lerp(colours[lower], colours[lower + 1], (position - lower)[..., None])
    return mixed.round().to(torch.uint8).movedim(-1, 1)


def _loudest(stems: Tensor, length: int) -> slice:
    """Returns the samples, so many at most, in which stems (s, c, n) have most energy."""
    energy = torch.cat([torch.zeros(1, dtype=torch.float64), stems.double().square().sum((0, 1)).cumsum(0)])
    length = min(length, stems.shape[-1])
    start = int((energy[length:] - energy[: len(energy) - length]).argmax())
    return slice(start, start + length)


def _writer(trainer: Trainer) -> SummaryWriter | None:
    logger = next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
    return None if logger is None else logger.experiment
