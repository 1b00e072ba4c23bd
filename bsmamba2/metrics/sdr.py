"""Ratios of signal to distortion.

Conventions: arguments are keyword-only, audio is (c, n), sums run over all channels, everything is computed in float64,
a second or a block at a time, so that no float64 copy of a track is made.
The cSDR is museval v4's SDR: the filters of BSS Eval only affect its other scores (ISR, SIR, SAR).
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from bsmamba2.errors import InputError

Audio = Tensor | np.ndarray

# Two 16-bit steps: anything below is dither.
SILENT_PEAK = 2**-14
# Samples per channel, few enough for a processor's cache.
SUM_BLOCK = 1 << 16
# Energy of the rounding errors of a scaled copy in float64, relative to the copy (-260 dB).
ROUNDING = 1e-26


def usdr(*, estimate: Audio, reference: Audio) -> float:
    """Returns the signal-to-distortion ratio over the whole track in dB (Music Demixing Challenge 2021).

    10 · log10((Σ reference² + 1e-7) / (Σ (reference − estimate)² + 1e-7))

    NaN if the reference is silent: the ratio would measure the level of the estimate alone.

    Args:
        estimate: Separated audio (c, n).
        reference: True audio (c, n).

    Raises:
        InputError: The two shapes differ, or are not (c, n) with at least one sample, or a sample is not finite.
    """
    estimate, reference = checked_audio(estimate=estimate, reference=reference)
    if is_silent(reference):
        return float("nan")
    signal = error = torch.full((), 1e-7, dtype=torch.float64)
    for e, r in _blocks(estimate, reference):
        signal = signal + r.square().sum()
        error = error + (r - e).square().sum()
    return decibels(signal, error).item()


def si_sdr(*, estimate: Audio, reference: Audio) -> float:
    """Returns the scale-invariant signal-to-distortion ratio over the whole track in dB (Le Roux et al. 2019).

    10 · log10(Σ (α · reference)² / Σ (α · reference − estimate)²), α = Σ estimate · reference / Σ reference²

    No mean is removed. NaN if the reference is silent or the estimate zero; -inf if the estimate contains nothing of
    the reference; +inf if it contains nothing else, up to the rounding of float64.

    Args:
        estimate: Separated audio (c, n).
        reference: True audio (c, n).

    Raises:
        InputError: The two shapes differ, or are not (c, n) with at least one sample, or a sample is not finite.
    """
    estimate, reference = checked_audio(estimate=estimate, reference=reference)
    if is_silent(reference):
        return float("nan")
    product = reference_energy = estimate_energy = torch.zeros((), dtype=torch.float64)
    for e, r in _blocks(estimate, reference):
        product = product + (e * r).sum()
        reference_energy = reference_energy + r.square().sum()
        estimate_energy = estimate_energy + e.square().sum()
    if not estimate_energy:
        return float("nan")
    scale = product / reference_energy
    error = torch.zeros((), dtype=torch.float64)
    for e, r in _blocks(estimate, reference):
        error = error + (scale * r - e).square().sum()
    signal = scale.square() * reference_energy
    return decibels(signal, error).item() if error > ROUNDING * signal else float("inf")


def csdr(*, estimate: Audio, reference: Audio, sample_rate: int) -> float:
    """Returns the median of the defined windows of `windowed_sdr` in dB.

    For an even count it is the mean of the middle two. NaN if no window is defined or the reference is silent.

    Args:
        estimate: Separated audio (c, n).
        reference: True audio (c, n).
        sample_rate: Sampling rate in Hz.

    Raises:
        InputError: The two shapes differ, or are not (c, n) with at least one sample, or a sample is not finite.
    """
    estimate, reference = checked_audio(estimate=estimate, reference=reference)
    return float("nan") if is_silent(reference) else defined_median(_windows(estimate, reference, sample_rate))


def windowed_sdr(*, estimate: Audio, reference: Audio, sample_rate: int) -> Tensor:
    """Returns the signal-to-distortion ratio of every one-second window in dB, (w) or for sources (s, w).

    Windows do not overlap; the last partial one is dropped, but audio shorter than a window is scored as one. A window
    is undefined (NaN) for all sources if any reference or estimate is silent in it, that is, if its channels sum to
    exactly zero in every sample. A window without error gives +inf. If a source is silent over the whole track, where
    museval raises, all windows are undefined.

    Args:
        estimate: Separated audio (c, n), or (s, c, n) for several sources.
        reference: True audio of the same shape.
        sample_rate: Sampling rate in Hz.

    Raises:
        InputError: The two shapes differ, have other dimensions, or no sample, or a sample is not finite.
    """
    ndim = 3 if np.ndim(estimate) == 3 else 2
    estimate, reference = checked_audio(estimate=estimate, reference=reference, ndim=ndim)
    return _windows(estimate, reference, sample_rate)


def is_silent(audio: Tensor) -> bool:
    """Returns whether no sample is louder than dither, at two 16-bit steps."""
    # Not abs, which would make a copy of the audio.
    return bool(torch.stack(audio.aminmax()).abs().max() <= SILENT_PEAK)


def defined_median(values: Tensor) -> float:
    """Returns the median of the values that are not NaN, or NaN; for an even count the mean of the middle two."""
    ordered = values[~values.isnan()].double().sort().values
    count = len(ordered)
    return ((ordered[(count - 1) // 2] + ordered[count // 2]) / 2).item() if count else float("nan")


def decibels(signal: Tensor, error: Tensor) -> Tensor:
    """Returns ratios of energies in dB."""
    return 10 * torch.log10(signal / error)


def checked_audio(*, ndim: int = 2, **audio: Audio) -> tuple[Tensor, ...]:
    """Returns audio of equal shapes as tensors of their own type on the CPU, since other devices may lack float64.

    Args:
        ndim: 2 for (c, n), 3 for (s, c, n).
        audio: Audio by name; the names are used in errors.

    Raises:
        InputError: The shapes differ, have other dimensions, or no sample, or a sample is not finite.
    """
    tensors = {name: torch.as_tensor(one).detach().cpu() for name, one in audio.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    first = next(iter(shapes.values()))
    if set(shapes.values()) != {first} or len(first) != ndim or 0 in first:
        named = " and ".join(f"{name} has shape {shape}" for name, shape in shapes.items())
        form = "(channels, samples)" if ndim == 2 else "(sources, channels, samples)"
        raise InputError(f"{named}; audio to score must be {form} of the same size, not empty")
    for name, tensor in tensors.items():
        # isfinite of all samples would make a copy of them.
        if not torch.stack(tensor.aminmax()).isfinite().all():
            raise InputError(f"the {name} has samples that are not finite (NaN or infinity), so it has no score")
    return tuple(tensors.values())


def _windows(estimates: Tensor, references: Tensor, sample_rate: int) -> Tensor:
    length = references.shape[-1]
    window = min(int(1.0 * sample_rate), length)
    end = length // window * window
    pairs = zip(estimates[..., :end].split(window, -1), references[..., :end].split(window, -1), strict=True)
    return torch.stack([_window(estimate.double(), reference.double()) for estimate, reference in pairs], -1)


def _window(estimate: Tensor, reference: Tensor) -> Tensor:
    if not (_none_silent(estimate) and _none_silent(reference)):
        return torch.full(reference.shape[:-2], torch.nan, dtype=torch.float64)
    return decibels(_energy(reference), _energy(reference - estimate))


def _none_silent(audio: Tensor) -> bool:
    # The first samples almost always decide.
    return any(bool(part.sum(-2).any(-1).all()) for part in (audio[..., :1000], audio))


def _energy(audio: Tensor) -> Tensor:
    samples = audio.flatten(-2)
    return torch.linalg.vecdot(samples, samples)


def _blocks(*audio: Tensor) -> Iterator[tuple[Tensor, ...]]:
    for blocks in zip(*(one.split(SUM_BLOCK, -1) for one in audio), strict=True):
        yield tuple(block.double() for block in blocks)
