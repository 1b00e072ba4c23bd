"""The training loss."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bsmamba2.errors import InputError
from bsmamba2.model.stft import stft


@dataclass(frozen=True)
class LossConfig:
    """Terms of the loss and their weights; a weight of 0 leaves a term out. The defaults are the published loss.

    Args:
        l1: Weight of the mean absolute difference of the waveforms.
        stft: Weight of the mean modulus of the difference of the complex spectra, summed over the windows.
        stft_windows: Window lengths in samples.
        stft_hop: Hop length of these spectra in samples.
        stft_min_n_fft: Length of their Fourier transform unless the window is longer.

    Raises:
        InputError: A value is out of its range.
    """

    l1: float = 10.0
    stft: float = 1.0
    stft_windows: tuple[int, ...] = (4096, 2048, 1024, 512, 256)
    stft_hop: int = 147
    stft_min_n_fft: int = 2048

    def __post_init__(self) -> None:
        if not (self.l1 >= 0 and self.stft >= 0 and 0 < self.l1 + self.stft < math.inf):
            raise InputError(
                f"the loss weights l1={self.l1}, stft={self.stft} are not allowed; give at least 0, not both 0"
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
        self.weights = {name: weight for name in ("l1", "stft") if (weight := getattr(config, name))}
        self.resolutions = [
            {"n_fft": max(window, config.stft_min_n_fft), "window_length": window, "hop_length": config.stft_hop}
            for window in config.stft_windows
        ]

    def forward(self, *, estimates: Tensor, references: Tensor) -> Tensor:
        """Returns the loss, a scalar, of estimates and references (..., n)."""
        return self.total(self.terms(estimates=estimates, references=references))

    def terms(self, *, estimates: Tensor, references: Tensor) -> dict[str, Tensor]:
        """Returns the terms with a weight above 0, as unweighted scalars by name."""
        # The transform is linear: the difference of two spectra is the spectrum of the difference.
        difference = estimates - references
        measures = {"l1": self._waveform_distance, "stft": self._spectral_distance}
        return {name: measures[name](difference) for name in self.weights}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Returns the weighted sum of terms."""
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()

    def _waveform_distance(self, difference: Tensor) -> Tensor:
        return difference.abs().mean()

    def _spectral_distance(self, difference: Tensor) -> Tensor:
        return torch.stack([stft(difference, **resolution).abs().mean() for resolution in self.resolutions]).sum()
