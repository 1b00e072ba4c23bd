"""A training run of a tiny network on real audio, with the module hooks that the callbacks rely on."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import DataLoader

from bsmamba2.data.excerpts import Excerpts, Stems
from bsmamba2.data.tracks import mixture_of
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.stem_names import MUSDB_STEMS


class SmallTraining(LightningModule):
    """Trains a network.

    Args:
        config: Its architecture.
        train: The batches of an epoch.
        songs: Validation songs.
        spoiled: Indices of batches whose loss is finite but whose gradients are not.
        seconds: Extra duration of a training step, a validation step and a checkpoint.
    """

    def __init__(
        self,
        config: ModelConfig,
        train: Sequence[Excerpts],
        songs: Sequence[tuple[str, Stems]] = (),
        spoiled: Sequence[int] = (),
        seconds: tuple[float, float, float] = (0, 0, 0),
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = BSMamba2(config)
        self.train_batches, self.songs, self.spoiled, self.seconds = train, songs, spoiled, seconds
        self.gradient_norm = math.nan
        self.waited_seconds = 0.0

    def train_dataloader(self) -> DataLoader[Excerpts]:
        return DataLoader(self.train_batches, batch_size=None)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[tuple[str, Stems]]:
        return DataLoader(self.songs, batch_size=None)  # type: ignore[arg-type]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)

    def training_step(self, batch: Excerpts, batch_index: int) -> Tensor:
        self.wait(0)
        loss = self.loss(batch.stems)
        if batch_index in self.spoiled:
            loss = loss + (0 * next(self.network.parameters()).sum()).sqrt()
        self.log("train/loss", loss, prog_bar=True, batch_size=1)
        return loss

    def wait(self, what: int) -> None:
        time.sleep(self.seconds[what])
        self.waited_seconds += self.seconds[what]

    def loss(self, stems: Stems) -> Tensor:
        return (self.network(mixture_of(stems))[:, 0] - stems["vocals"]).abs().mean()

    def configure_gradient_clipping(self, optimizer: Any, *arguments: Any, **options: Any) -> None:
        self.gradient_norm = float(torch.nn.utils.clip_grad_norm_(self.parameters(), 5.0))
        if not math.isfinite(self.gradient_norm):
            optimizer.zero_grad(set_to_none=True)

    def validation_step(self, batch: tuple[str, Stems], batch_index: int) -> dict[str, Any]:
        self.wait(1)
        name, stems = batch
        mixture, references = mixture_of(stems), stems["vocals"][None]
        estimates = self.network(mixture[None])[0]
        return {
            "name": name,
            "mixture": mixture,
            "estimates": estimates,
            "references": references,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.wait(2)


def batches(song_stems: dict[str, Tensor], config: ModelConfig, count: int) -> list[Excerpts]:
    """Returns batches of two excerpts, evenly spread over the song."""
    starts = torch.linspace(0, song_stems["vocals"].shape[-1] - config.segment, 2 * count).long().view(-1, 2).tolist()
    return [
        Excerpts(
            {
                stem: torch.stack([song_stems[stem][:, start : start + config.segment] for start in pair])
                for stem in MUSDB_STEMS
            },
            [],
        )
        for pair in starts
    ]


def broken(batch: Excerpts) -> Excerpts:
    """Returns the batch with one NaN sample."""
    drums = batch.stems["drums"].clone()
    drums[0, 1, 7] = math.nan
    return Excerpts({**batch.stems, "drums": drums}, [])


def small_trainer(folder: Path, *callbacks: Callback, logger: bool = True, **options: Any) -> Trainer:
    """Returns a trainer on the CPU that logs every step to TensorBoard and does not validate by default."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
    }
    kept = TensorBoardLogger(folder) if logger else False
    return Trainer(callbacks=list(callbacks), logger=kept, default_root_dir=folder, **(defaults | options))


def events(folder: Path) -> EventAccumulator:
    """Returns everything logged to TensorBoard."""
    (file,) = folder.rglob("events.out.tfevents.*")
    return EventAccumulator(str(file), {"images": 0, "audio": 0, "scalars": 0}).Reload()


def scalars(folder: Path, name: str) -> list[float]:
    """Returns the values logged under a name."""
    return [event.value for event in events(folder).Scalars(name)]
