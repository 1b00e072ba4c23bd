import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from bsmamba2.separation.spectral_choice import SpectralChoice

RATE = 44100
Extreme = Literal["max", "min"]


def noise(*shape: int) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def chosen(extreme: Extreme, estimates: Tensor, block: int = 10**9, rate: int = RATE) -> Tensor:
    choice = SpectralChoice(extreme, rate)
    return torch.cat([*map(choice, estimates.split(block, dim=-1)), choice.finish()], dim=-1)


@pytest.mark.parametrize("extreme", ["max", "min"])
@pytest.mark.parametrize("length", [1, 511, 512, 513, 2048, 5000, 300_000])
@pytest.mark.parametrize("models", [1, 3])
def test_equal_estimates_come_back(extreme: Extreme, length: int, models: int) -> None:
    estimate = noise(1, 2, length)
    result = chosen(extreme, estimate.expand(models, 1, 2, length))
    torch.testing.assert_close(result, estimate, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [1, 8000, 22050, 48000, 96000, 192_000])
def test_windows_take_about_46_ms_at_any_rate(rate: int) -> None:
    window = SpectralChoice("max", rate).window
    assert window == 4 or 0.7 < window / rate / 0.0464 < 1.42
    estimate = noise(1, 2, 3000)
    torch.testing.assert_close(chosen("max", torch.stack([estimate, estimate]), rate=rate), estimate, rtol=0, atol=1e-6)


@pytest.mark.parametrize("block", [1, 100, 512, 2047, 40_000])
def test_the_result_does_not_depend_on_the_blocks(block: int) -> None:
    estimates = noise(2, 1, 2, 3000 if block == 1 else 90_000)
    for extreme in ("max", "min"):
        whole = chosen(extreme, estimates)
        torch.testing.assert_close(chosen(extreme, estimates, block), whole, rtol=0, atol=1e-5)


def test_each_bin_is_that_of_the_estimate_with_the_extreme_magnitude() -> None:
    """Against the definition on the whole signal, bin by bin."""
    estimates = noise(3, 4, 9000)
    window = torch.hann_window(2048)
    padded = torch.nn.functional.pad(estimates, (1536, 2048))
    spectra = torch.fft.rfft(padded.unfold(-1, 2048, 512) * window)
    for extreme, pick in (("max", torch.Tensor.argmax), ("min", torch.Tensor.argmin)):
        expected = torch.zeros(4, padded.shape[-1])
        best = pick(spectra.abs(), 0)
        for frame in range(spectra.shape[2]):
            of_frame = torch.zeros(4, 1025, dtype=spectra.dtype)
            for number in range(3):
                here = best[:, frame] == number
                of_frame[here] = spectra[number, :, frame][here]
            expected[:, 512 * frame : 512 * frame + 2048] += torch.fft.irfft(of_frame) * window / 1.5
        result = chosen(extreme, estimates, 1000)  # type: ignore[arg-type]
        torch.testing.assert_close(result, expected[:, 1536 : 1536 + 9000], rtol=0, atol=1e-5)


def test_the_louder_and_the_quieter_of_two_tones() -> None:
    seconds = torch.arange(RATE) / RATE
    low, high = (torch.sin(2 * math.pi * frequency * seconds) for frequency in (300, 3000))
    estimates = torch.stack([0.5 * low + 0.1 * high, 0.1 * low + 0.5 * high])[:, None]
    inner = slice(2048, -2048)
    for extreme, gain in (("max", 0.5), ("min", 0.1)):
        result = chosen(extreme, estimates)[0]  # type: ignore[arg-type]
        torch.testing.assert_close(result[inner], gain * (low + high)[inner], rtol=0, atol=2e-3)
