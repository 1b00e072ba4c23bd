"""Floors and oracles: estimates made from the mixture or the true stems, for comparison with a score.

Spectra have a Hann window of 4096 samples, a hop of 1024 and zeros beyond both ends.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bsmamba2.evaluation.results import COMPLEX_MASK_ROW, HALF_ROW, MIXTURE_ROW, RATIO_MASK_ROW, SILENCE_ROW

WINDOW = 4096
HOP = 1024


def scale_estimates(*, mixture: Tensor, reference: Tensor, others: Sequence[Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yields the name of each row of `bsmamba2.evaluation.results.SCALE_ROWS` and its estimate (c, n) of a stem.

    Args:
        mixture: The song (c, n).
        reference: The stem (c, n).
        others: The other sources (c, n); for the instrumental these are only the vocals, so that two sources share the
            ideal ratio mask.
    """
    yield MIXTURE_ROW, mixture
    yield HALF_ROW, mixture / 2
    yield SILENCE_ROW, torch.zeros_like(mixture)
    yield RATIO_MASK_ROW, ideal_ratio_mask(mixture=mixture, reference=reference, others=others)
    yield COMPLEX_MASK_ROW, ideal_complex_mask(mixture=mixture, reference=reference)


def ideal_ratio_mask(*, mixture: Tensor, reference: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Returns the estimate (c, n) of a stem by its share in the sum of the magnitudes of all sources.

    The mask of each channel, |reference| / (|reference| + Σ |others|), is applied to the spectrum of the mixture, whose
    phase is kept.
    """
    channels = []
    # One channel and one source at a time: a spectrum is four times as large as its audio.
    for channel, audio in enumerate(mixture):
        share = _spectrum(reference[channel]).abs()
        total = share.clone()
        for other in others:
            total += _spectrum(other[channel]).abs()
        share /= total.clamp(min=torch.finfo(total.dtype).tiny)
        channels.append(_audio(_spectrum(audio).mul_(share), len(audio)))
    return torch.stack(channels)


def ideal_complex_mask(*, mixture: Tensor, reference: Tensor) -> Tensor:
    """Returns the estimate (c, n) of a stem by the complex mask reference / mixture, its magnitude limited to 1.

    Without the limit every estimate would be exact. With it, the phase is the stem's and the magnitude is the smaller
    one of the stem's and the mixture's.
    """
    channels = []
    for channel, audio in enumerate(mixture):
        spectrum = _spectrum(reference[channel])
        magnitude = spectrum.abs().clamp(min=torch.finfo(audio.dtype).tiny)
        limit = _spectrum(audio).abs().div_(magnitude).clamp_(max=1)
        channels.append(_audio(spectrum.mul_(limit), len(audio)))
    return torch.stack(channels)


def _spectrum(audio: Tensor) -> Tensor:
    return torch.stft(
        audio,
        WINDOW,
        HOP,
        window=torch.hann_window(WINDOW, dtype=audio.dtype),
        pad_mode="constant",
        return_complex=True,
    )


def _audio(spectrum: Tensor, length: int) -> Tensor:
    window = torch.hann_window(WINDOW, dtype=spectrum.real.dtype)
    return torch.istft(spectrum, WINDOW, HOP, window=window, length=length)
