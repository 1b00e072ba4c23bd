"""Excerpts of a track in the report: their spectrograms and players."""

import base64
import io
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bsmamba2.audio.formats import MP3_RATES
from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.audio.resampling import Resampler
from bsmamba2.audio.spectrograms import LOWEST_HZ, single_spectrograms
from bsmamba2.audio.writing import write_audio
from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import EXCERPTS_FOLDER, TrackResult
from bsmamba2.stem_names import MIXTURE

REFERENCE, ESTIMATE_SOUND, RESIDUAL_SOUND = "reference", "estimate", "reference − estimate"
# As MP3 of 320 kbit/s, these take 0.5 MB of a page.
LONGEST_SECONDS = 10.0
TICKS_HZ = {100: "100", 300: "300", 1000: "1k", 3000: "3k", 10000: "10k"}
SPECTROGRAM_WIDTH = 640
JPEG_QUALITY = 82


@dataclass(frozen=True)
class Excerpt:
    """A few seconds of a track.

    Args:
        start: Their start in the track, in seconds.
        end: Their end in the track, in seconds.
        sample_rate: Sampling rate in Hz.
        audio: Mixture, reference, estimate and reference − estimate, (c, n) by name.
        gain_db: Gain that was applied to all of them; below 0 if one would have clipped.
    """

    start: float
    end: float
    sample_rate: int
    audio: Mapping[str, Tensor]
    gain_db: float = 0.0


@dataclass(frozen=True)
class Sound:
    """A sound to show and play.

    Args:
        spectrogram: Its spectrogram, as a data URL of an image.
        player: Its audio, as a data URL; empty if there is none.
    """

    spectrogram: str
    player: str


def has_excerpt(run: Path, track: TrackResult, stem: str) -> bool:
    """Returns whether an excerpt of a track was kept and its files exist."""
    try:
        return track.excerpt is not None and all(path.is_file() for path in _paths(run, track, stem).values())
    except OSError:  # The folder cannot be accessed.
        return False


def read_excerpt(run: Path, track: TrackResult, stem: str) -> Excerpt:
    """Returns the excerpt of a track, at most its first 10 s.

    Raises:
        InputError: A file is damaged, or the files differ in length or format.
        OSError: A file cannot be read.
    """
    paths = _paths(run, track, stem)
    rates = {audio_info(path).sample_rate for path in paths.values()}
    sample_rate = rates.pop()
    length = round(LONGEST_SECONDS * sample_rate)
    audio = {name: read_audio(path)[:, :length] for name, path in paths.items()}
    if rates or len({tuple(part.shape) for part in audio.values()}) > 1 or not audio[MIXTURE].numel():
        raise InputError(f"the excerpts of {stem} in {paths[MIXTURE].parent} do not fit together; evaluate again")
    start = track.excerpt[0] if track.excerpt else 0.0
    audio[RESIDUAL_SOUND] = audio[REFERENCE] - audio[ESTIMATE_SOUND]
    gain_db = 20 * math.log10(track.excerpt_gain) if track.excerpt_gain > 0 else math.nan
    return Excerpt(start, start + audio[MIXTURE].shape[-1] / sample_rate, sample_rate, audio, gain_db)


def sounds(excerpt: Excerpt, audio: bool) -> dict[str, Sound]:
    """Returns spectrograms, and players if audio is wanted, by the names of an excerpt.

    Colours span the 80 dB below the peak of the mixture in all spectrograms.
    """
    images = single_spectrograms(torch.stack([part.mean(0) for part in excerpt.audio.values()]), excerpt.sample_rate)
    return {
        name: Sound(spectrogram=_image(pixels), player=_player(part, excerpt.sample_rate) if audio else "")
        for (name, part), pixels in zip(excerpt.audio.items(), images, strict=True)
    }


def frequency_ticks(sample_rate: int) -> dict[str, float]:
    """Returns the distance of some frequencies from the top of a spectrogram, from 0 to 1, by their labels."""
    edges = torch.tensor([LOWEST_HZ, *TICKS_HZ, sample_rate / 2], dtype=torch.float64)
    low, *ticks, high = torch.log1p(edges / 700).tolist()
    return {
        name: (high - tick) / (high - low) for name, tick in zip(TICKS_HZ.values(), ticks, strict=True) if tick < high
    }


def _paths(run: Path, track: TrackResult, stem: str) -> dict[str, Path]:
    folder = run / EXCERPTS_FOLDER / track.name
    return {
        MIXTURE: folder / f"{MIXTURE}.flac",
        REFERENCE: folder / f"{stem}.reference.flac",
        ESTIMATE_SOUND: folder / f"{stem}.estimate.flac",
    }


def _image(pixels: Tensor) -> str:
    written = io.BytesIO()
    image = Image.fromarray(pixels.movedim(0, -1).contiguous().numpy())
    if image.width > SPECTROGRAM_WIDTH:
        image = image.resize((SPECTROGRAM_WIDTH, image.height), Image.Resampling.BOX)
    image.save(written, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return _data_url("image/jpeg", written.getvalue())


def _player(audio: Tensor, sample_rate: int) -> str:
    if sample_rate not in MP3_RATES:
        target_rate = 44100 if sample_rate % 44100 == 0 else 48000
        resampler = Resampler(sample_rate, target_rate, audio.shape[0])
        length = round(audio.shape[-1] * target_rate / sample_rate)
        audio, sample_rate = torch.cat([resampler(audio), resampler.finish(length)], 1)[:, :length], target_rate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.mp3"
        write_audio(path, audio, sample_rate, "mp3", None)
        return _data_url("audio/mpeg", path.read_bytes())


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
