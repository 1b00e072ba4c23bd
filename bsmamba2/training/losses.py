"""The training loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.errors import InputError
from bsmamba2.model.stft import stft

TERMS = ("l1", "stft", "error_db", "compressed")
# The power that compresses the magnitudes of spectra, and what is added to their squares.
COMPRESSED_POWER, COMPRESSED_FLOOR = 0.3, 1e-8
# Shares of the differences of compressed magnitudes and of compressed complex spectra.
MAGNITUDE_SHARE, COMPLEX_SHARE = 0.9, 0.2
# Least energy of a mixture that is scaled to an RMS of 1.
LEAST_ENERGY = 1e-12


@dataclass(frozen=True)
class LossConfig:
    """Terms of the loss and their weights; a weight of 0 leaves a term out. The defaults are the published loss.

    Args:
        l1: Weight of the mean absolute difference of the waveforms.
        stft: Weight of the mean modulus of the difference of the complex spectra, summed over the windows.
        error_db: Weight of the level of the difference of the waveforms in dB of full scale, the mean over excerpts.
            Loud and quiet excerpts weigh the same, and an unsure estimate tends to the mean of what is possible, where
            that of l1 tends to the median, which is too quiet.
        error_floor_db: Level that is added to that of the difference, so that it is finite.
        compressed: Weight of the mean squared differences of compressed magnitudes (0.9) and of complex spectra with
            compressed magnitudes (0.2), to the power of 0.3, at the scale at which each channel of the mixture has an
            RMS of 1. It is for speech (arXiv:2502.19906).
        compressed_n_fft: Length of the Fourier transform and of the window of these spectra; their hop is a quarter.
        stft_windows: Window lengths in samples.
        stft_hop: Hop length of these spectra in samples.
        stft_min_n_fft: Length of their Fourier transform unless the window is longer.

    Raises:
        InputError: A value is out of its range.
    """

    l1: float = 10.0
    stft: float = 1.0
    error_db: float = 0.0
    error_floor_db: float = -50.0
    compressed: float = 0.0
    compressed_n_fft: int = 400
    stft_windows: tuple[int, ...] = (4096, 2048, 1024, 512, 256)
    stft_hop: int = 147
    stft_min_n_fft: int = 2048

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in TERMS}
        if not (min(weights.values()) >= 0 and 0 < sum(weights.values()) < math.inf):
            given = ", ".join(f"{name}={weight}" for name, weight in weights.items())
            raise InputError(f"the loss weights {given} are not allowed; give at least 0, and not 0 for all")
        if not -200 <= self.error_floor_db <= 0:
            raise InputError(f"error_floor_db={self.error_floor_db} is not allowed; give a level from -200 to 0 dB")
        if self.compressed_n_fft < 4 or self.compressed_n_fft % 2:
            raise InputError(
                f"compressed_n_fft={self.compressed_n_fft} is not allowed; give an even length of at least 4 samples"
            )
        lengths = (self.stft_hop, *(window - 1 for window in self.stft_windows), self.stft_min_n_fft - 1)
        if not self.stft_windows or min(lengths) < 1:
            raise InputError(
                f"stft_windows={list(self.stft_windows)}, stft_hop={self.stft_hop}, "
                f"stft_min_n_fft={self.stft_min_n_fft} is not allowed; give lengths in samples, the windows from 2 up"
            )


class SeparationLoss(nn.Module):
    """L1 distance of waveforms plus mean distance of complex spectra at several resolutions (paper, section 3.4).

    The published loss first passes the references through the network's transform and its inverse. Since every sample
    is kept, that is the identity and left out here.

    Args:
        config: Terms and weights.
    """

    def __init__(self, config: LossConfig | None = None) -> None:
        super().__init__()
        config = config or LossConfig()
        self.weights = {name: weight for name in TERMS if (weight := getattr(config, name))}
        self.error_floor = 10 ** (config.error_floor_db / 10)
        self.resolutions = [
            {"n_fft": max(window, config.stft_min_n_fft), "window_length": window, "hop_length": config.stft_hop}
            for window in config.stft_windows
        ]
        length = config.compressed_n_fft
        self.compressed = {"n_fft": length, "window_length": length, "hop_length": length // 4}

    def forward(self, *, estimates: Tensor, references: Tensor, mixture: Tensor) -> Tensor:
        """Returns the loss, a scalar, of estimates and references (..., s, c, n) in a mixture (..., c, n)."""
        return self.total(self.terms(estimates=estimates, references=references, mixture=mixture))

    def terms(self, *, estimates: Tensor, references: Tensor, mixture: Tensor) -> dict[str, Tensor]:
        """Returns the terms with a weight above 0, as unweighted scalars by name."""
        # The transform is linear: the difference of two spectra is the spectrum of the difference.
        difference = estimates - references
        measures: dict[str, Callable[[], Tensor]] = {
            "l1": lambda: self._waveform_distance(difference),
            "stft": lambda: self._spectral_distance(difference),
            "error_db": lambda: self._error_level(difference),
            "compressed": lambda: self._compressed_distance(estimates, references, mixture),
        }
        return {name: measures[name]() for name in self.weights}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Returns the weighted sum of terms."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()

    def _waveform_distance(self, difference: Tensor) -> Tensor:
        return difference.abs().mean()

    def _error_level(self, difference: Tensor) -> Tensor:
        power = difference.square().mean(dim=(-2, -1))  # of every excerpt and stem
        return 10 * torch.log10(power + self.error_floor).mean()

    def _compressed_distance(self, estimates: Tensor, references: Tensor, mixture: Tensor) -> Tensor:
        energy = mixture.square().sum(-1, keepdim=True).clamp(min=LEAST_ENERGY)
        scale = (mixture.shape[-1] / energy).sqrt().unsqueeze(-3)
        (estimated, estimated_moduli), (spectra, moduli) = (
            self._compressed_spectra(scale * audio) for audio in (estimates, references)
        )
        # Over real and imaginary parts too: the mean of half the squared moduli.
        return MAGNITUDE_SHARE * F.mse_loss(estimated_moduli, moduli) + COMPLEX_SHARE * F.mse_loss(estimated, spectra)

    def _compressed_spectra(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Returns spectra (..., f, t, 2) with compressed magnitudes, and these magnitudes."""
        spectrum = torch.view_as_real(stft(audio, **self.compressed))
        power = spectrum.square().sum(-1, keepdim=True) + COMPRESSED_FLOOR
        return spectrum * power ** ((COMPRESSED_POWER - 1) / 2), power ** (COMPRESSED_POWER / 2)

    def _spectral_distance(self, difference: Tensor) -> Tensor:
        return torch.stack([stft(difference, **resolution).abs().mean() for resolution in self.resolutions]).sum()
