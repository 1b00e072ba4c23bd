from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import bsmamba2
from benchmarks.bounds import network_multiply_adds
from bsmamba2 import load_model
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig, Network
from bsmamba2.options import grouped
from bsmamba2.separation.command import separate_files
from bsmamba2.system.files import sha256_of
from bsmamba2.weights.command import download_models
from bsmamba2.weights.registry import DEFAULT_MODEL, PRESETS, PUBLISHED_MODELS, published_model
from bsmamba2.weights.store import PACKAGED, model_file


def count_parameters(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_registry_holds_the_model_of_the_package_and_the_two_published_files() -> None:
    community, official = PUBLISHED_MODELS["msst-vocals"], PUBLISHED_MODELS["official-vocals"]
    assert list(PUBLISHED_MODELS)[:3] == [DEFAULT_MODEL, community.name, official.name]
    assert (community.size_bytes, official.size_bytes) == (192_610_602, 770_628_060)
    assert community.sha256 == "fceb733b41742abb8df563092f4cb5bbc9243c6c03e7f34dc44c14e60732c72f"
    assert official.sha256 == "b1fcf93fdd6f7bc79e5410b1330b3d0fd5a6ca6ea23a94730c684629c71cd5ca"
    release_page = "https://github.com/ZFTurbo/Music-Source-Separation-Training/releases"
    assert community.urls == (f"{release_page}/download/v1.0.19/bs_mamba2_vocals.ckpt",)
    assert official.urls == ()
    assert [score.value for score in community.scores] == [8.82]
    assert [score.value for score in official.scores] == [11.03, 10.70]


def test_the_model_card_is_complete_and_has_the_scores_of_the_registry() -> None:
    card = (PACKAGED / "small-vocals.md").read_text(encoding="utf-8")
    assert "@" not in card
    scores = PUBLISHED_MODELS[DEFAULT_MODEL].scores
    assert scores
    assert all(f"**{score.value:.2f}** [" in card for score in scores)


def test_the_published_architecture_has_the_parameters_of_the_registry() -> None:
    with torch.device("meta"):
        network = BSMamba2(ModelConfig())
    for name in ("msst-vocals", "official-vocals"):
        assert PUBLISHED_MODELS[name].parameters == count_parameters(network)
        assert PUBLISHED_MODELS[name].stems == network.config.stems


def test_the_file_in_the_package_is_that_of_the_registry() -> None:
    model, path = PUBLISHED_MODELS[DEFAULT_MODEL], model_file(DEFAULT_MODEL)
    assert path.parent.parent == Path(bsmamba2.__file__).parent
    assert (path.name, sha256_of(path), path.stat().st_size) == (model.file_name, model.sha256, model.size_bytes)
    assert model.size_bytes <= 16 * 2**20
    network = load_model(DEFAULT_MODEL)
    assert (network.config.stems, count_parameters(network)) == (model.stems, model.parameters)
    assert network.config == replace(network.config, **model.architecture)


def test_the_model_of_the_package_is_small_enough_for_any_machine() -> None:
    config = load_model(DEFAULT_MODEL).config
    assert sum(network_multiply_adds(config, seconds=8.0)["everything"].values()) / 8.0 <= 20e9


def test_weights_in_half_precision_give_a_network_in_single_precision() -> None:
    stored, loaded = load_file(model_file(DEFAULT_MODEL)), load_model(DEFAULT_MODEL).state_dict()
    assert torch.float16 in {value.dtype for value in stored.values()}
    for name, value in stored.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], value.float())


def test_unknown_names_are_errors_that_list_the_names() -> None:
    for function in (model_file, lambda name: download_models([DEFAULT_MODEL, name])):
        with pytest.raises(InputError, match=rf"model 'best'; choose one of {', '.join(PUBLISHED_MODELS)}$"):
            function("best")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("kim", "mel-vocals-kim"),
        ("vocals_kim", "mel-vocals-kim"),
        ("msst-vocal", "msst-vocals or "),
        ("Mel-Karaoke", "mel-karaoke-aufr33"),
        ("4stem", "bs-4stem-zfturbo"),
    ],
)
def test_a_misspelt_name_gets_suggestions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"there is no published model '{name}'; did you mean {found}"):
        published_model(name)
    with pytest.raises(
        InputError, match=rf"the model {name} is neither a file nor .* or the name; did you mean {found}"
    ):
        load_model(name)


def test_presets_are_models_and_options_that_exist() -> None:
    assert list(PRESETS) == ["vocals", "instrumental", "karaoke", "4stems", "fast"]
    assert PRESETS["fast"].models == (DEFAULT_MODEL,)
    for preset in PRESETS.values():
        given = grouped(separate_files, {"inputs": ["song.wav"], "model": preset.models, **preset.options})
        # What is left over is a parameter of the command itself.
        assert given.keys() <= signature(separate_files).parameters.keys()
        for name in preset.models:
            model = PUBLISHED_MODELS[name]
            assert model.urls or model.packaged
            assert preset.options.get("overlap") == model.overlap
            assert any(stem in preset.note for stem in model.available)
