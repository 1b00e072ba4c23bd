import builtins
import contextlib
import json
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing._private.utils import runstring
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bsmamba2 import load_model, save_model
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.system.files import sha256_of
from bsmamba2.weights import checkpoint
from bsmamba2.weights.checkpoint import WeightsFile
from bsmamba2.weights.conversion import convert
from bsmamba2.weights.headers import ARCHITECTURE
from bsmamba2.weights.registry import PUBLISHED_MODELS

# The shapes of its plain weights tell its whole architecture.
PUBLISHED_FORM = ModelConfig(dim=8, depth=1, expand=2, headdim=4, d_state=4, mask_expand=1, bands=(300, 500, 225))


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return BSMamba2(PUBLISHED_FORM).state_dict()


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> type:
    """Returns a class of hyper-parameters in a module that the test removes again."""

    class DictConfig:
        def __init__(self, content: object) -> None:
            self.content = content

    DictConfig.__qualname__ = "DictConfig"
    DictConfig.__module__ = "omegaconf_stand_in"
    module = ModuleType("omegaconf_stand_in")
    module.DictConfig = DictConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf_stand_in", module)
    return DictConfig


def averaged(state: dict[str, Tensor]) -> list[Tensor]:
    return [value + 1 for value in state.values()]


def authors_checkpoint(state: dict[str, Tensor], **changes: Any) -> dict[str, Any]:
    """Returns the layout of the authors' file: buffers and the network, EMA weights as a list without names."""
    window = torch.hann_window(16)
    named = [("featurizer.window", window), *((f"model.{name}", value) for name, value in state.items())]
    named += [("inverse_featurizer.window", window), ("multi_featurizer.0.window", window)]
    return {
        "epoch": 7,
        "global_step": 700,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": OrderedDict(named),
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 5e-4}], "ema": averaged(state)}],
        "hyper_parameters": {},
    } | changes


def own_checkpoint(state: dict[str, Tensor], config: ModelConfig, average: bool = True) -> dict[str, Any]:
    """Returns what Lightning's EMAWeightAveraging saves of our module."""
    raw = {f"network.{name}": value for name, value in state.items()} | {"loss.window": torch.ones(3)}
    content = {"state_dict": raw, "hyper_parameters": {"network": asdict(config), "learning_rate": 1e-3}}
    if average:
        content["state_dict"] = {name: value + 1 for name, value in raw.items()}
        content["current_model_state"] = raw
        content["averaging_state"] = {"n_averaged": torch.tensor(5)}
    return content


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert expected
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("average", [True, False])
def test_the_training_songs_are_kept(tmp_path: Path, weights: dict[str, Tensor], average: bool) -> None:
    songs = ["Änne - Ça", "B - C"]
    content = own_checkpoint(weights, PUBLISHED_FORM, average) | {"bsmamba2": {"training_songs": songs}}
    torch.save(content, tmp_path / "own.ckpt")
    text = convert(tmp_path / "own.ckpt", tmp_path / "first.safetensors")
    assert "contains the names of the songs that the weights were trained on: 2" in text
    convert(tmp_path / "first.safetensors", tmp_path / "second.safetensors")
    for name in ("first", "second"):
        assert WeightsFile.read(tmp_path / f"{name}.safetensors").training_songs == ("B - C", "Änne - Ça")
    save_model(load_model(tmp_path / "first.safetensors"), tmp_path / "private.safetensors")
    assert WeightsFile.read(tmp_path / "private.safetensors").training_songs == ()
    torch.save(own_checkpoint(weights, PUBLISHED_FORM, average), tmp_path / "own.ckpt")
    assert "trained on" not in convert(tmp_path / "own.ckpt", tmp_path / "unknown.safetensors")


def plus_one(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(zip(state, averaged(state), strict=True))


@pytest.mark.parametrize(("choice", "taken"), [("raw", "raw"), ("ema", "EMA"), (None, "EMA")])
def test_the_authors_layout(
    tmp_path: Path,
    weights: dict[str, Tensor],
    options: type,
    monkeypatch: pytest.MonkeyPatch,
    choice: Any,
    taken: str,
) -> None:
    source, output = tmp_path / "sota.ckpt", tmp_path / "new" / "sota.safetensors"
    extra = {"nested": options([options, {"a": options(1)}])}
    torch.save(authors_checkpoint(weights, hyper_parameters=options({"dim": 256}), callbacks=extra), source)
    monkeypatch.delitem(sys.modules, "omegaconf_stand_in")
    with pytest.raises(InputError, match=r"contains Python objects .* run `bsmamba2 convert .*sota\.ckpt OUT\.safe"):
        load_model(source)
    text = convert(source, output, weights=choice)
    expected = weights if choice == "raw" else plus_one(weights)
    assert_equal(load_file(output), expected)
    network = load_model(output)
    assert_equal(network.state_dict(), expected)
    assert network.config == PUBLISHED_FORM
    assert f"wrote {output} with the {taken} weights of {source}: " in text
    assert f"{sum(value.numel() for value in weights.values()):,} parameters" in text
    assert text.endswith(f"sha256 {sha256_of(output)}")
    assert [path.name for path in output.parent.iterdir()] == ["sota.safetensors"]


def test_real_omegaconf_pickles_are_ignored(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    options = omegaconf.OmegaConf.create({"model": {"dim": 256, "bands": [2, 4], "name": "${model.dim}"}})
    torch.save(authors_checkpoint(weights, hyper_parameters=options, hparams_type=type(options)), tmp_path / "a.ckpt")
    convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    assert_equal(load_file(tmp_path / "a.safetensors"), plus_one(weights))


def test_an_authors_checkpoint_without_average_gives_the_only_weights(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    source = tmp_path / "a.ckpt"
    torch.save(authors_checkpoint(weights, optimizer_states=[{"state": {}}]), source)
    with pytest.raises(InputError, match=r"a\.ckpt has no ema weights but only raw weights; leave"):
        convert(source, tmp_path / "a.safetensors", weights="ema")
    assert "with the raw weights" in convert(source, tmp_path / "a.safetensors")
    assert_equal(load_file(tmp_path / "a.safetensors"), weights)
    with pytest.raises(InputError, match=r"a different program.* run `bsmamba2 convert"):
        load_model(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ema: ema[:-1], r"are \d+ tensors instead of a list of \d+; take the raw"),
        (lambda ema: [*ema, ema[0]], r"are \d+ tensors instead of a list of \d+"),
        (lambda ema: [ema[0].new_zeros(3), *ema[1:]], r"have the shape \(3,\) where .* has \("),
        (lambda ema: [3, *ema[1:]], "have a int where"),
        (lambda ema: {"a": 1}, "are a dict instead"),
    ],
)
def test_an_average_that_does_not_fit(
    tmp_path: Path, weights: dict[str, Tensor], change: Callable[[list[Tensor]], Any], message: str
) -> None:
    content = authors_checkpoint(weights)
    content["optimizer_states"][0]["ema"] = change(averaged(weights))
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()
    convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors", weights="raw")
    assert_equal(load_file(tmp_path / "a.safetensors"), weights)


@pytest.mark.parametrize("choice", ["raw", "ema", None])
def test_our_own_checkpoints(tmp_path: Path, tiny_network: BSMamba2, choice: Any) -> None:
    state, output = tiny_network.state_dict(), tmp_path / "own.safetensors"
    torch.save(own_checkpoint(state, tiny_network.config), tmp_path / "own.ckpt")
    convert(tmp_path / "own.ckpt", output, weights=choice)
    network = load_model(output)
    assert network.config == tiny_network.config
    assert_equal(network.state_dict(), state if choice == "raw" else plus_one(state))
    assert not network.training
    assert load_model(output, hop_length=32).config == replace(tiny_network.config, hop_length=32)
    if choice != "raw":
        assert_equal(load_model(tmp_path / "own.ckpt").state_dict(), network.state_dict())


def test_our_own_checkpoint_without_average(tmp_path: Path, tiny_network: BSMamba2) -> None:
    torch.save(own_checkpoint(tiny_network.state_dict(), tiny_network.config, average=False), tmp_path / "own.ckpt")
    with pytest.raises(InputError, match="has no ema weights but only raw weights"):
        convert(tmp_path / "own.ckpt", tmp_path / "own.safetensors", weights="ema")
    convert(tmp_path / "own.ckpt", tmp_path / "own.safetensors")
    assert_equal(load_model(tmp_path / "own.safetensors").state_dict(), tiny_network.state_dict())


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors"])
def test_plain_weights(tmp_path: Path, weights: dict[str, Tensor], suffix: str) -> None:
    source, output = tmp_path / f"plain{suffix}", tmp_path / "out.safetensors"
    (save_file if suffix == ".safetensors" else torch.save)(weights, source)
    with pytest.raises(InputError, match="has no raw weights but one set that it calls neither raw nor ema"):
        convert(source, output, weights="raw")
    assert "with the only weights" in convert(source, output)
    assert_equal(load_file(output), weights)
    with safe_open(output, framework="pt") as file:
        assert ModelConfig.from_dict(json.loads(file.metadata()[ARCHITECTURE])) == PUBLISHED_FORM
    again = tmp_path / "again.safetensors"
    convert(output, again)
    assert again.read_bytes() == output.read_bytes()


def test_a_file_that_describes_itself_needs_no_shapes(tmp_path: Path, tiny_network: BSMamba2) -> None:
    torch.save(own_checkpoint(tiny_network.state_dict(), tiny_network.config), tmp_path / "own.ckpt")
    convert(tmp_path / "own.ckpt", tmp_path / "own.safetensors")
    convert(tmp_path / "own.safetensors", tmp_path / "again.safetensors")
    # The shapes do not determine its hop length and its segment.
    assert load_model(tmp_path / "again.safetensors").config == tiny_network.config


def test_a_published_file_is_recognised(
    tmp_path: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "renamed.pt"
    torch.save(weights, source)
    assert "published model" not in convert(source, tmp_path / "first.safetensors")
    model = replace(
        PUBLISHED_MODELS["msst-vocals"],
        size_bytes=source.stat().st_size,
        sha256=sha256_of(source),
    )
    monkeypatch.setitem(PUBLISHED_MODELS, "msst-vocals", model)
    text = convert(source, tmp_path / "second.safetensors")
    assert text.endswith(f"{source} is the published model msst-vocals")


def test_stems_of_a_foreign_checkpoint_are_named(tmp_path: Path) -> None:
    config = replace(PUBLISHED_FORM, stems=("speech", "music"))
    torch.save(authors_checkpoint(BSMamba2(config).state_dict()), tmp_path / "two.ckpt")
    with pytest.raises(InputError, match=r"estimates 2 stems but does not name them; give --stems with 2 names"):
        convert(tmp_path / "two.ckpt", tmp_path / "two.safetensors")
    convert(tmp_path / "two.ckpt", tmp_path / "two.safetensors", stems=["speech", "music"])
    assert load_model(tmp_path / "two.safetensors").config == config
    with pytest.raises(InputError, match=r"already names its stems \(speech, music\); leave --stems out"):
        convert(tmp_path / "two.safetensors", tmp_path / "renamed.safetensors", stems=["drums", "bass"])
    assert not (tmp_path / "renamed.safetensors").exists()


def test_golden_weights_in_the_authors_layout(tmp_path: Path, test_data: Path) -> None:
    golden = load_file(test_data / "golden" / "small.weights.safetensors")
    content = authors_checkpoint({name: torch.zeros_like(value) for name, value in golden.items()})
    content["optimizer_states"][0]["ema"] = list(golden.values())
    torch.save(content, tmp_path / "golden.ckpt")
    convert(tmp_path / "golden.ckpt", tmp_path / "golden.safetensors")
    assert_equal(load_file(tmp_path / "golden.safetensors"), golden)
    assert load_model(tmp_path / "golden.safetensors").config == ModelConfig(dim=32, depth=2)


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


MAKE_MARKER = "import pathlib; pathlib.Path('owned').touch()"
REFUSED = {
    "os.system": Call(os.system, "touch owned"),
    "os.mkdir": Call(os.mkdir, "owned"),
    "torch.load": Call(partial(torch.load, "inner.pt", weights_only=False)),
    "partial": Call(partial(builtins.exec, MAKE_MARKER)),
}
IGNORED = {
    "eval": Call(builtins.eval, f"exec({MAKE_MARKER!r})"),
    "exec": Call(builtins.exec, MAKE_MARKER),
    "open": Call(builtins.open, "owned", "w"),
    "torch.save": Call(torch.save, {}, "owned"),
    "torch.hub": Call(torch.hub.download_url_to_file, Path(__file__).as_uri(), "owned", None, False),
    "numpy": Call(runstring, MAKE_MARKER, {}),
    "pickle": Call(pickle.loads, pickle.dumps(Call(builtins.exec, MAKE_MARKER))),
    "object array": np.array([Call(builtins.exec, MAKE_MARKER)], dtype=object),
}


def first_tensor_replaced(state: dict[str, Tensor], attack: object) -> dict[str, Any]:
    return dict.fromkeys(list(state)[:1], attack) | dict(list(state.items())[1:])


@pytest.mark.filterwarnings("ignore")  # The attacks that succeed here, without our reader, may warn.
@pytest.mark.parametrize("name", [*REFUSED, *IGNORED])
def test_attacks(tmp_path: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    marker, source, output = Path("owned"), Path("evil.ckpt"), Path("out.safetensors")
    attack: Any = (REFUSED | IGNORED)[name]
    torch.save(Call(builtins.exec, MAKE_MARKER), "inner.pt")
    with_average = authors_checkpoint(weights)
    with_average["optimizer_states"][0]["ema"][0] = attack
    prefixed = {f"model.{key}": value for key, value in first_tensor_replaced(weights, attack).items()}
    places = {
        "hyper-parameters": authors_checkpoint(weights, hyper_parameters={"deep": [{"er": (attack,)}]}),
        "key": authors_checkpoint(weights, callbacks={"a": {attack: 1}} if name != "object array" else attack),
        "list of averages": with_average,
        "averages": authors_checkpoint(weights, optimizer_states=[{"ema": attack}]),
        "tensor": authors_checkpoint(weights, state_dict=prefixed, optimizer_states=[]),
        "state dict": authors_checkpoint(weights, state_dict=attack),
        "plain": first_tensor_replaced(weights, attack),
        "whole file": attack,
    }
    for place, content in places.items():
        torch.save(content, source)
        if place == "whole file":
            with contextlib.suppress(Exception):
                torch.load(source, weights_only=False)
            assert marker.exists(), "this attack does nothing"
            marker.rmdir() if marker.is_dir() else marker.unlink()
        if place in ("hyper-parameters", "key") and name in IGNORED:
            convert(source, output, overwrite=True)
            assert_equal(load_file(output), plus_one(weights))
            output.unlink()
        else:
            with pytest.raises(InputError):
                convert(source, output)
        with pytest.raises(InputError, match=r"contains Python objects .* it was not opened"):
            load_model(source)
        assert not marker.exists(), place
        assert not output.exists(), place


def with_pickle(source: Path, target: Path, content: bytes) -> None:
    """Copies a checkpoint with another pickle in it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith("/data.pkl") else old.read(name))


STORAGE = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


def rebuilt(offset: bytes, size: bytes, stride: bytes) -> bytes:
    """Returns a state dict of one tensor, over a storage of four numbers, with any claim about its form."""
    arguments = STORAGE + offset + size + stride + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n" + arguments + b"s."


HUGE = b"\x8a\x06" + (10**12).to_bytes(6, "little")
PICKLES = {
    "more than there is": (rebuilt(b"K\x00", HUGE + b"\x85", b"K\x01\x85"), "damaged"),
    "behind the end": (rebuilt(b"K\x04", b"K\x04\x85", b"K\x01\x85"), "damaged"),
    "before the start": (rebuilt(b"J\xff\xff\xff\xff", b"K\x04\x85", b"K\x01\x85"), "damaged"),
    "stride of zero": (rebuilt(b"K\x00", HUGE + b"\x85", b"K\x00\x85"), "'a' is not a named tensor of real"),
    "negative stride": (rebuilt(b"K\x00", b"K\x04\x85", b"J\xff\xff\xff\xff\x85"), "damaged"),
    "object as a size": (rebuilt(b"K\x00", b"cevil\nsize\n)R", b"K\x01\x85"), "damaged"),
    "object as a storage": (b"\x80\x02cevil\nstorage\n)RQ.", "Python objects"),
    "text as a storage": (b"\x80\x02X\x01\x00\x00\x00aQ.", "Python objects|damaged"),
    "other kind of storage": (b"\x80\x02X\x06\x00\x00\x00moduleK\x01\x86Q.", "Python objects"),
    "old persistent id": (b"\x80\x02Pevil\n.", "Python objects"),
    "missing storage": (STORAGE.replace(b"0X\x03", b"9X\x03").replace(b"((", b"\x80\x02(") + b".", "damaged"),
    "changed function": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.", "Python objects"),
    "changed class": (b"\x80\x02cevil\nname\n}X\x01\x00\x00\x00aK\x01sb.", "Python objects"),
    "called object": (b"\x80\x02cevil\nname\n)R)R.", "Python objects"),
    "item of an object": (b"\x80\x02cevil\nname\n)RK\x01K\x02s.", "Python objects"),
    "extension": (b"\x80\x02\x82\x01.", "Python objects"),
    "newer opcode": (b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x05owned\x85R.", "Python objects"),
    "instance": (b"\x80\x02(X\x05\x00\x00\x00ownedios\nmkdir\n.", "Python objects"),
    "long number": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "Python objects"),
    "long text": (b"\x80\x02X\xff\xff\xff\xffa.", "damaged|contains a str"),
    "nothing": (b"", "damaged"),
    "empty stack": (b"\x80\x02.", "damaged"),
    "lists in lists": (b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", "contains a list"),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", PICKLES)
def test_pickles_made_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    content, message = PICKLES[name]
    torch.save({"a": torch.ones(4)}, tmp_path / "good.pt")
    with_pickle(tmp_path / "good.pt", tmp_path / "evil.pt", content)
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "evil.pt", tmp_path / "out.safetensors")
    with pytest.raises(InputError):
        load_model(tmp_path / "evil.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.pt", "good.pt"]


def test_the_pickle_made_by_hand_is_right(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(4.0)}, tmp_path / "good.pt")
    with_pickle(tmp_path / "good.pt", tmp_path / "same.pt", rebuilt(b"K\x00", b"K\x04\x85", b"K\x01\x85"))
    assert WeightsFile.read(tmp_path / "same.pt", foreign=True).content["a"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "value",
    [torch.eye(3).to_sparse(), torch.ones(3, device="meta"), torch.ones(3, dtype=torch.int64), torch.ones(1).expand(9)],
    ids=["sparse", "meta", "integer", "expanded"],
)
def test_tensors_of_other_kinds(tmp_path: Path, weights: dict[str, Tensor], value: Tensor) -> None:
    torch.save(weights | {"final_norm.gamma": value}, tmp_path / "a.pt")
    for open_it in (
        lambda: convert(tmp_path / "a.pt", tmp_path / "b.safetensors"),
        lambda: load_model(tmp_path / "a.pt"),
    ):
        with pytest.raises(InputError, match=r"'final_norm\.gamma' is not a named tensor of real numbers"):
            open_it()


def test_other_global_names_are_as_before(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    before = torch.serialization.get_safe_globals()
    torch.save(authors_checkpoint(weights, hyper_parameters=IGNORED["eval"]), tmp_path / "a.ckpt")
    convert(tmp_path / "a.ckpt", tmp_path / "a.safetensors")
    assert torch.serialization.get_safe_globals() == before


def test_truncated_files(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(authors_checkpoint(weights, hyper_parameters=IGNORED["eval"]), tmp_path / "whole.ckpt")
    save_file(weights, tmp_path / "whole.safetensors")
    for suffix in (".ckpt", ".safetensors"):
        content, cut = (tmp_path / f"whole{suffix}").read_bytes(), tmp_path / f"cut{suffix}"
        for length in [len(content) * twentieth // 20 for twentieth in range(20)] + [len(content) - 1]:
            cut.write_bytes(content[:length])
            with pytest.raises(InputError, match=r"is (truncated|damaged)"):
                convert(cut, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_changed_bytes(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(authors_checkpoint(weights), tmp_path / "whole.ckpt")
    content, changed = (tmp_path / "whole.ckpt").read_bytes(), tmp_path / "changed.ckpt"
    generator = torch.Generator().manual_seed(0)
    damaged = 0
    for place in torch.randint(len(content), (20,), generator=generator).tolist():
        changed.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            convert(changed, tmp_path / "out.safetensors", overwrite=True)
        except InputError:
            damaged += 1
        else:
            # The changed byte was between the records.
            assert_equal(load_file(tmp_path / "out.safetensors"), plus_one(weights))
    assert damaged
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as archive:
        largest = max(archive.infolist(), key=lambda record: record.file_size)
    place = largest.header_offset + largest.file_size // 2
    changed.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
    with pytest.raises(InputError, match=rf"is damaged \(.*{largest.filename}"):
        convert(changed, tmp_path / "new.safetensors")


def test_torchscript_programs(tmp_path: Path) -> None:
    # Written by hand, because torch warns that its own writer is deprecated.
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr("a/constants.pkl", pickle.dumps((), 2))
    for open_it in (
        lambda: convert(tmp_path / "a.pt", tmp_path / "b.safetensors"),
        lambda: load_model(tmp_path / "a.pt"),
    ):
        with pytest.raises(InputError, match=r"a\.pt is a TorchScript program; give a checkpoint"):
            open_it()


def test_no_work_is_done_for_an_output_that_cannot_be(
    tmp_path: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = tmp_path / "a.pt", tmp_path / "a.safetensors"
    torch.save(weights, source)
    output.write_text("precious")
    (tmp_path / "folder.safetensors").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "WeightsFile", None)
        with pytest.raises(InputError, match=r"a\.safetensors exists already; give another OUTPUT, or --overwrite"):
            convert(source, output)
        with pytest.raises(InputError, match=r"b\.pt does not end in \.safetensors"):
            convert(source, tmp_path / "b.pt")
        with pytest.raises(InputError, match="is a folder"):
            convert(source, tmp_path / "folder.safetensors", overwrite=True)
        with pytest.raises(InputError, match="weights='best' is not allowed; choose raw or ema"):
            convert(source, tmp_path / "b.safetensors", weights="best")  # type: ignore[arg-type]
    assert output.read_text() == "precious"
    convert(source, output, overwrite=True)
    assert_equal(load_file(output), weights)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Limits files to a kilobyte, like a disk that is full."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_an_output_is_as_readable_as_other_files(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(weights, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "b.safetensors")
    (tmp_path / "other").touch()
    assert (tmp_path / "b.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_an_output_on_a_full_disk(tmp_path: Path, weights: dict[str, Tensor], request: pytest.FixtureRequest) -> None:
    torch.save(weights, tmp_path / "a.pt")
    request.getfixturevalue("full_disk")
    with pytest.raises(InputError, match=r"b\.safetensors cannot be written \(File too large"):
        convert(tmp_path / "a.pt", tmp_path / "b.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_an_output_that_cannot_be_written(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(InputError, match="cannot be made"):
        convert(tmp_path / "a.pt", tmp_path / "a.pt" / "b.safetensors")


def test_checkpoints_of_other_programs(tmp_path: Path) -> None:
    source, output = tmp_path / "other.ckpt", tmp_path / "b.safetensors"
    for content, message in (
        ({"state_dict": {"encoder.weight": torch.ones(2)}}, "does not contain the weights of a BSMamba2"),
        ({"state_dict": [1]}, "is a list; give another"),
        ({"state_dict": {"model.weight": torch.ones(2)}}, "does not contain the weights of a BSMamba2"),
        ({}, "is not a state dict"),
        ([1], "contains a list"),
    ):
        torch.save(content, source)
        with pytest.raises(InputError, match=message):
            convert(source, output)
    with pytest.raises(InputError, match="does not exist"):
        convert(tmp_path / "none.ckpt", output)
    source.write_bytes(pickle.dumps(REFUSED["os.mkdir"]))
    with pytest.raises(InputError, match="is not a checkpoint, is truncated"):
        convert(source, output)
