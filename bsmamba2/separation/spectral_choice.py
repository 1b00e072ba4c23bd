"""Combines estimates by taking the loudest or quietest of them in each bin of their spectra, block by block."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.audio.sample_queue import SampleQueue

# Length of a window in seconds, 2048 samples at 44.1 kHz.
CHOICE_SECONDS = 2048 / 44100
# Sum of squared Hann windows, each a quarter of its length after the one before.
WINDOW_SUM = 1.5
# So many windows are transformed at once; all at once would need many times the memory of the estimates.
MOST_WINDOWS = 64


class SpectralChoice:
    """Chooses in each bin of the short-time spectra the estimate with the largest or smallest magnitude.

    It chooses for each stem and channel. Estimates that are equal come back unchanged, and the result does not depend
    on how they are cut into blocks, both apart from rounding.

    Args:
        extreme: max or min.
        sample_rate: Sampling rate of the estimates in Hz, which determines the length of the windows: the power of two
            that is nearest to 46 ms.

    Attributes:
        window: Length of a window in samples.
    """

    def __init__(self, extreme: Literal["max", "min"], sample_rate: int) -> None:
        self.extreme = extreme
        self.window = 2 ** max(2, round(math.log2(CHOICE_SECONDS * sample_rate)))
        self._hop = self.window // 4
        self._waiting = SampleQueue()
        self._sums = torch.zeros(0, device="cpu")
        # Samples before the first of the estimates, which the first windows cover.
        self._leading = self.window - self._hop

    def __call__(self, estimates: Tensor) -> Tensor:
        """Takes the next block (k, ..., n) of k estimates, and returns the part (..., m) that is ready, perhaps empty.

        It lags behind by less than a window.
        """
        if not self._waiting.appended:
            self._waiting.append(estimates.new_zeros(*estimates.shape[:-1], self._leading))
            self._sums = estimates.new_zeros(*estimates.shape[1:-1], self._leading)
        self._waiting.append(estimates)
        ready = [self._sums[..., :0]]
        while len(self._waiting) >= self.window:
            ready.append(self._next())
        samples = torch.cat(ready, dim=-1)
        dropped = min(self._leading, samples.shape[-1])
        self._leading -= dropped
        return samples[..., dropped:]

    def finish(self) -> Tensor:
        """Returns the rest (..., m) of the result; at least one block must have been given."""
        missing = len(self._waiting) - self._leading
        end = self._waiting.first(0)
        return self(end.new_zeros(*end.shape[:-1], self.window))[..., :missing]

    def _next(self) -> Tensor:
        """Returns the next samples, which no later window covers, without those estimates."""
        count = min(MOST_WINDOWS, 1 + (len(self._waiting) - self.window) // self._hop)
        length = self.window + (count - 1) * self._hop
        waiting = self._waiting.first(length)
        window = torch.hann_window(self.window, dtype=waiting.dtype, device=waiting.device)
        frames = waiting.unfold(-1, self.window, self._hop) * window
        self._waiting.take(count * self._hop)
        spectra = torch.fft.rfft(frames)
        magnitudes = spectra.abs()
        best = magnitudes.argmax(0, keepdim=True) if self.extreme == "max" else magnitudes.argmin(0, keepdim=True)
        chosen = torch.fft.irfft(spectra.gather(0, best)[0], self.window) * window / WINDOW_SUM
        sums = _overlapped(chosen, self._hop)
        sums[..., : self._sums.shape[-1]] += self._sums
        self._sums = sums[..., count * self._hop :]
        return sums[..., : count * self._hop]


def _overlapped(frames: Tensor, hop: int) -> Tensor:
    """Returns the sum (..., n) of frames (..., t, w), each a hop after the one before."""
    leading, (count, window) = frames.shape[:-2], frames.shape[-2:]
    length = window + (count - 1) * hop
    columns = frames.reshape(-1, count, window).mT
    return F.fold(columns, (1, length), (1, window), stride=(1, hop)).reshape(*leading, length)
