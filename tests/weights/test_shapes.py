"""Architectures that are read off the shapes of plain weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bsmamba2 import load_model
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from tests.model.test_network import BOTH, MEL_BAND, MIXED, ROFORMER, RWKV, SELECTIVE
from tests.weights.test_checkpoint import UNTOLD


@pytest.mark.parametrize(
    ("config", "given"),
    [
        (ModelConfig(dim=32, depth=1, headdim=32, d_state=16, d_conv=3), {}),
        (ROFORMER, {}),
        (replace(ROFORMER, attention_depth=2, stems=("drums", "bass", "other", "vocals")), {}),
        (MEL_BAND, {}),
        (MIXED, {"hop_length": 128}),
        (SELECTIVE, {"hop_length": 128}),
        (replace(SELECTIVE, dim=20, expand=3, mamba1_d_state=5, d_conv=2), {"hop_length": 128}),
        (replace(MIXED, time_mixer="mamba1"), {"hop_length": 128}),
        (RWKV, {"hop_length": 128}),
        (BOTH, {"hop_length": 128}),
        (replace(BOTH, time_mixer="roformer", rwkv_headdim=2, expand=2, headdim=8, d_state=5), {"hop_length": 128}),
        (replace(MIXED, time_mixer="roformer", band_mixer="mamba2"), {"hop_length": 128}),
        (replace(ROFORMER, bands=(600, 500), band_starts=(0, 525)), {"band_starts": (0, 525)}),
        (replace(ROFORMER, n_fft=1920, window_length=1920, bands=(461, 500)), {"n_fft": 1920}),
    ],
)
def test_the_shapes_tell_the_architecture(tmp_path: Path, config: ModelConfig, given: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = BSMamba2(config).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    loaded = load_model(tmp_path / "weights.safetensors", **given)
    assert loaded.config == config
    mixture = torch.randn(1, 2, 3000)
    with torch.inference_mode():
        assert torch.equal(loaded(mixture), network(mixture))


def test_weights_of_an_unknown_mixer_are_refused(tmp_path: Path) -> None:
    weights = {name.replace("to_qkv", "to_queries"): value for name, value in BSMamba2(ROFORMER).state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(
        InputError, match=r"does not contain the weights of a BSMamba2 under the published names \(.*dt_bias"
    ):
        load_model(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {"stems": ("drums", "bass", "other", "vocals"), "depth": 2, "mask_depth": 3},
        {"mask_depth": 1, "mask_expand": 4, "d_conv": 3, "expand": 3, "headdim": 8},
    ],
)
def test_architectures_are_read_off_the_shapes(
    tmp_path: Path, tiny_config: ModelConfig, changes: dict[str, Any]
) -> None:
    config = replace(tiny_config, **changes)
    torch.save(BSMamba2(config).state_dict(), tmp_path / "weights.pt")
    assert load_model(tmp_path / "weights.pt", **UNTOLD).config == config


def test_what_shapes_do_not_tell_can_be_given(tmp_path: Path, tiny_config: ModelConfig) -> None:
    config = replace(tiny_config, channels=1, ngroups=2, stems=("left", "right"))
    torch.save(BSMamba2(config).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match="estimates 2 stems but does not name them"):
        load_model(tmp_path / "weights.pt", channels=1, ngroups=2)
    network = load_model(tmp_path / "weights.pt", channels=1, ngroups=2, stems=["left", "right"], **UNTOLD)
    assert network.config == config


def test_published_layout_gives_the_published_values(tmp_path: Path) -> None:
    torch.save(BSMamba2(ModelConfig(dim=16, depth=1, headdim=16, d_state=8)).state_dict(), tmp_path / "published.ckpt")
    config = load_model(tmp_path / "published.ckpt").config
    assert config == ModelConfig(dim=16, depth=1, headdim=16, d_state=8)
