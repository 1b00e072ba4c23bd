"""Resampling block by block."""

from typing import Any

import numpy as np
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F


class Resampler:
    """Resamples audio that comes in blocks, with soxr at its highest quality and without delay.

    The result does not depend on how the audio is cut into blocks.

    Args:
        source_rate: Sampling rate of the blocks in Hz.
        target_rate: Sampling rate of the result in Hz.
        channels: Number of channels.
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int) -> None:
        self.channels = channels
        self.given = 0
        self.stream: Any = None
        if source_rate != target_rate:
            self.stream = soxr.ResampleStream(source_rate, target_rate, channels, dtype="float32", quality="VHQ")

    def __call__(self, block: Tensor) -> Tensor:
        """Takes the next block (c, n) and returns the part (c, m) of the result that is ready, perhaps empty."""
        return self._counted(block if self.stream is None else self._resampled(block, last=False))

    def finish(self, length: int) -> Tensor:
        """Returns the rest of the result, cut or zero-padded so that the whole result has this many samples."""
        rest = torch.empty(self.channels, 0, dtype=torch.float32, device="cpu")
        if self.stream is not None:
            rest = self._resampled(rest, last=True)
        missing = max(0, length - self.given)
        return F.pad(rest, (0, max(0, missing - rest.shape[-1])))[:, :missing]

    def _resampled(self, block: Tensor, last: bool) -> Tensor:
        return torch.from_numpy(self.stream.resample_chunk(np.ascontiguousarray(block.mT.numpy()), last=last)).mT

    def _counted(self, block: Tensor) -> Tensor:
        self.given += block.shape[-1]
        return block
