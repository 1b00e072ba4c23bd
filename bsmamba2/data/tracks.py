"""Songs with stems in `{root}/{train,valid,test}/`: each a folder of audio files, or a MUSDB18 stem file."""

import functools
import logging
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bsmamba2.audio.reading import AudioInfo, audio_info, read_audio
from bsmamba2.data.decoding import decode_tracks, decoded_folder
from bsmamba2.data.musdb import CHANNELS, OFFICIAL_VALIDATION_TRACKS, SAMPLE_RATE, Split
from bsmamba2.data.track_files import STEM_FILE, STEM_SUFFIXES, StemLocation, TrackFiles, track_files
from bsmamba2.errors import InputError
from bsmamba2.stem_names import MIXTURE

# Limits of mixture minus sum relative to the mixture. Separate compression of the stems leaves -25 to -33 dB in the
# previews of MUSDB18; rounding to 16 bits leaves -94 dB of full scale.
COMPRESSED_LIMIT_DB = -20.0
ROUNDED_LIMIT_DB = -50.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Track:
    """One song with its stems.

    Args:
        path: A stem file, or the folder of the stems' audio files.
        length: Samples per channel that every stem has.
    """

    path: Path
    length: int

    @property
    def name(self) -> str:
        """Artist and title, as in the name of the file or folder."""
        return track_name(self.path)

    @property
    def artist(self) -> str:
        """The part of the name before the first " - "."""
        return track_artist(self.path)

    @functools.cached_property
    def files(self) -> TrackFiles:
        """Its audio files."""
        return track_files(self.path)

    @property
    def sources(self) -> Mapping[str, StemLocation]:
        """Where each stem, and the mixture if there is one, is read from."""
        return self.files.sources

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of the stems."""
        return tuple(name for name in self.sources if name != MIXTURE)

    def read(self, stem: str, start: int = 0, length: int | None = None) -> Tensor:
        """Returns audio (c, n) of a stem or the mixture from sample start on, to the end if no length is given.

        Without a file of the mixture, it is the sum of the stems.

        Raises:
            InputError: The file cannot be read.
        """
        if stem == MIXTURE and MIXTURE not in self.sources:
            length = self.length - start if length is None else length
            return mixture_of({name: self.read(name, start, length) for name in self.stems})
        path, stream = self.sources[stem]
        return read_audio(path, start, length, stream)


def find_tracks(
    root: Path,
    split: Split,
    *,
    validation_tracks: Sequence[str] | None = None,
    validation_artists: Sequence[str] | None = None,
    shared_artists: bool = False,
    sample_rate: int = SAMPLE_RATE,
    channels: int = CHANNELS,
    decoded: Path | None = None,
) -> list[Track]:
    """Returns the tracks of a split in the order of their names.

    The tracks of `valid` are those of the folder `valid/`; without it, those of `train/` given by validation_tracks and
    validation_artists, or else the official ones. They are not in `train`, and neither are other tracks of their
    artists, unless shared_artists is set.

    Args:
        root: The folder that contains train/, test/ and perhaps valid/.
        split: Name of the split.
        validation_tracks: Names of tracks in train/ to validate on.
        validation_artists: Names of artists in train/ to validate on.
        shared_artists: Whether an artist may be in both splits, as in the official ones.
        sample_rate: Sampling rate in Hz required of every stem.
        channels: Number of channels required of every stem.
        decoded: Folder to decode tracks to that have stems in formats which cannot be read from any position, unless
            they are in it already.

    Raises:
        InputError: The folder, any track in it, or a given track or artist does not exist; or a track lacks a stem, is
            to be decoded and there is no folder for it, or has a stem with a different sampling rate or shorter than
            its mixture.
    """
    paths = split_paths(root, split, validation_tracks or (), validation_artists or (), shared_artists)
    to_decode = [path for path in paths if decoded is not None and track_files(path).to_decode]
    if decoded is not None and to_decode:
        decode_tracks(to_decode, decoded)
        paths = [decoded_folder(path, decoded) if path in to_decode else path for path in paths]
    return _checked(paths, sample_rate, channels)


def split_paths(
    root: Path, split: Split, tracks: Sequence[str], artists: Sequence[str], shared_artists: bool
) -> list[Path]:
    """Returns the stem files and track folders of a split, chosen as in `find_tracks`, without opening them.

    Raises:
        InputError: The folder, any track in it, or a given track or artist does not exist.
    """
    if split == "test":
        return track_paths(root / "test")
    named = bool(tracks or artists)
    if named and (root / "valid").is_dir():
        raise InputError(f"{root} has a folder valid/ and validation tracks are given too; use only one of them")
    if (root / "valid").is_dir():
        train, valid = track_paths(root / "train"), track_paths(root / "valid")
    else:
        everything = track_paths(root / "train")
        names = _named(everything, tracks, artists) if named else set(OFFICIAL_VALIDATION_TRACKS)
        train = [path for path in everything if track_name(path) not in names]
        valid = [path for path in everything if track_name(path) in names]
    if split == "valid":
        if not valid:
            raise InputError(
                f"none of the official validation tracks is in {root / 'train'}; give some with validation_tracks or "
                "validation_artists, or put them into a folder valid/"
            )
        return valid
    if not shared_artists:
        train = _without_artists(train, {track_artist(path) for path in valid})
    if not train:
        raise InputError(
            f"all tracks in {root / 'train'} are validation tracks or share an artist with one, so none is left for "
            "training; choose different validation tracks, or set shared_artists"
        )
    return train


def track_paths(folder: Path) -> list[Path]:
    """Returns the stem files and track folders in a folder, in the order of their names.

    Raises:
        InputError: The folder does not exist or has no tracks, or a track is both a file and a folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the folder that contains train/, test/ and perhaps valid/")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    paths = [path for path in entries if path.is_dir() or path.name.endswith(STEM_FILE)]
    if not paths:
        raise InputError(
            f"there is no track in {folder}; put {{track}}.stem.mp4 files or {{track}}/*.wav folders into it"
        )
    names = [track_name(path) for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"the track {twice[0]!r} is in {folder} twice; keep one")
    return paths


def track_name(path: Path) -> str:
    """Returns the name of the track in a stem file or folder, in one form of Unicode: file systems change it."""
    return unicodedata.normalize("NFC", path.name.removesuffix(STEM_FILE))


def track_artist(path: Path) -> str:
    """Returns the part of a track's name before the first " - "."""
    return track_name(path).split(" - ")[0]


def mixture_of(stems: dict[str, Tensor]) -> Tensor:
    """Returns the sum (c, n) of stems, which is the mixture of every excerpt, so that it contains their changes."""
    return torch.stack(list(stems.values())).sum(0)


def _named(paths: Sequence[Path], tracks: Sequence[str], artists: Sequence[str]) -> set[str]:
    artists_of = {track_name(path): track_artist(path) for path in paths}
    tracks, artists = ([unicodedata.normalize("NFC", name) for name in given] for given in (tracks, artists))
    missing = [name for name in tracks if name not in artists_of]
    missing += [name for name in artists if name not in artists_of.values()]
    if missing:
        raise InputError(
            f"{missing[0]!r} is not in the folder train/; validation tracks and artists need their exact names"
        )
    return {name for name, artist in artists_of.items() if name in tracks or artist in artists}


def _without_artists(paths: Sequence[Path], artists: set[str]) -> list[Path]:
    left_out = [track_name(path) for path in paths if track_artist(path) in artists]
    if left_out:
        log.warning("not used for training, because their artists are used for validation: %s", ", ".join(left_out))
    return [path for path in paths if track_name(path) not in left_out]


def _checked(paths: Sequence[Path], sample_rate: int, channels: int) -> list[Track]:
    files = {path: track_files(path) for path in paths}
    sources = {path: found.sources for path, found in files.items()}
    stems = {name for found in sources.values() for name in found if name != MIXTURE}
    if not stems:
        raise InputError(f"{paths[0]} has no stem; a track has one audio file per stem ({', '.join(STEM_SUFFIXES)})")
    if len(stems) == 1:
        raise InputError(
            f"{paths[0]} has only the stem {next(iter(stems))}, which would be the whole mixture; add the rest of the "
            "song as a second stem, such as instrumental.wav"
        )
    for path, found in sources.items():
        if files[path].to_decode:
            raise InputError(
                f"{path} has stems in formats that cannot be read from any position; decode the tracks once with "
                "`bsmamba2 check-data --decoded`, or convert them to WAV or FLAC"
            )
        for stem in sorted(stems - set(found)):
            raise InputError(
                f"the track {path} lacks the stem {stem}, which others have; `bsmamba2 check-data` lists all problems"
            )
    return [Track(path, _common_length(path, found, sample_rate, channels)) for path, found in sources.items()]


def _common_length(path: Path, sources: Mapping[str, StemLocation], sample_rate: int, channels: int) -> int:
    infos: dict[str, AudioInfo] = {name: audio_info(file, stream) for name, (file, stream) in sources.items()}
    for stem, info in infos.items():
        if info.sample_rate != sample_rate or info.channels != channels:
            raise InputError(
                f"the stem {stem} of {path} has {info.sample_rate} Hz and {info.channels} channels; the network takes "
                f"{sample_rate} Hz and {channels}; convert it, or give --model.network.sample_rate and channels"
            )
        if MIXTURE in infos and info.length < infos[MIXTURE].length:
            raise InputError(
                f"the stem {stem} of {path} has {info.length} samples but its mixture {infos[MIXTURE].length}; "
                "all stems of a track are as long as its mixture"
            )
    return infos[MIXTURE].length if MIXTURE in infos else min(info.length for info in infos.values())
