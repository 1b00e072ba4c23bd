"""Excerpts of a track in the report, as the player shows them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import TrackResult, excerpts_folder
from bsmamba2.player.recording import Recording
from bsmamba2.stem_names import MIXTURE
from bsmamba2.system.files import short_name

REFERENCE, ESTIMATE_SOUND, RESIDUAL_SOUND = "reference", "estimate", "reference − estimate"
LONGEST_SECONDS = 10.0
# By channels. Errors are listened to, so compression must add nothing audible; ten seconds take 0.3 MB of a page.
EXCERPT_BITS_PER_SECOND = {1: 96_000, 2: 160_000}


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


def record(excerpt: Excerpt, name: str, audio: bool) -> Recording:
    """Returns what the player draws, and plays if audio is wanted, of a sound of an excerpt; it is to be closed."""
    part = excerpt.audio[name]
    bits_per_second = EXCERPT_BITS_PER_SECOND.get(part.shape[0]) if audio else None
    recording = Recording(excerpt.sample_rate, part.shape[0], excerpt.end - excerpt.start, bits_per_second)
    recording(part)
    recording.finish()
    return recording


def _paths(run: Path, track: TrackResult, stem: str) -> dict[str, Path]:
    folder, stem = excerpts_folder(run, track.name), short_name(stem)
    return {
        MIXTURE: folder / f"{MIXTURE}.flac",
        REFERENCE: folder / f"{stem}.reference.flac",
        ESTIMATE_SOUND: folder / f"{stem}.estimate.flac",
    }
