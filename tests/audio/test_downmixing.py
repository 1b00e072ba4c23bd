import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsmamba2.audio.downmixing import downmixed
from bsmamba2.errors import InputError

RATE = 44100
H = 0.5**0.5
# Gain of each channel in the left output; the LFE is dropped.
LEFT = {
    3: [1, 0, H],
    4: [1, 0, H, 0],
    5: [1, 0, H, H, 0],
    6: [1, 0, H, 0, H, 0],
    7: [1, 0, H, 0, 0.5, H, 0],
    8: [1, 0, H, 0, H, 0, H, 0],
}
# The channel on the opposite side of each channel.
MIRRORED = {
    3: [1, 0, 2],
    4: [1, 0, 3, 2],
    5: [1, 0, 2, 4, 3],
    6: [1, 0, 2, 3, 5, 4],
    7: [1, 0, 2, 3, 4, 6, 5],
    8: [1, 0, 2, 3, 5, 4, 7, 6],
}


def noise(channels: int, length: int) -> Tensor:
    return torch.rand(channels, length, generator=torch.Generator().manual_seed(0)) * 2 - 1


def mixed(audio: Tensor, target_channels: int, cuts: list[int] | None = None) -> Tensor:
    blocks = audio.tensor_split(sorted(cuts or []), dim=-1)
    return torch.cat(list(downmixed(blocks, RATE, audio.shape[0], target_channels)), dim=-1)


@pytest.mark.parametrize("channels", list(LEFT))
def test_coefficients_to_stereo(channels: int) -> None:
    matrix = mixed(torch.eye(channels), 2)
    torch.testing.assert_close(matrix[0], torch.tensor(LEFT[channels]).float(), rtol=0, atol=1e-6)
    mirrored = matrix[1, MIRRORED[channels]]
    torch.testing.assert_close(mirrored, matrix[0], rtol=0, atol=1e-6)


# FFmpeg gives the single back channel of 6.1 more weight in mono.
@pytest.mark.parametrize("channels", [3, 4, 5, 6, 8])
def test_mono_is_the_sum_of_left_and_right(channels: int) -> None:
    matrix, mono = mixed(torch.eye(channels), 2), mixed(torch.eye(channels), 1)
    middle = matrix.sum(0)
    assert mono.shape == (1, channels)
    ratio = mono[0][middle > 0] / middle[middle > 0]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)
    assert mono[0][middle == 0].eq(0).all()


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(list(LEFT)), st.sampled_from([1, 2]), st.lists(st.integers(1, 999), max_size=5))
def test_cuts_between_blocks_leave_no_trace(channels: int, target_channels: int, cuts: list[int]) -> None:
    audio = noise(channels, 1000)
    result = mixed(audio, target_channels, sorted(set(cuts)))
    assert result.shape == (target_channels, 1000)
    assert torch.equal(result, mixed(audio, target_channels))


def test_each_sample_is_mixed_independently() -> None:
    audio = noise(6, 500)
    torch.testing.assert_close(mixed(audio, 2), mixed(torch.eye(6), 2) @ audio, rtol=0, atol=1e-6)


def test_channels_in_an_unknown_order_are_an_error() -> None:
    with pytest.raises(InputError, match="the audio has 9 channels in an unknown order"):
        mixed(noise(9, 10), 2)
