import numpy as np
import pytest
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsmamba2.audio.resampling import Resampler

RATES = [8000, 22050, 44100, 48000, 96000, 192000]


def noise(channels: int, length: int) -> Tensor:
    return torch.rand(channels, length, generator=torch.Generator().manual_seed(0)) * 2 - 1


def resampled(audio: Tensor, source: int, target: int, cuts: list[int], length: int) -> Tensor:
    resampler = Resampler(source, target, audio.shape[0])
    parts = [resampler(block) for block in audio.tensor_split(sorted(cuts), dim=-1)]
    return torch.cat([*parts, resampler.finish(length)], dim=-1)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 5000), st.sampled_from(RATES), st.sampled_from(RATES), st.integers(1, 3))
def test_cuts_between_blocks_leave_no_trace(
    data: st.DataObject, length: int, source: int, target: int, channels: int
) -> None:
    cuts = data.draw(st.lists(st.integers(0, length), max_size=6))
    wanted = data.draw(st.integers(0, 2 * length * target // source + 3))
    audio = noise(channels, length)
    result = resampled(audio, source, target, cuts, wanted) if source != target else None
    if result is None:
        wanted = max(wanted, length)
        result = resampled(audio, source, target, cuts, wanted)
    assert result.shape[0] == channels
    assert result.shape[1] >= wanted
    assert torch.equal(result, resampled(audio, source, target, [], wanted))


@pytest.mark.parametrize(
    ("source", "target"), [(44100, 48000), (48000, 44100), (192000, 44100), (8000, 44100), (44100, 22050)]
)
@pytest.mark.parametrize("length", [1, 100, 100_001])
def test_blocks_give_the_same_as_soxr_in_one_call(source: int, target: int, length: int) -> None:
    audio = noise(2, length)
    expected = torch.from_numpy(soxr.resample(audio.mT.numpy(), source, target, quality="VHQ")).mT
    result = resampled(audio, source, target, list(range(0, length, 4096)), expected.shape[-1])
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


@pytest.mark.parametrize("length", [0, 1, 9187, 9188, 20000])
def test_the_result_has_the_requested_length(length: int) -> None:
    """Missing samples are zeros; samples that were already returned cannot be taken back."""
    resampler = Resampler(48000, 44100, 2)
    ready = resampler(noise(2, 10000))
    rest = resampler.finish(length)
    assert ready.shape[-1] + rest.shape[-1] == max(length, ready.shape[-1])
    if length == 20000:
        assert torch.cat([ready, rest], -1)[:, 9300:].eq(0).all()


@pytest.mark.parametrize("source", [44100, 48000, 192000])
def test_one_sample_stays_one_sample(source: int) -> None:
    result = resampled(torch.ones(2, 1), source, 44100, [], 1)
    assert result.shape == (2, 1)
    assert result.isfinite().all()


def test_the_same_rate_changes_nothing() -> None:
    audio = noise(2, 1000)
    assert torch.equal(resampled(audio, 44100, 44100, [10, 500], 1000), audio)


@pytest.mark.parametrize(("source", "target"), [(192000, 44100), (44100, 48000), (48000, 44100)])
def test_a_sine_keeps_its_phase(source: int, target: int) -> None:
    seconds = np.arange(source) / source
    audio = torch.from_numpy(np.sin(2 * np.pi * 997 * seconds).astype(np.float32))[None]
    expected = np.sin(2 * np.pi * 997 * np.arange(target) / target)
    result = resampled(audio, source, target, list(range(0, source, 10000)), target)
    middle = slice(target // 10, -target // 10)
    np.testing.assert_allclose(result[0, middle], expected[middle], rtol=0, atol=1e-4)
