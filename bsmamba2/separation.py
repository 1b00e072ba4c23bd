"""From a network on segments to a separation of audio of any length: the same for training, scores and files."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2
from bsmamba2.model.ssd import Scan

OVERLAP = 0.25
BATCH_SIZE = 1

Progress = Callable[[float], None]


def separate(
    network: BSMamba2,
    mixture: Tensor,
    *,
    segment_seconds: float | None = None,
    overlap: float = OVERLAP,
    batch_size: int = BATCH_SIZE,
    scan: Scan = "auto",
    progress: Progress | None = None,
) -> Tensor:
    """Returns the estimates (s, c, n) of a mixture (c, n) at the network's sampling rate, on the mixture's device.

    Args:
        network: Runs on the device it lies on.
        mixture: Audio, full scale at 1.
        segment_seconds: Length of the segments in seconds, by default that of the network's training.
        overlap: Share of a segment that overlaps the next one, from 0 (the published test protocol) to below 1.
        batch_size: Segments in one pass; the result does not depend on it.
        scan: Which scan of `bsmamba2.model.ssd` to run; by itself the best for the device.
        progress: Called with the share done, from 0 to 1.

    Raises:
        InputError: An argument is out of its range, or the mixture does not fit the network.
    """
    if not 0 <= overlap < 1:
        raise InputError(f"overlap={overlap} is not allowed; give a share of a segment from 0 to below 1")
    seconds = network.config.segment_seconds if segment_seconds is None else segment_seconds
    if not 0 < seconds < math.inf or round(seconds * network.config.sample_rate) < 1:
        raise InputError(f"segment_seconds={seconds} is not allowed; give a length of at least one sample")
    segment = round(seconds * network.config.sample_rate)
    device = next(network.parameters()).device
    with torch.inference_mode():
        return overlap_add(
            lambda segments: network(segments.to(device), scan),
            mixture,
            segment=segment,
            hop=max(1, segment - round(segment * overlap)),
            batch_size=batch_size,
            progress=progress,
        )


def overlap_add(
    process: Callable[[Tensor], Tensor],
    mixture: Tensor,
    *,
    segment: int,
    hop: int,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> Tensor:
    """Returns what a process gives segment by segment, cross-faded: (s, c, n) of a mixture (c, n).

    Segments start every hop samples; the last one is zero-padded. Each is weighted by a window with linear ramps over
    the overlap, and the sum is divided by the sum of the windows, so that the identity is returned unchanged.

    Args:
        process: Maps segments (b, c, segment) to estimates (b, s, c, segment), on any device.
        mixture: Audio.
        segment: Length of a segment in samples.
        hop: Distance between segments in samples, from 1 to segment.
        batch_size: Segments in one call of process.
        progress: Called with the share done, from 0 to 1.

    Raises:
        InputError: The mixture is not (c, n) with at least one sample, or segment, hop or batch_size is out of range.
    """
    if mixture.ndim != 2 or 0 in mixture.shape:
        raise InputError(f"the mixture has shape {tuple(mixture.shape)}; give (channels, samples), not empty")
    if not 1 <= hop <= segment or batch_size < 1:
        raise InputError(
            f"segment={segment}, hop={hop}, batch_size={batch_size} is not allowed; "
            "the hop lies between 1 and the segment, a batch has at least one segment"
        )
    length = mixture.shape[-1]
    window = _window(segment, segment - hop).to(mixture)
    estimates, weights = None, torch.zeros_like(mixture[0])
    for starts in _batches(range(0, max(1, length - segment + hop), hop), batch_size):
        pieces = [mixture[:, start : start + segment] for start in starts]
        batch = torch.stack([F.pad(piece, (0, segment - piece.shape[-1])) for piece in pieces])
        results = process(batch).to(mixture)
        if estimates is None:
            estimates = mixture.new_zeros(*results.shape[1:-1], length)
        for start, piece, result in zip(starts, pieces, results, strict=True):
            used = piece.shape[-1]
            estimates[..., start : start + used] += (result * window)[..., :used]
            weights[start : start + used] += window[:used]
        if progress:
            progress(min(1.0, (starts[-1] + segment) / length))
    if estimates is None:
        raise RuntimeError("no segment was processed")
    return estimates / weights


def choose_device(name: str = "auto") -> torch.device:
    """Returns a device by its torch name; `auto` is the first of cuda, mps and cpu that is there.

    Raises:
        InputError: There is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"the device {name!r} is not on this machine; choose auto, cpu, cuda or mps") from error
    return device


def _window(segment: int, overlap: int) -> Tensor:
    """One in the middle, linear ramps over the overlap at both ends, nowhere zero."""
    distance_to_end = torch.arange(segment).minimum(torch.arange(segment).flip(0)) + 0.5
    return (distance_to_end / max(overlap, 0.5)).clamp(max=1)


def _batches(starts: range, batch_size: int) -> Iterator[range]:
    for first in range(0, len(starts), batch_size):
        yield starts[first : first + batch_size]
