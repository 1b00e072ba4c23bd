"""The recordings that the packaged model is trained on, by kind."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.data.musdb import OFFICIAL_VALIDATION_TRACKS, SAMPLE_RATE
from bsmamba2.data.track_files import StemLocation, track_files
from bsmamba2.data.tracks import track_artist, track_name, track_paths
from bsmamba2.errors import InputError
from bsmamba2.stem_names import MUSDB_STEMS, VOCALS

# train: previews of bands, with four stems. valid: those to choose on. songs: whole songs, with the voice and what
# accompanies it. singing: voices alone. instrumentals: music without a voice.
Kind = Literal["train", "valid", "songs", "singing", "instrumentals"]
KINDS: tuple[Kind, ...] = ("train", "valid", "songs", "singing", "instrumentals")
ACCOMPANIMENT = "accompaniment"
INSTRUMENTS = tuple(stem for stem in MUSDB_STEMS if stem != VOCALS)
# The artist of the song that the demo separates.
DEMO_ARTIST = "The Easton Ellises"
MUSDB_FOLDERS = ("musdb18-7-cc/train", "musdb18-7/train")
TEST_FOLDER = "musdb18-7/test"
SONGS, SINGING, SOLO_SINGING, INSTRUMENTALS, MULTITRACK = (
    "everything-is-free-full-cc0",
    "singing-2",
    "singing",
    "instrumental-cc",
    "mdn-multitrack-cc0",
)
FOLDERS = (*MUSDB_FOLDERS, TEST_FOLDER, SONGS, SINGING, SOLO_SINGING, INSTRUMENTALS, MULTITRACK)


@dataclass(frozen=True)
class Recording:
    """One recording of a kind.

    Args:
        kind: What it is used for.
        artist: Whose voice or music it is; recordings are drawn by artist.
        title: What distinguishes it from others of the artist.
        stems: What reads the audio (c, n) of each stem.
    """

    kind: Kind
    artist: str
    title: str
    stems: Mapping[str, Callable[[], Tensor]]

    @property
    def name(self) -> str:
        """Artist and title."""
        return f"{self.artist} - {self.title}"


def recordings(sources: Path) -> list[Recording]:
    """Returns everything to train on, and the songs to choose on.

    Args:
        sources: Folder with the folders of the sources.

    Raises:
        InputError: A source is missing, cannot be read, or holds a recording that must not be trained on.
    """
    makers = (_previews, _songs, _singing, _solo_singing, _instrumentals, _multitrack)
    found = [recording for maker in makers for recording in maker(sources)]
    test = {track_name(path) for path in track_paths(_folder(sources, TEST_FOLDER))}
    for recording in found:
        if recording.artist == DEMO_ARTIST:
            raise InputError(f"{recording.name} is a song of the artist that the demo separates; remove it")
        if recording.name in test:
            raise InputError(f"{recording.name} is one of the test songs of {TEST_FOLDER}; remove it")
    return found


def _folder(sources: Path, name: str) -> Path:
    folder = sources / name
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; SOURCES contains {', '.join(FOLDERS)}")
    return folder


def _previews(sources: Path) -> Iterator[Recording]:
    for folder in MUSDB_FOLDERS:
        for path in track_paths(_folder(sources, folder)):
            kind: Kind = "valid" if track_name(path) in OFFICIAL_VALIDATION_TRACKS else "train"
            places = track_files(path).sources
            missing = [stem for stem in MUSDB_STEMS if stem not in places]
            if missing:
                raise InputError(f"{path} has no stem {missing[0]!r}; give a song with {', '.join(MUSDB_STEMS)}")
            stems = {stem: partial(_read, [places[stem]]) for stem in MUSDB_STEMS}
            yield Recording(kind, track_artist(path), _title(path), stems)


def _songs(sources: Path) -> Iterator[Recording]:
    for path in track_paths(_folder(sources, SONGS)):
        stems = {
            VOCALS: partial(_read, [(path / f"{VOCALS}.ogg", None)]),
            ACCOMPANIMENT: partial(_read, [(path / f"{stem}.ogg", None) for stem in INSTRUMENTS]),
        }
        yield Recording("songs", track_artist(path), _title(path), stems)


def _singing(sources: Path) -> Iterator[Recording]:
    for path in sorted(_folder(sources, SINGING).glob("*/*.ogg")):
        yield Recording("singing", path.parent.name, path.stem, {VOCALS: partial(_read, [(path, None)])})


def _solo_singing(sources: Path) -> Iterator[Recording]:
    for path in sorted(_folder(sources, SOLO_SINGING).iterdir()):
        if not path.name.startswith("."):
            yield Recording("singing", path.stem, path.stem, {VOCALS: partial(_read, [(path, None)])})


def _instrumentals(sources: Path) -> Iterator[Recording]:
    folder = _folder(sources, INSTRUMENTALS)
    with (folder / "tracks.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            stems = {ACCOMPANIMENT: partial(_read, [(folder / row["file"], None)])}
            yield Recording("instrumentals", row["artist"], row["title"], stems)


def _multitrack(sources: Path) -> Iterator[Recording]:
    parts = [(path, None) for path in sorted(_folder(sources, MULTITRACK).glob("*.mp3"))]
    yield Recording("instrumentals", "MDN", "Multitrack", {ACCOMPANIMENT: partial(_read, parts)})


def _title(path: Path) -> str:
    return track_name(path).partition(" - ")[2]


def _read(places: Sequence[StemLocation]) -> Tensor:
    """Returns the sum (c, n) of files or streams of them, as long as the longest.

    Raises:
        InputError: One cannot be read, or is at another sampling rate.
    """
    parts = []
    for path, stream in places:
        info = audio_info(path, stream)
        if info.sample_rate != SAMPLE_RATE:
            raise InputError(f"{path} has {info.sample_rate} Hz; the recipe takes {SAMPLE_RATE} Hz")
        parts.append(read_audio(path, stream=stream))
    length = max(part.shape[1] for part in parts)
    return torch.stack([F.pad(part, (0, length - part.shape[1])) for part in parts]).sum(0)
