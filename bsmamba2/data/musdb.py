"""MUSDB18 folders: `{root}/{train,valid,test}/` with `{track}.stem.mp4` files or `{track}/{stem}.wav` folders (HQ)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
import yaml
from torch import Tensor

from bsmamba2.audio.reading import AudioInfo, audio_info, read_audio
from bsmamba2.errors import InputError

STEMS = ("drums", "bass", "other", "vocals")
MIXTURE = "mixture"
SAMPLE_RATE = 44100
STREAMS = {name: number for number, name in enumerate((MIXTURE, *STEMS))}

Split = Literal["train", "valid", "test"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Track:
    """One song with its stems.

    Args:
        path: A stem file, or the folder of the WAV files.
        length: Samples every stem has at least.
    """

    path: Path
    length: int

    @property
    def name(self) -> str:
        """Artist and title, as in the name of the file or folder."""
        return _track_name(self.path)

    @property
    def artist(self) -> str:
        """What stands before the first " - " of the name."""
        return self.name.split(" - ")[0]

    def read(self, stem: str, start: int = 0, length: int | None = None) -> Tensor:
        """Returns audio (c, n) of a stem, or of the mixture, from a sample on; all up to the end without a length.

        Raises:
            InputError: The file cannot be read.
        """
        path, stream = _source(self.path, stem)
        return read_audio(path, start, length, stream)


def find_tracks(
    root: Path,
    split: Split,
    *,
    validation_tracks: Sequence[str] | None = None,
    validation_artists: Sequence[str] | None = None,
    shared_artists: bool = False,
) -> list[Track]:
    """Returns the tracks of a split in the order of their names.

    The tracks of `valid` are: those of the folder `valid/`; else, of the folder `train/`, those named by
    validation_tracks and validation_artists; else the official ones that musdb lists. They are not in `train`, and
    neither are other tracks of their artists, unless shared_artists says so.

    Args:
        root: The folder that holds train/, test/ and perhaps valid/.
        split: Which of them.
        validation_tracks: Names of tracks in train/ to validate on.
        validation_artists: Names of artists in train/ to validate on.
        shared_artists: Whether an artist may be on both sides, as in the official split.

    Raises:
        InputError: There is no such folder or no track in it, a named track or artist is not there, or a track lacks
            a stem, has one of another length, or another sampling rate.
    """
    if split == "test":
        return _checked(_folder(root, "test"))
    named = bool(validation_tracks or validation_artists)
    if named and (root / "valid").is_dir():
        raise InputError(f"{root} has a folder valid/ and validation tracks are named too; use only one of them")
    if (root / "valid").is_dir():
        train, valid = _folder(root, "train"), _folder(root, "valid")
    else:
        everything = _folder(root, "train")
        names = _validation_names(everything, validation_tracks or (), validation_artists or ())
        names = names if named else set(official_validation_tracks())
        train = [path for path in everything if _track_name(path) not in names]
        valid = [path for path in everything if _track_name(path) in names]
    if split == "valid":
        if not valid:
            raise InputError(
                f"none of the official validation tracks is in {root / 'train'}; name some with validation_tracks or "
                "validation_artists, or put them into a folder valid/"
            )
        return _checked(valid)
    if not shared_artists:
        train = _without_artists(train, {_artist(path) for path in valid})
    if not train:
        raise InputError(
            f"no track is left to train on in {root / 'train'}, because all are validation tracks or share an artist "
            "with one; choose other validation tracks, or set shared_artists"
        )
    return _checked(train)


def official_validation_tracks() -> list[str]:
    """Returns the names of the 14 tracks that the package musdb keeps for validation.

    They are read from its data: importing musdb fails on a machine without an ffmpeg program.
    """
    spec = find_spec("musdb")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the package musdb is not installed, which lists the validation tracks; install it")
    settings = Path(spec.submodule_search_locations[0]) / "configs" / "mus.yaml"
    return list(yaml.safe_load(settings.read_text(encoding="utf-8"))["validation_tracks"])


def _folder(root: Path, split: str) -> list[Path]:
    folder = root / split
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; the dataset root holds train/, test/ and perhaps valid/")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    paths = [path for path in entries if path.is_dir() or path.name.endswith(".stem.mp4")]
    if not paths:
        raise InputError(f"there is no track in {folder}; it holds {{track}}.stem.mp4 files or {{track}}/*.wav folders")
    names = [_track_name(path) for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"the track {twice[0]!r} is in {folder} twice, as a stem file and as a folder; keep one")
    return paths


def _track_name(path: Path) -> str:
    return path.name.removesuffix(".stem.mp4")


def _artist(path: Path) -> str:
    return Track(path, 0).artist


def _validation_names(paths: Sequence[Path], tracks: Sequence[str], artists: Sequence[str]) -> set[str]:
    artists_of = {_track_name(path): _artist(path) for path in paths}
    missing = [name for name in tracks if name not in artists_of]
    missing += [name for name in artists if name not in artists_of.values()]
    if missing:
        raise InputError(f"{missing[0]!r} is not in the folder train/; validation tracks and artists are named exactly")
    return {name for name, artist in artists_of.items() if name in tracks or artist in artists}


def _without_artists(paths: Sequence[Path], artists: set[str]) -> list[Path]:
    left_out = [_track_name(path) for path in paths if _artist(path) in artists]
    if left_out:
        log.warning("not trained on, because their artists are validated on: %s", ", ".join(left_out))
    return [path for path in paths if _track_name(path) not in left_out]


def _source(path: Path, stem: str) -> tuple[Path, int | None]:
    return (path / f"{stem}.wav", None) if path.is_dir() else (path, STREAMS[stem])


def _checked(paths: Sequence[Path]) -> list[Track]:
    return [Track(path, _common_length(path)) for path in paths]


def _common_length(path: Path) -> int:
    infos: dict[str, AudioInfo] = {}
    for stem in STREAMS:
        file, stream = _source(path, stem)
        if not file.exists():
            raise InputError(f"the track {path} lacks the stem {file.name}; a track has {', '.join(STREAMS)}")
        infos[stem] = audio_info(file, stream)
    for stem, info in infos.items():
        if info.sample_rate != SAMPLE_RATE or info.channels != 2:
            raise InputError(
                f"the stem {stem} of {path} has {info.sample_rate} Hz and {info.channels} channels; MUSDB18 has "
                f"{SAMPLE_RATE} Hz and 2"
            )
        if info.length < infos[MIXTURE].length:
            raise InputError(
                f"the stem {stem} of {path} has {info.length} samples but its mixture {infos[MIXTURE].length}; "
                "all stems of a track are as long as its mixture"
            )
    return infos[MIXTURE].length


def mixture_of(stems: dict[str, Tensor]) -> Tensor:
    """Returns the sum of stems: what every excerpt's mixture is, so that gains and silences hold for it too."""
    return torch.stack(list(stems.values())).sum(0)
