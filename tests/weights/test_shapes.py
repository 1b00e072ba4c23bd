from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bsmamba2 import load_model
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from tests.weights.test_checkpoint import UNTOLD


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
