"""Scores of a separation where the stem is silent or sparse.

Conventions: arguments are keyword-only, audio is (c, n), everything is computed in float64 on blocks of
int(0.1 · sample_rate) samples; the last partial block is dropped. The level of a block is its RMS over all channels, in
dBFS with full scale at 1. A block is active if the level of the reference is above a threshold, otherwise silent.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.metrics.sdr import Audio, checked_audio, decibels, defined_median

ACTIVE_DBFS = -60.0
FLOOR_DBFS = -120.0
MUTE_DB = -20.0
ACTIVITY_SECONDS = 4
PAUSE_BLOCKS = 20


@dataclass(frozen=True)
class Leakage:
    """Level of an estimate in the silent blocks of its reference; NaN without such blocks.

    Args:
        dbfs: Median over these blocks in dBFS; a block below -120 dBFS counts as -120.
        dbfs_95: 95 % quantile of the same, interpolated linearly.
        relative_db: Median of the level minus that of the mixture in the same block, in dB, without blocks in which the
            mixture is at or below -120 dBFS.
        relative_db_95: 95 % quantile of the same.
    """

    dbfs: float
    dbfs_95: float
    relative_db: float
    relative_db_95: float


def active_blocks(*, reference: Audio, sample_rate: int, threshold_dbfs: float = ACTIVE_DBFS) -> Tensor:
    """Returns which blocks (b) are active; b is 0 for audio shorter than a block.

    Args:
        reference: True audio (c, n).
        sample_rate: Sampling rate in Hz.
        threshold_dbfs: Level above which a block is active.

    Raises:
        InputError: The audio is not (c, n) with at least one sample, or a sample is not finite.
    """
    (reference,) = checked_audio(reference=reference)
    return _levels(reference, sample_rate) > threshold_dbfs


def leakage(
    *,
    estimate: Audio,
    reference: Audio,
    mixture: Audio,
    sample_rate: int,
    threshold_dbfs: float = ACTIVE_DBFS,
) -> Leakage:
    """Returns how loud the estimate is where the reference is silent.

    Args:
        estimate: Separated audio (c, n).
        reference: True audio (c, n).
        mixture: The mixture that was separated (c, n).
        sample_rate: Sampling rate in Hz.
        threshold_dbfs: Level of the reference above which a block is active.

    Raises:
        InputError: The shapes differ, or are not (c, n) with at least one sample, or a sample is not finite.
    """
    audio = checked_audio(estimate=estimate, reference=reference, mixture=mixture)
    levels, reference_levels, mixture_levels = (_levels(one, sample_rate) for one in audio)
    levels = levels.clamp(min=FLOOR_DBFS)
    silent = reference_levels <= threshold_dbfs
    compared = silent & (mixture_levels > FLOOR_DBFS)
    return Leakage(*_quantiles(levels[silent]), *_quantiles((levels - mixture_levels)[compared]))


def false_mute(*, estimate: Audio, reference: Audio, sample_rate: int, threshold_dbfs: float = ACTIVE_DBFS) -> float:
    """Returns the percentage of active blocks in which the estimate is more than 20 dB below the reference.

    NaN if no block is active.

    Args:
        estimate: Separated audio (c, n).
        reference: True audio (c, n).
        sample_rate: Sampling rate in Hz.
        threshold_dbfs: Level of the reference above which a block is active.

    Raises:
        InputError: The two shapes differ, or are not (c, n) with at least one sample, or a sample is not finite.
    """
    audio = checked_audio(estimate=estimate, reference=reference)
    levels, reference_levels = (_levels(one, sample_rate) for one in audio)
    active = reference_levels > threshold_dbfs
    muted = (levels - reference_levels)[active] < MUTE_DB
    return 100 * muted.double().mean().item()


def csdr_by_activity(*, windows: Tensor, active: Tensor, sample_rate: int) -> tuple[float, float, float, float]:
    """Returns the medians of the defined windows in dB, grouped by the activity around them; NaN for an empty group.

    The groups are [0, 25) [25, 50) [50, 75) [75, 100] % of active blocks among those whose centres are within 4 s of
    the window's, inside the track. A window without any such block is in no group.

    Args:
        windows: The result of `windowed_sdr` for the stem (w); NaN is undefined.
        active: The result of `active_blocks` for it (b).
        sample_rate: Sampling rate of both in Hz.

    Raises:
        InputError: They do not belong to one stem, or to the same audio.
    """
    window, block = int(1.0 * sample_rate), _block(sample_rate)
    count = len(windows)
    # Audio shorter than a window is one window, so any number of blocks can belong to it.
    fits = count == 1 or -block < len(active) * block - count * window < window
    if windows.ndim != 1 or active.ndim != 1 or not fits:
        raise InputError(
            f"windows has shape {tuple(windows.shape)} and active {tuple(active.shape)}; both must be of one stem of "
            f"the same audio at sample_rate={sample_rate}, (windows) and (blocks)"
        )
    # In half samples, so that centres are whole numbers.
    centres = (2 * torch.arange(count) + 1) * window
    reach = 2 * ACTIVITY_SECONDS * sample_rate
    block_centres = (2 * torch.arange(len(active)) + 1) * block
    first = torch.searchsorted(block_centres, centres - reach)
    last = torch.searchsorted(block_centres, centres + reach, right=True)
    before = torch.cat([torch.zeros(1, dtype=torch.int64), active.long().cumsum(0)])
    blocks = last - first
    quarters = (4 * (before[last] - before[first]) // blocks.clamp(min=1)).clamp(max=3)
    low, lower, higher, high = (defined_median(windows[(quarters == quarter) & (blocks > 0)]) for quarter in range(4))
    return low, lower, higher, high


def onset_sdr(*, estimate: Audio, reference: Audio, sample_rate: int, threshold_dbfs: float = ACTIVE_DBFS) -> float:
    """Returns the median over onsets of the signal-to-distortion ratio of the second after them, in dB.

    An onset is the first active block after at least 20 silent ones, which must be part of the track: its start does
    not count as silence. A second that extends beyond the track is not scored. NaN without an onset, 0 for a zero
    estimate, +inf without error.

    Args:
        estimate: Separated audio (c, n).
        reference: True audio (c, n).
        sample_rate: Sampling rate in Hz.
        threshold_dbfs: Level of the reference above which a block is active.

    Raises:
        InputError: The two shapes differ, or are not (c, n) with at least one sample, or a sample is not finite.
    """
    estimate, reference = checked_audio(estimate=estimate, reference=reference)
    second = int(1.0 * sample_rate)
    active = (_levels(reference, sample_rate) > threshold_dbfs).nonzero().flatten()
    pauses = active.diff(prepend=torch.tensor([-1])) - 1
    scores = []
    for start in (active[pauses >= PAUSE_BLOCKS] * _block(sample_rate)).tolist():
        if start + second <= reference.shape[-1]:
            e, r = (one[:, start : start + second].double() for one in (estimate, reference))
            scores.append(decibels(r.square().sum(), (r - e).square().sum()))
    return defined_median(torch.tensor(scores, dtype=torch.float64))


def _block(sample_rate: int) -> int:
    return int(0.1 * sample_rate)


def _levels(audio: Tensor, sample_rate: int) -> Tensor:
    """Returns the level of every block in dBFS, -inf for zeros; a few seconds at a time, to save memory."""
    block = _block(sample_rate)
    whole = audio[:, : audio.shape[-1] // block * block]
    means = [part.double().square().unflatten(-1, (-1, block)).mean((0, 2)) for part in whole.split(100 * block, -1)]
    return decibels(torch.cat(means), torch.ones((), dtype=torch.float64))


def _quantiles(levels: Tensor) -> tuple[float, float]:
    if not len(levels):
        return float("nan"), float("nan")
    median, high = levels.quantile(torch.tensor([0.5, 0.95], dtype=levels.dtype)).tolist()
    return median, high
