"""Scores of separated stems.

Conventions: arguments are keyword-only, audio is (c, n), sums run over both channels, all is computed in float64.
The cSDR is museval v4's SDR: the filters of BSS Eval touch only its other scores (ISR, SIR, SAR).
"""

import numpy as np
import torch
from torch import Tensor

from bsmamba2.errors import InputError

Audio = Tensor | np.ndarray


def usdr(*, estimate: Audio, reference: Audio, sample_rate: int = 44100) -> float:
    """Returns the signal-to-distortion ratio over the whole track in dB (Music Demixing Challenge 2021).

    10 · log10((Σ reference² + 1e-7) / (Σ (reference − estimate)² + 1e-7))

    Args:
        estimate: Separated audio (c, n).
        reference: True audio (c, n).
        sample_rate: Not used; every score is called alike.

    Raises:
        InputError: The two shapes differ, or are not (c, n) with at least one sample, or a sample is not finite.
    """
    estimate, reference = _pair(estimate, reference, ndim=2)
    floor = 1e-7
    return _decibels(reference.square().sum() + floor, (reference - estimate).square().sum() + floor).item()


def csdr(*, estimate: Audio, reference: Audio, sample_rate: int = 44100) -> float:
    """Returns the median of the defined windows of `windowed_sdr` in dB, NaN if no window is defined.

    Of an even count it is the mean of the middle two.

    Args:
        estimate: Separated audio (c, n).
        reference: True audio (c, n).
        sample_rate: Sampling rate in Hz.

    Raises:
        InputError: The two shapes differ, or are not (c, n) with at least one sample, or a sample is not finite.
    """
    _pair(estimate, reference, ndim=2)
    return defined_median(windowed_sdr(estimate=estimate, reference=reference, sample_rate=sample_rate))


def windowed_sdr(*, estimate: Audio, reference: Audio, sample_rate: int = 44100) -> Tensor:
    """Returns the signal-to-distortion ratio of every one-second window in dB, (w) or for sources (s, w).

    Windows do not overlap; the last partial one is dropped, but audio of at most one window is scored as one. A window
    is undefined (NaN), for all sources, when one reference or estimate in it is silent: when the sum over the channels
    of every sample is exactly zero. A window without error gives +inf.

    Args:
        estimate: Separated audio (c, n), or of several sources (s, c, n).
        reference: True audio of the same shape.
        sample_rate: Sampling rate in Hz.

    Raises:
        InputError: The two shapes differ, or are of another form, or without a sample, or a sample is not finite.
    """
    several = np.ndim(estimate) == 3
    estimates, references = _pair(estimate, reference, ndim=3 if several else 2)
    length = references.shape[-1]
    window = min(int(1.0 * sample_rate), length)
    # (c, w, window), or for sources (s, c, w, window)
    estimates, references = (
        t[..., : length // window * window].unflatten(-1, (-1, window)) for t in (estimates, references)
    )
    scores = _decibels(references.square().sum(dim=(-3, -1)), (references - estimates).square().sum(dim=(-3, -1)))
    silent = (references.sum(-3) == 0).all(-1) | (estimates.sum(-3) == 0).all(-1)
    return scores.masked_fill(silent.any(0) if several else silent, torch.nan)


def defined_median(values: Tensor) -> float:
    """Returns the median of the values that are not NaN, of an even count the mean of the middle two; NaN of none."""
    ordered = values[~values.isnan()].double().sort().values
    count = len(ordered)
    return ((ordered[(count - 1) // 2] + ordered[count // 2]) / 2).item() if count else float("nan")


def _pair(estimate: Audio, reference: Audio, ndim: int) -> tuple[Tensor, Tensor]:
    # On the CPU: other devices may have no float64.
    pair = torch.as_tensor(estimate).detach().cpu().double(), torch.as_tensor(reference).detach().cpu().double()
    shapes = tuple(tuple(t.shape) for t in pair)
    if shapes[0] != shapes[1] or len(shapes[0]) != ndim or 0 in shapes[0]:
        raise InputError(
            f"estimate has shape {shapes[0]} and reference {shapes[1]}; both must be "
            f"{'(channels, samples)' if ndim == 2 else '(sources, channels, samples)'} of the same size, not empty"
        )
    for name, audio in zip(("estimate", "reference"), pair, strict=True):
        if not audio.isfinite().all():
            raise InputError(f"the {name} has samples that are not finite (NaN or infinity), so it has no score")
    return pair


def _decibels(signal: Tensor, error: Tensor) -> Tensor:
    return 10 * torch.log10(signal / error)
