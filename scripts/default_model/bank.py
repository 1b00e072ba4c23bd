"""All recordings of a folder in memory, on the device that trains, and where something sounds in them."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import track_artist
from bsmamba2.errors import InputError
from default_model.sources import KINDS, Kind

AUDIO_SUFFIXES = (".wav", ".opus")
# Distance of the windows that an excerpt may start at.
GRID = SAMPLE_RATE // 4
# A window counts as sounding if it is at most this far below the loudest of its stem, and above the absolute level.
RELATIVE_DB, ABSOLUTE_DB = -30.0, -55.0
FULL_SCALE = 2**15


@dataclass(frozen=True)
class Entry:
    """A stem of a recording in the bank.

    Args:
        kind: Kind of the recording.
        name: Artist and title.
        stem: Name of the stem.
        start: Its first sample in the bank.
        length: Its samples.
        starts: Samples, counted from its first, from which on something sounds.
    """

    kind: Kind
    name: str
    stem: str
    start: int
    length: int
    starts: tuple[int, ...]

    @property
    def artist(self) -> str:
        """The part of the name before the first " - "."""
        return track_artist(Path(self.name))


def read_stem(path: Path) -> np.ndarray:
    """Returns 16-bit stereo audio (n, 2) of a file at the sampling rate of MUSDB18."""
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != SAMPLE_RATE:
        audio = soxr.resample(audio, rate, SAMPLE_RATE)
    audio = np.broadcast_to(audio, (len(audio), 2)) if audio.shape[1] == 1 else audio
    return (audio * FULL_SCALE).round().clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


class Bank:
    """The stems of all recordings, one after the other.

    Args:
        root: Folder with {kind}/{artist - title}/{stem}.wav, or .opus.

    Attributes:
        audio: 16-bit audio (n, 2).
        entries: What is where in it.
        data_hash: Hash of names, lengths and audio.

    Raises:
        InputError: A kind is missing, or the stems of a recording are not equally long.
    """

    def __init__(self, root: Path) -> None:
        paths = [(kind, path) for kind in KINDS for path in _stem_paths(root, kind)]
        with ThreadPoolExecutor() as pool:
            stems = list(pool.map(lambda entry: read_stem(entry[1]), paths))
        self.audio = torch.from_numpy(np.concatenate(stems))
        self.entries: list[Entry] = []
        start = 0
        for (kind, path), audio in zip(paths, stems, strict=True):
            starts = _sounding(torch.from_numpy(audio))
            self.entries.append(Entry(kind, path.parent.name, path.stem, start, len(audio), starts))
            start += len(audio)
        lengths: dict[str, int] = {}
        for entry in self.entries:
            if lengths.setdefault(entry.name, entry.length) != entry.length:
                raise InputError(f"the stems of {entry.name} in {root} are not equally long; lay out the data again")
        described = hashlib.sha256(repr(self.entries).encode())
        described.update(self.audio.numpy().tobytes())
        self.data_hash = described.hexdigest()

    def of_kind(self, kind: Kind, stem: str) -> list[Entry]:
        """Returns the entries of a kind and a stem."""
        return [entry for entry in self.entries if (entry.kind, entry.stem) == (kind, stem)]

    def read(self, entry: Entry) -> Tensor:
        """Returns the audio (2, n) of an entry, full scale at 1."""
        return self.audio[entry.start : entry.start + entry.length].T.float() / FULL_SCALE


def _stem_paths(root: Path, kind: Kind) -> Sequence[Path]:
    paths = sorted(path for path in (root / kind).glob("*/*") if path.suffix in AUDIO_SUFFIXES)
    if not paths:
        raise InputError(f"there is no audio in {root / kind}; lay out or pack the data again")
    return paths


def _sounding(audio: Tensor) -> tuple[int, ...]:
    """Returns the multiples of `GRID` whose next second is not silent, of audio (n, 2)."""
    power = audio.float().div(FULL_SCALE).square().mean(1)
    blocks = F.pad(power, (0, -len(power) % GRID)).view(-1, GRID).mean(1)
    seconds = F.avg_pool1d(F.pad(blocks, (0, 3))[None], 4, 1)[0]
    level = 10 * torch.log10(seconds + 1e-12)
    return tuple((GRID * torch.nonzero(level > max(ABSOLUTE_DB, level.max().item() + RELATIVE_DB))[:, 0]).tolist())
