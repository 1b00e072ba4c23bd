"""Excerpts for training and validation: random mixes of active windows, and fixed excerpts of songs."""

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, default_collate

from bsmamba2.data.activity import Windows
from bsmamba2.data.augment import Augmentation, Change
from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.stem_names import VOCALS

Stems = dict[str, Tensor]
# After so many unreadable windows an excerpt is an error.
DRAW_ATTEMPTS = 10


class Excerpts(NamedTuple):
    """One excerpt, or a batch of them.

    Args:
        stems: Audio (c, n), or (b, c, n), by name.
        faults: Sentences about files that could not be read, whose windows were replaced.
    """

    stems: Stems
    faults: list[str]


def collate(excerpts: Sequence[Excerpts]) -> Excerpts:
    """Returns single excerpts as one batch."""
    faults = [fault for excerpt in excerpts for fault in excerpt.faults]
    return Excerpts(default_collate([excerpt.stems for excerpt in excerpts]), faults)


def start_worker(number: int) -> None:
    """Lets a data loading process ignore Ctrl-C and SIGTERM, which a terminal or a cluster sends to all processes.

    The main process finishes a step before it stops, and may need another batch for it. Lightning's own function for
    the start of a worker would be used otherwise. It seeds the global random numbers, which no excerpt uses, and
    imports Lightning, which takes seconds and 180 MB in every process.

    Args:
        number: Number of the process.
    """
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)


@dataclass(frozen=True)
class RandomMixes(Dataset[Excerpts]):
    """Stems of different songs, or of one. Every excerpt is a pure function of (seed, number) and the files.

    A file that cannot be read is replaced: another window is drawn.

    Args:
        tracks: Songs to draw from.
        windows: Active windows of every stem.
        segment: Length of an excerpt in samples.
        sample_rate: Sampling rate of the songs in Hz.
        channels: Channels of the songs.
        augmentation: Random changes to the stems.
        seed: Start of all randomness.

    Raises:
        InputError: The songs lack a stem that is to be changed.
    """

    tracks: Sequence[Track]
    windows: Windows
    segment: int
    sample_rate: int
    channels: int
    augmentation: Augmentation
    seed: int

    def __post_init__(self) -> None:
        self.augmentation.check_stems(self.windows)

    def __getitem__(self, number: int) -> Excerpts:
        """Returns stems (c, n) by name, each from an active window, and the faults of files.

        Raises:
            InputError: None of the windows tried could be read.
        """
        generator = torch.Generator().manual_seed(_mixed_seed(self.seed, number))
        # Everything is drawn before anything is read, so that neither a setting nor a fault changes other draws.
        remix, silence = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        changes = {stem: self.augmentation.draw(generator) for stem in self.windows}
        places = [
            iter(torch.rand(DRAW_ATTEMPTS, 2, generator=generator, dtype=torch.float64).tolist()) for _ in changes
        ]
        ratio = torch.rand((), generator=generator, dtype=torch.float64).item()
        if silence < self.augmentation.silent_vocals:
            changes[VOCALS] = replace(changes[VOCALS], gain=0)
        stems: Stems = {}
        faults: list[str] = []
        if remix < self.augmentation.remix:
            for place, (stem, change) in zip(places, changes.items(), strict=True):
                stems |= self._read({stem: change}, place, faults)
        else:
            first = next(iter(changes.values()))
            aligned = {
                stem: replace(change, semitones=first.semitones, speed=first.speed) for stem, change in changes.items()
            }
            stems |= self._read(aligned, places[0], faults)
        return Excerpts(self.augmentation.levelled(stems, ratio), faults)

    def _read(self, changes: Mapping[str, Change], places: Iterator[Sequence[float]], faults: list[str]) -> Stems:
        """Returns stems from the same window, the first of the drawn ones in which all files can be read."""
        while True:
            stem_share, window_share = next(places)
            windows = self.windows[list(changes)[int(stem_share * len(changes))]]
            number, start = windows[int(window_share * len(windows))]
            try:
                return {
                    stem: self._changed(stem, change, self.tracks[number], start) for stem, change in changes.items()
                }
            except InputError as error:
                faults.append(str(error))
                if len(faults) == DRAW_ATTEMPTS:
                    raise

    def _changed(self, stem: str, change: Change, track: Track, start: int) -> Tensor:
        if not change.gain:
            return torch.zeros(self.channels, self.segment)
        length = min(round(self.segment * change.speed), track.length)
        audio = track.read(stem, min(start, track.length - length), length)
        return change.apply(audio, self.segment, self.sample_rate)


@dataclass(frozen=True)
class SongExcerpts(Dataset[tuple[str, Stems]]):
    """One fixed excerpt of every song with its stems unchanged; the same in every epoch.

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
    """Numbers excerpts through all epochs: those of epoch e start at e · size. Lightning sets the epoch.

    The processes take turns, so that their joint batch does not depend on their number and no excerpt is used twice.
    Excerpts that do not fill a joint batch are left out.

    Args:
        size: Excerpts in an epoch, over all processes.
        batch_size: Excerpts in a batch of one process.
        processes: Number of processes that share an epoch.
        process: Number of this process.
        start: First number to use, where an interrupted epoch resumes.
    """

    def __init__(self, size: int, batch_size: int, processes: int = 1, process: int = 0, start: int = 0) -> None:
        numbers = range(size // (batch_size * processes) * batch_size * processes)
        super().__init__(numbers, processes, process, shuffle=False)  # type: ignore[arg-type]
        self.size, self.used, self.start = size, len(numbers), start
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Sets the next epoch, or that of `start` if it is later: Lightning begins with 0."""
        super().set_epoch(max(epoch, self.start // self.size))

    def __len__(self) -> int:
        """Returns the number of excerpts of this process in a whole epoch."""
        return self.used // self.num_replicas

    def __iter__(self) -> Iterator[int]:
        """Yields the numbers of the epoch's excerpts for this process."""
        first = self.epoch * self.size
        return iter(range(max(first, self.start) + self.rank, first + self.used, self.num_replicas))


def _mixed_seed(seed: int, number: int) -> int:
    """Returns a seed made of two numbers, such that neighbouring numbers have unrelated streams."""
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(2**62, (), generator=generator))
    return (first ^ (number * 0x9E3779B97F4A7C15)) % 2**63
