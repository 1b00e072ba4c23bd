"""Overlap-add of functions on segments, without a network."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.separation.overlap_add import overlap_add


def noise(length: int, channels: int = 2) -> Tensor:
    return torch.randn(channels, length, generator=torch.Generator().manual_seed(length))


def two_stems(segments: Tensor) -> Tensor:
    return torch.stack([segments, -2 * segments], dim=1)


def whole(process: Any, mixture: Tensor, block: int = 10**9, **settings: Any) -> Tensor:
    return torch.cat(list(overlap_add(process, mixture.split(block, dim=-1), **settings)), dim=-1)


@pytest.mark.parametrize("length", [1, 5, 999, 1000, 1001, 2500])
@pytest.mark.parametrize(("segment", "hop"), [(1000, 1000), (1000, 750), (1000, 500), (1000, 301), (7, 5), (50, 1)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_identity_returns_the_mixture(length: int, segment: int, hop: int, batch_size: int) -> None:
    mixture = noise(length)
    expected = two_stems(mixture[None])[0]
    estimates = whole(two_stems, mixture, segment=segment, hop=hop, batch_size=batch_size)
    assert estimates.shape == (2, 2, length)
    torch.testing.assert_close(estimates, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


@given(
    length=st.integers(1, 3000),
    segment=st.integers(1, 700),
    hop_share=st.floats(0.05, 1),
    batch_size=st.integers(1, 5),
    cuts=st.lists(st.integers(1, 900), max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_segments_do_not_depend_on_the_blocks(
    length: int, segment: int, hop_share: float, batch_size: int, cuts: list[int]
) -> None:
    """Each segment is scaled by its own loudness, so that different segments would be noticed."""

    def process(segments: Tensor) -> Tensor:
        return (segments * segments.abs().mean(dim=(1, 2), keepdim=True))[:, None]

    mixture, hop = noise(length), max(1, round(hop_share * segment))
    ends = np.clip(np.cumsum([0, *cuts, 10**6]), 0, length)
    blocks = [mixture[:, a:b] for a, b in pairwise(ends)]
    cut = torch.cat(list(overlap_add(process, blocks, segment=segment, hop=hop, batch_size=batch_size)), dim=-1)
    assert torch.equal(cut, whole(process, mixture, segment=segment, hop=hop))
    assert cut.shape == (1, 2, length)


@pytest.mark.parametrize("hop", [1000, 750, 500, 100])
def test_every_process_is_weighted_to_one(hop: int) -> None:
    ones = whole(lambda segments: torch.ones_like(segments)[:, None], noise(3456), segment=1000, hop=hop)
    torch.testing.assert_close(ones, torch.ones(1, 2, 3456), rtol=0, atol=1e-6)


def test_segments_cross_fade_linearly() -> None:
    """The first segment is 0, the second 1: the result ramps over the overlap and is constant elsewhere."""
    calls: list[int] = []

    def numbered(segments: Tensor) -> Tensor:
        calls.append(len(calls))
        return torch.full_like(segments, calls[-1])[:, None]

    faded = whole(numbered, noise(175), segment=100, hop=75)[0, 0]
    assert calls == [0, 1]
    assert faded[:75].eq(0).all()
    assert faded[100:].eq(1).all()
    torch.testing.assert_close(faded[75:100], (torch.arange(25) + 0.5) / 25)


@pytest.mark.parametrize(("length", "expected"), [(1, 1), (100, 1), (101, 2), (175, 2), (176, 3)])
def test_no_segment_more_than_needed(length: int, expected: int) -> None:
    seen: list[int] = []

    def count(segments: Tensor) -> Tensor:
        seen.append(len(segments))
        assert segments.shape[1:] == (2, 100)
        return segments[:, None]

    whole(count, noise(length), segment=100, hop=75, batch_size=2)
    assert sum(seen) == expected
    assert max(seen) <= 2


def test_estimates_come_as_soon_as_their_segments_are_done() -> None:
    """The mixture is read only a few segments ahead of the output, so memory use does not grow."""
    asked = 0

    def blocks() -> Any:
        nonlocal asked
        for block in noise(100_000).split(500, dim=-1):
            asked += 500
            yield block

    given_back = 0
    for piece in overlap_add(two_stems, blocks(), segment=1000, hop=750, batch_size=2):
        given_back += piece.shape[-1]
        assert asked - given_back <= 2 * 1000 + 500
    assert given_back == 100_000


@pytest.mark.parametrize(("segment", "hop"), [(10, 0), (10, 11), (0, 0)])
def test_a_hop_that_does_not_fit_the_segment_is_an_error(segment: int, hop: int) -> None:
    with pytest.raises(InputError, match=f"segment={segment}, hop={hop}, batch_size=1 is not allowed"):
        whole(two_stems, noise(100), segment=segment, hop=hop)
