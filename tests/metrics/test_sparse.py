import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.metrics import (
    Leakage,
    active_blocks,
    csdr_by_activity,
    false_mute,
    leakage,
    onset_sdr,
    windowed_sdr,
)
from bsmamba2.stem_names import MIXTURE

RATE = 8000
BLOCK = 800
NAN = float("nan")


def blocks(*levels: float, channels: int = 2, block: int = BLOCK) -> Tensor:
    """Returns square waves of these amplitudes, a block each: the RMS is the amplitude."""
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(len(levels) * block // 2)
    return (torch.tensor(levels, dtype=torch.float64).repeat_interleave(block) * sign).repeat(channels, 1)


def active(*, share: float, count: int) -> Tensor:
    return torch.arange(count) < share * count


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_are_a_tenth_of_a_second_and_the_last_partial_one_is_dropped(rate: int, channels: int) -> None:
    block = int(0.1 * rate)
    audio = torch.zeros(channels, 3 * block - 1)
    audio[:, block] = 1
    assert active_blocks(reference=audio, sample_rate=rate).tolist() == [False, True]
    audio = torch.zeros(channels, 3 * block)
    audio[:, -1] = 1
    assert active_blocks(reference=audio, sample_rate=rate).tolist() == [False, False, True]


def test_active_is_above_60_dbfs_of_rms_over_both_channels() -> None:
    amplitudes = (0.001 * (1 + 1e-9), 0.001 * (1 - 1e-9), 1.0, 0.0)
    audio = blocks(*amplitudes)
    assert active_blocks(reference=audio, sample_rate=RATE).tolist() == [True, False, True, False]
    # One channel alone is 3 dB lower.
    audio = blocks(0.001 * 1.42, 0.001 * 1.41)
    audio[1] = 0
    assert active_blocks(reference=audio, sample_rate=RATE).tolist() == [True, False]


def test_a_level_at_the_given_threshold_is_silent() -> None:
    audio = blocks(1, 1 + 1e-9)
    assert active_blocks(reference=audio, sample_rate=RATE, threshold_dbfs=0).tolist() == [False, True]


def test_many_blocks_are_measured_independently() -> None:
    """More than are computed at a time."""
    expected = torch.from_numpy(np.random.default_rng(0).random(250) < 0.5)
    audio = blocks(*expected.double().tolist())
    assert active_blocks(reference=audio, sample_rate=RATE).equal(expected)


def test_audio_without_a_block_has_no_scores() -> None:
    audio = blocks(1)[:, :-1]
    assert active_blocks(reference=audio, sample_rate=RATE).shape == (0,)
    assert math.isnan(false_mute(estimate=audio, reference=audio, sample_rate=RATE))
    assert math.isnan(onset_sdr(estimate=audio, reference=audio, sample_rate=RATE))
    silence = leakage(estimate=audio, reference=audio, mixture=audio, sample_rate=RATE)
    assert all(math.isnan(value) for value in vars(silence).values())
    windows = windowed_sdr(estimate=2 * audio, reference=audio, sample_rate=RATE)
    by_activity = csdr_by_activity(windows=windows, active=torch.zeros(0, dtype=torch.bool), sample_rate=RATE)
    assert np.isnan(by_activity).all()


def test_leakage_by_hand() -> None:
    """One of five silent blocks is below the floor, and in one of them the mixture is silent."""
    reference = blocks(0, 0, 0.0009, 1, 0, 0)
    estimate = blocks(0.1, 0.01, 0.001, 1, 1e-9, 0.0001)
    mixture = blocks(1, 1, 0.1, 1, 0.1, 0)
    found = leakage(estimate=estimate, reference=reference, mixture=mixture, sample_rate=RATE)
    # Levels -20 -40 -60 -120 -80, and less those of the mixture -20 -40 -40 -100.
    expected = Leakage(dbfs=-60, dbfs_95=-24, relative_db=-40, relative_db_95=-23)
    assert vars(found) == pytest.approx(vars(expected), rel=0, abs=1e-9)


def test_leakage_of_a_silent_estimate_is_at_the_floor() -> None:
    silence, mixture = blocks(0), blocks(0.1)
    found = leakage(estimate=silence, reference=silence, mixture=mixture, sample_rate=RATE)
    assert vars(found) == pytest.approx(vars(Leakage(-120, -120, -100, -100)), rel=0, abs=1e-9)


def test_leakage_follows_the_threshold_of_the_reference() -> None:
    reference, estimate, mixture = blocks(0.05, 0.5), blocks(0.01, 0.1), blocks(0.1, 1)
    settings: dict[str, Any] = {"mixture": mixture, "sample_rate": RATE}
    assert math.isnan(leakage(estimate=estimate, reference=reference, **settings).dbfs)
    found = leakage(estimate=estimate, reference=reference, **settings, threshold_dbfs=-20)
    assert vars(found) == pytest.approx(vars(Leakage(-40, -40, -20, -20)), rel=0, abs=1e-9)
    all_silent = leakage(estimate=estimate, reference=reference, **settings, threshold_dbfs=0)
    assert all_silent.dbfs == pytest.approx(-30, rel=0, abs=1e-9)


@pytest.mark.parametrize(("amplitude", "left_out"), [(1.001e-6, False), (0.999e-6, True), (0, True)])
def test_leakage_is_not_compared_with_a_silent_mixture(amplitude: float, left_out: bool) -> None:
    estimate, mixture = blocks(0.1), blocks(amplitude)
    found = leakage(estimate=estimate, reference=0 * estimate, mixture=mixture, sample_rate=RATE)
    assert found.dbfs == pytest.approx(-20, rel=0, abs=1e-9)
    assert math.isnan(found.relative_db) == math.isnan(found.relative_db_95) == left_out


def test_false_mute_is_a_percentage_of_active_blocks() -> None:
    reference = blocks(1, 1, 1, 0.01, 0.0009)
    estimate = blocks(0.1001, 0.0999, 0, 0.01, 0)
    score = false_mute(estimate=estimate, reference=reference, sample_rate=RATE)
    assert type(score) is float
    assert score == 50
    assert false_mute(estimate=estimate, reference=reference, sample_rate=RATE, threshold_dbfs=-20) == pytest.approx(
        200 / 3
    )
    assert math.isnan(false_mute(estimate=estimate, reference=0 * reference, sample_rate=RATE))


@pytest.mark.parametrize(
    ("count", "quarter"), [(0, 0), (19, 0), (20, 1), (39, 1), (40, 2), (59, 2), (60, 3), (79, 3), (80, 3)]
)
def test_a_window_is_grouped_by_the_share_of_active_blocks_around_it(count: int, quarter: int) -> None:
    """Around the middle window of nine seconds are blocks 5 to 84; the other blocks are active if these are not."""
    around = torch.zeros(90, dtype=torch.bool)
    around[[*range(5), *range(85, 90)]] = True
    around[5 : 5 + count] = True
    windows = torch.full((9,), NAN)
    windows[4] = 7
    expected = [NAN] * 4
    expected[quarter] = 7
    found = csdr_by_activity(windows=windows, active=around, sample_rate=RATE)
    assert found == pytest.approx(tuple(expected), nan_ok=True)


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_windows_at_the_ends_have_fewer_blocks_around_them(rate: int) -> None:
    """The first five of twenty seconds are active: 45 to 50 of the 45 to 80 blocks around a window, then fewer."""
    length = 20 * rate + rate // 2
    around = torch.arange(length // int(0.1 * rate)) < 50
    windows = torch.arange(20.0)
    # Shares: 100 % of 45; 50 of 55, 65, 75; 50 of 80 and then ten less by window.
    shares = [1, 50 / 55, 50 / 65, 50 / 75, 45 / 80, 35 / 80, 25 / 80, 15 / 80, 5 / 80, *[0] * 11]
    expected = tuple(
        float(np.median([window for window, share in enumerate(shares) if min(int(4 * share), 3) == quarter]))
        for quarter in range(4)
    )
    assert csdr_by_activity(windows=windows, active=around, sample_rate=rate) == expected


def test_groups_are_medians_of_defined_windows_or_nan() -> None:
    windows = torch.tensor([NAN, 1.0, 2.0, 5.0, float("inf")])
    nothing, everything = (torch.full((52,), state) for state in (False, True))
    assert csdr_by_activity(windows=windows, active=nothing, sample_rate=RATE) == pytest.approx(
        (3.5, NAN, NAN, NAN), nan_ok=True
    )
    assert csdr_by_activity(windows=windows, active=everything, sample_rate=RATE) == pytest.approx(
        (NAN, NAN, NAN, 3.5), nan_ok=True
    )


def test_short_audio_is_one_window() -> None:
    found = csdr_by_activity(windows=torch.tensor([3.0]), active=active(share=0.5, count=4), sample_rate=RATE)
    assert found == pytest.approx((NAN, NAN, 3, NAN), nan_ok=True)


@pytest.mark.parametrize(("windows", "count"), [((2, 5), 50), ((5,), 49), ((5,), 60), ((5,), 240)])
def test_windows_and_blocks_are_of_the_same_audio(windows: tuple[int, ...], count: int) -> None:
    with pytest.raises(InputError, match="both must be of one stem of the same audio at sample_rate=8000"):
        csdr_by_activity(windows=torch.zeros(windows), active=active(share=1, count=count), sample_rate=RATE)


def onset_of(levels: list[float], errors: list[float], cut: int = 0) -> float:
    reference = blocks(*levels)
    reference = reference[:, : reference.shape[-1] - cut]
    error = torch.tensor(errors).repeat_interleave(BLOCK)[: reference.shape[-1]]
    return onset_sdr(estimate=reference * (1 + error), reference=reference, sample_rate=RATE)


@pytest.mark.parametrize(("pause", "expected"), [(19, NAN), (20, 20.0), (21, 20.0)])
@pytest.mark.parametrize("before", [[1.0], []])
def test_an_onset_comes_after_two_seconds_of_silence(before: list[float], pause: int, expected: float) -> None:
    """Silence in an intro counts; the time before the track does not."""
    errors = [0.5] * (len(before) + pause) + [0.1] * 10 + [0.5] * 2
    score = onset_of([*before, *[0.0] * pause, *[1.0] * 12], errors)
    assert score == pytest.approx(expected, rel=0, abs=1e-4, nan_ok=True)


def test_audio_that_starts_active_has_no_onset_there() -> None:
    assert math.isnan(onset_of([1.0] * 30, [0.1] * 30))


@pytest.mark.parametrize(("cut", "expected"), [(0, 20.0), (1, NAN)])
def test_the_second_after_an_onset_must_be_inside_the_track(cut: int, expected: float) -> None:
    score = onset_of([0.0] * 20 + [1.0] * 10, [0.1] * 30, cut)
    assert score == pytest.approx(expected, rel=0, abs=1e-4, nan_ok=True)


def test_the_score_is_the_median_over_onsets() -> None:
    part = [0.0] * 20 + [1.0] * 10
    score = onset_of(part * 4, [error for error in (0.1, 0.01, 1.0, -1.0) for _ in part])
    # 20, 40, 0 and, for the silent estimate, 0 dB.
    assert score == pytest.approx(10, rel=0, abs=1e-4)


def test_onsets_follow_the_threshold() -> None:
    reference = blocks(*[0.01] * 20, *[1.0] * 10)
    settings: dict[str, Any] = {"estimate": 1.1 * reference, "reference": reference, "sample_rate": RATE}
    assert math.isnan(onset_sdr(**settings))
    assert onset_sdr(**settings, threshold_dbfs=-30) == pytest.approx(20, rel=0, abs=1e-9)


def test_a_real_song(song_stems: dict[str, Tensor]) -> None:
    vocals, mixture = song_stems["vocals"].clone(), song_stems[MIXTURE]
    levels = vocals[:, :88200].unflatten(-1, (-1, 4410)).double().square().mean((0, 2)).sqrt()
    active_in_song = active_blocks(reference=vocals, sample_rate=44100)
    assert active_in_song.equal(20 * levels.log10() > -60)
    assert active_in_song.any()
    assert false_mute(estimate=vocals, reference=vocals, sample_rate=44100) == 0
    assert false_mute(estimate=vocals / 11, reference=vocals, sample_rate=44100) == 100
    vocals[:, 22050:66150] = 0
    found = leakage(estimate=mixture / 2, reference=vocals, mixture=mixture, sample_rate=44100)
    halved = 20 * math.log10(0.5)
    assert (found.relative_db, found.relative_db_95) == pytest.approx((halved, halved), rel=0, abs=1e-6)
    assert -60 < found.dbfs < found.dbfs_95 < 0


@pytest.mark.parametrize("name", ["estimate", "reference", "mixture"])
def test_different_shapes_and_samples_that_are_not_finite_are_errors(name: str) -> None:
    audio: dict[str, Any] = {key: torch.ones(2, RATE) for key in ("estimate", "reference", "mixture")}
    with pytest.raises(InputError, match=rf"{name} has shape \(2, 7999\)"):
        leakage(**audio | {name: torch.ones(2, RATE - 1)}, sample_rate=RATE)
    audio[name][1, 5] = NAN
    with pytest.raises(InputError, match=f"the {name} has samples that are not finite"):
        leakage(**audio, sample_rate=RATE)
