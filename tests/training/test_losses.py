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
    audio = {"estimates": estimates, "references": references, "mixture": references}
    shaped = {name: value.view(2, 1, 2, length) for name, value in audio.items()}
    loss = SeparationLoss()(**shaped)
    assert torch.allclose(loss, expected, rtol=1e-12)


def test_zero_difference_has_finite_gradients() -> None:
    audio = torch.randn(1, 1, 2, 5000)
    estimates = audio.clone().requires_grad_()
    loss = SeparationLoss()(estimates=estimates, references=audio, mixture=audio[:, 0])
    loss.backward()
    assert loss == 0
    assert estimates.grad is not None
    assert estimates.grad.isfinite().all()


def test_terms_are_weighted_and_left_out_at_weight_zero() -> None:
    torch.manual_seed(0)
    audio = {name: torch.randn(2, 1, 2, 5000) for name in ("estimates", "references")}
    audio["mixture"] = torch.randn(2, 2, 5000)
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
        loss(estimates=estimates, references=references, mixture=references[:, 0]),
        2 * 10 * torch.log10(power + 1e-6).mean(),
        rtol=1e-5,
    )
    scaled = [e.clone().requires_grad_() for e in estimates]
    loss(estimates=torch.stack(scaled), references=references, mixture=references[:, 0]).backward()
    # The same relative improvement counts the same, however loud the excerpt is, and silence is finite.
    loud, quiet, silent = (
        float((e.grad * r).sum()) for e, r in zip(scaled, references, strict=True) if e.grad is not None
    )
    assert loud == pytest.approx(quiet, rel=1e-2)
    assert silent == 0


def test_the_compressed_loss_by_its_formula() -> None:
    torch.manual_seed(0)
    estimates, references = 1e-2 * torch.randn(2, 3, 2, 1, 900, dtype=torch.float64)
    mixture = references.sum(1)
    hann = torch.hann_window(400, dtype=torch.float64)
    expected = []
    for estimate, reference, whole in zip(estimates, references, mixture, strict=True):
        scale = (900 / whole.square().sum()).sqrt()
        first, second = (
            torch.stft((scale * audio)[:, 0], 400, 100, 400, hann, return_complex=True)
            for audio in (estimate, reference)
        )
        moduli = (first.abs() ** 0.3 - second.abs() ** 0.3).square().mean()
        compressed = (x * x.abs() ** -0.7 for x in (first, second))
        expected.append(0.9 * moduli + 0.2 * (next(compressed) - next(compressed)).abs().square().mean() / 2)
    loss = SeparationLoss(LossConfig(l1=0, stft=0, compressed=3))
    found = loss(estimates=estimates, references=references, mixture=mixture)
    assert torch.allclose(found, 3 * torch.stack(expected).mean(), rtol=1e-5)
    scaled = {"estimates": 7 * estimates, "references": 7 * references, "mixture": 7 * mixture}
    assert torch.allclose(loss(**scaled), found)


def test_the_compressed_loss_of_silence_has_finite_gradients() -> None:
    estimates = torch.zeros(1, 1, 1, 900, requires_grad=True)
    silence = torch.zeros(1, 1, 900)
    SeparationLoss(LossConfig(compressed=1))(estimates=estimates, references=silence[None], mixture=silence).backward()
    assert estimates.grad is not None
    assert estimates.grad.isfinite().all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"l1": -1.0}, r"l1=-1\.0, stft=1\.0, error_db=0\.0, compressed=0\.0 are not allowed"),
        ({"l1": 0.0, "stft": 0.0}, "not 0 for all"),
        ({"l1": float("inf")}, "l1=inf, "),
        ({"stft": float("nan")}, "stft=nan, error_db=0\\.0, compressed=0\\.0 are not allowed"),
        ({"error_db": 1.0, "error_floor_db": 3.0}, r"error_floor_db=3\.0 is not allowed; give a level from -200 to 0"),
        ({"compressed_n_fft": 2}, "compressed_n_fft=2 is not allowed; give an even length"),
        ({"compressed_n_fft": 401}, "compressed_n_fft=401 is not allowed; give an even length"),
        ({"stft_hop": 0}, "stft_hop=0, .* is not allowed; give lengths in samples"),
        ({"stft_windows": ()}, r"stft_windows=\[\]"),
        ({"stft_windows": (512, 1)}, r"stft_windows=\[512, 1\]"),
        ({"stft_min_n_fft": 1}, "stft_min_n_fft=1"),
    ],
)
def test_impossible_values_are_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LossConfig(**values)
