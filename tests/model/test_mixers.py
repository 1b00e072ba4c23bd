import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.mixers import PAIRS
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.bidirectional import BidirectionalMixer
from bsmamba2.model.config import MIXER_OPTIONS
from bsmamba2.model.mixers import MIXERS
from bsmamba2.model.scan_names import Scan
from bsmamba2.separation.separator import Separator
from tests.model.make_golden import CONFIG, MAMBA1, PARALLEL
from tests.model.test_network import CORES, random_core, rms_ratio

SMALL_SIZES = {
    "expand": 2, "headdim": 16, "d_state": 16, "attention_heads": 4, "attention_headdim": 16, "rwkv_headdim": 16,
    "mamba1_d_state": 8,
}  # fmt: skip
BIDIRECTIONAL = [(name, config) for name, (config, _) in CORES.items()]


def random_mixer(name: str, config: ModelConfig) -> BidirectionalMixer:
    torch.manual_seed(0)
    mixer = MIXERS[name](config, 0).double()
    assert isinstance(mixer, BidirectionalMixer)
    for parameter in mixer.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return mixer


def outputs_and_gradients(function: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> list[Tensor]:
    """Returns the outputs of a function of x (rows, l, d), and the gradients of x and of all parameters of a module."""
    y = function(x)
    torch.manual_seed(1)
    return [y, *torch.autograd.grad((y * torch.randn(y.shape, dtype=y.dtype)).sum(), [x, *module.parameters()])]


def test_every_mixer_of_the_config_can_be_built() -> None:
    assert MIXERS.keys() == MIXER_OPTIONS.keys()
    for options in MIXER_OPTIONS.values():
        assert set(options) <= set(ModelConfig.__dataclass_fields__)


@pytest.mark.parametrize(("name", "config"), BIDIRECTIONAL)
@pytest.mark.parametrize("length", [1, 5, 17, 62, 130])
def test_the_folded_mixer_is_the_published_one_with_its_gradients(length: int, name: str, config: ModelConfig) -> None:
    mixer = random_mixer(name, config)
    x = torch.randn(3, length, config.dim, dtype=torch.float64, requires_grad=True)
    folded, published = (outputs_and_gradients(function, mixer, x) for function in (mixer, mixer.as_published))
    assert all(rms_ratio(*pair) < 1e-12 for pair in zip(folded, published, strict=True) if pair[1].abs().max() > 1e-9)


@pytest.mark.parametrize("mixer", CORES)
def test_the_core_against_the_sequence_is_the_one_along_it_on_the_reversed_sequence(mixer: str) -> None:
    along, against = random_core(mixer), random_core(mixer, reverse=True)
    against.load_state_dict(along.state_dict())
    x = torch.randn(2, 20, CORES[mixer][0].dim, dtype=torch.float64)
    assert along(x).std() > 0.01
    assert torch.allclose(against(x), along(x.flip(1)).flip(1))


@pytest.mark.parametrize("scan", ["sequential", "chunked"])
def test_the_scan_of_all_mixers_is_set_by_one_call(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    from bsmamba2.model import scans

    calls = []

    def counted(recurrence: str, name: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append((recurrence, name))
            return function(*arguments, **options)

        return call

    for recurrence, functions in scans._SCANS.items():
        for name, function in functions.items():
            monkeypatch.setitem(functions, name, counted(recurrence, name, function))
    network = BSMamba2(replace(PARALLEL, band_mixer="mamba1"))
    network.set_scan(scan)
    network(torch.randn(1, 2, 1000))
    assert set(calls) == {(recurrence, scan) for recurrence in scans._SCANS}
    assert network.scan_on(torch.device("cpu"), scan) == scan
    network.set_scan("auto")
    calls.clear()
    network(torch.randn(1, 2, 1000))
    assert set(calls) == {(recurrence, "chunked") for recurrence in scans._SCANS}
    assert network.scan_on(torch.device("cpu")) == "chunked"


def test_mixers_may_run_different_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with the kernels of Mamba-2 alone."""
    from bsmamba2.model import scans

    monkeypatch.setattr(scans, "kernel_problem", lambda recurrence: "broken" if recurrence == "selective" else None)
    network, cuda = BSMamba2(replace(CONFIG, band_mixer="mamba1")), torch.device("cuda")
    assert network.scan_on(cuda) == "chunked, kernel"
    with pytest.raises(InputError, match="scan='kernel' cannot run: broken"):
        network.scan_on(cuda, "kernel")
    assert BSMamba2(CONFIG).scan_on(cuda, "kernel") == "kernel"
    assert (
        BSMamba2(replace(MAMBA1, time_mixer="roformer", band_mixer="roformer", expand=4, mamba1_d_state=16)).scan_on(
            cuda
        )
        == "none"
    )


def test_a_refused_separator_leaves_the_network_as_it_was(tiny_network: BSMamba2) -> None:
    with pytest.raises(InputError, match="scan='kernel' cannot run"):
        Separator(tiny_network, scan="kernel", device="cpu")
    tiny_network(torch.randn(1, 2, 1000))


def test_a_scan_that_cannot_run_here_is_an_error(tiny_network: BSMamba2) -> None:
    tiny_network.set_scan("kernel")
    with pytest.raises(InputError, match=r"scan='kernel' cannot run: the input is on the device 'cpu'"):
        tiny_network(torch.randn(1, 2, 1000))


@pytest.mark.parametrize("name", ["time_mixer", "band_mixer"])
def test_an_unknown_mixer_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(
        InputError, match=re.escape(f"{name}='mamba3' does not exist; choose {', '.join(MIXER_OPTIONS)}")
    ):
        ModelConfig.from_dict({name: "mamba3"})


@pytest.mark.parametrize("name", PAIRS)
def test_networks_with_each_mixer_learn_one_excerpt(name: str) -> None:
    torch.manual_seed(0)
    time_mixer, band_mixer = PAIRS[name]
    read = {option for mixer in PAIRS[name] for option in MIXER_OPTIONS[mixer]}
    options: dict[str, Any] = {option: value for option, value in SMALL_SIZES.items() if option in read}
    for option in ("bands", "n_fft", "window_length", "hop_length", "mask_expand"):
        options[option] = getattr(CONFIG, option)
    network = BSMamba2(ModelConfig(dim=32, depth=2, time_mixer=time_mixer, band_mixer=band_mixer, **options))
    seconds = torch.arange(4000) / 44100
    hertz = torch.tensor([220.0, 554.4, 1318.5, 3520.0])
    music = 0.15 * torch.sin(2 * torch.pi * hertz[:, None] * seconds).sum(0)
    music = torch.stack([music, music.flip(0)])[None]
    mixture = music + 0.2 * torch.randn(music.shape, generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    losses: list[float] = []
    while len(losses) < 100 and (not losses or losses[-1] >= 0.1 * losses[0]):
        optimiser.zero_grad()
        loss = (network(mixture)[:, 0] - music).abs().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 3)
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
