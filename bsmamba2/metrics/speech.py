"""Scores of speech by the packages pystoi and pesq, which are optional; PESQ's has to be compiled."""

import importlib.util
import warnings
from collections.abc import Callable

import numpy as np
import soxr
import torch

from bsmamba2.metrics.sdr import Audio, checked_audio, is_silent

# The scores, each with the package that computes it.
SPEECH_PACKAGES = {"stoi": "pystoi", "pesq": "pesq"}
# The only sampling rate of wide-band PESQ, in Hz.
PESQ_RATE = 16000


def missing_packages() -> list[str]:
    """Returns the packages that are not installed, of those that compute scores of speech."""
    specs = {package: importlib.util.find_spec(package) for package in SPEECH_PACKAGES.values()}
    # A folder of the same name that is no package has no origin.
    return [package for package, spec in specs.items() if spec is None or spec.origin is None]


def stoi(*, estimate: Audio, reference: Audio, sample_rate: int) -> float:
    """Returns the short-time objective intelligibility, up to 1 (Taal et al. 2011), the mean over channels.

    NaN if the reference or the estimate is silent, or less than 0.4 s of the reference are not.

    Args:
        estimate: Separated audio (c, n).
        reference: True audio (c, n).
        sample_rate: Sampling rate in Hz.

    Raises:
        InputError: The two shapes differ, or are not (c, n) with at least one sample, or a sample is not finite.
        ModuleNotFoundError: The package pystoi is not installed.
    """
    from pystoi import stoi as measure  # type: ignore[import-untyped]

    def of_channel(estimate: np.ndarray, reference: np.ndarray) -> float:
        with warnings.catch_warnings():
            # It returns a number close to zero for audio that is too short.
            warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
            try:
                return float(measure(reference, estimate, sample_rate))
            except RuntimeWarning:
                return float("nan")

    return _mean_over_channels(of_channel, estimate, reference)


def pesq(*, estimate: Audio, reference: Audio, sample_rate: int) -> float:
    """Returns the perceptual evaluation of speech quality, wide band, up to 4.64 (ITU-T P.862.2), mean over channels.

    Audio at other rates than 16 kHz is resampled. NaN if the reference or the estimate is silent, or PESQ finds no
    utterance.

    Args:
        estimate: Separated audio (c, n).
        reference: True audio (c, n).
        sample_rate: Sampling rate in Hz.

    Raises:
        InputError: The two shapes differ, or are not (c, n) with at least one sample, or a sample is not finite.
        ModuleNotFoundError: The package pesq is not installed.
    """
    from pesq import PesqError  # type: ignore[import-not-found]
    from pesq import pesq as measure

    def of_channel(estimate: np.ndarray, reference: np.ndarray) -> float:
        score = measure(PESQ_RATE, reference, estimate, "wb", on_error=PesqError.RETURN_VALUES)
        # Errors are negative numbers.
        return float(score) if score > 0 else float("nan")

    estimate, reference = checked_audio(estimate=estimate, reference=reference)
    resampled = (
        torch.from_numpy(soxr.resample(audio.mT.float().numpy(), sample_rate, PESQ_RATE, quality="VHQ")).mT
        for audio in (estimate, reference)
    )
    return _mean_over_channels(of_channel, *resampled)


def _mean_over_channels(measure: Callable[[np.ndarray, np.ndarray], float], estimate: Audio, reference: Audio) -> float:
    estimates, references = checked_audio(estimate=estimate, reference=reference)
    if is_silent(references) or not estimates.any():
        return float("nan")
    pairs = zip(estimates.double(), references.double(), strict=True)
    heard = [measure(e.numpy(), r.numpy()) for e, r in pairs if not is_silent(r) and e.any()]
    return float(torch.tensor(heard, dtype=torch.float64).nanmean()) if heard else float("nan")
