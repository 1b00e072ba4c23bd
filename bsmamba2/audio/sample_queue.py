"""Audio that comes in blocks of one length and is needed in pieces of another."""

import torch
from torch import Tensor


class SampleQueue:
    """Samples (c, n) that wait: appended in blocks of any length at the end, taken in pieces of any length in front.

    What it gives may share memory with the blocks; it changes neither. Its length is the number of samples that wait.

    Attributes:
        appended: Number of samples appended so far.
    """

    def __init__(self) -> None:
        self.appended = 0
        self._dropped = 0
        self._blocks: list[Tensor] = []

    def __len__(self) -> int:
        return self.appended - self._dropped

    def append(self, block: Tensor) -> None:
        """Adds a block (c, n) at the end; all blocks have the same channels."""
        self._blocks.append(block)
        self.appended += block.shape[-1]

    def first(self, count: int) -> Tensor:
        """Returns the first samples (c, count), fewer if fewer wait, and leaves them in the queue.

        At least one block, which may be empty, must have been appended.
        """
        if len(self._blocks) > 1:
            self._blocks = [torch.cat(self._blocks, dim=-1)]
        return self._blocks[0][..., :count]

    def take(self, count: int) -> Tensor:
        """Returns the first samples as `first` does, and removes them."""
        samples = self.first(count)
        self._dropped += samples.shape[-1]
        self._blocks[0] = self._blocks[0][..., count:]
        return samples
