"""Statistics over tracks: median and mean with confidence intervals, and paired comparisons of two estimates."""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import ESTIMATE, Results
from bsmamba2.evaluation.scores import SCORES
from bsmamba2.metrics import defined_median

CONFIDENCE = 0.95
# The range of n tracks contains the true median with a probability of 1 - 2^(1 - n): 0.97 for six, 0.94 for five.
FEWEST_TRACKS = 6
RESAMPLES = 10_000
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Summary:
    """A score over tracks; undefined values are NaN.

    The intervals are 95 % percentile bootstrap intervals over tracks (Efron and Tibshirani, An Introduction to the
    Bootstrap, chapter 13). Their ends are resampled values without interpolation, which allows infinite scores. They
    are NaN below six tracks, from which resampling cannot give an interval of the median that reaches 95 %.

    Args:
        count: Tracks with a defined score.
        undefined: Tracks without one.
        median: Median; for an even count the mean of the middle two.
        mean: Mean; infinite if a score is.
        low: Lower end of the interval of the median.
        high: Upper end of the interval of the median.
        mean_low: Lower end of the interval of the mean.
        mean_high: Upper end of the interval of the mean.
    """

    count: int
    undefined: int
    median: float
    mean: float
    low: float
    high: float
    mean_low: float
    mean_high: float


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of a second estimate with a first one, track by track.

    Args:
        differences: Second minus first by track; 0 if both are the same infinity.
        summary: Median, mean and intervals of the differences.
        better: Tracks on which the second is better.
        worse: Tracks on which the second is worse.
        equal: Tracks on which both have the same score.
        p_value: Two-sided sign test: the probability of a split into better and worse at least this uneven if both are
            equally likely; 1 if all are equal.
        left_out: Tracks without a defined score in one of the two.
        windows_left_out: For the cSDR, windows that are defined in only one of the two; 0 for other scores.
    """

    differences: Mapping[str, float]
    summary: Summary
    better: int
    worse: int
    equal: int
    p_value: float
    left_out: tuple[str, ...]
    windows_left_out: int = 0


def summarise(values: Iterable[float]) -> Summary:
    """Returns median and mean of the scores of tracks with intervals, bit-identical for any order of tracks.

    Args:
        values: One score per track; NaN is left out and counted, infinite scores are kept.
    """
    given = np.fromiter(values, dtype=np.float64)
    # Sorting leaves equal zeros in the order given; adding zero gives them one sign.
    defined = np.sort(given[~np.isnan(given)]) + 0.0
    count, undefined = len(defined), len(given) - len(defined)
    if not count:
        return Summary(0, undefined, *[np.nan] * 6)
    with np.errstate(invalid="ignore"):  # The mean of both infinities is NaN.
        median, mean = defined_median(torch.from_numpy(defined)), float(defined.mean())
        if count < FEWEST_TRACKS:
            return Summary(count, undefined, median, mean, *[np.nan] * 4)
        drawn, lower_middle, upper_middle = _resamples(count)
        medians = (defined[lower_middle] + defined[upper_middle]) / 2
        means = defined[drawn].mean(1)
    return Summary(count, undefined, median, mean, *_interval(medians), *_interval(means))


def compare(
    first: Mapping[str, float], second: Mapping[str, float], better: Literal["higher", "lower"] = "higher"
) -> Comparison:
    """Compares a second estimate with a first one on the tracks on which both have a defined score.

    Args:
        first: Scores of the first estimate by track.
        second: Scores of the second estimate by track.
        better: Which direction is better, as in `SCORES`.

    Returns:
        Second minus first; better and worse depend on `better`.

    Raises:
        InputError: No track has both scores.
    """
    # Imported here because it takes a second.
    from scipy.stats import binomtest

    common = [name for name in first if name in second and not np.isnan([first[name], second[name]]).any()]
    if not common:
        raise InputError(
            f"no track has a defined score in both ({len(first)} and {len(second)} tracks were given); compare results "
            "of the same tracks"
        )
    differences = {name: second[name] - first[name] if second[name] != first[name] else 0.0 for name in common}
    gains = np.sign(list(differences.values())) * (1 if better == "higher" else -1)
    wins, losses = int((gains > 0).sum()), int((gains < 0).sum())
    return Comparison(
        differences=differences,
        summary=summarise(differences.values()),
        better=wins,
        worse=losses,
        equal=len(common) - wins - losses,
        p_value=float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0,
        left_out=tuple(name for name in dict.fromkeys([*first, *second]) if name not in differences),
    )


def compare_csdr(first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]]) -> Comparison:
    """Compares the cSDR of a second estimate with that of a first one on the windows that are defined in both.

    Separate cSDRs would favour an estimate that is silent in difficult windows and thereby makes them undefined.

    Args:
        first: Signal-to-distortion ratios of the windows of the first estimate by track, in dB.
        second: Those of the second estimate.

    Raises:
        InputError: No track has a window that is defined in both.
    """
    # Tracks that only one of them has, or with different numbers of windows, count as undefined.
    medians = dict.fromkeys(first, math.nan), dict.fromkeys(second, math.nan)
    left_out = 0
    for name in first.keys() & second.keys():
        if len(first[name]) != len(second[name]):
            continue
        windows = np.array([first[name], second[name]], dtype=np.float64)
        undefined = np.isnan(windows)
        left_out += int((undefined[0] != undefined[1]).sum())
        for by_track, shared in zip(medians, torch.from_numpy(windows[:, ~undefined.any(0)]), strict=True):
            by_track[name] = defined_median(shared)
    return replace(compare(*medians), windows_left_out=left_out)


def windows_by_track(results: Results, stem: str, row: str = ESTIMATE) -> dict[str, tuple[float, ...]]:
    """Returns the signal-to-distortion ratio in dB of every one-second window of a row, by track."""
    found = ((name, track.scores.get(stem, {}).get(row)) for name, track in results.tracks.items())
    return {name: scores.windows for name, scores in found if scores is not None}


def count_windows(windows: Iterable[Sequence[float]]) -> tuple[int, int]:
    """Returns the number of defined windows and of all windows of some tracks."""
    every = [window for track in windows for window in track]
    return sum(not math.isnan(window) for window in every), len(every)


def summarise_results(results: Results) -> dict[str, dict[str, dict[str, Summary]]]:
    """Returns a summary over tracks by stem, row and score, for the scores that at least one track has."""
    return {stem: {row: _summaries(results, stem, row) for row in results.rows(stem)} for stem in results.stems}


def _summaries(results: Results, stem: str, row: str) -> dict[str, Summary]:
    summaries = {score: summarise(results.values(stem, row, score).values()) for score in SCORES}
    return {score: summary for score, summary in summaries.items() if summary.count}


@functools.lru_cache(maxsize=8)
def _resamples(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the indices into ascending values of each resample (r, count), and of its middle two values, (r) each."""
    drawn = np.random.default_rng(BOOTSTRAP_SEED).integers(count, size=(RESAMPLES, count))
    # A quarter of the memory for a thousand tracks.
    drawn = drawn.astype(np.min_scalar_type(count))
    middle = (count - 1) // 2, count // 2
    ordered = np.sort(drawn, axis=1)
    return drawn, ordered[:, middle[0]], ordered[:, middle[1]]


def _interval(values: np.ndarray) -> tuple[float, float]:
    if np.isnan(values).any():
        return np.nan, np.nan
    outside = round(len(values) * (1 - CONFIDENCE) / 2)
    ordered = np.sort(values)
    return float(ordered[outside - 1]), float(ordered[-outside])
