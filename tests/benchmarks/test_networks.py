from pathlib import Path

import pytest
import torch

from benchmarks.networks import PROJECT, QUICK, autocast, config_in, config_sections, random_network
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig


def test_a_file_of_training_options_holds_the_architecture() -> None:
    config = config_in(PROJECT / "configs" / "small.yaml")
    assert (config.dim, config.depth, len(config.bands)) == (192, 4, 48)
    assert config_in(PROJECT / "configs" / "bsmamba2.yaml") == ModelConfig()
    options = config_sections(PROJECT / "configs" / "bsmamba2.yaml")
    assert (options["trainer"]["max_epochs"], options["model"]) == (2000, {})


@pytest.mark.parametrize("content", ["", "- 1", "model: 3", "model: {network: 3}", "model: ["])
def test_any_other_file_is_one_sentence(content: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.yaml is not a file of training options \(.+\); give one like"):
        config_in(file)


def test_random_networks_are_always_the_same() -> None:
    one, two = (random_network(QUICK) for _ in range(2))
    assert not one.training
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_autocast_decides_the_precision_of_products() -> None:
    for precision in ("float32", "bfloat16"):
        with autocast(torch.device("cpu"), precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, precision)
