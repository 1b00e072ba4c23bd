"""Random mixes of a bank as a Lightning data module."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bsmamba2.data.excerpts import EpochNumbers, Excerpts, Stems
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.errors import InputError
from bsmamba2.stem_names import VOCALS
from default_model.bank import Bank
from default_model.mixing import RecordingMixer, Sampling
from default_model.sources import ACCOMPANIMENT


class RecordingMixes(LightningDataModule):
    """Random mixes of the recordings, made on the device that trains, and the songs to choose on.

    Args:
        root: Folder that was laid out, or a pack of it.
        segment_seconds: Length of an excerpt in seconds; the network's.
        sample_rate: Sampling rate in Hz; the network's.
        channels: Audio channels; the network's.
        targets: Stems that are estimated; the network's.
        seed: Start of all randomness in the excerpts.
        batch_size: Excerpts in a batch, per device.
        epoch_excerpts: Excerpts in an epoch, over all devices.
        sampling: How recordings are drawn, levelled and changed.
    """

    def __init__(
        self,
        root: Path,
        segment_seconds: float,
        sample_rate: int,
        channels: int,
        targets: Sequence[str],
        seed: int,
        batch_size: int = 8,
        epoch_excerpts: int = 800,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen; a None would hide the defaults from the help)
    ) -> None:
        super().__init__()
        if sample_rate != SAMPLE_RATE or channels != 2 or list(targets) != [VOCALS]:
            raise InputError(
                f"sample_rate={sample_rate}, channels={channels}, stems={list(targets)} do not fit the recordings; "
                f"give {SAMPLE_RATE}, 2 and [{VOCALS}]"
            )
        self.root = Path(root)
        self.segment = round(segment_seconds * sample_rate)
        self.seed = seed
        self.batch_size = batch_size
        self.epoch_excerpts = epoch_excerpts
        self.sampling = sampling
        self.next_excerpt = 0

    def setup(self, stage: str) -> None:
        """Reads all recordings."""
        self.bank = self.read(self.root)
        self.data_hash = self.bank.data_hash
        self.training_songs = sorted({entry.name for entry in self.bank.entries if entry.kind != "valid"})
        self.mixer = RecordingMixer(self.bank, self.sampling, self.segment, self.seed)
        songs: dict[str, Stems] = {}
        for entry in self.bank.entries:
            if entry.kind == "valid":
                songs.setdefault(entry.name, {})[entry.stem] = self.bank.read(entry)
        self.songs = [
            (name, {VOCALS: stems[VOCALS], ACCOMPANIMENT: _sum(stems[stem] for stem in stems if stem != VOCALS)})
            for name, stems in songs.items()
        ]

    @staticmethod
    def read(root: Path) -> Bank:
        """Returns the recordings of a folder."""
        return Bank(root)

    def train_dataloader(self) -> DataLoader[int]:
        """Returns batches of numbers of excerpts, which `transfer_batch_to_device` mixes."""
        processes, process = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = EpochNumbers(self.epoch_excerpts, self.batch_size, processes, process, self.next_excerpt)
        return DataLoader(Numbers(), self.batch_size, sampler=sampler)

    def val_dataloader(self) -> DataLoader[tuple[str, Stems]]:
        """Returns one song at a time: its name and its stems (2, n) by name."""
        return DataLoader(self.songs, batch_size=None)  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Returns the mixes of a batch of numbers, and anything else on the device."""
        if not isinstance(batch, Tensor):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return Excerpts(self.mixer.mix(*self.mixer.draw(batch.tolist()), device), [])


class Numbers(Dataset[int]):
    """The numbers themselves."""

    def __getitem__(self, number: int) -> int:
        """Returns the number."""
        return number


def _sum(stems: Any) -> Tensor:
    return torch.stack(list(stems)).sum(0)
