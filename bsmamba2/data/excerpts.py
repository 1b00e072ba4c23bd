"""What training and validation hear: random mixes of active excerpts, and fixed excerpts of whole songs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, default_collate

from bsmamba2.data.activity import Windows
from bsmamba2.data.tracks import Track

Stems = dict[str, Tensor]


class Excerpts(NamedTuple):
    """One excerpt, or a batch of them.

    Args:
        stems: Audio (c, n), or (b, c, n), by name.
        faults: Sentences about files that could not be read and were replaced by others.
    """

    stems: Stems
    faults: list[str]


def collate(excerpts: Sequence[Excerpts]) -> Excerpts:
    """Returns single excerpts as one batch."""
    faults = [fault for excerpt in excerpts for fault in excerpt.faults]
    return Excerpts(default_collate([excerpt.stems for excerpt in excerpts]), faults)


@dataclass(frozen=True)
class RandomMixes(Dataset[Excerpts]):
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

    def __getitem__(self, number: int) -> Excerpts:
        """Returns stems (c, n) by name; each comes from an active window of any song, drawn on its own."""
        generator = torch.Generator().manual_seed(_mixed_seed(self.seed, number))
        return Excerpts({stem: self._draw(stem, generator) for stem in self.windows}, [])

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
        return track.name, {stem: track.read(stem, start, length) for stem in track.stems}


class EpochNumbers(DistributedSampler[int]):
    """Counts excerpts through all epochs: epoch e has the numbers from e · size up, and Lightning sets the epoch.

    The processes of a training take turns, so that a batch of all of them together is the same whatever their number,
    and none hears what another does. What does not fill a batch of all of them is left out.

    Args:
        size: Excerpts in an epoch, over all processes.
        batch_size: Excerpts in a batch of one process.
        processes: How many share an epoch.
        process: Which of them this is.
        start: First number that is counted: where an interrupted epoch goes on.
    """

    def __init__(self, size: int, batch_size: int, processes: int = 1, process: int = 0, start: int = 0) -> None:
        numbers = range(size // (batch_size * processes) * batch_size * processes)
        super().__init__(numbers, processes, process, shuffle=False)  # type: ignore[arg-type]
        self.size, self.used, self.start = size, len(numbers), start

    def __len__(self) -> int:
        """Returns the number of excerpts of this process in a whole epoch."""
        return self.used // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        """Yields the numbers of the epoch's excerpts for this process."""
        first = self.epoch * self.size
        return iter(range(max(first, self.start) + self.rank, first + self.used, self.num_replicas))


def _mixed_seed(seed: int, number: int) -> int:
    """Returns one seed of two numbers, such that neighbours share no stream."""
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(2**62, (), generator=generator))
    return (first ^ (number * 0x9E3779B97F4A7C15)) % 2**63
