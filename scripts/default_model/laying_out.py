"""The dataset of the packaged model, written as a folder of songs with stems."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Track, find_tracks, track_paths
from bsmamba2.errors import InputError
from bsmamba2.stem_names import MUSDB_STEMS
from bsmamba2.system.files import sha256_of_text
from default_model.composing import compose
from default_model.rendering import check_renderer, render

# Artists on whose songs the size and the settings are chosen.
SELECTION = ("Alexander Ross", "Hezekiah Jones", "Meaxic", "Port St Willow", "The Districts")
# How many artists are only reported on: the lowest hashes among artists with one song that are not for selection.
REPORTED = 7
SOURCES = ("musdb18-7-cc", "everything-is-free-cc0", "mdn-multitrack-cc0", "singing")
# The artist of the song that the demo separates.
DEMO_ARTIST = "The Easton Ellises"
INSTRUMENTAL = "MDN - Multitrack"
# What the names of rendered songs begin with.
RENDERED = "Rendered"
RENDERED_SONGS = 32
RENDERED_SECONDS = 12.0
PHRASE_SECONDS = 6.0
FADE_SECONDS = 0.02
# Levels of rendered stems and of the voices over them, in dBFS.
STEM_LEVELS = (-28.0, -18.0)
VOICE_LEVELS = (-25.0, -17.0)

Song = dict[str, Tensor]


def reported_artists(artists: Sequence[str]) -> list[str]:
    """Returns the artists that are kept for the final scores.

    Args:
        artists: The artists of all previews, one entry per song.
    """
    single = {artist for artist in artists if artists.count(artist) == 1} - set(SELECTION)
    return sorted(single, key=sha256_of_text)[:REPORTED]


def lay_out(sources: Path, root: Path, sound_font: Path, rendered_songs: int = RENDERED_SONGS) -> None:
    """Writes `{root}/{train,valid,test}/{track}/{stem}.wav`: 16 bit, 44.1 kHz, stereo.

    The songs of the reported artists are in test/, those for selection in valid/, everything else in train/, together
    with rendered music mixed with the voices of train/. Existing files are kept.

    Args:
        sources: Folder that contains musdb18-7-cc/, everything-is-free-cc0/, mdn-multitrack-cc0/ and singing/.
        root: Folder of the dataset to write.
        sound_font: SoundFont that the instruments are rendered with.
        rendered_songs: How many songs are rendered.

    Raises:
        InputError: A source is missing, cannot be read or must not be trained on, or the renderer is missing.
    """
    check_renderer(sound_font)
    voices = lay_out_songs(sources, root)
    for number in tqdm(range(rendered_songs), "rendered"):
        folder = root / "train" / f"{RENDERED} {number:02} - Seed {number}"
        if not all((folder / f"{stem}.wav").exists() for stem in MUSDB_STEMS):
            _write(folder, rendered_song(number, voices, sound_font))


def lay_out_songs(sources: Path, root: Path) -> list[Tensor]:
    """Writes everything that is not rendered, as `lay_out` does, and returns the voices (2, n) that may be trained on.

    Raises:
        InputError: A source is missing, cannot be read or must not be trained on.
    """
    missing = [name for name in SOURCES if not (sources / name).is_dir()]
    if missing:
        raise InputError(f"there is no folder {sources / missing[0]}; the sources are {', '.join(SOURCES)}")
    musdb, free, multitrack, singing = (sources / name for name in SOURCES)
    previews = [Track(path, audio_info(path, 0).length) for path in track_paths(musdb / "train")]
    artists = [track.artist for track in previews]
    if DEMO_ARTIST in artists:
        raise InputError(f"a song of {DEMO_ARTIST} is in {musdb}; the demo separates it, so remove it")
    reported = reported_artists(artists)
    for track in tqdm(previews, "previews"):
        split = "test" if track.artist in reported else "valid" if track.artist in SELECTION else "train"
        _write(root / split / track.name, {stem: track.read(stem) for stem in MUSDB_STEMS})
    for path in track_paths(free):
        _write(root / "train" / path.name, {stem: _stereo(path / f"{stem}.flac") for stem in MUSDB_STEMS})
    _write(root / "train" / INSTRUMENTAL, _instrumental(multitrack))
    sung = [path for path in track_paths(root / "train") if not path.name.startswith((INSTRUMENTAL, RENDERED))]
    solo = sorted(path for path in singing.iterdir() if not path.name.startswith("."))
    return [_stereo(path) for path in [*(folder / "vocals.wav" for folder in sung), *solo]]


def lay_out_muted(data: Path, root: Path) -> None:
    """Writes the reported songs of a dataset again without their vocals, to measure what leaks into the estimates.

    Args:
        data: Folder that `lay_out` wrote.
        root: Folder of the dataset to write.
    """
    for track in find_tracks(data, "test"):
        song = {stem: track.read(stem) for stem in MUSDB_STEMS}
        _write(root / "test" / track.name, song | {"vocals": torch.zeros_like(song["vocals"])})


def rendered_song(seed: int, voices: Sequence[Tensor], sound_font: Path) -> Song:
    """Returns a rendered piece mixed with phrases, separated by pauses, of one of several voices (2, n).

    The probability of a voice is proportional to its length.
    """
    # Not seeded like the composer, or the level would follow the tempo.
    length, generator = round(RENDERED_SECONDS * SAMPLE_RATE), random.Random(f"mix {seed}")
    piece = compose(seed, RENDERED_SECONDS)
    song = {
        stem: levelled(render(piece, stem, length, sound_font), generator.uniform(*STEM_LEVELS)) for stem in piece.stems
    }
    song["vocals"] = torch.zeros(2, length)
    voice = generator.choices(voices, [voice.shape[1] for voice in voices])[0]
    for start, phrase in _phrases(generator, voice, length):
        song["vocals"][:, start : start + phrase.shape[1]] = levelled(phrase, generator.uniform(*VOICE_LEVELS))
    peak = torch.stack(list(song.values())).sum(0).abs().max().item()
    return {stem: audio / max(1.0, peak / 0.98) for stem, audio in song.items()}


def levelled(audio: Tensor, decibels: float) -> Tensor:
    """Returns audio at a level in dBFS, lower where a sample would exceed full scale; silence stays silent."""
    level, peak = audio.square().mean().sqrt().item(), audio.abs().max().item()
    return audio * min(10 ** (decibels / 20) / level, 0.98 / peak) if level else audio


def faded(audio: Tensor) -> Tensor:
    """Returns audio faded in and out, so that cuts are inaudible."""
    samples = min(round(FADE_SECONDS * SAMPLE_RATE), audio.shape[1] // 2)
    rise = torch.linspace(0, 1, samples)
    return audio * torch.cat([rise, torch.ones(audio.shape[1] - 2 * samples), rise.flip(0)])


def _phrases(generator: random.Random, voice: Tensor, length: int) -> Iterator[tuple[int, Tensor]]:
    start = round(generator.uniform(0, 1.5) * SAMPLE_RATE)
    while start < length:
        samples = min(round(PHRASE_SECONDS * SAMPLE_RATE), voice.shape[1], length - start)
        first = generator.randint(0, voice.shape[1] - samples)
        yield start, faded(voice[:, first : first + samples])
        start += samples + round(generator.uniform(0.5, 2) * SAMPLE_RATE)


def _instrumental(folder: Path) -> Song:
    """Returns the multitrack without a voice, 12 dB quieter, since each of its parts is loud."""
    parts = {"drums": ["drums"], "bass": ["bassguitar"], "other": ["clav", "horns", "leadguitar"]}
    audio = {name: _stereo(folder / f"{name}.mp3") for names in parts.values() for name in names}
    length = max(part.shape[1] for part in audio.values())
    song = {stem: torch.zeros(2, length) for stem in MUSDB_STEMS}
    for stem, names in parts.items():
        for name in names:
            song[stem][:, : audio[name].shape[1]] += audio[name] / 4
    return song


def _stereo(path: Path) -> Tensor:
    info = audio_info(path)
    if info.sample_rate != SAMPLE_RATE:
        raise InputError(f"{path} has {info.sample_rate} Hz; the recipe takes {SAMPLE_RATE} Hz")
    return read_audio(path).expand(2, -1)


def _write(folder: Path, song: Song) -> None:
    for stem, audio in song.items():
        path = folder / f"{stem}.wav"
        if not path.exists():
            write_audio(path, audio, SAMPLE_RATE)
