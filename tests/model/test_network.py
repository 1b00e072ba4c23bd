import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig, dual_path, make_network
from bsmamba2.model.dual_path import DualPathLayer
from bsmamba2.model.mamba1 import Mamba1
from bsmamba2.model.mamba2 import Mamba2
from bsmamba2.model.mel import mel_bands
from bsmamba2.model.mixers import MIXERS
from bsmamba2.model.parallel import RWKV6Mamba2
from bsmamba2.model.rwkv6 import RWKV6
from bsmamba2.model.stft import istft, stft
from tests.model.make_golden import CONFIG, MAMBA1, PAIRS, PARALLEL, golden_file

# Each makes the core of a direction, against the sequence if it is called with True.
CORES: dict[str, tuple[ModelConfig, Callable[[bool], nn.Module]]] = {
    "mamba2": (CONFIG, partial(Mamba2, CONFIG)),
    "mamba1": (MAMBA1, partial(Mamba1, MAMBA1)),
    "rwkv6": (PARALLEL, partial(RWKV6, PARALLEL, 0)),
    "rwkv6+mamba2": (PARALLEL, partial(RWKV6Mamba2, PARALLEL, 0)),
}

ROFORMER = ModelConfig(
    dim=8, depth=2, time_mixer="roformer", band_mixer="roformer", attention_heads=2, attention_headdim=8, mask_expand=1
)
MEL_STARTS, MEL_WIDTHS = mel_bands(60, 2048, 44100)
MEL_BAND = replace(
    ROFORMER,
    dim=5,
    bands=MEL_WIDTHS,
    band_starts=MEL_STARTS,
    attention_headdim=4,
    output_norm="mixer",
    mask_depth=3,
)
# Mamba-2 over time, RoFormer over bands.
MIXED = ModelConfig(
    dim=16,
    depth=2,
    bands=(2,) * 8 + (4,) * 8 + (12,) * 4 + (24,) * 3 + (44, 45),
    band_mixer="roformer",
    attention_heads=2,
    attention_headdim=8,
    mask_expand=1,
    n_fft=512,
    window_length=512,
    hop_length=128,
)
# Mamba-1 in the same frame.
SELECTIVE = ModelConfig(
    dim=16,
    depth=2,
    bands=MIXED.bands,
    time_mixer="mamba1",
    band_mixer="mamba1",
    mask_expand=1,
    n_fft=512,
    window_length=512,
    hop_length=128,
)

# RWKV-6 in the same frame, alone and beside Mamba-2.
RWKV = replace(SELECTIVE, time_mixer="rwkv6", band_mixer="rwkv6", rwkv_headdim=8)
BOTH = replace(RWKV, depth=1, time_mixer="rwkv6+mamba2", band_mixer="rwkv6+mamba2")


def random_core(mixer: str, reverse: bool = False) -> nn.Module:
    """Returns a core in double precision whose weights are not those it starts with, some of which are zero."""
    torch.manual_seed(0)
    core = CORES[mixer][1](reverse).double()
    for parameter in core.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return core


def rms_ratio(value: Tensor, reference: Tensor) -> float:
    difference = (value.double() - reference.double()).square().mean().sqrt()
    return (difference / reference.double().square().mean().sqrt()).item()


def check_golden(config: ModelConfig, weights: dict[str, Tensor], mixture: Tensor, estimates: Tensor) -> None:
    network = make_network(config)
    network.load_state_dict(weights)
    with torch.inference_mode():
        assert rms_ratio(network(mixture.float()), estimates) < 1e-5
        double = network.double()(mixture.double())
    assert double.dtype == torch.float64
    assert rms_ratio(double, estimates) < 1e-6


@pytest.mark.parametrize("name", PAIRS)
def test_own_golden_pairs(name: str) -> None:
    content = load_file(golden_file(name))
    assert golden_file(name).stat().st_size < 300_000
    check_golden(PAIRS[name][0], mixture=content.pop("mixture"), estimates=content.pop("estimates"), weights=content)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("small", ModelConfig(dim=32, depth=2)),
        ("roformer", ROFORMER),
        ("melband", MEL_BAND),
        ("mamba2-roformer", MIXED),
        ("mamba1", SELECTIVE),
        ("rwkv6", RWKV),
        ("rwkv6-mamba2", BOTH),
    ],
)
def test_golden_vectors_of_independent_implementations(test_data: Path, name: str, config: ModelConfig) -> None:
    folder = test_data / "golden"
    vectors = load_file(folder / f"{name}.io.safetensors")
    weights = {name: value.float() for name, value in load_file(folder / f"{name}.weights.safetensors").items()}
    check_golden(config, weights, vectors["mixture"], vectors["estimates"])


@pytest.mark.parametrize("name", PAIRS)
def test_float64_is_not_float32_in_between(name: str) -> None:
    """The difference of the two scans is rounding: of double precision, if nothing on the way is single."""
    content = load_file(golden_file(name))
    mixture = content.pop("mixture").double()
    del content["estimates"]
    network = make_network(PAIRS[name][0]).double()
    network.load_state_dict(content)
    with torch.inference_mode():
        chunked = network(mixture)
        network.set_scan("sequential")
        assert 0 < rms_ratio(network(mixture), chunked) < 1e-13


def test_the_published_network_has_as_many_parameters() -> None:
    with torch.device("meta"):
        network = BSMamba2(ModelConfig())
    assert sum(parameter.numel() for parameter in network.parameters()) == 48_098_188
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["layers.5.1.linear.weight"] == (512, 256, 1)
    assert shapes["layers.0.0.backward_blocks.0.mixer.in_proj.weight"] == (2320, 256)
    assert shapes["layers.0.0.forward_blocks.0.mixer.conv1d.weight"] == (1280, 1, 4)
    assert shapes["mask_estimators.0.to_freqs.61.0.2.weight"] == (8 * 129, 1024)


@pytest.mark.parametrize(
    ("config", "trainable", "frequencies"),
    [
        # The authors' baseline, BS-RoFormer of viperx, Mel-Band RoFormer of Kim, and the authors' mixed network.
        (ModelConfig(time_mixer="roformer", band_mixer="roformer", attention_headdim=48), 36_847_516 - 48, 24),
        (ModelConfig(dim=512, depth=12, time_mixer="roformer", band_mixer="roformer"), 159_758_092 - 64, 32),
        (
            replace(MEL_BAND, dim=384, depth=6, attention_heads=8, attention_headdim=64, mask_expand=4),
            228_202_852 - 64,
            32,
        ),
        (ModelConfig(band_mixer="roformer", attention_headdim=48), 42_472_852 - 24, 24),
    ],
)
def test_published_roformers_have_as_many_parameters(config: ModelConfig, trainable: int, frequencies: int) -> None:
    """Their authors count the frequencies of the rotation too, once for each of the axes."""
    with torch.device("meta"):
        network = BSMamba2(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == trainable
    assert {len(buffer) for name, buffer in network.named_buffers() if name.endswith("freqs")} == {frequencies}


def test_the_published_network_with_mamba1_has_as_many_parameters() -> None:
    with torch.device("meta"):
        network = BSMamba2(ModelConfig(time_mixer="mamba1", band_mixer="mamba1"))
    assert sum(parameter.numel() for parameter in network.parameters()) == 48_385_804
    core = "layers.5.1.backward_blocks.0.mixer."
    shapes = {name.removeprefix(core): tuple(value.shape) for name, value in network.state_dict().items()}
    assert {name: shape for name, shape in shapes.items() if not name.startswith(("layers", "band_split", "ma"))} == {
        "in_proj.weight": (2048, 256),
        "conv1d.weight": (1024, 1, 4),
        "conv1d.bias": (1024,),
        "x_proj.weight": (48, 1024),
        "dt_proj.weight": (1024, 16),
        "dt_proj.bias": (1024,),
        "A_log": (1024, 16),
        "D": (1024,),
        "out_proj.weight": (256, 1024),
        "final_norm.gamma": (256,),
    }


@pytest.mark.parametrize(("mixer", "parameters"), [("rwkv6", 38_051_596), ("rwkv6+mamba2", 58_801_036)])
def test_networks_with_rwkv6_have_as_many_parameters_as_by_their_definition(mixer: str, parameters: int) -> None:
    with torch.device("meta"):
        network = BSMamba2(ModelConfig(time_mixer=mixer, band_mixer=mixer))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 255, 441, 1000, 4411])
def test_every_length_is_kept(tiny_network: BSMamba2, length: int) -> None:
    with torch.inference_mode():
        estimates = tiny_network(torch.randn(2, 2, length))
    assert estimates.shape == (2, 1, 2, length)
    assert estimates.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 100), (1, 1, 100), (1, 2, 0), (1, 3, 100)])
def test_wrong_shapes_are_errors(tiny_network: BSMamba2, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"the network takes \(batch, 2, samples\)"):
        tiny_network(torch.zeros(shape))


def test_silence_stays_silence(tiny_network: BSMamba2) -> None:
    assert not tiny_network(torch.zeros(1, 2, 1000)).any()


def test_items_of_a_batch_do_not_mix(tiny_network: BSMamba2) -> None:
    mixture = torch.randn(3, 2, 1500, requires_grad=True)
    (gradient,) = torch.autograd.grad(tiny_network(mixture)[1].square().sum(), mixture)
    assert gradient[1].any()
    assert not gradient[[0, 2]].any()


@pytest.mark.parametrize("mixer", CORES)
def test_a_block_is_causal_and_the_mixer_is_not(mixer: str) -> None:
    """Step 6 of a block depends on steps 0 to 6; of a bidirectional mixer on all."""
    config = CORES[mixer][0]
    both = MIXERS[mixer](config, 0).double()
    for parameter in both.parameters():
        parameter.data += 0.1
    x = torch.randn(1, 12, config.dim, dtype=torch.float64, requires_grad=True)
    for module, last in ((random_core(mixer), 6), (both, 11)):
        (gradient,) = torch.autograd.grad(module(x)[0, 6].square().sum(), x)
        reached = gradient[0].abs().sum(-1) > 0
        assert reached[: last + 1].all()
        assert not reached[last + 1 :].any()


@pytest.mark.parametrize("steps_per_tile", [1, 25, 60, 100, 10_000])
def test_tiles_change_nothing(tiny_config: ModelConfig, steps_per_tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither results nor gradients, whether or not the tiles divide the rows."""
    torch.manual_seed(0)
    layer = DualPathLayer(tiny_config, 0).double()
    x = torch.randn(1, 23, 7, tiny_config.dim, dtype=torch.float64)
    results = []
    for tile in (2**40, steps_per_tile * tiny_config.d_inner):
        monkeypatch.setattr(dual_path, "CPU_TILE", tile)
        y = layer(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))])
    assert all(rms_ratio(*pair) < 1e-12 for pair in zip(*results, strict=True))


def test_tiles_are_of_one_size(tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = DualPathLayer(tiny_config, 0)
    sizes = set()
    for mixer in layer:
        mixer.register_forward_pre_hook(lambda _, arguments: sizes.add(tuple(arguments[0].shape)))
    monkeypatch.setattr(dual_path, "CPU_TILE", 60 * tiny_config.d_inner)
    layer(torch.randn(1, 23, 7, tiny_config.dim))
    assert sizes == {(2, 23, tiny_config.dim), (8, 7, tiny_config.dim)}


@pytest.mark.parametrize("config", [CONFIG, MAMBA1, PARALLEL])
def test_gradients_reach_every_parameter(config: ModelConfig) -> None:
    """Once the weights that start at zero have changed, such as the last map of RWKV-6."""
    torch.manual_seed(0)
    network = BSMamba2(config)
    for parameter in network.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    network(torch.randn(1, 2, 2000)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("mixer", CORES)
def test_float64_agrees_with_finite_differences(mixer: str) -> None:
    u = torch.randn(1, 5, CORES[mixer][0].dim, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(random_core(mixer), u)


@pytest.mark.parametrize("config", [CONFIG, MAMBA1, PARALLEL])
def test_autocast_keeps_norms_and_output_in_single_precision(config: ModelConfig) -> None:
    torch.manual_seed(0)
    network, mixture = BSMamba2(config), torch.randn(1, 2, 3000)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        estimates = network(mixture)
    assert estimates.dtype == torch.float32
    with torch.inference_mode():
        assert 1e-5 < rms_ratio(estimates, network(mixture)) < 5e-2


def test_initial_values_are_those_of_mamba_ssm() -> None:
    torch.manual_seed(0)
    mixer = Mamba2(ModelConfig(dim=512, expand=4, headdim=2, d_state=4))
    dt = nn.functional.softplus(mixer.dt_bias)
    assert 1e-3 * 0.999 < dt.min() < 1.5e-3
    assert 0.07 < dt.max() < 0.1 * 1.001
    assert dt.median().item() == pytest.approx(1e-2, rel=0.2)
    A = mixer.A_log.exp()
    assert 1 <= A.min() < 1.2
    assert 15.8 < A.max() <= 16
    assert (mixer.D == 1).all()
    assert (mixer.norm.weight == 1).all()
    limit = mixer.out_proj.in_features**-0.5
    assert 0.99 * limit < mixer.out_proj.weight.abs().max() <= limit


def test_initial_values_of_mamba1_are_those_of_mamba_ssm() -> None:
    torch.manual_seed(0)
    mixer = Mamba1(ModelConfig(dim=500, time_mixer="mamba1", band_mixer="mamba1"))
    assert mixer.dt_proj.in_features == 32
    dt = nn.functional.softplus(mixer.dt_proj.bias)
    assert 1e-3 * 0.999 < dt.min() < 1.1e-3
    assert 0.09 < dt.max() < 0.1 * 1.001
    assert dt.median().item() == pytest.approx(1e-2, rel=0.2)
    for linear, limit in [(mixer.dt_proj, 32**-0.5), (mixer.out_proj, 2000**-0.5), (mixer.in_proj, 500**-0.5)]:
        assert 0.99 * limit < linear.weight.abs().max() <= limit
    assert torch.allclose(mixer.A_log.exp(), torch.arange(1.0, 17).expand(2000, 16))
    assert (mixer.D == 1).all()


def test_initial_values_of_rwkv6_are_those_of_its_authors() -> None:
    """For the second of five layers, from the formulas, channel by channel."""
    config = ModelConfig(dim=64, depth=5, time_mixer="rwkv6", band_mixer="rwkv6", rwkv_headdim=16)
    block, rest, progress = RWKV6(config, 1), 0.8, 0.25
    for channel in (0, 1, 30, 63):
        share, to_last = channel / 64, channel / 63
        expected = {
            "time_maa_x": 1 - share**rest,
            "time_maa_w": 1 - share**rest,
            "time_maa_k": 1 - share**rest,
            "time_maa_v": 1 - share**rest - 0.3 * progress,
            "time_maa_r": 1 - share**0.4,
            "time_maa_g": 1 - share**0.4,
            "time_decay": -6 + 5 * to_last ** (0.7 + 1.3 * progress),
            "time_faaaa": progress * (1 - to_last) + 0.1 * ((channel + 1) % 3 - 1),
        }
        found = {name: block.get_parameter(name).flatten()[channel].item() for name in expected}
        assert found == pytest.approx(expected, abs=1e-6)
    assert block.ln_x.weight.tolist() == pytest.approx([0.4**0.7] * 64)
    assert not any(value.any() for value in (block.output.weight, block.time_maa_w1, block.time_decay_w1))
    for linear, gain in ((block.receptance, 1), (block.value, 1), (block.key, 0.1), (block.gate, 0.1)):
        assert torch.allclose(linear.weight @ linear.weight.mT, gain**2 * torch.eye(64), atol=1e-5)
    for weight in (block.time_maa_w2, block.time_decay_w2):
        assert 0.0095 < weight.abs().max() <= 0.01
    # Beside Mamba-2 it does not start at zero.
    assert RWKV6Mamba2(PARALLEL).rwkv6.output.weight.any()


@pytest.mark.parametrize("length", [1, 100, 1024, 1025, 5000])
def test_transform_and_inverse_return_the_audio(length: int) -> None:
    audio = torch.randn(2, 3, length, dtype=torch.float64)
    settings = {"n_fft": 2048, "window_length": 2048, "hop_length": 441}
    spectrum = stft(audio, **settings)
    assert spectrum.shape[:3] == (2, 3, 1025)
    assert torch.allclose(istft(spectrum, length=length, **settings), audio)


def test_eight_seconds_are_801_frames() -> None:
    assert stft(torch.zeros(352_800), n_fft=2048, window_length=2048, hop_length=441).shape == (1025, 801)


def test_importing_the_model_loads_neither_lightning_nor_kernels_nor_torchaudio() -> None:
    program = "import sys, bsmamba2.model; print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"lightning", "mamba_ssm", "causal_conv1d", "torchaudio", "musdb", "museval"} & set(
        result.stdout.split()
    )


@pytest.mark.parametrize("length", range(256, 256 + 64, 7))
def test_the_last_samples_are_not_blown_up(length: int) -> None:
    """With the longest hop allowed a random mask leaves every sample in the range of the others."""
    torch.manual_seed(0)
    config = ModelConfig(n_fft=256, bands=(129,), window_length=256, hop_length=64)
    settings = {"n_fft": 256, "window_length": 256, "hop_length": config.hop_length}
    spectrum = stft(torch.randn(1, length), **settings)
    audio = istft(spectrum * torch.randn_like(spectrum), length=length, **settings)
    assert audio.abs().max() < 6 * audio.square().mean().sqrt()
    with pytest.raises(InputError, match="hop_length=65 is too long"):
        replace(config, hop_length=65)
