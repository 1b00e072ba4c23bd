import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.bidirectional import BidirectionalMixer
from bsmamba2.model.config import MIXER_OPTIONS
from bsmamba2.model.mamba2 import Mamba2
from bsmamba2.model.mixers import MIXERS
from bsmamba2.model.scans import Scan
from bsmamba2.separation.separator import Separator
from tests.model.make_golden import CONFIG
from tests.model.test_network import rms_ratio


def random_mixer() -> BidirectionalMixer:
    torch.manual_seed(0)
    mixer = MIXERS["mamba2"](CONFIG).double()
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


@pytest.mark.parametrize("length", [1, 5, 17, 62, 130])
def test_the_folded_mixer_is_the_published_one_with_its_gradients(length: int) -> None:
    mixer = random_mixer()
    x = torch.randn(3, length, CONFIG.dim, dtype=torch.float64, requires_grad=True)
    folded, published = (outputs_and_gradients(function, mixer, x) for function in (mixer, mixer.as_published))
    assert all(rms_ratio(*pair) < 1e-12 for pair in zip(folded, published, strict=True) if pair[1].abs().max() > 1e-9)


def test_the_core_against_the_sequence_is_the_one_along_it_on_the_reversed_sequence() -> None:
    torch.manual_seed(0)
    along, against = Mamba2(CONFIG).double(), Mamba2(CONFIG, reverse=True).double()
    against.load_state_dict(along.state_dict())
    x = torch.randn(2, 20, CONFIG.dim, dtype=torch.float64)
    assert torch.allclose(against(x), along(x.flip(1)).flip(1))


@pytest.mark.parametrize("scan", ["sequential", "chunked"])
def test_the_scan_of_all_mixers_is_set_by_one_call(
    tiny_network: BSMamba2, scan: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bsmamba2.model import scans

    calls = []

    def counted(name: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(scans, "_SCANS", {name: counted(name, scan) for name, scan in scans._SCANS.items()})
    tiny_network.set_scan(scan)
    tiny_network(torch.randn(1, 2, 1000))
    assert set(calls) == {scan}
    tiny_network.set_scan("auto")
    calls.clear()
    tiny_network(torch.randn(1, 2, 1000))
    assert set(calls) == {"chunked"}


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
