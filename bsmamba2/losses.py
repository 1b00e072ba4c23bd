"""What training minimises."""

from collections.abc import Sequence

from torch import Tensor, nn

from bsmamba2.errors import InputError
from bsmamba2.model.stft import stft


class SeparationLoss(nn.Module):
    """L1 distance of waveforms plus mean distance of complex spectra at several resolutions (paper, section 3.4).

    The published loss passes the references through the network's transform and its inverse first. With every sample
    kept that is the identity, so it is left out.

    Args:
        l1_weight: Factor of the waveform term.
        stft_windows: Window lengths in samples, each with weight 1.
        stft_hop: Distance between the frames of these spectra in samples.
        stft_min_n_fft: Length of their Fourier transform where the window is not longer.

    Raises:
        InputError: A value is out of its range.
    """

    def __init__(self, l1_weight: float, stft_windows: Sequence[int], stft_hop: int, stft_min_n_fft: int) -> None:
        super().__init__()
        if l1_weight < 0 or stft_hop < 1 or stft_min_n_fft < 2 or any(window < 2 for window in stft_windows):
            raise InputError(
                f"l1_weight={l1_weight}, stft_windows={list(stft_windows)}, stft_hop={stft_hop}, "
                f"stft_min_n_fft={stft_min_n_fft} is not allowed; give a weight of at least 0 and lengths in samples"
            )
        self.l1_weight = l1_weight
        self.resolutions = [
            {"n_fft": max(window, stft_min_n_fft), "window_length": window, "hop_length": stft_hop}
            for window in stft_windows
        ]

    def forward(self, *, estimates: Tensor, references: Tensor) -> Tensor:
        """Returns the loss, a scalar, of estimates and references (..., n)."""
        # The transform is linear: the difference of two spectra is the spectrum of the difference.
        difference = estimates - references
        distances = [stft(difference, **resolution).abs().mean() for resolution in self.resolutions]
        return sum(distances, self.l1_weight * difference.abs().mean())
