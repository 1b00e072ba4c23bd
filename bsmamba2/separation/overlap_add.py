"""Overlap-add: applies a function of segments to audio of any length."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.audio.sample_queue import SampleQueue
from bsmamba2.errors import InputError


def overlap_add(
    process: Callable[[Tensor], Tensor],
    blocks: Iterable[Tensor],
    *,
    segment: int,
    hop: int,
    batch_size: int = 1,
) -> Iterator[Tensor]:
    """Yields the estimates of a mixture (c, n), cross-faded from those of its segments, in pieces of (s, c, n).

    Segments start every hop samples; the last one is zero-padded. Each is weighted by a window with linear ramps over
    the overlap, and the sum is divided by the sum of the windows, so that the identity leaves a mixture unchanged.
    Memory use does not depend on the length of the mixture.

    Args:
        process: Maps segments (b, c, segment) to estimates (b, s, c, segment), on the blocks' device.
        blocks: The mixture, cut into blocks of any length.
        segment: Length of a segment in samples.
        hop: Distance between segments in samples, from 1 to segment.
        batch_size: Segments in one call of process.

    Raises:
        InputError: segment, hop or batch_size is out of range.
    """
    if not 1 <= hop <= segment or batch_size < 1:
        raise InputError(
            f"segment={segment}, hop={hop}, batch_size={batch_size} is not allowed; "
            "give a hop from 1 to the segment and a batch of at least one segment"
        )
    window = _window(segment, segment - hop)
    sums = weights = torch.zeros(segment, dtype=torch.float32, device="cpu")
    for batch in _batches(_segments(blocks, segment, hop), batch_size):
        results = process(torch.stack([piece for piece, _ in batch]))
        for result, (_, final) in zip(results, batch, strict=True):
            sums, weights = sums + result * window.to(result), weights + window
            yield sums[..., :final] / weights[:final].to(result)
            sums, weights = (F.pad(t[..., hop:], (0, hop)) for t in (sums, weights))


def _segments(blocks: Iterable[Tensor], segment: int, hop: int) -> Iterator[tuple[Tensor, int]]:
    """Yields segments (c, segment), each with the number of its samples that no later segment covers."""
    waiting = SampleQueue()
    for block in blocks:
        waiting.append(block)
        while len(waiting) > segment:
            yield waiting.first(segment), hop
            waiting.take(hop)
    if length := len(waiting):
        yield F.pad(waiting.take(length), (0, segment - length)), length


def _batches(pieces: Iterator[tuple[Tensor, int]], batch_size: int) -> Iterator[list[tuple[Tensor, int]]]:
    while batch := list(itertools.islice(pieces, batch_size)):
        yield batch


def _window(segment: int, overlap: int) -> Tensor:
    """Returns a window that is 1 in the middle, with linear ramps over the overlap at both ends, nowhere zero.

    On music, estimates depend less on where segments begin than with squared-sine ramps (measured).
    """
    positions = torch.arange(segment, dtype=torch.float32, device="cpu")
    distance_to_end = positions.minimum(positions.flip(0)) + 0.5
    return (distance_to_end / max(overlap, 0.5)).clamp(max=1)
