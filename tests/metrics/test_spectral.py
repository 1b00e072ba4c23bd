import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.metrics import bleedless_fullness
from bsmamba2.stem_names import MIXTURE


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(44100, (30.446890, 26.889246)), (48000, (30.356779, 26.825037)), (8000, (32.187862, 27.647099))],
)
def test_the_definition(rate: int, expected: tuple[float, float]) -> None:
    """The expected values were computed by the definition with librosa 0.11.0's mel filters and one torch.stft."""
    reference = noise(2, 44100) * np.linspace(0, 1, 44100)
    estimate = 0.7 * reference + 0.05 * noise(2, 44100, seed=1)
    estimate[1] *= 1.5
    found = bleedless_fullness(estimate=estimate, reference=reference, sample_rate=rate)
    assert found == pytest.approx(expected, rel=0, abs=1e-3)


@pytest.mark.parametrize("length", [1, 1000, 44100, 600_000])
def test_identical_audio_lacks_and_adds_nothing(length: int) -> None:
    audio = noise(1, length)
    assert bleedless_fullness(estimate=audio, reference=audio, sample_rate=44100) == (100, 100)


def test_a_gain_is_the_same_difference_everywhere() -> None:
    """Doubling adds 6 dB to all levels, including the floor. There are more frames than are transformed at a time."""
    audio = noise(2, 600_000)
    score = 100 / (1 + 20 * np.log10(2))
    louder = bleedless_fullness(estimate=2 * audio, reference=audio, sample_rate=44100)
    quieter = bleedless_fullness(estimate=audio, reference=2 * audio, sample_rate=44100)
    assert louder == pytest.approx((score, 100), rel=0, abs=1e-3)
    assert quieter == pytest.approx((100, score), rel=0, abs=1e-3)


def test_silence() -> None:
    audio = noise(2, 44100)
    silence = 0 * audio
    bleedless, fullness = bleedless_fullness(estimate=silence, reference=audio, sample_rate=44100)
    assert bleedless == 100
    assert fullness < 1
    for estimate in (audio, silence):
        scores = bleedless_fullness(estimate=estimate, reference=silence, sample_rate=44100)
        assert all(math.isnan(score) for score in scores)


def test_parts_80_db_below_the_peak_of_all_channels_do_not_count() -> None:
    loud, faint = noise(1, 44100), 1e-6 * noise(1, 44100, seed=1)
    reference = np.concatenate([loud, 0 * faint])
    estimate = np.concatenate([loud, faint])
    assert bleedless_fullness(estimate=estimate, reference=reference, sample_rate=44100) == (100, 100)


def test_a_real_song(song_stems: dict[str, Tensor]) -> None:
    """The mixture adds to the vocals and lacks almost nothing; filtered vocals lack what was removed."""
    vocals, mixture = song_stems["vocals"], song_stems[MIXTURE]
    bleedless, fullness = bleedless_fullness(estimate=mixture, reference=vocals, sample_rate=44100)
    assert bleedless < 20 < fullness
    muffled = torch.nn.functional.avg_pool1d(vocals, 9, stride=1, padding=4)
    bleedless, fullness = bleedless_fullness(estimate=muffled, reference=vocals, sample_rate=44100)
    assert fullness < 20 < bleedless


def test_different_shapes_are_errors() -> None:
    with pytest.raises(InputError, match=r"estimate has shape \(2, 9\) and reference has shape \(2, 8\)"):
        bleedless_fullness(estimate=noise(2, 9), reference=noise(2, 8), sample_rate=44100)
