"""Files of weights alone, as other programs write them: wrapped, in half precision, incomplete, of variants."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bsmamba2 import load_model
from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.mel import mel_bands
from bsmamba2.model.roformer import ROTATION_BASE
from bsmamba2.system.files import sha256_of
from bsmamba2.weights.checkpoint import WRAPPERS
from bsmamba2.weights.conversion import convert
from bsmamba2.weights.registry import PUBLISHED_MODELS, PublishedModel
from tests.model import test_network

# Of few bands, so that they load quickly.
BANDS = (300, 500, 225)
STARTS, WIDTHS = mel_bands(3, 2048, 44100)
ROFORMER = replace(test_network.ROFORMER, bands=BANDS)
MEL_BAND = replace(test_network.MEL_BAND, bands=WIDTHS, band_starts=STARTS)
SMALL = ModelConfig(dim=8, depth=2, expand=2, headdim=4, d_state=4, mask_expand=1, bands=BANDS)
networks = pytest.mark.parametrize("config", [ROFORMER, MEL_BAND, SMALL], ids=["roformer", "mel", "mamba2"])


def weights_of(config: ModelConfig) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return BSMamba2(config).state_dict()


def assert_loaded(path: Path, config: ModelConfig, state: dict[str, Tensor]) -> None:
    network = load_model(path)
    assert network.config == config
    for name, value in network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[name].float()), name


@pytest.mark.parametrize("wrapper", WRAPPERS)
@networks
def test_state_dicts_may_be_wrapped(tmp_path: Path, config: ModelConfig, wrapper: str) -> None:
    state = weights_of(config)
    torch.save({"epoch": 3, wrapper: state, "optimizer": {"lr": 0.1}}, tmp_path / "wrapped.ckpt")
    assert_loaded(tmp_path / "wrapped.ckpt", config, state)
    convert(tmp_path / "wrapped.ckpt", tmp_path / "converted.safetensors")
    assert_loaded(tmp_path / "converted.safetensors", config, state)


def test_the_wrapped_value_must_be_a_state_dict(tmp_path: Path) -> None:
    for content in (
        {"model": "bs_roformer", "state_dict": weights_of(SMALL)},
        {"state": [1], "model": weights_of(SMALL)},
    ):
        torch.save(content, tmp_path / "wrapped.ckpt")
        assert load_model(tmp_path / "wrapped.ckpt").config == SMALL
    torch.save({"state": [1]}, tmp_path / "wrapped.ckpt")
    with pytest.raises(InputError, match=r"the state dict in .* is a list"):
        load_model(tmp_path / "wrapped.ckpt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    """The frequencies of the rotation are exact again, though their rounded values are in the file."""
    state = {name: value.to(dtype) for name, value in weights_of(ROFORMER).items()}
    torch.save(state, tmp_path / "half.ckpt")
    network = load_model(tmp_path / "half.ckpt")
    loaded = network.state_dict()
    exact = ROTATION_BASE ** -(torch.arange(0, 8, 2) / 8)
    assert {value.dtype for value in loaded.values()} == {torch.float32}
    for name, value in state.items():
        if name.endswith("rotary_embed.freqs"):
            assert not torch.equal(value.float(), exact)
        assert torch.equal(loaded[name], exact if name.endswith("rotary_embed.freqs") else value.float())
    with torch.inference_mode():
        assert network(torch.randn(1, 2, 3000)).dtype == torch.float32


def test_other_frequencies_are_those_of_the_file(tmp_path: Path) -> None:
    state = weights_of(ROFORMER)
    frequencies = torch.tensor([1.0, 0.5, 0.25, 0.125])
    for name in (name for name in state if name.endswith("rotary_embed.freqs")):
        state[name] = frequencies.half()
    torch.save(state, tmp_path / "half.ckpt")
    loaded = load_model(tmp_path / "half.ckpt").state_dict()
    assert all(torch.equal(loaded[name], frequencies) for name in loaded if name.endswith("rotary_embed.freqs"))


def one_of_each_kind(state: dict[str, Tensor]) -> list[str]:
    """Returns the last of the names that differ only in their numbers."""
    return list({re.sub(r"\d{1,2}\.", "#.", name): name for name in state}.values())


@networks
def test_a_tensor_that_is_missing_or_too_many_is_named(tmp_path: Path, config: ModelConfig) -> None:
    state, path = weights_of(config), tmp_path / "damaged.pt"
    for name in one_of_each_kind(state):
        torch.save({other: value for other, value in state.items() if other != name}, path)
        with pytest.raises(InputError, match=rf"damaged\.pt are not those of this architecture: {name} is missing$"):
            load_model(path)
        extra = f"{name.rpartition('.')[0]}.extra"
        torch.save(state | {extra: torch.ones(1)}, path)
        with pytest.raises(InputError, match=rf"damaged\.pt are not .*: {extra} is not part of it$"):
            load_model(path)


@networks
def test_a_tensor_of_a_different_shape_is_named(tmp_path: Path, config: ModelConfig) -> None:
    """At least three layers, so that most agree on what is right."""
    state, path = weights_of(replace(config, depth=3)), tmp_path / "damaged.pt"
    for name in one_of_each_kind(state):
        value = state[name]
        torch.save(state | {name: torch.cat([value, value])}, path)
        shape = rf"\({2 * len(value)},.*\) instead of \({len(value)},"
        with pytest.raises(InputError, match=rf"damaged\.pt are not .*: {name} has shape {shape}.*\)$"):
            load_model(path)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("layers.0.0.layers.0.0.branch.to_qkv.weight", "hyper-connections"),
        ("layers.0.0.layers.0.0.to_value_residual_mix.0.weight", "value residuals"),
        ("layers.1.1.layers.0.0.learned_value_residual_mix.weight", "value residuals"),
        ("layers.0.2.layers.0.0.norm.gamma", "linear attention"),
        ("layers.0.0.layers.0.0.attend.temperature", "linear attention"),
        ("layers.0.0.layers.0.0.to_qkv.lora_A", "LoRA"),
        ("layers.0.0.layers.0.0.pope.bias", "PoPE"),
    ],
)
def test_variants_are_refused_by_their_names(tmp_path: Path, name: str, variant: str) -> None:
    torch.save({"state_dict": weights_of(ROFORMER) | {name: torch.ones(2)}}, tmp_path / "variant.ckpt")
    message = (
        rf"the weights in .*variant\.ckpt are those of a RoFormer with {variant} \({name}\), which is not supported; "
        "give weights that were trained without$"
    )
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "variant.ckpt")
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "variant.ckpt", tmp_path / "variant.safetensors")


def test_mixers_of_different_depth_are_refused(tmp_path: Path) -> None:
    deep, flat = weights_of(replace(ROFORMER, attention_depth=2)), weights_of(ROFORMER)
    mixed = flat | {name: value for name, value in deep.items() if ".0.layers." in name}
    torch.save(mixed, tmp_path / "mixed.pt")
    with pytest.raises(
        InputError, match=r"the mixers in .*mixed\.pt have attention_depth=2 over time and 1 over bands, which is not"
    ):
        load_model(tmp_path / "mixed.pt")


def test_unknown_bands_need_their_table(tmp_path: Path) -> None:
    config = replace(ROFORMER, bands=(600, 500), band_starts=(0, 525))
    torch.save(weights_of(config), tmp_path / "bands.pt")
    with pytest.raises(
        InputError,
        match=r"the 2 bands in .*bands\.pt are 1100 bins wide in all.* load_model\(path, n_fft=\.\.\., band_",
    ):
        load_model(tmp_path / "bands.pt")
    assert load_model(tmp_path / "bands.pt", band_starts=[0, 525]).config == config
    mel = weights_of(test_network.MEL_BAND)
    for name in ("band_split.to_features.7.0.gamma", "band_split.to_features.7.1.weight"):
        mel[name] = mel[name][..., :20]
    for end in ("weight", "bias"):
        mel[f"mask_estimators.0.to_freqs.7.0.4.{end}"] = mel[f"mask_estimators.0.to_freqs.7.0.4.{end}"][:40]
    torch.save(mel, tmp_path / "mel.pt")
    with pytest.raises(InputError, match=r"the 60 bands in .*mel\.pt are 1978 bins wide in all"):
        load_model(tmp_path / "mel.pt")


@pytest.fixture
def short_song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Returns a short song, which is also in song.wav in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    audio = 0.1 * torch.randn(2, 8000, generator=torch.Generator().manual_seed(0)).clamp(-4, 4)
    write_audio(Path("song.wav"), audio, 44100, depth="float")
    return read_audio(Path("song.wav"))


def run(*arguments: str) -> int:
    return main([*arguments, "--overwrite"])


def stems_of(song: Tensor) -> set[str]:
    """Returns the names of the stems that were written, after checking that they sum to the song."""
    files = list(Path("stems/song").iterdir())
    torch.testing.assert_close(torch.stack([read_audio(file) for file in files]).sum(0), song, rtol=0, atol=1e-6)
    return {file.stem for file in files}


def test_what_is_assumed_is_printed(short_song: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(weights_of(ROFORMER), "plain.ckpt")
    assert run("separate", "song.wav", "--model", "plain.ckpt") == 0
    assumed = "plain.ckpt does not contain these; they have the published values: "
    assert f"{assumed}stems=vocals; hop_length=441; segment_seconds=8.0\n" in capsys.readouterr().err
    assert stems_of(short_song) == {"vocals", "instrumental"}
    assert run("separate", "song.wav", "--model", "plain.ckpt", "--hop-length", "512", "--stems", "dry,residual") == 0
    assert f"{assumed}segment_seconds=8.0\n" in capsys.readouterr().err


def test_the_hop_is_given(short_song: Tensor) -> None:
    torch.save(weights_of(ROFORMER), "plain.ckpt")
    assert run("convert", "plain.ckpt", "hop.safetensors", "--hop-length", "512") == 0
    assert load_model("hop.safetensors").config == replace(ROFORMER, hop_length=512)
    hop = ["--hop-length", "512"]
    runs = {"given": ("plain.ckpt", hop), "stored": ("hop.safetensors", []), "assumed": ("plain.ckpt", [])}
    vocals = {}
    for output, (model, options) in runs.items():
        assert run("separate", "song.wav", "--model", model, "--stems", "vocals", "--output", output, *options) == 0
        vocals[output] = read_audio(Path(output) / "song" / "vocals.wav")
    assert torch.equal(vocals["given"], vocals["stored"])
    assert (vocals["given"] - vocals["assumed"]).abs().max() > 1e-4


@pytest.mark.parametrize("command", ["separate", "convert"])
def test_a_hop_that_the_file_contradicts(short_song: Tensor, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(weights_of(ROFORMER), "plain.ckpt")
    assert run("convert", "plain.ckpt", "hop.safetensors", "--hop-length", "512") == 0
    arguments = {
        "separate": ["song.wav", "--model", "hop.safetensors"],
        "convert": ["hop.safetensors", "b.safetensors"],
    }
    assert run(command, *arguments[command], "--hop-length", "512") == 0
    assert run(command, *arguments[command], "--hop-length", "441") == 1
    assert "hop.safetensors contains hop_length=512, not 441; leave --hop-length out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "asked", "written", "printed"),
    [
        (1, "drums,residual", {"drums", "residual"}, ""),
        (1, "vocals,instrumental", {"vocals", "instrumental"}, "stems=vocals"),
        (2, "speech,music,residual", {"speech", "music", "residual"}, ""),
        (4, "vocals,instrumental", {"vocals", "instrumental"}, "stems=drums,bass,other,vocals"),
        (4, "speech,music,steps,rain,residual", {"speech", "music", "steps", "rain", "residual"}, ""),
    ],
)
def test_stems_are_named_or_chosen(
    short_song: Tensor, count: int, asked: str, written: set[str], printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(weights_of(replace(ROFORMER, stems=tuple(f"s{number}" for number in range(count)))), "plain.ckpt")
    assert run("separate", "song.wav", "--model", "plain.ckpt", "--stems", asked) == 0
    assert stems_of(short_song) == written
    assert printed in capsys.readouterr().err


def test_names_are_in_the_order_of_the_network(short_song: Tensor) -> None:
    torch.save(weights_of(replace(ROFORMER, stems=("a", "b"))), "plain.ckpt")
    for number, names in enumerate(("a,b,residual", "b,a,residual")):
        assert run("separate", "song.wav", "--model", "plain.ckpt", "--stems", names, "--output", str(number)) == 0
    assert torch.equal(read_audio(Path("0/song/a.wav")), read_audio(Path("1/song/b.wav")))
    assert not torch.equal(read_audio(Path("0/song/a.wav")), read_audio(Path("1/song/a.wav")))


@pytest.mark.parametrize("command", ["separate", "convert", "evaluate"])
def test_names_that_are_too_few(
    short_song: Tensor, musdb_root: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(weights_of(replace(ROFORMER, stems=("a", "b"))), "plain.ckpt")
    arguments = {
        "separate": ["song.wav", "--model", "plain.ckpt"],
        "convert": ["plain.ckpt", "b.safetensors"],
        "evaluate": ["--root", str(musdb_root), "--output", "run", "--model", "plain.ckpt"],
    }
    assert run(command, *arguments[command], "--stems", "speech") == 1
    assert "plain.ckpt estimates 2 stems, but is given 1 names for them (speech)" in capsys.readouterr().err
    assert run(command, *arguments[command]) == 1
    assert "plain.ckpt estimates 2 stems but does not name them; give --stems with 2 names" in capsys.readouterr().err


def test_evaluation_takes_the_hop_and_the_names(
    short_song: Tensor, musdb_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(weights_of(ROFORMER), "plain.ckpt")
    common = ["--root", str(musdb_root), "--model", "plain.ckpt", "--no-report", "--segment-seconds", "1"]
    assert run("evaluate", *common, "--output", "run", "--stems", "drums", "--hop-length", "512") == 0
    shown = capsys.readouterr()
    assert "drums, protocol single" in shown.out
    assert "segment_seconds=8.0\n" in shown.err
    assert main(["evaluate", *common, "--output", "run", "--stems", "drums"]) == 1
    assert "run" in capsys.readouterr().err
    folder = ["evaluate", "--root", str(musdb_root), "--output", "other", "--estimates", "stems", "--hop-length", "512"]
    assert main(folder) == 2
    assert "--hop-length is for a --model; leave it out with --estimates" in capsys.readouterr().err


@pytest.fixture
def published(short_song: Tensor, monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """Returns an entry of the registry for a small file in the current folder, under a name of its own."""
    torch.save(weights_of(replace(ROFORMER, stems=("lead",))), "renamed.ckpt")
    path = Path("renamed.ckpt")
    entry = replace(
        PUBLISHED_MODELS["mel-karaoke-aufr33"], name="lead-small", stems=("lead",), hop_length=512, segment_seconds=2.0,
        size_bytes=path.stat().st_size, sha256=sha256_of(path),
    )  # fmt: skip
    monkeypatch.setitem(PUBLISHED_MODELS, entry.name, entry)
    return entry


def test_the_registry_knows_what_shapes_do_not_tell(
    short_song: Tensor, published: PublishedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    known = replace(ROFORMER, stems=("lead",), residual="backing", hop_length=512, segment_seconds=2.0)
    assert load_model("renamed.ckpt").config == known
    assert run("separate", "song.wav", "--model", "renamed.ckpt") == 0
    shown = capsys.readouterr().err
    assert "model renamed.ckpt, which is lead-small, licence of its weights: none stated" in shown
    assert "does not contain" not in shown
    assert stems_of(short_song) == {"lead", "backing"}
    assert run("convert", "renamed.ckpt", "converted.safetensors") == 0
    assert load_model("converted.safetensors").config == known
    assert load_model("renamed.ckpt", segment_seconds=3).config == replace(known, segment_seconds=3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hop_length": 441}, "which has hop_length=512, not 441; leave hop_length out"),
        ({"stems": ["vocals"]}, "which has stems=lead, not vocals; leave stems out"),
        ({"residual": "rest"}, "which has residual=backing, not rest; leave residual out"),
    ],
)
def test_what_contradicts_the_registry_is_refused(
    published: PublishedModel, given: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = f"renamed.ckpt is the published model lead-small, {message}"
    with pytest.raises(InputError, match=expected):
        load_model("renamed.ckpt", **given)
    if "residual" not in given:
        ((field, value),) = given.items()
        option = ["--" + field.replace("_", "-"), value[0] if field == "stems" else str(value)]
        assert main(["convert", "renamed.ckpt", "converted.safetensors", *option]) == 1
        assert expected in capsys.readouterr().err
    load_model("renamed.ckpt", hop_length=512, stems=["lead"], residual="backing")
