import math
from dataclasses import replace

import pytest
import torch

from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.mel import mel_bands
from bsmamba2.model.roformer import Attention, RoFormer, Rotation
from tests.model.test_network import MIXED, ROFORMER, rms_ratio


def test_attention_by_hand() -> None:
    """Every sum of the definition written out, one head and one step at a time."""
    torch.manual_seed(0)
    config = replace(ROFORMER, attention_headdim=4)
    attention = Attention(config).double()
    x = torch.randn(1, 5, config.dim, dtype=torch.float64)
    u = x / x.norm(dim=-1, keepdim=True) * math.sqrt(config.dim) * attention.norm.gamma
    q, k, v = (u @ weight.T for weight in attention.to_qkv.weight.chunk(3))
    expected = torch.zeros(1, 5, 8, dtype=torch.float64)
    for head in range(2):
        channels = slice(4 * head, 4 * head + 4)
        turned = []
        for t in (q, k):
            for p in range(5):
                for i, frequency in enumerate((1.0, 10000**-0.5)):
                    a, b = t[0, p, 4 * head + 2 * i].clone(), t[0, p, 4 * head + 2 * i + 1].clone()
                    angle = torch.tensor(p * frequency, dtype=torch.float64)
                    t[0, p, 4 * head + 2 * i] = a * angle.cos() - b * angle.sin()
                    t[0, p, 4 * head + 2 * i + 1] = b * angle.cos() + a * angle.sin()
            turned.append(t[0, :, channels])
        weights = (turned[0] @ turned[1].T / 2).softmax(-1)
        gate = (u[0] @ attention.to_gates.weight[head] + attention.to_gates.bias[head]).sigmoid()
        expected[0, :, channels] = weights @ v[0, :, channels] * gate[:, None]
    assert rms_ratio(attention(x), expected @ attention.state_dict()["to_out.0.weight"].T) < 1e-7


def test_positions_beyond_256_are_kept_under_autocast() -> None:
    """bfloat16 does not hold whole numbers above 256: neighbours there would get the same angle."""
    rotation = Rotation(8)
    x = torch.ones(1, 400, 8)
    with torch.autocast("cpu", torch.bfloat16):
        low = rotation(x.bfloat16()).float()
    assert (low - rotation(x)).abs().max() < 0.02


def test_a_row_depends_on_all_its_steps_and_on_no_other_row() -> None:
    torch.manual_seed(0)
    mixer = RoFormer(replace(ROFORMER, attention_depth=2))
    x = torch.randn(3, 12, ROFORMER.dim, requires_grad=True)
    (gradient,) = torch.autograd.grad(mixer(x)[1, 6].square().sum(), x)
    reached = gradient.abs().sum(-1) > 0
    assert reached[1].all()
    assert not reached[[0, 2]].any()


@pytest.mark.parametrize("config", [ROFORMER, MIXED, replace(ROFORMER, output_norm="mixer", attention_depth=2)])
def test_gradients_reach_every_parameter(config: ModelConfig) -> None:
    torch.manual_seed(0)
    network = BSMamba2(config)
    network(torch.randn(1, 2, 5000)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_only_networks_with_a_scan_take_one() -> None:
    BSMamba2(MIXED).set_scan("sequential")
    network = BSMamba2(ROFORMER)
    network.set_scan("auto")
    with pytest.raises(InputError, match="scan='chunked' cannot be used, since no mixer of this network runs a scan"):
        network.set_scan("chunked")


def test_mel_bands_are_contiguous_runs_that_hold_every_bin() -> None:
    starts, widths = mel_bands(60, 2048, 44100)
    assert (starts[:5], starts[-3:]) == ((0, 4, 7, 10, 13), (782, 836, 895))
    assert (widths[:3], widths[-2:], sum(widths)) == ((7, 6, 6), (122, 130), 1979)
    for count, n_fft, rate in ((60, 2048, 44100), (40, 1024, 16000), (128, 4096, 48000)):
        starts, widths = mel_bands(count, n_fft, rate)
        held = {start + bin for start, width in zip(starts, widths, strict=True) for bin in range(width)}
        assert held == set(range(n_fft // 2 + 1))
