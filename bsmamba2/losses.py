"""What training minimises."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.stft import istft, stft


class SeparationLoss(nn.Module):
    """L1 distance of waveforms plus mean distance of complex spectra at several resolutions (paper, section 3.4).

    Args:
        config: The network's transform, which the reference passes first: what the network cannot express is not asked.
        l1_weight: Factor of the waveform term.
        stft_windows: Window lengths in samples, each with weight 1.
        stft_hop: Distance between the frames of these spectra in samples.
        stft_min_n_fft: Length of their Fourier transform where the window is not longer.
    """

    def __init__(
        self,
        config: ModelConfig,
        l1_weight: float,
        stft_windows: Sequence[int],
        stft_hop: int,
        stft_min_n_fft: int,
    ) -> None:
        super().__init__()
        self.transform = {
            "n_fft": config.n_fft,
            "window_length": config.window_length,
            "hop_length": config.hop_length,
        }
        self.l1_weight = l1_weight
        self.resolutions = [
            {"n_fft": max(window, stft_min_n_fft), "window_length": window, "hop_length": stft_hop}
            for window in stft_windows
        ]

    def forward(self, *, estimates: Tensor, references: Tensor) -> Tensor:
        """Returns the loss, a scalar, of estimates and references (..., n)."""
        length = references.shape[-1]
        references = istft(stft(references, **self.transform), length=length, **self.transform)
        # The transform is linear: the difference of two spectra is the spectrum of the difference.
        difference = estimates - references
        spectra = [stft(difference, **resolution).abs().mean() for resolution in self.resolutions]
        return self.l1_weight * difference.abs().mean() + torch.stack(spectra).sum()
