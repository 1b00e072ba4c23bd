"""Files with weights of PrimeKnet that do not state their architecture, under its names and those of PrimeK-Net."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.networks import PROJECT, config_in
from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig, PrimeKnet
from bsmamba2.system.files import git_blob_of
from bsmamba2.training.module import SeparationModule
from bsmamba2.weights.checkpoint import load_model, save_model
from bsmamba2.weights.conversion import convert
from bsmamba2.weights.primek_net import GAINS, PRODUCTS, STAGE_NAMES, renamed
from bsmamba2.weights.registry import PUBLISHED_MODELS
from tests.model.make_golden import PRIMEKNET
from tests.model.test_primeknet import SPEECH, TINY, noise, random_network
from tests.weights.model_server import Remote

# What shapes do not determine is as published.
SMALL = replace(SPEECH, dense_channel=4, dense_depth=2, num_tsblock=2, time_block_num=1, freq_block_kernel=(3, 11))
CONFIGS = {
    "mamba": replace(SMALL, mamba_hidden_size=6, mamba_d_state=3),
    "prime": replace(SMALL, time_stage="prime"),
}


def published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights under the names of PrimeK-Net, with the unused ones."""
    numbers = {kernel: str(2 * place + 3) for place, kernel in enumerate(SMALL.freq_block_kernel)}
    kinds = {ours: theirs for theirs, ours in PRODUCTS.items()}
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        block = re.fullmatch(r"sequence_block\.(\d+)\.(.+)", name)
        stage = re.fullmatch(r"(time|freq)_stage\.(\d+)\.(.+)", block[2]) if block else None
        if block and not stage:
            gain = {ours: theirs for theirs, ours in GAINS.items()}[block[2]]
            found[f"LKFCAnet.{block[1]}.{gain}"] = value.reshape(1, 1, 1, -1)
        elif block and stage:
            prefix = f"LKFCAnet.{block[1]}.{stage[1]}.naf_blocks.{stage[2]}."
            if product := re.fullmatch(r"1\.(attn|conv)_(\d+)\.(.+)", stage[3]):
                inner = f"GCGFN.{kinds[product[1]]}{numbers[int(product[2])]}.{product[3]}"
            else:
                theirs, ours = next(pair for pair in STAGE_NAMES.items() if stage[3].startswith(pair[1]))
                inner = theirs + stage[3].removeprefix(ours)
            found[prefix + inner] = value
            found[prefix + "norm2.weight"] = found[prefix + "norm2.bias"] = torch.ones(4)
            found[prefix + "gamma"] = torch.ones(1, 4, 1)
        else:
            found[name] = value
    return found


@pytest.mark.parametrize("time_stage", CONFIGS)
def test_shapes_determine_the_architecture(tmp_path: Path, time_stage: str) -> None:
    config = CONFIGS[time_stage]
    network = random_network(config)
    torch.save(network.state_dict(), tmp_path / "plain.pt")
    assert load_model(tmp_path / "plain.pt").config == config
    given: dict[str, Any] = {"sigmoid_beta": 1.5, "hop_length": 50, "sample_rate": 8000, "stems": ("voice",)}
    expected = replace(config, sigmoid_beta=1.5, hop_length=50, sample_rate=8000, stems=("voice",), residual="")
    assert load_model(tmp_path / "plain.pt", **given).config == expected


def test_a_published_file_loads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = random_network(CONFIGS["prime"])
    names = published(network.state_dict())
    assert len(names) == len(network.state_dict()) + 3 * 2 * 2 + 3 * 2 * 1
    assert {key: value.shape for key, value in renamed(names).items()} == {
        key: value.shape for key, value in network.state_dict().items()
    }
    torch.save({"generator": names}, tmp_path / "g_best")
    with caplog.at_level("INFO"):
        loaded = load_model(tmp_path / "g_best")
    assert "sample_rate=16000; sigmoid_beta=2.0" in caplog.text
    assert loaded.config == CONFIGS["prime"]
    with torch.inference_mode():
        torch.testing.assert_close(loaded(noise(1, 1, 999)), network(noise(1, 1, 999)))
    assert "parameters" in convert(tmp_path / "g_best", tmp_path / "ours.safetensors")
    assert load_model(tmp_path / "ours.safetensors").config == CONFIGS["prime"]


def test_the_entry_of_the_registry_is_complete() -> None:
    model = PUBLISHED_MODELS["primek-net"]
    with torch.device("meta"):
        network = PrimeKnet(config_in(PROJECT / "configs" / "primek-net.yaml"))
    # The published file has 3072 numbers that nothing uses.
    assert sum(parameter.numel() for parameter in network.parameters()) + 3072 == model.parameters
    assert 1 < model.size_bytes / (4 * model.parameters) < 1.02
    config = network.config
    assert (model.stems, model.residual) == (config.stems, config.residual)
    assert (model.hop_length, model.segment_seconds) == (config.hop_length, config.segment_seconds)
    assert len(model.git_blob) == 40
    assert int(model.git_blob, 16)


def test_the_entry_comes_from_a_server_and_separates_a_call(
    tmp_path: Path, cache: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"generator": published(random_network(CONFIGS["prime"]).state_dict())}, "served")
    remote.content = Path("served").read_bytes()
    model = replace(
        PUBLISHED_MODELS["primek-net"],
        size_bytes=round(len(remote.content), -4),
        git_blob=git_blob_of(Path("served")),
        urls=(remote.url,),
    )
    monkeypatch.setitem(PUBLISHED_MODELS, model.name, model)
    call = noise(1, 1, 20000)[0]
    write_audio(Path("call.wav"), call, 16000, depth="float")
    assert main(["separate", "call.wav", "--model", model.name]) == 0
    assert "licence of its weights: MIT" in capsys.readouterr().err
    stems = {path.stem: read_audio(path) for path in Path("stems/call").iterdir()}
    assert set(stems) == {"speech", "noise"}
    torch.testing.assert_close(stems["speech"] + stems["noise"], call, rtol=0, atol=1e-6)
    assert main(["models", "download", model.name]) == 0
    assert f"({len(remote.content):,} bytes, git blob hash {model.git_blob})" in capsys.readouterr().out
    assert main(["models", model.name]) == 0
    assert f"about {model.size_bytes:,} bytes" in capsys.readouterr().out
    assert main(["separate", "call.wav", "--model", "served", "--overwrite"]) == 0
    assert "model served, which is primek-net" in capsys.readouterr().err


@pytest.mark.parametrize("time_stage", TINY)
def test_files_state_their_network(tmp_path: Path, time_stage: str) -> None:
    network = PrimeKnet(TINY[time_stage])
    save_model(network, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert isinstance(loaded, PrimeKnet)
    assert loaded.config == TINY[time_stage]


def test_another_time_stage_is_refused(tmp_path: Path) -> None:
    torch.save(PrimeKnet(CONFIGS["mamba"]).state_dict(), tmp_path / "mamba.pt")
    with pytest.raises(InputError, match="with time_stage=mamba, not prime; leave time_stage out"):
        load_model(tmp_path / "mamba.pt", time_stage="prime")
    with pytest.raises(InputError, match=r"mamba\.pt are not those of this architecture"):
        SeparationModule(CONFIGS["prime"], init_from=tmp_path / "mamba.pt")


def test_weights_of_speech_start_a_network_for_vocals(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = random_network(PRIMEKNET)
    save_model(network, tmp_path / "speech.safetensors")
    vocals: ModelConfig = replace(PRIMEKNET, stems=("vocals",), residual="")
    module = SeparationModule(vocals, init_from=tmp_path / "speech.safetensors")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in module.network.state_dict().items())
    assert "mask head" not in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "sequence_block.0.time_stage.0.1.gru.weight_ih_l0",
            r"are those of a PrimeKnet with recurrent layers \(sequence_block.*\), which is not supported",
        ),
        ("mask_decoder.lsigmoid.slope", "are those of a PrimeKnet that maps magnitudes instead of masking them"),
        ("sequence_block.0.time_stage.0.1.proj_conv1.weight", "does not contain the weights of a PrimeKnet under"),
        ("phase_decoder.phase_conv_r.bias", r"phase_decoder\.phase_conv_r\.bias is missing"),
    ],
)
def test_variants_and_damaged_files_are_refused(tmp_path: Path, name: str, message: str) -> None:
    state = PrimeKnet(replace(CONFIGS["mamba"], num_tsblock=1)).state_dict()
    if state.pop(name, None) is None:
        state[name] = torch.ones(2)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "other.pt")
