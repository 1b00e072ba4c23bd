"""PrimeKnet in both variants; its golden pair is with those of the other network in test_network.py."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig, PrimeKnet, make_network
from bsmamba2.model.primeknet import compressed
from bsmamba2.weights.primek_net import renamed
from tests.model.make_golden import CONFIG, PRIMEKNET
from tests.model.test_network import rms_ratio

SPEECH = ModelConfig(
    kind="primeknet",
    stems=("speech",),
    residual="noise",
    channels=1,
    n_fft=400,
    window_length=400,
    hop_length=100,
    sample_rate=16000,
    segment_seconds=2.0,
)
SMALL = replace(SPEECH, dense_channel=16, num_tsblock=2, time_block_num=1, freq_block_num=1)
# Both time stages at the size of the golden pair.
TINY = {
    "mamba": PRIMEKNET,
    "prime": replace(
        PRIMEKNET,
        time_stage="prime",
        **{name: getattr(SPEECH, name) for name in ("mamba_hidden_size", "mamba_d_state", "mamba_expand")},
    ),
}


def random_network(config: ModelConfig) -> PrimeKnet:
    """Returns a network whose weights are not those it starts with, many of which are zero."""
    torch.manual_seed(0)
    network = PrimeKnet(config)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


def noise(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def tones(length: int) -> Tensor:
    """Returns a sound (1, 1, n) with harmonics whose pitch and level change as in speech."""
    seconds = torch.arange(length) / 16000
    phase = 2 * math.pi * torch.cumsum(140 + 40 * torch.sin(2 * math.pi * 3 * seconds), 0) / 16000
    level = torch.sin(2 * math.pi * 4 * seconds).clamp(min=0.02)
    return (0.2 * level * sum(torch.sin(k * phase) / k for k in range(1, 20)))[None, None]


@pytest.mark.parametrize(("time_stage", "count"), [("mamba", 1_261_649), ("prime", 1_410_641 - 48 * 64)])
def test_parameters_of_the_published_sizes(time_stage: str, count: int) -> None:
    """Of those of PrimeK-Net, 48 vectors of 64 numbers are unused."""
    network = PrimeKnet(replace(SPEECH, time_stage=time_stage))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(
    ("name", "config"),
    [
        (
            "primeknet",
            replace(SMALL, dense_channel=12, mamba_hidden_size=10, mamba_d_state=8, sigmoid_beta=1.0),
        ),
        ("primek-net", replace(SPEECH, time_stage="prime", dense_channel=8, num_tsblock=1)),
    ],
)
def test_golden_vectors_of_the_published_classes(test_data: Path, name: str, config: ModelConfig) -> None:
    vectors = load_file(test_data / "golden" / f"{name}.io.safetensors")
    weights = {key: value.float() for key, value in load_file(test_data / f"golden/{name}.weights.safetensors").items()}
    network = PrimeKnet(config)
    network.load_state_dict(renamed(weights))
    masks: list[Tensor] = []
    network.mask_decoder.register_forward_hook(lambda *call: masks.append(call[-1].mT))
    with torch.inference_mode():
        assert rms_ratio(network(vectors["mixture"]), vectors["estimates"]) < 5e-5
        double = network.double()(vectors["mixture"].double())
    assert rms_ratio(double, vectors["estimates"]) < 1e-6
    assert rms_ratio(masks[1], vectors["mask"]) < 1e-6


@pytest.mark.parametrize("time_stage", TINY)
def test_channels_are_items_of_their_own(time_stage: str) -> None:
    network = random_network(TINY[time_stage]).double()
    mixture = noise(2, 3, 500).double()
    estimates = network(mixture)
    assert estimates.shape == (2, 1, 3, 500)
    torch.testing.assert_close(estimates[1, :, 2], network(mixture[1:, 2:])[0, :, 0])


@pytest.mark.parametrize("time_stage", TINY)
@pytest.mark.parametrize("length", [1, 7, 8, 33, 500])
def test_any_length_and_level(time_stage: str, length: int) -> None:
    network = random_network(TINY[time_stage]).double()
    mixture = noise(1, 1, length).double()
    estimates = network(mixture)
    assert estimates.shape == (1, 1, 1, length)
    assert estimates.isfinite().all()
    torch.testing.assert_close(network(1e-3 * mixture), 1e-3 * estimates)
    assert network(0 * mixture).abs().max() < 1e-9


@pytest.mark.parametrize("length", [17, 401, 402, 399])
def test_rounding_does_not_choose_phases(length: int) -> None:
    """Frames that the reflected ends make symmetric have real spectra, of which half the bins are negative."""
    network = random_network(PRIMEKNET)
    mixture = noise(1, 1, length)
    single = network(mixture)
    assert rms_ratio(single, network.double()(mixture.double())) < 1e-4


def test_compression_of_a_spectrum() -> None:
    magnitude, phase = compressed(torch.tensor([4j, -1.0, complex(-1.0, -1e-6), complex(-1.0, -1e-3)]))
    torch.testing.assert_close(magnitude, torch.tensor([4**0.3, 1.0, 1.0, 1.0]), rtol=1e-5, atol=0)
    torch.testing.assert_close(phase, torch.tensor([math.pi / 2, math.pi, math.pi, 1e-3 - math.pi]), rtol=0, atol=2e-6)


def test_mask_reaches_its_largest_value() -> None:
    network = PrimeKnet(replace(PRIMEKNET, sigmoid_beta=3.0))
    assert network.mask_decoder.lsigmoid(torch.full((1, 2, 17), 50.0)).unique().tolist() == [3.0]
    with torch.no_grad():
        network.mask_decoder.lsigmoid.slope[4] = 0
    assert network.mask_decoder.lsigmoid(torch.full((1, 2, 17), 50.0))[0, 0, 4] == 1.5


@pytest.mark.parametrize("time_stage", TINY)
def test_recomputing_and_scans_change_no_gradient(time_stage: str) -> None:
    network = random_network(TINY[time_stage]).double()
    mixture = noise(1, 1, 300).double()

    def gradients(**options: bool) -> list[Tensor]:
        return list(torch.autograd.grad(network(mixture, **options).square().sum(), list(network.parameters())))

    expected = gradients()
    changed = [gradients(recompute=True)]
    if time_stage == "mamba":
        network.set_scan("sequential")
        changed.append(gradients())
    for found in changed:
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


def test_prime_kernels_run_no_scan() -> None:
    network = PrimeKnet(TINY["prime"])
    assert network.scan_on(torch.device("cpu")) == "none"
    assert PrimeKnet(TINY["mamba"]).scan_on(torch.device("cpu")) == "chunked"
    with pytest.raises(InputError, match="scan='chunked' cannot be used"):
        network.set_scan("chunked")


@pytest.mark.parametrize("time_stage", TINY)
def test_weights_of_16_bits(time_stage: str) -> None:
    network = random_network(TINY[time_stage])
    mixture = noise(1, 1, 400)
    expected = network(mixture)
    estimates = network.bfloat16()(mixture)
    assert estimates.dtype == torch.float32
    assert rms_ratio(estimates, expected) < 0.5


@pytest.mark.parametrize("time_stage", TINY)
def test_it_learns_one_excerpt(time_stage: str) -> None:
    torch.manual_seed(0)
    reference = tones(1200)
    hiss = torch.randn(1, 1, 1200, generator=torch.Generator().manual_seed(2))
    mixture = reference + hiss * reference.square().mean().sqrt() * 10 ** (-3.2 / 20)
    network = PrimeKnet(replace(SMALL, dense_channel=8, num_tsblock=1, time_stage=time_stage))
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    ratios = [3.2]
    while ratios[-1] < 12 and len(ratios) < 60:
        optimiser.zero_grad()
        ratio = 10 * torch.log10(reference.square().sum() / (network(mixture)[:, 0] - reference).square().sum())
        (-ratio).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 3)
        optimiser.step()
        ratios.append(ratio.item())
    assert ratios[-1] >= 12


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 64}, "dim=64 is an option of the network bsmamba2, but kind=primeknet; leave it out"),
        ({"time_mixer": "rwkv6"}, "time_mixer='rwkv6' is an option of the network bsmamba2"),
        ({"bands": (17,)}, "bands=.* is an option of the network bsmamba2"),
        ({"time_stage": "gru"}, "time_stage='gru' does not exist; choose mamba, prime"),
        ({"time_stage": ["mamba"]}, r"time_stage=\['mamba'\] does not exist"),
        ({"time_stage": "prime"}, "mamba_hidden_size=4 is an option of time_stage=mamba, but time_stage=prime"),
        ({"stems": ("speech", "noise"), "residual": ""}, "primeknet estimates one, the rest of the audio is its"),
        ({"n_fft": 34}, "n_fft=34 is not allowed; kind=primeknet needs a multiple of 4"),
        ({"sigmoid_beta": 0}, "sigmoid_beta=0 is not allowed; give a number above 0"),
        ({"sigmoid_beta": "two"}, "sigmoid_beta='two' is not allowed"),
        ({"sigmoid_beta": math.nan}, "sigmoid_beta=nan is not allowed"),
        ({"freq_block_kernel": (3, 4)}, r"freq_block_kernel=\[3, 4\] is not allowed; give odd lengths"),
        ({"freq_block_kernel": (5, 3)}, "the shortest first"),
        ({"freq_block_kernel": ()}, "give odd lengths"),
        ({"freq_block_kernel": 3}, "freq_block_kernel=3 is not a list"),
        ({"num_tsblock": 0}, "num_tsblock=0 is not allowed; give a whole number of at least 1"),
        ({"kind": "primenet"}, "kind='primenet' does not exist; choose bsmamba2, primeknet"),
        ({"kind": ["primeknet"]}, r"kind=\['primeknet'\] does not exist"),
    ],
)
def test_values_that_are_not_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(PRIMEKNET, **values)


def test_options_of_primeknet_are_not_those_of_bsmamba2() -> None:
    with pytest.raises(InputError, match=r"sigmoid_beta=1\.5 is an option of the network primeknet, but kind=bsmamba2"):
        replace(CONFIG, sigmoid_beta=1.5)


@pytest.mark.parametrize("time_stage", TINY)
def test_only_what_it_reads_is_stored(time_stage: str) -> None:
    config = TINY[time_stage]
    stored = config.to_dict()
    assert stored["kind"] == "primeknet"
    assert not {"dim", "bands", "time_mixer", "mask_depth"} & stored.keys()
    assert ("mamba_d_state" in stored) == (time_stage == "mamba")
    assert ModelConfig.from_dict(stored) == config
    assert isinstance(make_network(config), PrimeKnet)
    assert "kind" not in CONFIG.to_dict()
