import sys
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bsmamba2.data.augment import BANDS_HZ, Augmentation, Change, equalised, stretched
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.errors import InputError
from bsmamba2.stem_names import MUSDB_STEMS

needs_stretch = pytest.mark.skipif(find_spec("python_stretch") is None, reason="python-stretch is not installed")
# With nothing that happens.
NONE = Augmentation(gains=(1, 1), silence=0)


def draws(augmentation: Augmentation, count: int = 1000) -> list[Change]:
    generator = torch.Generator().manual_seed(0)
    return [augmentation.draw(generator) for _ in range(count)]


def sine(frequency: float, length: int) -> Tensor:
    """Returns a sine on the left and half of it on the right."""
    left = 0.5 * torch.sin(2 * torch.pi * frequency * torch.arange(length, dtype=torch.float64) / SAMPLE_RATE)
    return torch.stack([left, left / 2]).float()


def strongest_hz(audio: Tensor) -> float:
    spectrum = np.abs(np.fft.rfft(audio[0].numpy() * np.hanning(audio.shape[-1])))
    return float(spectrum.argmax() * SAMPLE_RATE / audio.shape[-1])


def decibels(audio: Tensor, reference: Tensor) -> float:
    return float(20 * (audio.square().mean().sqrt() / reference.square().mean().sqrt()).log10())


def test_the_defaults_are_the_published_setting() -> None:
    changes = draws(Augmentation())
    gains = torch.tensor([change.gain for change in changes if change.gain])
    assert 0.07 < sum(change.gain == 0 for change in changes) / len(changes) < 0.13
    assert 0.5 <= gains.min() < 0.51
    assert 1.49 < gains.max() <= 1.5
    assert gains.mean().item() == pytest.approx(1, abs=0.03)
    assert gains.std().item() == pytest.approx(1 / 12**0.5, abs=0.02)
    assert {replace(change, gain=1) for change in changes} == {Change()}


def test_nothing_happens_unless_it_is_switched_on() -> None:
    assert set(draws(NONE)) == {Change()}
    audio = sine(440, 1000)
    assert torch.equal(Change().apply(audio, 1000, SAMPLE_RATE), audio)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("channel_swap", "swapped"),
        pytest.param("pitch", "semitones", marks=needs_stretch),
        pytest.param("tempo", "speed", marks=needs_stretch),
        ("equaliser", "decibels"),
        ("polarity", "gain"),
    ],
)
def test_changes_have_the_given_probability(option: str, part: str, share: float) -> None:
    settings: dict[str, Any] = {option: share}
    changes = draws(replace(NONE, **settings))
    changed = [getattr(change, part) != getattr(Change(), part) for change in changes]
    assert sum(changed) / len(changed) == pytest.approx(share, abs=0.05 * (0 < share < 1))
    assert {replace(change, **{part: getattr(Change(), part)}) for change in changes} == {Change()}


@needs_stretch
def test_amounts_are_uniform_in_their_ranges() -> None:
    everything = replace(
        NONE, pitch=1, pitch_semitones=3, tempo=1, tempo_change=0.2, equaliser=1, equaliser_decibels=12, polarity=0.5
    )
    changes = draws(everything)
    ranges = [([change.semitones for change in changes], -3.0, 3.0), ([change.speed for change in changes], 0.8, 1.2)]
    ranges += [([change.decibels[band] for change in changes], -12.0, 12.0) for band in range(len(BANDS_HZ))]
    for amounts, lowest, highest in ranges:
        shares = (torch.tensor(amounts) - lowest) / (highest - lowest)
        assert 0 <= shares.min() < 0.02
        assert 0.98 < shares.max() <= 1
        assert shares.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist() == pytest.approx([0.25, 0.5, 0.75], abs=0.06)
    columns = torch.tensor([[c.semitones, c.speed, *c.decibels, float(c.gain > 0)] for c in changes]).T
    assert (torch.corrcoef(columns) - torch.eye(len(columns))).abs().max() < 0.15


@needs_stretch
def test_switching_one_on_does_not_change_other_draws() -> None:
    everything = Augmentation(polarity=0.5, channel_swap=0.5, pitch=0.5, tempo=0.5, equaliser=0.5)
    parts: list[tuple[dict[str, Any], str]] = [
        ({"gains": (1, 1), "silence": 0, "polarity": 0}, "gain"),
        ({"channel_swap": 0}, "swapped"),
        ({"pitch": 0}, "semitones"),
        ({"tempo": 0}, "speed"),
        ({"equaliser": 0}, "decibels"),
    ]
    for settings, part in parts:
        without = draws(replace(everything, **settings), 20)
        restored = [
            replace(change, **{part: getattr(other, part)})
            for change, other in zip(without, draws(everything, 20), strict=True)
        ]
        assert restored == draws(everything, 20) != without


@needs_stretch
def test_the_changes_of_a_stem_are_drawn_independently() -> None:
    changes = draws(
        Augmentation(gains=(1, 2), silence=0, polarity=0.5, channel_swap=0.5, pitch=0.5, tempo=0.5, equaliser=0.5)
    )
    happens = [[c.gain < 0, c.swapped, c.semitones != 0, c.speed != 1, any(c.decibels)] for c in changes]
    columns = torch.tensor([[*row, abs(c.gain)] for row, c in zip(happens, changes, strict=True)]).T
    assert (torch.corrcoef(columns) - torch.eye(len(columns))).abs().max() < 0.15


def test_gain_sign_and_channels() -> None:
    audio = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert Change(gain=-0.5, swapped=True).apply(audio, 2, SAMPLE_RATE).tolist() == [[-1.5, -2], [-0.5, -1]]
    assert audio.tolist() == [[1, 2], [3, 4]]


@needs_stretch
@pytest.mark.parametrize("semitones", [-3.0, 0.5, 4.0])
def test_pitch_moves_the_frequency_and_nothing_else(semitones: float) -> None:
    audio = sine(440, SAMPLE_RATE)
    shifted = Change(semitones=semitones).apply(audio, SAMPLE_RATE, SAMPLE_RATE)
    assert shifted.shape == audio.shape
    assert strongest_hz(shifted) == pytest.approx(440 * 2 ** (semitones / 12), rel=0.005)
    assert decibels(shifted, audio) == pytest.approx(0, abs=1)
    assert decibels(shifted[:1], shifted[1:]) == pytest.approx(6.02, abs=0.1)


@needs_stretch
@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_tempo_keeps_the_pitch_and_moves_the_tone(speed: float) -> None:
    """The tone starts and ends at the times that this speed gives."""
    audio = sine(440, round(SAMPLE_RATE * speed))
    first, last = (round(share * audio.shape[-1]) for share in (0.3, 0.7))
    audio[:, :first] = audio[:, last:] = 0
    result = Change(speed=speed).apply(audio, SAMPLE_RATE, SAMPLE_RATE)
    assert result.shape == (2, SAMPLE_RATE)
    assert strongest_hz(result) == pytest.approx(440, rel=0.005)
    nonzero = (result[0].abs() > 0.1).nonzero()
    assert nonzero[0].item() / SAMPLE_RATE == pytest.approx(0.3, abs=0.03)
    assert nonzero[-1].item() / SAMPLE_RATE == pytest.approx(0.7, abs=0.03)


@needs_stretch
@pytest.mark.parametrize(("given", "wanted"), [(1, 1), (20, 17), (4410, 4001), (4000, 16001)])
@pytest.mark.parametrize("channels", [1, 2])
def test_stretching_gives_any_length_and_always_the_same(given: int, wanted: int, channels: int) -> None:
    audio = torch.randn(2, given, generator=torch.Generator().manual_seed(0))[:channels]
    result = stretched(audio, wanted, 1.5, SAMPLE_RATE)
    assert result.shape == (channels, wanted)
    assert torch.equal(stretched(audio, wanted, 1.5, SAMPLE_RATE), result)


@pytest.mark.parametrize(
    ("frequency", "gain"), [(40, 6), (62.5, 6), (125, -6), (500, 0), (707.1, 1.5), (1000, 3), (8000, -3), (16000, -3)]
)
def test_the_equaliser_gives_each_frequency_its_gain(frequency: float, gain: float) -> None:
    audio = sine(frequency, SAMPLE_RATE)
    middle = slice(SAMPLE_RATE // 4, -SAMPLE_RATE // 4)
    result = equalised(audio, (6, -6, 3, 0, 3, -3, 6, -3), SAMPLE_RATE)
    assert result.shape == audio.shape
    assert torch.allclose(result[:, middle], audio[:, middle] * 10 ** (gain / 20), atol=0.01)


def test_the_equaliser_stays_in_its_range_and_does_not_wrap_around() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, SAMPLE_RATE, generator=generator)
    augmentation = replace(NONE, equaliser=1, equaliser_decibels=6)
    levels = [decibels(augmentation.draw(generator).apply(noise, SAMPLE_RATE, SAMPLE_RATE), noise) for _ in range(10)]
    assert max(map(abs, levels)) < 6
    assert max(levels) - min(levels) > 2
    noise[:, 4410:] = 0
    late = equalised(noise, (6, -6, 6, -6, 6, -6, 6, -6), SAMPLE_RATE)[:, -8820:]
    assert late.abs().max() < 1e-3


def test_equalised_single_precision_stays_single() -> None:
    assert equalised(sine(440, 100), (1,) * len(BANDS_HZ), SAMPLE_RATE).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gains": (1.5, 0.5)}, r"augmentation\.gains=\(1\.5, 0\.5\) is not allowed; give two numbers of at least 0"),
        ({"gains": (-1, 1)}, r"augmentation\.gains=\(-1, 1\) is not allowed"),
        ({"gains": (0, float("inf"))}, r"augmentation\.gains=\(0, inf\) is not allowed"),
        ({"silence": 1.0}, r"augmentation\.silence=1\.0 is not allowed; give from 0 to below 1"),
        ({"silence": -0.1}, r"augmentation\.silence=-0\.1 is not allowed"),
        *[
            ({name: value}, rf"augmentation\.{name}={value} is not allowed; give from 0 to 1")
            for name in ("silent_vocals", "polarity", "channel_swap", "remix", "pitch", "tempo", "equaliser")
            for value in (-0.1, 1.1, float("nan"))
        ],
        ({"pitch_semitones": 13}, r"pitch_semitones=13 is not allowed; give above 0, at most 12"),
        ({"tempo_change": 0.6}, r"tempo_change=0\.6 is not allowed; give above 0, at most 0\.5"),
        ({"equaliser_decibels": 0}, r"equaliser_decibels=0 is not allowed; give above 0, at most 24"),
    ],
)
def test_bad_values_are_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Augmentation(**settings)


@pytest.mark.parametrize("option", ["pitch", "tempo"])
def test_a_missing_package_is_an_error(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.setitem(sys.modules, "python_stretch", None)
    with pytest.raises(InputError, match="need the package python-stretch, which is not installed; run `pip install"):
        Augmentation(**{option: 0.1})  # type: ignore[arg-type]
    Augmentation()


@pytest.mark.parametrize(("share", "expected"), [(0.0, -5.0), (0.25, 0.0), (1.0, 15.0)])
def test_noise_is_scaled_to_a_ratio(share: float, expected: float) -> None:
    generator = torch.Generator().manual_seed(0)
    stems = {name: torch.randn(1, 500, generator=generator) for name in ("speech", "noise", "music")}
    levelled = Augmentation(snr_db=(-5, 15)).levelled(stems, share)
    assert torch.equal(levelled["speech"], stems["speech"])
    noise = levelled["noise"] + levelled["music"]
    ratio = 10 * torch.log10(stems["speech"].square().sum() / noise.square().sum())
    assert ratio.item() == pytest.approx(expected, abs=1e-4)
    torch.testing.assert_close(levelled["noise"] / levelled["music"], stems["noise"] / stems["music"])
    for silent in ("speech", "noise"):
        quiet = {name: audio * (name != silent) for name, audio in stems.items() if name != "music"}
        unchanged = Augmentation(snr_db=(-5, 15)).levelled(quiet, share)
        assert all(torch.equal(unchanged[name], quiet[name]) for name in quiet)


def test_a_ratio_needs_speech_and_noise() -> None:
    settings = Augmentation(snr_db=(0, 10))
    settings.check_stems(["speech", "noise"])
    for stems in (["vocals", "drums"], ["speech"]):
        with pytest.raises(InputError, match=r"augmentation\.snr_db=\[0, 10\] needs a stem 'speech' and at least one"):
            settings.check_stems(stems)
    with pytest.raises(InputError, match=r"augmentation\.snr_db=\(10, 0\) is not allowed; give two ratios"):
        Augmentation(snr_db=(10, 0))


def test_silent_vocals_need_vocals() -> None:
    Augmentation(silent_vocals=0.1).check_stems(MUSDB_STEMS)
    Augmentation().check_stems(["piano"])
    with pytest.raises(
        InputError, match=r"silent_vocals=0\.1 needs a stem 'vocals', and the data has only piano, bass"
    ):
        Augmentation(silent_vocals=0.1).check_stems(["piano", "bass"])
