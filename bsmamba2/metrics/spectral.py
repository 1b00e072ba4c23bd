"""How much a separation adds to the spectrum of a stem, and how much is missing from it."""

import functools
import math

import torch
from torch import Tensor

from bsmamba2.metrics.sdr import Audio, checked_audio, is_silent

WINDOW_LENGTH = 4096
HOP_LENGTH = 1024
MELS = 512
RANGE_DB = 80.0
SMALLEST_MAGNITUDE = 1e-10
# Frames transformed at a time, so that the spectrum of a whole track is never in memory.
FRAMES = 512


def bleedless_fullness(*, estimate: Audio, reference: Audio, sample_rate: int) -> tuple[float, float]:
    """Returns how little the estimate adds to the reference, and how little it lacks, each from 0 to 100.

    With the differences in dB between the mel magnitudes of estimate and reference, bleedless is
    100 / (1 + mean of the positive ones) and fullness 100 / (1 − mean of the negative ones); 100 if there are none. The
    definition is that of Music-Source-Separation-Training (`bleed_full`): Hann windows of 4096 samples every 1024,
    zeros around the audio, 512 mel bands with Slaney's scale and areas on magnitudes, levels limited to 80 dB below the
    peak of their own audio over all channels and to -200 dB; in float32.

    Identical audio gives (100, 100). Silence is at -200 dB everywhere, far below the floor of any other audio: as the
    estimate it gives 100 for bleedless and below 1 for fullness. Both are NaN if the reference is silent.

    Args:
        estimate: Separated audio (c, n).
        reference: True audio (c, n).
        sample_rate: Sampling rate in Hz.

    Raises:
        InputError: The two shapes differ, or are not (c, n) with at least one sample, or a sample is not finite.
    """
    estimate, reference = checked_audio(estimate=estimate, reference=reference)
    if is_silent(reference):
        return math.nan, math.nan
    difference = _mel_decibels(estimate, sample_rate) - _mel_decibels(reference, sample_rate)
    added, lacking = (
        side.sum(dtype=torch.float64) / side.count_nonzero().clamp(min=1)
        for side in (difference.clamp(min=0), difference.clamp(max=0))
    )
    return (100 / (1 + added)).item(), (100 / (1 - lacking)).item()


def _mel_decibels(audio: Tensor, sample_rate: int) -> Tensor:
    """Returns the levels (c, mel, frames) in dB."""
    window = torch.hann_window(WINDOW_LENGTH)
    bank = _mel_bank(sample_rate)
    overlap, step = WINDOW_LENGTH - HOP_LENGTH, FRAMES * HOP_LENGTH
    padded = torch.nn.functional.pad(audio.float(), 2 * (WINDOW_LENGTH // 2,))
    frames = 1 + audio.shape[-1] // HOP_LENGTH
    parts = []
    for start in range(0, frames * HOP_LENGTH, step):
        part = padded[:, start : min(start + step, frames * HOP_LENGTH) + overlap]
        spectrum = torch.stft(part, WINDOW_LENGTH, HOP_LENGTH, window=window, center=False, return_complex=True)
        parts.append(torch.stack([bank @ channel for channel in spectrum.abs()]))
    levels = torch.cat(parts, -1).clamp_(min=SMALLEST_MAGNITUDE).log10_().mul_(20)
    return levels.clamp_(min=levels.max().item() - RANGE_DB)


@functools.lru_cache(maxsize=4)
def _mel_bank(sample_rate: int) -> Tensor:
    """Returns sparse triangles (mel, bin) of unit area in Hz, each between the centres of its two neighbours.

    Some at the lowest frequencies are narrower than a bin and stay empty.
    """
    mel_step = _hertz_to_mel(sample_rate / 2) / (MELS + 1)
    corners = torch.tensor([_mel_to_hertz(number * mel_step) for number in range(MELS + 2)], dtype=torch.float64)
    bins = torch.arange(WINDOW_LENGTH // 2 + 1, dtype=torch.float64) * (sample_rate / WINDOW_LENGTH)
    lower, centre, upper = (corners[first : first + MELS, None] for first in range(3))
    rising, falling = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0) * 2 / (upper - lower)
    return triangles.float().to_sparse()


# Slaney's scale: 3 mel in 200 Hz up to 1 kHz, 27 mel for a factor of 6.4 above.
def _hertz_to_mel(frequency: float) -> float:
    return 15 + 27 * math.log(frequency / 1000) / math.log(6.4) if frequency > 1000 else 3 * frequency / 200


def _mel_to_hertz(mel: float) -> float:
    return 1000 * 6.4 ** ((mel - 15) / 27) if mel > 15 else 200 * mel / 3
