from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2
from bsmamba2.separation import choose_device, overlap_add, separate


def noise(length: int) -> Tensor:
    return torch.randn(2, length, generator=torch.Generator().manual_seed(length))


def two_stems(segments: Tensor) -> Tensor:
    return torch.stack([segments, -2 * segments], dim=1)


@pytest.mark.parametrize("length", [1, 5, 999, 1000, 1001, 2500])
@pytest.mark.parametrize(("segment", "hop"), [(1000, 1000), (1000, 750), (1000, 500), (1000, 301), (7, 5), (50, 1)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_identity_returns_the_mixture(length: int, segment: int, hop: int, batch_size: int) -> None:
    mixture = noise(length)
    expected = two_stems(mixture[None])[0]
    estimates = overlap_add(two_stems, mixture, segment=segment, hop=hop, batch_size=batch_size)
    assert estimates.shape == (2, 2, length)
    torch.testing.assert_close(estimates, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("hop", [1000, 750, 500, 100])
def test_every_process_is_weighted_to_one(hop: int) -> None:
    ones = overlap_add(lambda segments: torch.ones_like(segments)[:, None], noise(3456), segment=1000, hop=hop)
    torch.testing.assert_close(ones, torch.ones(1, 2, 3456), rtol=0, atol=1e-6)


def test_segments_cross_fade_linearly() -> None:
    """The first segment says 0, the second 1: between them lies a ramp over the overlap, nothing elsewhere."""
    calls: list[int] = []

    def numbered(segments: Tensor) -> Tensor:
        calls.append(len(calls))
        return torch.full_like(segments, calls[-1])[:, None]

    faded = overlap_add(numbered, noise(175), segment=100, hop=75)[0, 0]
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

    overlap_add(count, noise(length), segment=100, hop=75, batch_size=2)
    assert sum(seen) == expected
    assert max(seen) <= 2


@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("length", [50, 1234])
def test_progress_rises_to_one(batch_size: int, length: int) -> None:
    shares: list[float] = []
    overlap_add(two_stems, noise(length), segment=100, hop=75, batch_size=batch_size, progress=shares.append)
    assert shares[-1] == 1
    assert all(0 < earlier < later for earlier, later in pairwise([1e-9, *shares]))


@pytest.mark.parametrize("length", [1, 4410, 4411, 20000])
def test_the_result_does_not_depend_on_the_batch_size(tiny_network: BSMamba2, length: int) -> None:
    mixture = noise(length)
    one, three = (separate(tiny_network, mixture, batch_size=size) for size in (1, 3))
    assert one.shape == (1, 2, length)
    torch.testing.assert_close(three, one, rtol=0, atol=1e-6)


def test_without_overlap_segments_are_processed_one_by_one(tiny_network: BSMamba2) -> None:
    """The published test protocol: chunks side by side, the last one zero-padded."""
    mixture = noise(10000)
    with torch.inference_mode():
        chunks = [tiny_network(F.pad(chunk, (0, 4410 - chunk.shape[-1]))[None])[0] for chunk in mixture.split(4410, 1)]
    expected = torch.cat(chunks, dim=-1)[..., :10000]
    torch.testing.assert_close(separate(tiny_network, mixture, overlap=0), expected, rtol=0, atol=1e-6)


def test_overlap_is_a_share_of_the_segment_in_seconds(tiny_network: BSMamba2) -> None:
    def process(segments: Tensor) -> Tensor:
        with torch.inference_mode():
            return tiny_network(segments)

    mixture = noise(9000)
    expected = overlap_add(process, mixture, segment=2205, hop=1654)
    torch.testing.assert_close(separate(tiny_network, mixture, segment_seconds=0.05), expected, rtol=0, atol=1e-6)
    assert not torch.allclose(separate(tiny_network, mixture, segment_seconds=0.05, overlap=0.5), expected, atol=1e-4)


def test_inputs_stay_as_they_are(tiny_network: BSMamba2) -> None:
    mixture = noise(6000)
    separate(tiny_network, mixture)
    assert torch.equal(mixture, noise(6000))

    def greedy(segments: Tensor) -> Tensor:
        return segments.mul_(2)[:, None]

    overlap_add(greedy, mixture, segment=1000, hop=1000)
    assert torch.equal(mixture, noise(6000))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 1}, "overlap=1 is not allowed"),
        ({"overlap": -0.1}, r"overlap=-0\.1 is not allowed"),
        ({"overlap": float("nan")}, "overlap=nan is not allowed"),
        ({"segment_seconds": 0}, "segment_seconds=0 is not allowed; give a length of at least one sample"),
        ({"segment_seconds": -1.0}, r"segment_seconds=-1\.0 is not allowed"),
        ({"batch_size": 0}, "batch_size=0 is not allowed"),
        ({"mixture": torch.zeros(2, 0)}, r"the mixture has shape \(2, 0\)"),
        ({"mixture": torch.zeros(100)}, r"the mixture has shape \(100,\)"),
        ({"mixture": torch.zeros(1, 2, 100)}, r"the mixture has shape \(1, 2, 100\)"),
        ({"mixture": torch.zeros(3, 100)}, r"the network takes \(batch, 2, samples\)"),
    ],
)
def test_bad_arguments_are_errors(tiny_network: BSMamba2, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        separate(tiny_network, **({"mixture": noise(100)} | settings))


@pytest.mark.parametrize(("segment", "hop"), [(10, 0), (10, 11), (0, 0)])
def test_segments_without_a_fitting_hop_are_errors(segment: int, hop: int) -> None:
    with pytest.raises(InputError, match=f"segment={segment}, hop={hop}, batch_size=1 is not allowed"):
        overlap_add(two_stems, noise(100), segment=segment, hop=hop)


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "abacus"):
        with pytest.raises(InputError, match=f"the device '{name}' is not on this machine; choose auto"):
            choose_device(name)
