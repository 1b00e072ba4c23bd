"""Songs to score: any folder of tracks with stems, at any sampling rate, mono or stereo."""

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.audio.reading import audio_info
from bsmamba2.data.musdb import Split
from bsmamba2.data.track_files import STEM_SUFFIXES
from bsmamba2.data.tracks import (
    COMPRESSED_LIMIT_DB,
    Track,
    mixture_of,
    split_paths,
    track_paths,
)
from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import RUN
from bsmamba2.metrics import is_silent
from bsmamba2.stem_names import INSTRUMENTAL, MIXTURE, VOCALS
from bsmamba2.system.files import sha256_of, sha256_of_text

# Lengths that differ by at most this many samples, as the streams of a stem file may, need no note.
AAC_FRAME = 1024


@dataclass(frozen=True)
class Song:
    """A song with the stems it is made of.

    Args:
        name: Artist and title.
        mixture: Audio (c, n).
        stems: Audio (c, n) of each stem.
        sample_rate: Sampling rate in Hz.
        notes: Adjustments that were made.
    """

    name: str
    mixture: Tensor
    stems: Mapping[str, Tensor]
    sample_rate: int
    notes: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """The stems that can be scored, with the instrumental if the vocals are among them."""
        return _with_instrumental(self.stems)

    def reference(self, stem: str) -> Tensor:
        """Returns the true audio (c, n) of a stem, or of the instrumental: the sum of all but the vocals.

        Raises:
            InputError: The song does not have the stem.
        """
        if stem in self.stems:
            return self.stems[stem]
        if stem == INSTRUMENTAL and VOCALS in self.stems:
            return self.rest(VOCALS)
        missing = VOCALS if stem == INSTRUMENTAL else stem
        raise InputError(
            f"the track {self.name!r} has no stem {missing!r}, only {', '.join(self.stems)}; add it, or score another"
        )

    def others(self, stem: str) -> list[Tensor]:
        """Returns the other sources (c, n) of the mixture; for the instrumental these are only the vocals.

        If there is only one stem, the other source is the mixture without it.

        Raises:
            InputError: The song does not have the stem.
        """
        if stem == INSTRUMENTAL and VOCALS in self.stems:
            return [self.stems[VOCALS]]
        reference = self.reference(stem)
        return [audio for name, audio in self.stems.items() if name != stem] or [self.mixture - reference]

    def rest(self, stem: str) -> Tensor:
        """Returns the sum (c, n) of the other sources.

        Raises:
            InputError: The song does not have the stem.
        """
        return torch.stack(self.others(stem)).sum(0)


def find_scored_tracks(
    root: Path,
    split: Split,
    validation_tracks: Sequence[str] | None = None,
    validation_artists: Sequence[str] | None = None,
) -> list[Track]:
    """Returns the tracks of a split in the order of their names, without opening them; their length is set to 0.

    The split is that of `bsmamba2.data.tracks.find_tracks` with shared_artists. If root has none of the folders train/,
    valid/ and test/, its own folders are the tracks of test. Folders with the results of an evaluation are skipped.

    Args:
        root: The folder that contains train/, test/ and perhaps valid/, or the tracks themselves.
        split: Name of the split.
        validation_tracks: Names of tracks in train/ to validate on.
        validation_artists: Names of artists in train/ to validate on.

    Raises:
        InputError: The folder, any track in it, or a given track or artist does not exist, or two tracks have the same
            name.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give one that contains test/, or tracks with stems")
    if split == "test" and not any((root / name).is_dir() for name in get_args(Split)):
        paths = track_paths(root)
    else:
        paths = split_paths(root, split, validation_tracks or (), validation_artists or (), shared_artists=True)
    paths = [path for path in paths if not (path / RUN).is_file()]
    if not paths:
        raise InputError(f"there is no track in {root}, only the results of an evaluation; give a folder of songs")
    return sorted((Track(path, 0) for path in paths), key=lambda track: track.name)


def stems_in_tracks(tracks: Iterable[Track]) -> tuple[str, ...]:
    """Returns the stems that can be scored in some of the tracks, whose files are not opened.

    A track with two files of a stem has none; that is reported when it is read.
    """
    stems: list[str] = []
    for track in tracks:
        with contextlib.suppress(InputError):
            stems += track.stems
    return _with_instrumental(stems)


def read_song(track: Track) -> Song:
    """Returns the audio of a track: all stems with the length and the number of channels of the mixture.

    Longer stems are cut, shorter ones padded with zeros, and mono is copied to both channels if another file is stereo;
    notes report this, audio files that are not used, and stems that are silent or do not sum to the mixture. Without a
    file of the mixture, it is the sum of the stems, as long as the shortest.

    Raises:
        InputError: A file cannot be read, its sampling rate differs from the others or it has more than two channels;
            or the track has no stem or two files of one, or a single stem and neither a mixture nor a second stem.
    """
    _check_stems(track)
    infos = {name: audio_info(path, stream) for name, (path, stream) in track.sources.items()}
    rates = {name: info.sample_rate for name, info in infos.items()}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{name} {rate} Hz" for name, rate in rates.items())
        raise InputError(f"the audio of {track.path} has different sampling rates ({listed}); resample it to one")
    channels = max(info.channels for info in infos.values())
    if channels > 2:
        raise InputError(f"{track.path} has audio of {channels} channels; mix it down, mono and stereo can be scored")
    audio = {name: track.read(name) for name in track.sources}
    notes = [f"{file.name} {reason}" for file, reason in track.files.unused.items()]
    mono = [name for name, samples in audio.items() if samples.shape[0] < channels]
    if mono:
        notes.append(f"mono, copied to both channels: {', '.join(mono)}")
    measure = MIXTURE if MIXTURE in audio else min(audio, key=lambda name: audio[name].shape[-1])
    length = audio[measure].shape[-1]
    for name, samples in audio.items():
        if abs(samples.shape[-1] - length) > AAC_FRAME:
            fitted = "cut" if samples.shape[-1] > length else "padded with zeros"
            notes.append(f"{name} has {samples.shape[-1]} samples, {measure} {length}: {fitted}")
        audio[name] = fit(samples, channels, length)
    stems = {name: audio[name] for name in track.stems}
    mixture = audio[MIXTURE] if MIXTURE in audio else mixture_of(stems)
    if len(stems) == 1:
        notes.append(f"{next(iter(stems))} is the only stem: everything else is the mixture without it")
    elif MIXTURE in audio:
        notes += _note_of_sum(mixture, stems)
    silent = [name for name, samples in stems.items() if is_silent(samples)]
    notes += [f"the reference of {name} is silent, so only leakage measures its estimate" for name in silent]
    return Song(track.name, mixture, stems, rates[measure], tuple(notes))


def fit(audio: Tensor, channels: int, length: int) -> Tensor:
    """Returns audio (c, n) cut or zero-padded to a length, and mono audio copied to the number of channels."""
    # Negative padding cuts.
    return F.pad(audio, (0, length - audio.shape[-1])).expand(channels, -1)


def data_sha256(track: Track) -> str:
    """Returns the SHA-256 of a track's stem names and the bytes of its files, independent of their folder.

    Raises:
        InputError: A file cannot be read.
    """
    return files_sha256({name: path for name, (path, _) in track.sources.items()})


def files_sha256(files: Mapping[str, Path]) -> str:
    """Returns the SHA-256 in hexadecimal of names and the bytes of their files, independent of their order.

    Raises:
        InputError: A file cannot be read.
    """
    hashes = {path: sha256_of(path) for path in files.values()}
    lines = "".join(f"{name}\t{hashes[files[name]]}\n" for name in sorted(files))
    # File names need not be UTF-8.
    return sha256_of_text(lines)


def _with_instrumental(stems: Iterable[str]) -> tuple[str, ...]:
    """Returns each of the stems once, with the instrumental if the vocals are among them."""
    names = dict.fromkeys(stems)
    return tuple(names | dict.fromkeys([INSTRUMENTAL] if VOCALS in names else []))


def _note_of_sum(mixture: Tensor, stems: Mapping[str, Tensor]) -> list[str]:
    difference = mixture.clone()
    for samples in stems.values():
        difference -= samples
    energy, energy_of_mixture = difference.square().sum().item(), mixture.square().sum().item()
    if not energy or not energy_of_mixture:
        return []
    level = 10 * math.log10(energy / energy_of_mixture)
    if level <= COMPRESSED_LIMIT_DB:
        return []
    return [f"the stems {', '.join(stems)} do not sum to the mixture: the difference is at {level:.1f} dB of its level"]


def _check_stems(track: Track) -> None:
    if not track.stems:
        raise InputError(f"{track.path} has no stem; a track has one audio file per stem ({', '.join(STEM_SUFFIXES)})")
    if track.files.unused and list(track.sources) == list(track.stems) and len(track.stems) == 1:
        file, reason = next(iter(track.files.unused.items()))
        raise InputError(f"{track.path} has only the stem {track.stems[0]} and no {MIXTURE}, and {file.name} {reason}")
