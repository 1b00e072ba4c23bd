import json
import os
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bsmamba2 import load_model, save_model
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig, Network
from bsmamba2.weights.checkpoint import (
    LONGEST_SONG_NAME,
    MOST_TRAINING_SONGS,
    WeightsFile,
)
from bsmamba2.weights.headers import ARCHITECTURE, SONGS_METADATA

# What the shapes of the weights do not determine of the tiny network.
UNTOLD: dict[str, Any] = {"hop_length": 64, "segment_seconds": 0.1}


def same(first: Network, second: Network) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors"])
def test_plain_weights_tell_their_architecture(tmp_path: Path, tiny_network: BSMamba2, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(tiny_network.state_dict(), path)
    network = load_model(path, **UNTOLD)
    assert network.config == tiny_network.config
    assert same(network, tiny_network)
    assert not network.training
    assert {p.device.type for p in network.parameters()} == {"cpu"}


def test_paths_may_be_texts(tmp_path: Path, tiny_network: BSMamba2) -> None:
    save_model(tiny_network, str(tmp_path / "weights.safetensors"))
    assert load_model(str(tmp_path / "weights.safetensors")).config == tiny_network.config


def test_golden_weights_open_under_their_published_names(test_data: Path) -> None:
    network = load_model(test_data / "golden" / "small.weights.safetensors")
    assert network.config == ModelConfig(dim=32, depth=2)


def training_checkpoint(network: BSMamba2) -> dict[str, Any]:
    weights = {f"network.{name}": value for name, value in network.state_dict().items()}
    return {"state_dict": weights, "hyper_parameters": {"network": asdict(network.config)}}


def test_training_checkpoints_rebuild_the_model(tmp_path: Path, tiny_network: BSMamba2) -> None:
    torch.save(training_checkpoint(tiny_network), tmp_path / "own.ckpt")
    network = load_model(str(tmp_path / "own.ckpt"))
    assert network.config == tiny_network.config
    assert same(network, tiny_network)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("owned",)


def test_code_in_a_checkpoint_is_never_run(
    tmp_path: Path, tiny_network: BSMamba2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(training_checkpoint(tiny_network) | {"extra": Malicious()}, tmp_path / "evil.ckpt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(
        InputError, match=r"evil\.ckpt contains Python objects .* it was not opened.* `bsmamba2 convert "
    ):
        load_model(tmp_path / "evil.ckpt")
    with pytest.raises(InputError, match="is not a checkpoint"):
        load_model(tmp_path / "evil.pkl")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_files_are_errors(tmp_path: Path, tiny_network: BSMamba2, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(tiny_network.state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=rf"cut{suffix} is (not a checkpoint, is truncated|damaged)"):
        load_model(path)


def test_missing_files_and_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.ckpt is neither a file nor a published model"):
        load_model(tmp_path / "none.ckpt")
    with pytest.raises(InputError, match="is a folder"):
        load_model(tmp_path)


def test_weights_of_other_models_are_errors(tmp_path: Path, tiny_network: BSMamba2) -> None:
    path = tmp_path / "other.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(InputError, match="does not contain the weights of a BSMamba2"):
        load_model(path)
    theirs = {f"model.{name}": value for name, value in tiny_network.state_dict().items()}
    torch.save({"state_dict": theirs, "hyper_parameters": {"lr": 1.0}}, path)
    with pytest.raises(InputError, match=r"written by a different program.* `bsmamba2 convert "):
        load_model(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(InputError, match="'epoch' is not a named tensor"):
        load_model(path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="contains a list"):
        load_model(path)


def test_weights_that_do_not_fit_are_errors_with_the_first(tmp_path: Path, tiny_network: BSMamba2) -> None:
    content = training_checkpoint(tiny_network)
    content["hyper_parameters"]["network"]["d_conv"] = 3
    torch.save(content, tmp_path / "own.ckpt")
    with pytest.raises(InputError, match=r"conv1d\.weight has shape .* instead of .* more"):
        load_model(tmp_path / "own.ckpt")
    content = training_checkpoint(tiny_network)
    del content["state_dict"]["network.final_norm.gamma"]
    torch.save(content, tmp_path / "own.ckpt")
    with pytest.raises(InputError, match=r"final_norm\.gamma is missing"):
        load_model(tmp_path / "own.ckpt")


def test_safetensors_files_describe_their_architecture(tmp_path: Path, tiny_network: BSMamba2) -> None:
    path, config = tmp_path / "own.safetensors", tiny_network.config
    save_file(tiny_network.state_dict(), path, metadata={ARCHITECTURE: json.dumps(asdict(config))})
    network = load_model(path)
    assert network.config == config
    assert same(network, tiny_network)
    assert load_model(path, stems=["other"], hop_length=32).config == replace(config, stems=("other",), hop_length=32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "is a list"),
        ('{"width": 3}', r"unknown keys \['width'\]"),
        ('{"dim": 0}', "dim=0 is not allowed"),
        ('{"dim": ' + "[" * 900 + "]" * 900 + "}", r"dim=\[\[\[\.\.\.\]\]\] is not allowed"),
        ('{"segment_seconds": 1e308}', "cannot be used"),
    ],
)
def test_architectures_that_cannot_be_used(tmp_path: Path, tiny_network: BSMamba2, text: str, message: str) -> None:
    path = tmp_path / "own.safetensors"
    save_file(tiny_network.state_dict(), path, metadata={ARCHITECTURE: text})
    with pytest.raises(InputError, match=rf"the network config in .*own\.safetensors .*{message}"):
        load_model(path)


# Bytes of a file name that are not UTF-8 are lone surrogates.
SONGS = ("Beyonc\udce9 - B", 'Zed - "Last"', "Änne - Ça & là")


def test_weights_remember_the_songs_they_were_trained_on(tmp_path: Path, tiny_network: BSMamba2) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(20)]
    for path in paths:
        save_model(tiny_network, path, [*SONGS[::-1], SONGS[0]])
    assert len({path.read_bytes() for path in paths}) == 1, "the same weights and songs give the same bytes"
    file = WeightsFile.read(paths[0])
    assert file.training_songs == SONGS
    assert same(file.network(), tiny_network)
    with safe_open(paths[0], framework="pt") as opened:
        metadata = opened.metadata()
    assert list(json.loads(metadata[ARCHITECTURE])) == list(tiny_network.config.to_dict())


def test_songs_are_unknown_of_files_without_them(tmp_path: Path, tiny_network: BSMamba2) -> None:
    save_model(tiny_network, tmp_path / "own.safetensors")
    torch.save(tiny_network.state_dict(), tmp_path / "plain.pt")
    torch.save(training_checkpoint(tiny_network), tmp_path / "own.ckpt")
    torch.save(training_checkpoint(tiny_network) | {"bsmamba2": {"seed": 1}}, tmp_path / "older.ckpt")
    for path in tmp_path.iterdir():
        assert WeightsFile.read(path).training_songs == ()
    with safe_open(tmp_path / "own.safetensors", framework="pt") as opened:
        assert list(opened.metadata()) == [ARCHITECTURE]


WRONG_SONGS: dict[str, Any] = {
    "a text": "A - B",
    "a mapping": {"A - B": 1},
    "a number": 3,
    "nothing": None,
    "a number in it": ["A - B", 3],
    "a list in it": [["A - B"]],
    "a long name": ["A" * (LONGEST_SONG_NAME + 1)],
    "too many": [""] * (MOST_TRAINING_SONGS + 1),
}


@pytest.mark.parametrize("songs", WRONG_SONGS.values(), ids=WRONG_SONGS)
def test_lists_of_songs_that_are_none_are_errors(tmp_path: Path, tiny_network: BSMamba2, songs: Any) -> None:
    save_file(tiny_network.state_dict(), tmp_path / "a.safetensors", metadata={SONGS_METADATA: json.dumps(songs)})
    torch.save(training_checkpoint(tiny_network) | {"bsmamba2": {"training_songs": songs}}, tmp_path / "a.ckpt")
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match=rf"the list of training songs in .*{path.name} is not a list of at most"):
            load_model(path)


@pytest.mark.parametrize("text", ["[", "[" * 100_000, ""])
def test_lists_of_songs_that_are_no_json(tmp_path: Path, tiny_network: BSMamba2, text: str) -> None:
    path = tmp_path / "own.safetensors"
    save_file(tiny_network.state_dict(), path, metadata={SONGS_METADATA: text})
    with pytest.raises(InputError, match=r"the list of training songs in .*own\.safetensors is not JSON"):
        load_model(path)


def test_an_unknown_architecture_field_is_an_error(tmp_path: Path, tiny_network: BSMamba2) -> None:
    torch.save(tiny_network.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InputError, match=r"\['hop'\] is not part of the architecture; allowed are dim, depth"):
        load_model(tmp_path / "weights.pt", hop=441)
