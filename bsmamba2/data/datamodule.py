"""Songs with stems as a Lightning data module."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from platformdirs import user_cache_path
from torch.utils.data import DataLoader

from bsmamba2.data.activity import ActivityIndex, index_tracks
from bsmamba2.data.augment import Augmentation
from bsmamba2.data.excerpts import EpochNumbers, Excerpts, RandomMixes, SongExcerpts, Stems, collate, start_worker
from bsmamba2.data.musdb import Split
from bsmamba2.data.track_files import unused_files
from bsmamba2.data.tracks import Track, find_tracks, track_paths
from bsmamba2.errors import InputError
from bsmamba2.system.files import sha256_of_text

log = logging.getLogger(__name__)


class MusdbDataModule(LightningDataModule):
    """Random mixes for training and fixed excerpts for validation, of MUSDB18 or any folder of songs with stems.

    Every excerpt is a pure function of (seed, number), so the number `next_excerpt` of the next one is all the state
    needed to resume training.

    Args:
        root: Folder with train/, and perhaps valid/: {track}.stem.mp4 files, or {track}/{stem}.wav folders (HQ).
        segment_seconds: Length of a training excerpt in seconds; the network's.
        sample_rate: Sampling rate in Hz; the network's.
        channels: Audio channels; the network's.
        targets: Stems that are estimated; the network's.
        seed: Start of all randomness in the excerpts.
        batch_size: Excerpts in a batch, per device.
        epoch_excerpts: Excerpts in an epoch, over all devices.
        augmentation: How often and how much the stems of an excerpt are changed.
        validation_tracks: Names of tracks in train/ to validate on, instead of the official 14.
        validation_artists: Names of artists in train/ to validate on, all their tracks.
        shared_artists: Whether songs of an artist may be in both training and validation, as in the official split.
        validation_seconds: Length of the fixed excerpt around the middle of each validation song; by default
            the whole song.
        workers: Processes that read excerpts.
        cache: Folder for the active windows of files, and for decoded stems of tracks that cannot be read from any
            position; by default the user's cache.
        index: Index of active windows written by `bsmamba2 check-data`; by default those of each file are
            kept in the cache.
    """

    def __init__(
        self,
        root: Path,
        segment_seconds: float,
        sample_rate: int,
        channels: int,
        targets: Sequence[str],
        seed: int,
        batch_size: int = 5,
        epoch_excerpts: int = 6000,
        augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen; a None would hide the defaults from the help)
        validation_tracks: list[str] | None = None,
        validation_artists: list[str] | None = None,
        shared_artists: bool = False,
        validation_seconds: float | None = None,
        workers: int = 4,
        cache: Path | None = None,
        index: Path | None = None,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.sample_rate = sample_rate
        self.channels = channels
        self.targets = targets
        self.segment = round(segment_seconds * sample_rate)
        self.seed = seed
        self.batch_size = batch_size
        self.epoch_excerpts = epoch_excerpts
        self.augmentation = augmentation
        self.validation_tracks = validation_tracks
        self.validation_artists = validation_artists
        self.shared_artists = shared_artists
        self.validation_seconds = validation_seconds
        self.workers = workers
        self.cache = cache or user_cache_path("bsmamba2", appauthor=False)
        self.index = index
        self.next_excerpt = 0
        # Found once: both `prepare_data` and `setup` need them.
        self._found: dict[Split, list[Track]] = {}
        self._index: ActivityIndex | None = None
        self._check_values()

    def _check_values(self) -> None:
        allowed = {
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "epoch_excerpts": (self.epoch_excerpts >= self.batch_size, "at least batch_size"),
            "workers": (self.workers >= 0, "at least 0"),
        }
        for name, (fine, rule) in allowed.items():
            if not fine:
                raise InputError(f"{name}={getattr(self, name)} is not allowed; give {rule}")
        if self.validation_seconds is not None and not 1 / self.sample_rate <= self.validation_seconds < math.inf:
            raise InputError(
                f"validation_seconds={self.validation_seconds} is not allowed; give at least the length of a sample, "
                "or leave it out for whole songs"
            )

    def prepare_data(self) -> None:
        """Decodes and indexes the songs once, so that every process finds them and the index in the cache."""
        paths = [
            path
            for split in ("train", "valid")
            if (self.root / split).is_dir()
            for path in track_paths(self.root / split)
        ]
        for sentence in unused_files(paths):
            log.warning("%s", sentence)
        self._tracks("valid")
        self._activity()

    def setup(self, stage: str) -> None:
        """Finds the songs to train and validate on, and names and hash of the former."""
        tracks, songs = self._tracks("train"), self._tracks("valid")
        index = self._activity()
        self.data_hash = index.data_hash
        self.training_songs = tuple(track.name for track in tracks)
        self.mixes = RandomMixes(
            tracks, index.windows, self.segment, self.sample_rate, self.channels, self.augmentation, self.seed
        )
        seconds = self.validation_seconds
        self.songs = SongExcerpts(songs, None if seconds is None else round(seconds * self.sample_rate))

    def train_dataloader(self) -> DataLoader[Excerpts]:
        """Returns batches of stems (b, c, n) by name."""
        processes, process = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        if self.epoch_excerpts < self.batch_size * processes:
            raise InputError(
                f"epoch_excerpts={self.epoch_excerpts} does not fill one batch of {self.batch_size} excerpts on "
                f"{processes} devices; give more"
            )
        return DataLoader(
            self.mixes,
            self.batch_size,
            sampler=EpochNumbers(self.epoch_excerpts, self.batch_size, processes, process, self.next_excerpt),
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            **_workers(self.workers),
        )

    def val_dataloader(self) -> DataLoader[tuple[str, Stems]]:
        """Returns one song at a time: its name and its stems (c, n) by name."""
        return DataLoader(self.songs, batch_size=None, **_workers(min(1, self.workers)))

    def _activity(self) -> ActivityIndex:
        if self._index is None:
            self._index = index_tracks(self._tracks("train"), self.segment, self.cache, self.index)
        return self._index

    def _tracks(self, split: Split) -> list[Track]:
        if split not in self._found:
            self._found[split] = self._find_tracks(split)
        return self._found[split]

    def _find_tracks(self, split: Split) -> list[Track]:
        tracks = find_tracks(
            self.root,
            split,
            validation_tracks=self.validation_tracks,
            validation_artists=self.validation_artists,
            shared_artists=self.shared_artists,
            sample_rate=self.sample_rate,
            channels=self.channels,
            decoded=self.cache / "decoded" / sha256_of_text(str(self.root.resolve()))[:16],
        )
        strangers = [stem for stem in self.targets if stem not in tracks[0].stems]
        if strangers:
            raise InputError(f"{self.root} has no stem {strangers[0]!r}; choose among {', '.join(tracks[0].stems)}")
        self.augmentation.check_stems(tracks[0].stems)
        return tracks


def _workers(count: int) -> dict[str, Any]:
    # spawn everywhere: it is what Windows and macOS have, and a forked process inherits the locks of torch's threads.
    parallel = {"multiprocessing_context": "spawn", "persistent_workers": True, "worker_init_fn": start_worker}
    return {"num_workers": count, **(parallel if count else {})}
