import math
import random
import statistics
from dataclasses import astuple

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import ESTIMATE, MIXTURE_ROW, Results, TrackResult
from bsmamba2.evaluation.scores import StemScores
from bsmamba2.evaluation.statistics import (
    Summary,
    compare,
    compare_csdr,
    count_windows,
    summarise,
    summarise_results,
    windows_by_track,
)

INF, NAN = float("inf"), float("nan")


def scores(count: int, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).normal(6, 3, count).tolist()


def same(first: Summary, second: Summary) -> bool:
    """Returns whether two summaries are equal to the bit; NaN is equal to NaN here."""
    return repr(first) == repr(second)


@pytest.mark.parametrize(
    ("values", "count", "undefined", "median", "mean"),
    [
        ([3.0, 1.0, 2.0], 3, 0, 2, 2),
        ([4.0, 1.0, 2.0, 30.0], 4, 0, 3, 9.25),
        ([NAN, 1.0, NAN, 2.0], 2, 2, 1.5, 1.5),
        ([7.0], 1, 0, 7, 7),
        ([], 0, 0, NAN, NAN),
        ([NAN], 0, 1, NAN, NAN),
        ([INF, 1.0, 2.0], 3, 0, 2, INF),
        ([INF, 1.0], 2, 0, INF, INF),
        ([-INF, 1.0, 2.0], 3, 0, 1, -INF),
        ([-INF, INF, 2.0], 3, 0, 2, NAN),
        ([-INF, INF], 2, 0, NAN, NAN),
    ],
)
def test_median_and_mean_by_hand(values: list[float], count: int, undefined: int, median: float, mean: float) -> None:
    summary = summarise(values)
    assert (summary.count, summary.undefined) == (count, undefined)
    assert (summary.median, summary.mean) == pytest.approx((median, mean), nan_ok=True)


@pytest.mark.parametrize("values", [[], [NAN], [7.0], [7.0, NAN], [INF], scores(5), [*scores(5), NAN]])
def test_below_six_tracks_there_is_no_interval(values: list[float]) -> None:
    assert np.isnan(astuple(summarise(values))[4:]).all()
    assert np.isfinite(astuple(summarise([*values, *scores(6)]))[4:6]).all()


@pytest.mark.parametrize("count", [7, 14, 50])
def test_intervals_are_those_of_scipy(count: int) -> None:
    """Two sets of 10 000 resamples differ slightly; medians move in steps from one sample value to the next."""
    values = scores(count)
    summary = summarise(values)
    for name, (low, high), tolerance in (
        ("median", (summary.low, summary.high), 0.1),
        ("mean", (summary.mean_low, summary.mean_high), 0.05),
    ):
        statistic = getattr(np, name)
        found = scipy.stats.bootstrap(
            (values,), statistic, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
        ).confidence_interval
        assert (low, high) == pytest.approx(tuple(found), abs=tolerance)


def test_intervals_contain_the_truth_at_the_stated_rate() -> None:
    """95 % of 300 samples of 49 tracks, within three standard deviations of 300 draws (3.8 %)."""
    summaries = [summarise(scores(49, seed)) for seed in range(300)]
    for low, high in (("low", "high"), ("mean_low", "mean_high")):
        held = sum(getattr(summary, low) <= 6 <= getattr(summary, high) for summary in summaries)
        assert held / len(summaries) == pytest.approx(0.95, abs=0.038)


def test_intervals_of_infinite_scores() -> None:
    summary = summarise([*scores(9), INF])
    assert math.isfinite(summary.low)
    assert math.isfinite(summary.high)
    assert math.isfinite(summary.mean_low)
    assert summary.mean_high == INF
    assert summarise([1.0, 2.0, 3.0, INF, INF, INF]).high == INF
    both = summarise([-INF, *scores(49), INF])
    assert both.low < both.median < both.high
    assert math.isnan(both.mean_low)
    assert math.isnan(both.mean_high)


def test_every_process_gives_the_same_intervals() -> None:
    """Results of a different process; the mean may differ in its last bit between processors."""
    summary = summarise([number**2 / 7 for number in range(12)])
    assert (summary.low, summary.high) == (6.5 / 7, 72.5 / 7)
    assert (summary.mean_low, summary.mean_high) == pytest.approx((2.9761904761904763, 9.226190476190476), rel=1e-12)


def test_equal_scores_have_an_interval_of_one_point() -> None:
    assert astuple(summarise([2.5] * 12)) == (12, 0, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5)


values_of_tracks = st.lists(st.floats(-200, 400) | st.sampled_from([NAN, INF, -INF]), max_size=12)


@given(values_of_tracks, st.randoms())
def test_a_summary_does_not_depend_on_the_order_of_tracks(values: list[float], order: random.Random) -> None:
    summary = summarise(values)
    shuffled = order.sample(values, len(values))
    assert same(summarise(iter(shuffled)), summary)
    defined = [value for value in values if not math.isnan(value)]
    assert summary.count + summary.undefined == len(values)
    if len(defined) > 5 and -INF not in defined:
        assert summary.low <= summary.median <= summary.high
        assert summary.low in {(first + second) / 2 for first in defined for second in defined}
        assert summary.median == statistics.median(defined)


def test_the_sign_of_zero_does_not_depend_on_the_order_of_tracks() -> None:
    assert same(summarise([1.0, 0.0, -1.0]), summarise([1.0, -0.0, -1.0]))
    assert same(summarise([0.0, -0.0, 0.0]), summarise([0.0, 0.0, -0.0]))


def test_resamples_are_drawn_once_for_all_scores_of_a_test_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing and sorting them takes most of the time; a test set has 20 scores in 7 rows of each stem."""
    given = [scores(61, seed) for seed in range(20)]
    seeds = []
    generator = np.random.default_rng

    def counted(seed: int) -> np.random.Generator:
        seeds.append(seed)
        return generator(seed)

    monkeypatch.setattr(np.random, "default_rng", counted)
    for values in given:
        summarise(values)
    assert len(seeds) == 1


def test_comparison_by_hand() -> None:
    first = {"a": 1.0, "b": 2.0, "c": 3.0, "d": NAN, "e": 5.0, "f": 6.0, "i": INF}
    second = {"b": 2.0, "a": 2.5, "c": 2.0, "d": 4.0, "e": NAN, "f": 6.5, "g": 7.0, "i": INF}
    comparison = compare(first, second)
    assert comparison.differences == {"a": 1.5, "b": 0, "c": -1, "f": 0.5, "i": 0}
    assert (comparison.better, comparison.worse, comparison.equal) == (2, 1, 2)
    assert comparison.left_out == ("d", "e", "g")
    assert same(comparison.summary, summarise([1.5, 0, -1, 0.5, 0]))
    assert comparison.p_value == 1
    lower = compare(first, second, better="lower")
    assert (lower.better, lower.worse, lower.equal) == (1, 2, 2)
    assert lower.differences == comparison.differences


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([1.0] * 8 + [-1.0] * 2, 2 * (1 + 10 + 45) / 2**10),
        ([1.0] * 8 + [-1.0] * 2 + [0.0] * 30, 2 * (1 + 10 + 45) / 2**10),
        ([-1.0] * 6, 2 / 2**6),
        ([0.0, 0.0], 1),
        ([INF, -INF, 3.0, 2.0], 2 * (1 + 4) / 2**4),
    ],
)
def test_the_sign_test(gains: list[float], expected: float) -> None:
    first = {str(number): 0.0 for number in range(len(gains))}
    second = {str(number): gain for number, gain in enumerate(gains)}
    assert compare(first, second).p_value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first", "second"),
    [({}, {}), ({"a": 1.0}, {"b": 1.0}), ({"a": 1.0}, {"a": NAN}), ({"a": NAN, "b": 1.0}, {"a": 2.0})],
)
def test_nothing_in_common_is_an_error(first: dict[str, float], second: dict[str, float]) -> None:
    with pytest.raises(InputError, match=rf"no track has a defined score in both \({len(first)} and {len(second)} tr"):
        compare(first, second)


def test_csdr_is_compared_on_the_windows_defined_in_both() -> None:
    """The second is silent in the difficult windows of the first track, which would count as a gain of 6 dB."""
    first = {"a": [1.0, 9.0, 2.0, 8.0, NAN], "b": [5.0, NAN], "c": [3.0], "d": [1.0, 2.0], "e": [1.0], "f": [INF]}
    second = {"f": [INF], "b": [NAN, 6.0], "a": [NAN, 9.5, NAN, 8.5, NAN], "c": [2.0], "d": [1.0], "g": [1.0]}
    comparison = compare_csdr(first, second)
    assert comparison.differences == {"a": 0.5, "c": -1.0, "f": 0}
    assert comparison.windows_left_out == 4
    assert comparison.left_out == ("b", "d", "e", "g")
    assert (comparison.better, comparison.worse, comparison.equal) == (1, 1, 1)
    with pytest.raises(InputError, match="no track has a defined score in both"):
        compare_csdr({"a": []}, {"a": []})


def test_windows_of_results() -> None:
    rows = {ESTIMATE: StemScores(windows=(1.0, NAN, INF)), MIXTURE_ROW: StemScores(windows=(2.0,))}
    tracks = {"A": TrackResult("A", "", "", 1.0, 1.0, scores={"vocals": rows}), "B": TrackResult("B", "", "", 1.0, 1.0)}
    results = Results({}, tracks, {})
    assert windows_by_track(results, "vocals", MIXTURE_ROW) == {"A": (2.0,)}
    assert windows_by_track(results, "bass") == {}
    assert count_windows([*windows_by_track(results, "vocals").values(), (), (NAN,)]) == (2, 4)


def test_summaries_of_results() -> None:
    def track(name: str, **rows: StemScores) -> TrackResult:
        return TrackResult(
            name, "", "", 1.0, 1.0, scores={"vocals": rows, "bass": {ESTIMATE: StemScores({"usdr": 2.0})}}
        )

    tracks = [
        track("A", **{ESTIMATE: StemScores({"csdr": 1.0, "usdr": 2.0}), MIXTURE_ROW: StemScores({"csdr": -3.0})}),
        track("B", **{ESTIMATE: StemScores({"csdr": 4.0})}),
    ]
    summaries = summarise_results(Results({}, {track.name: track for track in tracks}, {"C": "broken"}))
    assert {stem: list(rows) for stem, rows in summaries.items()} == {
        "vocals": [ESTIMATE, MIXTURE_ROW],
        "bass": [ESTIMATE],
    }
    estimate = summaries["vocals"][ESTIMATE]
    assert list(estimate) == ["csdr", "usdr"]
    assert same(estimate["csdr"], summarise([1.0, 4.0]))
    assert same(estimate["usdr"], summarise([2.0, NAN]))
    assert list(summaries["vocals"][MIXTURE_ROW]) == ["csdr"]
    assert summaries["vocals"][MIXTURE_ROW]["csdr"].count == 1
    assert list(summaries["bass"][ESTIMATE]) == ["usdr"]
