"""Bands that overlap: every band reads its own bins, and a bin in several bands gets the mean of their masks."""

from dataclasses import replace

import pytest
import torch

from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.bands import BandSplit, band_groups
from bsmamba2.model.masks import MaskEstimator

STARTS, WIDTHS = (0, 2, 5), (4, 5, 4)


def test_a_band_reads_its_own_bins() -> None:
    split = BandSplit(WIDTHS, STARTS, channels=2, dim=3)
    spectrum = torch.randn(1, 2, 9, 6, dtype=torch.complex64, requires_grad=True)
    features = split(spectrum)
    assert features.shape == (1, 6, 3, 3)
    for band, (start, width) in enumerate(zip(STARTS, WIDTHS, strict=True)):
        (gradient,) = torch.autograd.grad(features[:, :, band].square().sum(), spectrum, retain_graph=True)
        read = gradient.abs().sum((0, 1, 3)) > 0
        assert read.nonzero().flatten().tolist() == list(range(start, start + width))


def test_the_mask_of_a_bin_is_the_mean_over_its_bands() -> None:
    torch.manual_seed(0)
    estimator = MaskEstimator(WIDTHS, STARTS, channels=2, dim=3, depth=2, hidden_dim=4)
    x = torch.randn(1, 6, 3, 3)
    alone = []
    for width, head, band in zip(WIDTHS, estimator.to_freqs, x.unbind(2), strict=True):
        single = MaskEstimator((width,), (0,), channels=2, dim=3, depth=2, hidden_dim=4)
        single.to_freqs[0].load_state_dict(head.state_dict())
        alone.append(single(band[:, :, None]))
    mask = estimator(x)
    for frequency in range(9):
        of_bands = [
            mask_alone[:, :, frequency - start]
            for mask_alone, start, width in zip(alone, STARTS, WIDTHS, strict=True)
            if start <= frequency < start + width
        ]
        assert torch.allclose(mask[:, :, frequency], torch.stack(of_bands).mean(0), rtol=1e-5, atol=1e-6)


def test_the_order_of_bands_does_not_move_their_masks() -> None:
    torch.manual_seed(0)
    ascending = MaskEstimator((4, 5), (0, 4), channels=2, dim=3, depth=2, hidden_dim=4)
    descending = MaskEstimator((5, 4), (4, 0), channels=2, dim=3, depth=2, hidden_dim=4)
    for band in range(2):
        descending.to_freqs[1 - band].load_state_dict(ascending.to_freqs[band].state_dict())
    x = torch.randn(1, 6, 2, 3)
    assert torch.equal(descending(x.flip(2)), ascending(x))


def test_a_network_of_overlapping_bands_separates_and_learns(tiny_config: ModelConfig) -> None:
    torch.manual_seed(0)
    network = BSMamba2(replace(tiny_config, bands=(40, 60, 40), band_starts=(0, 35, 89)))
    mixture = torch.randn(2, 2, 3000)
    estimates = network(mixture)
    assert estimates.shape == (2, 1, 2, 3000)
    estimates.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
    # Nothing but the weights is stored: where bands start is in the config.
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("groups", [[[0, 2], [1]], [[1], [2], [0]]])
def test_bands_of_one_width_are_computed_together_as_alone(groups: list[list[int]]) -> None:
    torch.manual_seed(0)
    split = BandSplit(WIDTHS, STARTS, channels=2, dim=3).double()
    estimator = MaskEstimator(WIDTHS, STARTS, channels=2, dim=3, depth=2, hidden_dim=4).double()
    spectrum = torch.randn(2, 2, 9, 6, dtype=torch.complex128)
    results: list[list[torch.Tensor]] = []
    for features in (split(spectrum), split.in_groups(spectrum, groups)):
        mask = estimator(features) if not results else estimator.in_groups(features, groups)
        parameters = [*split.parameters(), *estimator.parameters()]
        gradients = torch.autograd.grad(mask.abs().square().sum(), parameters)
        results.append([features, torch.view_as_real(mask), *gradients])
    for alone, together in zip(*results, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_bands_are_computed_together_where_a_launch_costs_more() -> None:
    assert band_groups(WIDTHS, torch.device("cpu")) == [[0], [1], [2]]
    assert band_groups(WIDTHS, torch.device("cuda")) == [[0, 2], [1]]
