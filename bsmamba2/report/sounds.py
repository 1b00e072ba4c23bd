"""What a report lets people see and hear: excerpts of a track, their spectrograms and players."""

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
from bsmamba2.audio.spectrograms import LOWEST_HZ, ROWS, spectrograms
from bsmamba2.audio.writing import write_audio
from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import EXCERPTS_FOLDER, TrackResult
from bsmamba2.stem_names import MIXTURE

REFERENCE, ESTIMATE_SOUND, RESIDUAL_SOUND = "reference", "estimate", "reference − estimate"
# MP3 with 320 kbit/s takes 0.5 MB of a page for these.
LONGEST_SECONDS = 10.0
TICKS_HZ = {100: "100", 300: "300", 1000: "1k", 3000: "3k", 10000: "10k"}
PICTURE_WIDTH = 640
PICTURE_QUALITY = 82


@dataclass(frozen=True)
class Excerpt:
    """Seconds of a track.

    Args:
        start: Where they start in the track, in seconds.
        end: Where they end.
        sample_rate: Sampling rate in Hz.
        audio: Mixture, reference, estimate and reference − estimate, (c, n) by name.
        gain_db: By how much all of them were turned up; below 0 where one would have been clipped.
    """

    start: float
    end: float
    sample_rate: int
    audio: Mapping[str, Tensor]
    gain_db: float = 0.0


@dataclass(frozen=True)
class Sound:
    """Something to see and to hear.

    Args:
        picture: Its spectrogram, as the address of a picture that lies in the page.
        player: Its sound, as such an address; empty where there is none.
    """

    picture: str
    player: str


def has_excerpt(run: Path, track: TrackResult, stem: str) -> bool:
    """Returns whether something of a track was kept for listening, in files that are there."""
    try:
        return track.excerpt is not None and all(path.is_file() for path in _paths(run, track, stem).values())
    except OSError:  # Not to be looked at.
        return False


def read_excerpt(run: Path, track: TrackResult, stem: str) -> Excerpt:
    """Returns what was kept of a track for listening, at most its first 10 s.

    Raises:
        InputError: A file is damaged, or the files are not of the same length and form.
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
    """Returns what there is to see, and to hear if there shall be audio.

    Colours span the 80 dB below the peak of the mixture in all pictures.
    """
    stacked = torch.stack([part.mean(0) for part in excerpt.audio.values()])
    pictures = spectrograms(stacked, excerpt.sample_rate)
    # Between them are lines.
    step = (pictures.shape[1] - ROWS) // max(len(stacked) - 1, 1)
    return {
        name: Sound(
            picture=_picture(pictures[:, row * step : row * step + ROWS]),
            player=_player(part, excerpt.sample_rate) if audio else "",
        )
        for row, (name, part) in enumerate(excerpt.audio.items())
    }


def frequency_ticks(sample_rate: int) -> dict[str, float]:
    """Returns how far from the top of a spectrogram some frequencies lie, from 0 to 1, by their names."""
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


def _picture(pixels: Tensor) -> str:
    written = io.BytesIO()
    picture = Image.fromarray(pixels.movedim(0, -1).contiguous().numpy())
    if picture.width > PICTURE_WIDTH:
        picture = picture.resize((PICTURE_WIDTH, picture.height), Image.Resampling.BOX)
    picture.save(written, "JPEG", quality=PICTURE_QUALITY, subsampling=0)
    return _address("image/jpeg", written.getvalue())


def _player(audio: Tensor, sample_rate: int) -> str:
    if sample_rate not in MP3_RATES:
        target_rate = 44100 if sample_rate % 44100 == 0 else 48000
        resampler = Resampler(sample_rate, target_rate, audio.shape[0])
        length = round(audio.shape[-1] * target_rate / sample_rate)
        audio, sample_rate = torch.cat([resampler(audio), resampler.finish(length)], 1)[:, :length], target_rate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound.mp3"
        write_audio(path, audio, sample_rate, "mp3", None)
        return _address("audio/mpeg", path.read_bytes())


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
