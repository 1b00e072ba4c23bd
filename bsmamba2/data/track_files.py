"""Which audio files of a track are its stems: the one rule of training, evaluation and check-data."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from bsmamba2.audio.formats import AUDIO_SUFFIXES
from bsmamba2.data.musdb import STREAMS, Split
from bsmamba2.errors import InputError
from bsmamba2.stem_names import INSTRUMENTAL, MIXTURE, RESIDUAL, VOCALS

STEM_FILE = ".stem.mp4"
# Formats that can be read from any position; the others are decoded once before training.
STEM_SUFFIXES = (".wav", ".flac", ".aif", ".aiff", ".w64", ".rf64", ".caf")
VIDEO_SUFFIXES = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm")
# Common names of a file with everything but the vocals.
INSTRUMENTAL_NAMES = (INSTRUMENTAL, "accompaniment", "no_vocals")
# Common names of files of the whole song that need not be the sum of the stems.
WHOLE_NAMES = ("mix", "mixdown", "master")

# A file and, for a stem file, the number of the stream.
StemLocation = tuple[Path, int | None]


@dataclass(frozen=True)
class TrackFiles:
    """The audio files of a track.

    Args:
        sources: Where the mixture (if any) and each stem is read from: in MUSDB18's order, then A to Z.
        unused: All other audio files in the folder, and why each is not used: a sentence without its subject.
    """

    sources: Mapping[str, StemLocation]
    unused: Mapping[Path, str] = field(default_factory=dict)

    @property
    def to_decode(self) -> bool:
        """Whether an excerpt cannot be read from any position of a stem."""
        return any(
            stream is None and file.suffix.lower() not in STEM_SUFFIXES for file, stream in self.sources.values()
        )


def track_files(path: Path) -> TrackFiles:
    """Returns the audio files of a track by what they are, from their names alone.

    A stem has the name of its file. Capital letters do not matter in the names of the mixture, the stems of MUSDB18,
    and the names below. Not stems, and not used, are:

    - `WHOLE_NAMES` and the residual;
    - `INSTRUMENTAL_NAMES` if there are stems besides the vocals, which are parts of it; otherwise it is the stem
      `instrumental`;
    - videos, and files in folders inside that of the track;
    - files of a stem that also has one in a format which can be read from any position.

    Args:
        path: A stem file, or the folder of the stems' audio files.

    Raises:
        InputError: There are two files of a stem.
    """
    if not path.is_dir():
        return TrackFiles({name: (path, stream) for name, stream in STREAMS.items()})
    unused: dict[Path, str] = {}
    named: dict[str, list[Path]] = defaultdict(list)
    for file in _audio_files(path):
        if file.parent != path:
            unused[file] = "is not used, because it is in a folder inside the track's; move it up if it is a stem"
        elif file.suffix.lower() in VIDEO_SUFFIXES:
            unused[file] = "is not used, because it is a video; extract its audio if it is a stem"
        else:
            named[stem_name(file)].append(file)
    files = {name: _only(name, same, unused) for name, same in named.items()}
    for name in [*files]:
        reason = _not_a_stem(name, files)
        if reason:
            unused[files.pop(name)] = f"is not used, because {reason}"
    names = [*(name for name in STREAMS if name in files), *sorted(files.keys() - STREAMS.keys())]
    return TrackFiles({name: (files[name], None) for name in names}, unused)


def stem_name(file: Path) -> str:
    """Returns the name of the stem in a file, or `mixture`, in one form of Unicode."""
    name = unicodedata.normalize("NFC", file.stem)
    known = name.casefold()
    if known in INSTRUMENTAL_NAMES:
        return INSTRUMENTAL
    return known if known in (*STREAMS, *WHOLE_NAMES, RESIDUAL) else name


def is_stem_name(name: str) -> bool:
    """Returns whether the result of `stem_name` can be that of a stem."""
    return name not in (MIXTURE, RESIDUAL, *WHOLE_NAMES)


def unused_files(paths: Iterable[Path]) -> list[str]:
    """Returns a sentence for each name of audio files of tracks that are not used.

    Args:
        paths: Stem files and track folders.

    Raises:
        InputError: A track has two files of a stem.
    """
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in paths:
        for file, reason in track_files(path).unused.items():
            found[file.name, reason].append(file)
    return [
        f"{files[0]} {reason}" + (f" (nor are {len(files) - 1} more of that name)" if len(files) > 1 else "")
        for (_, reason), files in found.items()
    ]


def _audio_files(path: Path) -> list[Path]:
    files = []
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        files += [Path(folder) / name for name in sorted(names) if not name.startswith(".")]
    return [file for file in files if file.suffix.lower() in AUDIO_SUFFIXES]


def _only(name: str, same: list[Path], unused: dict[Path, str]) -> Path:
    if len(same) == 1:
        return same[0]
    direct = [file for file in same if file.suffix.lower() in STEM_SUFFIXES]
    if len(direct) != 1:
        raise InputError(
            f"the stem {name!r} is in {same[0].parent} twice, as {same[0].name} and {same[1].name}; keep one"
        )
    unused |= {file: f"is not used, because {direct[0].name} is" for file in same if file != direct[0]}
    return direct[0]


def _not_a_stem(name: str, files: Mapping[str, Path]) -> str | None:
    """Returns why a file is not a stem by the names of all files of the track; None if it is one."""
    if name in WHOLE_NAMES:
        return f"by its name it is the whole song; call it {MIXTURE} if it is the sum of the stems"
    if name == RESIDUAL:
        return "by its name it is what is left of a song; rename it if it is a stem"
    if name == INSTRUMENTAL:
        parts = [part for part in files if is_stem_name(part) and part not in (INSTRUMENTAL, VOCALS)]
        if parts:
            return f"{', '.join(parts)} are parts of it" if len(parts) > 1 else f"{parts[0]} is a part of it"
    return None


def split_folders(root: Path) -> list[Path]:
    """Returns those of the folders train/, valid/ and test/ that exist.

    Raises:
        InputError: None does.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give the one that contains train/, valid/ or test/")
    splits = [root / split for split in get_args(Split) if (root / split).is_dir()]
    if not splits:
        raise InputError(f"{root} contains none of the folders train/, valid/ and test/; give the folder above them")
    return splits
