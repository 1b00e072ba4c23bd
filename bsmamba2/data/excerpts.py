"""What training and validation hear: random mixes of active excerpts, and fixed excerpts of whole songs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from bsmamba2.data.activity import Windows
from bsmamba2.data.musdb import STEMS, Track

Stems = dict[str, Tensor]


@dataclass(frozen=True)
class RandomMixes(Dataset[Stems]):
    """Stems of different songs side by side. Every excerpt is a pure function of (seed, number).

    Args:
        tracks: Songs to draw from.
        windows: Active windows of every stem.
        segment: Length of an excerpt in samples.
        silence_probability: How often a stem is silenced.
        gains: Lowest and highest factor a stem is multiplied by.
        seed: Start of all randomness.
    """

    tracks: Sequence[Track]
    windows: Windows
    segment: int
    silence_probability: float
    gains: tuple[float, float]
    seed: int

    def __getitem__(self, number: int) -> Stems:
        """Returns stems (c, n) by name; each comes from an active window of any song, drawn on its own."""
        generator = torch.Generator().manual_seed(_mixed_seed(self.seed, number))
        return {stem: self._draw(stem, generator) for stem in STEMS}

    def _draw(self, stem: str, generator: torch.Generator) -> Tensor:
        choice = int(torch.randint(len(self.windows[stem]), (), generator=generator))
        silenced, position = torch.rand(2, generator=generator).tolist()
        track, start = self.windows[stem][choice]
        if silenced < self.silence_probability:
            return torch.zeros(2, self.segment)
        low, high = self.gains
        return self.tracks[track].read(stem, start, self.segment) * (low + (high - low) * position)


@dataclass(frozen=True)
class SongExcerpts(Dataset[tuple[str, Stems]]):
    """One fixed excerpt of every song, its stems as they are; the same in every epoch.

    Args:
        tracks: Songs.
        length: Samples around the middle of the song; None for the whole song.
    """

    tracks: Sequence[Track]
    length: int | None

    def __len__(self) -> int:
        """Returns the number of songs."""
        return len(self.tracks)

    def __getitem__(self, number: int) -> tuple[str, Stems]:
        """Returns the name of the song and its stems (c, n) by name."""
        track = self.tracks[number]
        length = track.length if self.length is None else min(self.length, track.length)
        start = (track.length - length) // 2
        return track.name, {stem: track.read(stem, start, length) for stem in STEMS}


class EpochNumbers(Sampler[int]):
    """Counts excerpts through all epochs: epoch e has the numbers from e · size up. Lightning sets the epoch.

    Args:
        size: Excerpts in an epoch.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Returns the number of excerpts in an epoch."""
        return self.size

    def __iter__(self) -> Iterator[int]:
        """Yields the numbers of the epoch's excerpts."""
        return iter(range(self.epoch * self.size, (self.epoch + 1) * self.size))


def _mixed_seed(seed: int, number: int) -> int:
    """Returns one seed of two numbers, such that neighbours share no stream."""
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(2**62, (), generator=generator))
    return (first ^ (number * 0x9E3779B97F4A7C15)) % 2**63
