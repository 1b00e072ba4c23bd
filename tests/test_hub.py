"""Networks in folders, as on the Hugging Face Hub, and as torch.hub loads them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bsmamba2 import Separator, load_model
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2

ROOT = Path(__file__).parents[1]


def test_a_network_is_saved_to_a_folder_and_read_from_it(tmp_path: Path, tiny_network: BSMamba2) -> None:
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    from bsmamba2.hub import HubNetwork

    network: Any = HubNetwork.of(tiny_network)
    network.save_pretrained(tmp_path / "model")
    files = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dim"] == tiny_network.config.dim
    read = HubNetwork.from_pretrained(tmp_path / "model")
    assert isinstance(read, HubNetwork)
    assert read.config == tiny_network.config
    assert not read.training
    audio = torch.randn(1, 2, 4410)
    assert torch.equal(read(audio), tiny_network.eval()(audio))
    # The file is one of ours.
    assert load_model(tmp_path / "model" / "model.safetensors").config == tiny_network.config
    assert Separator(read)(audio[0], 44100)["vocals"].shape == (2, 4410)


def test_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    from bsmamba2.hub import HubNetwork

    with pytest.raises(InputError, match=r"model\.safetensors does not exist"):
        HubNetwork.from_pretrained(tmp_path)


def test_torch_hub_loads_from_the_folder_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hubconf", raising=False)
    separator = torch.hub.load(str(ROOT), "separator", source="local", overlap=0.5)
    assert isinstance(separator, Separator)
    assert separator.settings.overlap == 0.5
    network = torch.hub.load(str(ROOT), "network", source="local")
    assert isinstance(network, BSMamba2)
