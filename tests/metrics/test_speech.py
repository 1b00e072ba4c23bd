import math
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from bsmamba2.errors import InputError
from bsmamba2.metrics import pesq, stoi
from bsmamba2.metrics.speech import missing_packages
from tests.model.test_primeknet import tones

RATE = 16000
SPEECH = tones(3 * RATE)[0]
NOISE = 0.1 * torch.randn(1, 3 * RATE, generator=torch.Generator().manual_seed(0))

needs_stoi = pytest.mark.skipif(find_spec("pystoi") is None, reason="pystoi is not installed")


@needs_stoi
def test_stoi_is_that_of_the_package_by_channel() -> None:
    from pystoi import stoi as measure  # type: ignore[import-untyped]

    noisy = SPEECH + NOISE
    expected = measure(SPEECH[0].double().numpy(), noisy[0].double().numpy(), RATE)
    assert 0.1 < expected < 0.99
    assert stoi(estimate=noisy, reference=SPEECH, sample_rate=RATE) == pytest.approx(expected, abs=1e-9)
    both = {"estimate": torch.cat([noisy, SPEECH]), "reference": torch.cat([SPEECH, SPEECH])}
    assert stoi(**both, sample_rate=RATE) == pytest.approx((expected + 1) / 2, abs=1e-6)


@needs_stoi
def test_stoi_of_silence_and_of_too_little_is_not_defined() -> None:
    silence = torch.zeros_like(SPEECH)
    assert math.isnan(stoi(estimate=SPEECH, reference=silence, sample_rate=RATE))
    assert math.isnan(stoi(estimate=silence, reference=SPEECH, sample_rate=RATE))
    assert math.isnan(stoi(estimate=NOISE[:, :4000], reference=SPEECH[:, :4000], sample_rate=RATE))
    with pytest.raises(InputError, match="audio to score must be"):
        stoi(estimate=SPEECH[:, 1:], reference=SPEECH, sample_rate=RATE)


def test_pesq_gets_the_audio_at_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the package, which has to be compiled: what it is called with."""
    calls: list[tuple[int, int, str]] = []

    def measure(rate: int, reference: np.ndarray, estimate: np.ndarray, mode: str, on_error: int) -> float:
        assert reference.shape == estimate.shape
        calls.append((rate, len(reference), mode))
        return -1.0 if np.abs(reference).max() < 0.15 else 3.5

    package = ModuleType("pesq")
    vars(package).update(pesq=measure, PesqError=SimpleNamespace(RETURN_VALUES=1))
    monkeypatch.setitem(sys.modules, "pesq", package)
    assert pesq(estimate=SPEECH, reference=SPEECH + NOISE, sample_rate=48000) == 3.5
    assert calls == [(16000, RATE, "wb")]
    assert math.isnan(pesq(estimate=SPEECH, reference=0.1 * SPEECH, sample_rate=RATE))
    assert math.isnan(pesq(estimate=SPEECH, reference=0 * SPEECH, sample_rate=RATE))


@pytest.mark.skipif(find_spec("pesq") is None, reason="pesq is not installed")
def test_pesq_of_the_package() -> None:
    noisy = SPEECH + NOISE
    assert 1 < pesq(estimate=noisy, reference=SPEECH, sample_rate=RATE) < 4
    assert pesq(estimate=SPEECH, reference=SPEECH, sample_rate=RATE) > 4.5


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bsmamba2.metrics.speech.SPEECH_PACKAGES", {"stoi": "torch", "pesq": "no_such_package"})
    assert missing_packages() == ["no_such_package"]
