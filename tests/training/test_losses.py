from typing import Any

import pytest
import torch

from bsmamba2.errors import InputError
from bsmamba2.training.losses import LossConfig, SeparationLoss

WINDOWS = (4096, 2048, 1024, 512, 256)


@pytest.mark.parametrize("length", [9000, 1500])
def test_the_published_loss_by_its_formula(length: int) -> None:
    """References through STFT and inverse; means over all values; n_fft = max(window, 2048); short audio is padded."""
    torch.manual_seed(0)
    estimates, references = torch.randn(2, 4, length, dtype=torch.float64).unbind(0)
    hann = torch.hann_window(2048, dtype=torch.float64)
    spectrum = torch.stft(references, 2048, 441, 2048, hann, return_complex=True)
    passed = torch.istft(spectrum, 2048, 441, 2048, hann, length=length)
    expected = 10 * (estimates - passed).abs().mean()
    for window in WINDOWS:
        n_fft = max(window, 2048)
        padded = [torch.nn.functional.pad(audio, (0, max(0, n_fft // 2 + 1 - length))) for audio in (estimates, passed)]
        hann = torch.hann_window(window, dtype=torch.float64)
        first, second = (torch.stft(audio, n_fft, 147, window, hann, return_complex=True) for audio in padded)
        expected = expected + (first - second).abs().mean()
    loss = SeparationLoss()(estimates=estimates.view(2, 1, 2, length), references=references.view(2, 1, 2, length))
    assert torch.allclose(loss, expected, rtol=1e-12)


def test_zero_difference_has_finite_gradients() -> None:
    audio = torch.randn(1, 1, 2, 5000)
    estimates = audio.clone().requires_grad_()
    loss = SeparationLoss()(estimates=estimates, references=audio)
    loss.backward()
    assert loss == 0
    assert estimates.grad is not None
    assert estimates.grad.isfinite().all()


def test_terms_are_weighted_and_left_out_at_weight_zero() -> None:
    torch.manual_seed(0)
    audio = {name: torch.randn(2, 1, 2, 5000) for name in ("estimates", "references")}
    terms = SeparationLoss().terms(**audio)
    assert set(terms) == {"l1", "stft"}
    assert torch.allclose(SeparationLoss()(**audio), 10 * terms["l1"] + terms["stft"])
    assert torch.allclose(SeparationLoss(LossConfig(l1=3, stft=0))(**audio), 3 * terms["l1"])
    assert set(SeparationLoss(LossConfig(l1=0, stft=2)).terms(**audio)) == {"stft"}


def test_the_level_of_the_error_weighs_loud_and_quiet_excerpts_alike() -> None:
    torch.manual_seed(0)
    references = torch.randn(3, 1, 2, 4000) * torch.tensor([1.0, 0.1, 0.0])[:, None, None, None]
    estimates = 0.5 * references
    loss = SeparationLoss(LossConfig(l1=0, stft=0, error_db=2, error_floor_db=-60))
    power = references[:, 0].square().mean((1, 2)) / 4
    assert torch.allclose(
        loss(estimates=estimates, references=references), 2 * 10 * torch.log10(power + 1e-6).mean(), rtol=1e-5
    )
    scaled = [e.clone().requires_grad_() for e in estimates]
    loss(estimates=torch.stack(scaled), references=references).backward()
    # The same relative improvement counts the same, however loud the excerpt is, and silence is finite.
    loud, quiet, silent = (
        float((e.grad * r).sum()) for e, r in zip(scaled, references, strict=True) if e.grad is not None
    )
    assert loud == pytest.approx(quiet, rel=1e-2)
    assert silent == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"l1": -1.0}, r"l1=-1\.0, stft=1\.0, error_db=0\.0 are not allowed"),
        ({"l1": 0.0, "stft": 0.0}, "not 0 for all"),
        ({"l1": float("inf")}, "l1=inf, "),
        ({"stft": float("nan")}, "stft=nan, error_db=0\\.0 are not allowed"),
        ({"error_db": 1.0, "error_floor_db": 3.0}, r"error_floor_db=3\.0 is not allowed; give a level from -200 to 0"),
        ({"stft_hop": 0}, "stft_hop=0, .* is not allowed; give lengths in samples"),
        ({"stft_windows": ()}, r"stft_windows=\[\]"),
        ({"stft_windows": (512, 1)}, r"stft_windows=\[512, 1\]"),
        ({"stft_min_n_fft": 1}, "stft_min_n_fft=1"),
    ],
)
def test_impossible_values_are_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LossConfig(**values)
