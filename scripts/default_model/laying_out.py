"""The data of the model in the package, laid out as a folder of songs with stems."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE, STEMS
from bsmamba2.data.tracks import Track, track_paths
from bsmamba2.errors import InputError
from default_model.composing import compose
from default_model.rendering import check_renderer, render

# Artists whose songs choose the size and the settings.
SELECTION = ("Alexander Ross", "Hezekiah Jones", "Meaxic", "Port St Willow", "The Districts")
# Of the artists with one song that are not for selection, those with the lowest hashes are only reported on.
REPORTED = 7
RENDERED_SONGS = 32
RENDERED_SECONDS = 12.0
PHRASE_SECONDS = 6.0
# Levels of rendered stems and of the voices over them, in dBFS.
STEM_LEVELS = (-28.0, -18.0)
VOICE_LEVELS = (-25.0, -17.0)

Song = dict[str, Tensor]


def reported_artists(artists: Sequence[str]) -> list[str]:
    """Returns the artists that nothing but the last scores may hear, of those of all previews, one entry per song."""
    single = {artist for artist in artists if artists.count(artist) == 1} - set(SELECTION)
    return sorted(single, key=lambda artist: hashlib.sha256(artist.encode()).hexdigest())[:REPORTED]


def lay_out(sources: Path, root: Path, sound_font: Path, rendered_songs: int = RENDERED_SONGS) -> None:
    """Writes `{root}/{train,valid,test}/{track}/{stem}.wav`: 16 bit, 44.1 kHz, stereo.

    The songs of the reported artists are in test/, those for selection in valid/, all else in train/, with music
    rendered for this and the voices of train/ over it. A song that is complete already is kept.

    Args:
        sources: Folder with musdb18-7-cc/, everything-is-free-cc0/, mdn-multitrack-cc0/ and singing/.
        root: The dataset that is written.
        sound_font: What instruments are rendered with.
        rendered_songs: How many songs are rendered.

    Raises:
        InputError: A source is missing or cannot be read, or the renderer is missing.
    """
    check_renderer(sound_font)
    previews = [Track(path, audio_info(path, 0).length) for path in track_paths(sources / "musdb18-7-cc" / "train")]
    reported = reported_artists([track.artist for track in previews])
    for track in tqdm(previews, "previews"):
        split = "test" if track.artist in reported else "valid" if track.artist in SELECTION else "train"
        _write(root / split / track.name, {stem: track.read(stem) for stem in STEMS})
    for path in track_paths(sources / "everything-is-free-cc0"):
        song = {stem: read_audio(path / f"{stem}.flac") for stem in STEMS}
        _write(root / "train" / path.name, song)
    _write(root / "train" / "MDN - Multitrack", _instrumental(sources / "mdn-multitrack-cc0"))
    heard = [path for path in track_paths(root / "train") if not path.name.startswith("Rendered")]
    voices = [read_audio(path / "vocals.wav") for path in heard if "MDN" not in path.name]
    voices += [_stereo(path) for path in sorted((sources / "singing").iterdir())]
    for number in tqdm(range(rendered_songs), "rendered"):
        folder = root / "train" / f"Rendered {number:02} - Seed {number}"
        if not (folder / f"{STEMS[-1]}.wav").exists():
            _write(folder, rendered_song(number, voices, sound_font))


def rendered_song(seed: int, voices: Sequence[Tensor], sound_font: Path) -> Song:
    """Returns a rendered piece with phrases of one voice (2, n) of several over it, with pauses."""
    length, generator = round(RENDERED_SECONDS * SAMPLE_RATE), random.Random(seed)
    piece = compose(seed, RENDERED_SECONDS)
    song = {
        stem: levelled(render(piece, stem, length, sound_font), generator.uniform(*STEM_LEVELS)) for stem in piece.stems
    }
    song["vocals"] = torch.zeros(2, length)
    for start, phrase in _phrases(generator, voices[seed % len(voices)], length):
        song["vocals"][:, start : start + phrase.shape[1]] = levelled(phrase, generator.uniform(*VOICE_LEVELS))
    peak = torch.stack(list(song.values())).sum(0).abs().max().item()
    return {stem: audio / max(1.0, peak / 0.98) for stem, audio in song.items()}


def levelled(audio: Tensor, decibels: float) -> Tensor:
    """Returns audio with a level in dBFS, but no sample beyond full scale; silence stays silent."""
    level, peak = audio.square().mean().sqrt().item(), audio.abs().max().item()
    return audio * min(10 ** (decibels / 20) / level, 0.98 / peak) if level else audio


def _phrases(generator: random.Random, voice: Tensor, length: int) -> Iterator[tuple[int, Tensor]]:
    start = round(generator.uniform(0, 1.5) * SAMPLE_RATE)
    while start < length:
        samples = min(round(PHRASE_SECONDS * SAMPLE_RATE), voice.shape[1], length - start)
        first = generator.randint(0, voice.shape[1] - samples)
        yield start, voice[:, first : first + samples]
        start += samples + round(generator.uniform(0.5, 2) * SAMPLE_RATE)


def _instrumental(folder: Path) -> Song:
    """Returns the multitrack without a voice, quieter by 12 dB, since its parts are loud each."""
    parts = {"drums": ["drums"], "bass": ["bassguitar"], "other": ["clav", "horns", "leadguitar"]}
    audio = {name: _stereo(folder / f"{name}.mp3") for names in parts.values() for name in names}
    length = max(part.shape[1] for part in audio.values())
    song = {stem: torch.zeros(2, length) for stem in STEMS}
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
