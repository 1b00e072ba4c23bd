"""Networks of many stems: only the mask heads that are asked for, one after the other, taken by the names of stems."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook

from bsmamba2 import load_model, save_model
from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, Network
from bsmamba2.model.masks import MaskEstimator
from bsmamba2.training.module import SeparationModule
from bsmamba2.weights.registry import PUBLISHED_MODELS
from tests.model import test_network

MANY = PUBLISHED_MODELS["bs-53stem-mvsep"].stems
# Of few bands, so that it loads quickly.
CONFIG = replace(test_network.ROFORMER, bands=(300, 500, 225), stems=MANY, segment_seconds=0.2)


@pytest.fixture(scope="module")
def network() -> BSMamba2:
    torch.manual_seed(0)
    return BSMamba2(CONFIG).eval()


@pytest.fixture
def file(network: BSMamba2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the file of the network, in the current folder with a song."""
    monkeypatch.chdir(tmp_path)
    save_model(network, tmp_path / "many.safetensors")
    audio = 0.1 * torch.randn(2, 9000, generator=torch.Generator().manual_seed(1)).clamp(-4, 4)
    write_audio(tmp_path / "song.wav", audio, 44100, depth="float")
    return tmp_path / "many.safetensors"


@pytest.fixture
def masks() -> Iterator[list["weakref.ref[Tensor]"]]:
    """Returns all masks that are made in the test."""
    made: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def record(module: torch.nn.Module, _: object, mask: Tensor) -> None:
        if isinstance(module, MaskEstimator):
            alive.append(sum(earlier() is not None for earlier in made))
            made.append(weakref.ref(mask))

    hook = register_module_forward_hook(record)
    yield made
    hook.remove()
    assert set(alive) <= {0}, "a mask was still held when the next one was made"


def heads_of(network: Network, stem: str) -> dict[str, Tensor]:
    return network.mask_modules[network.config.stems.index(stem)].state_dict()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_masks_are_computed_in_turn(network: BSMamba2, masks: list["weakref.ref[Tensor]"]) -> None:
    with torch.inference_mode():
        assert network(torch.randn(1, 2, 9000)).shape == (1, 53, 2, 9000)
    assert len(masks) == 53


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_only_the_stems_that_are_wanted_are_loaded(network: BSMamba2, file: Path, suffix: str) -> None:
    given: dict[str, Any] = {}
    if suffix == ".ckpt":
        file = file.with_suffix(suffix)
        torch.save({"state_dict": network.state_dict()}, file)
        given = {"stems": MANY}
    loaded = load_model(file, only=["guitar", "bass"], segment_seconds=0.2, **given)
    # In the order of the network.
    assert loaded.config == replace(CONFIG, stems=("bass", "guitar"))
    assert not loaded.training
    mixture = torch.randn(1, 2, 9000)
    with torch.inference_mode():
        places = [MANY.index("bass"), MANY.index("guitar")]
        assert torch.equal(loaded(mixture), network(mixture)[:, places])
    with pytest.raises(InputError, match=r"the stems \['kazoo'\] cannot be taken; choose some of accordion, "):
        load_model(file, only=["kazoo"], **given)


def test_a_damaged_head_that_is_not_wanted_is_reported_too(network: BSMamba2, tmp_path: Path) -> None:
    state = network.state_dict()
    name = "mask_estimators.52.to_freqs.1.0.0.bias"
    del state[name]
    torch.save(state, tmp_path / "damaged.pt")
    with pytest.raises(InputError, match=rf"{name} is missing$"):
        load_model(tmp_path / "damaged.pt", only=["bass"], stems=MANY)


@pytest.mark.parametrize(
    ("stems", "names", "kept"),
    [
        (("drums", "vocals"), ["instrumental"], ("vocals",)),
        (("drums", "vocals"), ["instrumental", "drums"], ("drums", "vocals")),
        (("dry", "wet"), ["wet"], ("wet",)),
        (("dry", "wet"), ["rest"], ("dry", "wet")),
    ],
)
def test_the_part_of_a_network_for_outputs(stems: tuple[str, ...], names: list[str], kept: tuple[str, ...]) -> None:
    """The song without all stems is no longer one of them when a stem is missing."""
    config = replace(CONFIG, stems=stems, residual="rest")
    assert config.only(names) == replace(CONFIG, stems=kept, residual="rest" if kept == stems else "")
    for wrong in ([], ["residual"], ["kazoo", stems[0]]):
        with pytest.raises(InputError, match="cannot be taken; choose some of"):
            config.only(wrong)


def test_a_separation_computes_only_what_it_writes(
    file: Path, network: BSMamba2, masks: list["weakref.ref[Tensor]"]
) -> None:
    separate = ["separate", "song.wav", "--model", str(file), "--overlap", "0"]
    assert main([*separate, "--stems", "guitar,residual", "--output", "two"]) == 0
    assert len(masks) == 2
    assert main([*separate, "--output", "all"]) == 0
    assert len(masks) == 2 + 2 * 53
    two, every = ({path.stem: read_audio(path) for path in Path(folder, "song").iterdir()} for folder in ("two", "all"))
    assert set(two) == {"guitar", "residual"}
    assert set(every) == set(MANY)
    assert torch.equal(two["guitar"], every["guitar"])
    torch.testing.assert_close(sum(two.values()), read_audio(Path("song.wav")), rtol=0, atol=1e-6)
    assert main([*separate, "--stems", "kazoo"]) == 1
    assert main([*separate, "--stems", "residual"]) == 1


def test_fine_tuning_takes_mask_heads_by_the_names_of_stems(
    file: Path, network: BSMamba2, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(1)
    config = replace(CONFIG, stems=("vocal", "theremin", "bass"))
    fresh = SeparationModule(config).network
    torch.manual_seed(1)
    with caplog.at_level("INFO"):
        tuned = SeparationModule(config, init_from=file).network
    for stem, expected in (("vocal", network), ("theremin", fresh), ("bass", network)):
        assert_same(heads_of(tuned, stem), heads_of(expected, stem))
    assert not torch.equal(*(heads_of(made, "bass")["to_freqs.0.0.0.weight"] for made in (tuned, fresh)))
    trunk = "layers.1.1.layers.0.0.to_qkv.weight"
    assert torch.equal(tuned.state_dict()[trunk], network.state_dict()[trunk])
    messages = [record.message for record in caplog.records if "mask head" in record.message]
    assert len(messages) == 1
    assert messages[0].startswith(f"{file} has no mask head for theremin but for accordion, ")
    assert messages[0].endswith("; those of the missing stems start from random weights")


def test_fine_tuning_of_the_same_stems_in_a_different_order(
    file: Path, network: BSMamba2, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(CONFIG, stems=MANY[::-1])
    with caplog.at_level("INFO"):
        tuned = SeparationModule(config, init_from=file).network
    for stem in MANY:
        assert_same(heads_of(tuned, stem), heads_of(network, stem))
    assert "mask head" not in caplog.text


def test_files_without_names_give_mask_heads_by_position(network: BSMamba2, tmp_path: Path) -> None:
    path = tmp_path / "plain.pt"
    torch.save(network.state_dict(), path)
    tuned = SeparationModule(replace(CONFIG, stems=tuple(f"s{n}" for n in range(53))), init_from=path).network
    assert_same(heads_of(tuned, "s7"), heads_of(network, MANY[7]))
    with pytest.raises(
        InputError, match=r"plain\.pt are not those of this architecture: mask_estimators\.1\..* is not"
    ):
        SeparationModule(replace(CONFIG, stems=("bass",)), init_from=path)


def test_a_head_of_a_different_shape_is_reported(file: Path) -> None:
    with pytest.raises(InputError, match=r"mask_estimators\.0\.to_freqs\.0\.0\.0\.weight has shape"):
        SeparationModule(replace(CONFIG, stems=("bass", "theremin"), mask_expand=2), init_from=file)
