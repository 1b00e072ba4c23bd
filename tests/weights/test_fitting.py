"""Architectures that claim more than the file has: refused in a sentence, before memory and time are spent."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bsmamba2 import load_model
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.weights.headers import ARCHITECTURE
from tests.conftest import TINY
from tests.model.test_network import ROFORMER

COUNTS = [field.name for field in fields(ModelConfig) if field.type is int]
# Values of these fields are no sizes of anything that is allocated.
FREE = {"sample_rate": 1000}


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Leaves two gigabytes to this process, so that a claim that is believed fails instead of filling the machine."""
    if sys.platform != "linux":
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 * 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def write(path: Path, config: ModelConfig, suffix: str, **claims: Any) -> None:
    """Writes the weights of a small network with a config that claims something else."""
    state, architecture = BSMamba2(config).state_dict(), json.loads(json.dumps(asdict(config))) | claims
    if suffix == ".safetensors":
        save_file(state, path, metadata={ARCHITECTURE: json.dumps(architecture)})
    else:
        weights = {f"network.{name}": value for name, value in state.items()}
        torch.save({"state_dict": weights, "hyper_parameters": {"network": architecture}}, path)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("claim", [1000, 10**7, 10**9, 2**40, 2**62, 10**40])
@pytest.mark.parametrize("field", [*COUNTS, "segment_seconds"])
def test_a_claim_is_refused(tmp_path: Path, field: str, claim: int, suffix: str) -> None:
    config = ROFORMER if field.startswith("attention") else TINY
    path = tmp_path / f"claims{suffix}"
    write(path, config, suffix, **{field: claim})
    if FREE.get(field) == claim:
        assert getattr(load_model(path).config, field) == claim
        return
    with pytest.raises(InputError, match=r"claims\.\w+") as refused:
        load_model(path)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "claims",
    [
        {"bands": [2**40], "n_fft": 2**41 - 2, "window_length": 2048},
        {"bands": [129, 2**40], "band_starts": [0, 0], "n_fft": 2**41 - 2},
        {"bands": [1] * 100_000 + [29], "n_fft": 200_056},
        {"stems": [f"stem {number}" for number in range(100_000)]},
        {"time_mixer": "roformer", "band_mixer": "roformer", "attention_depth": 25_000},
        {"mask_depth": 10_000, "depth": 10_000},
    ],
    ids=["one wide band", "an overlapping band", "many bands", "many stems", "deep mixers", "deep"],
)
def test_claims_that_are_consistent_are_refused(tmp_path: Path, claims: dict[str, Any]) -> None:
    config = replace(ROFORMER, dim=32) if "time_mixer" in claims else TINY
    write(tmp_path / "claims.safetensors", config, ".safetensors", **claims)
    with pytest.raises(InputError, match=r"the weights in .*claims\.safetensors are not those of this architecture"):
        load_model(tmp_path / "claims.safetensors")


@pytest.mark.parametrize("field", ["dim", "stems", "residual", "output_norm", "kind", "segment_seconds"])
def test_a_value_that_multiplies_is_refused(tmp_path: Path, field: str) -> None:
    """Sixty lists, each of which contains the one before twice, are some bytes, and 2^60 numbers if printed."""
    value: list[Any] = [1]
    for _ in range(60):
        value = [value, value]
    write(tmp_path / "claims.ckpt", TINY, ".ckpt", **{field: 0})
    content = torch.load(tmp_path / "claims.ckpt", weights_only=True)
    content["hyper_parameters"]["network"][field] = value
    torch.save(content, tmp_path / "claims.ckpt")
    with pytest.raises(InputError, match=r"the network config in .*claims\.ckpt cannot be used: ") as refused:
        load_model(tmp_path / "claims.ckpt")
    assert len(str(refused.value)) < 500


def test_shapes_that_multiply_are_refused(tmp_path: Path) -> None:
    """Each weight is in the file, but together they would be those of a network of a terabyte."""
    state = BSMamba2(ROFORMER).state_dict()
    for name, shape in {
        "band_split.to_features.*.1.weight": (300_000, 1),
        "mask_estimators.0.to_freqs.*.0.0.weight": (300_000, 1),
    }.items():
        start, end = name.split("*")
        for key in state:
            if key.startswith(start) and key.endswith(end):
                # As half precision and only one band: the rest has the most common shape.
                state[key] = torch.zeros(shape, dtype=torch.float16)
    torch.save(state, tmp_path / "multiplied.pt")
    with pytest.raises(InputError, match=r"multiplied\.pt are not those of this architecture: .* has shape"):
        load_model(tmp_path / "multiplied.pt")


def test_modules_may_be_made_afterwards(tmp_path: Path) -> None:
    write(tmp_path / "claims.safetensors", TINY, ".safetensors", depth=1000)
    with pytest.raises(InputError):
        load_model(tmp_path / "claims.safetensors")
    assert len(list(BSMamba2(replace(TINY, depth=3)).parameters())) > 68


def test_a_given_field_that_does_not_fit_is_refused(tmp_path: Path, tiny_network: BSMamba2) -> None:
    torch.save(tiny_network.state_dict(), tmp_path / "plain.pt")
    given: list[dict[str, Any]] = [{"dim": 10**9}, {"depth": 10**9}, {"mask_depth": 4}, {"channels": 10**6}]
    for claim in given:
        with pytest.raises(InputError, match=r"plain\.pt"):
            load_model(tmp_path / "plain.pt", **claim)
