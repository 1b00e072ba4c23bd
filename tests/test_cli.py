import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import soundfile
import torch

from bsmamba2.cli import main
from bsmamba2.model import BSMamba2

COMMANDS = ("separate", "train", "evaluate", "demo")


@pytest.fixture
def model(tmp_path: Path, tiny_network: BSMamba2) -> Path:
    path = tmp_path / "tiny.ckpt"
    weights = {f"network.{name}": value for name, value in tiny_network.state_dict().items()}
    torch.save({"state_dict": weights, "hyper_parameters": {"network": asdict(tiny_network.config)}}, path)
    return path


def test_separate_and_evaluate_from_the_command_line(
    tmp_path: Path, model: Path, musdb_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song = musdb_root / "test" / "Three - Third" / "mixture.wav"
    assert (
        main(["separate", str(song), "--model", str(model), "--output", str(tmp_path / "stems"), "--overlap", "0"]) == 0
    )
    for stem in ("vocals", "instrumental"):
        info = soundfile.info(tmp_path / "stems" / "mixture" / f"{stem}.wav")
        assert (info.frames, info.samplerate, info.subtype) == (88200, 44100, "PCM_16")
    said = capsys.readouterr().err
    assert "device cpu" in said
    assert "scan chunked" in said
    assert "overlap 0 %" in said
    run = ["evaluate", "--model", str(model), "--root", str(musdb_root), "--output", str(tmp_path / "run")]
    assert main([*run, "--batch-size", "4"]) == 0
    assert "Three - Third" in capsys.readouterr().out


def test_existing_stems_are_kept_and_named(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    song = musdb_root / "test" / "Three - Third" / "mixture.wav"
    arguments = ["separate", str(song), "--model", str(model), "--output", str(tmp_path / "stems")]
    assert main(arguments) == 0
    vocals = tmp_path / "stems" / "mixture" / "vocals.wav"
    vocals.write_text("mine")
    assert main(arguments) == 1
    assert vocals.read_text() == "mine"
    assert main([*arguments, "--overwrite"]) == 0
    assert soundfile.info(vocals).frames == 88200


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, ""),
        (["seperate"], 2, "there is no command 'seperate'; choose separate, train, evaluate, demo"),
        (["separate"], 2, "required: model, output, inputs"),
        (["separate", "a.wav", "--model", "m", "--output", "o", "--loud", "1"], 2, "unrecognized arguments: --loud"),
        (["separate", "a.wav", "--model", "m", "--output", "o", "--overlap", "half"], 2, 'key "overlap"'),
        (["separate", "a.wav", "--model", "m.ckpt", "--output", "o"], 1, "the model file m.ckpt does not exist"),
        (["evaluate", "--model", "m", "--root", "r", "--output", "o", "--split", "dev"], 2, 'key "split"'),
        (["train", "--data.root", "nowhere", "--model.network.hops", "3"], 2, "unrecognized arguments"),
        (["train", "--data.root", "nowhere", "--model.network.dim", "wide"], 2, "dim"),
        (["train", "--data.root", "nowhere", "--model.network.dim", "100"], 1, "headdim=64 does not divide"),
        (["train", "--config", "none.yaml"], 2, "none.yaml"),
        (["demo", "--config", "none.yaml"], 1, "there is no config none.yaml"),
    ],
)
def test_wrong_options_are_one_sentence_and_a_status(
    arguments: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "options:" in capsys.readouterr().out


def test_the_general_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert all(f"  {command} " in capsys.readouterr().out for command in ("separate",))


@pytest.mark.parametrize("command", ["train", "evaluate", "separate"])
def test_the_scripts_are_the_commands(command: str) -> None:
    script = Path(__file__).parent.parent / "scripts" / f"{command}.py"
    result = subprocess.run([sys.executable, script, "--nonsense", "1"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert f"bsmamba2 {command}: error" in result.stderr


def test_a_folder_that_cannot_be_made_is_an_error(
    tmp_path: Path, model: Path, musdb_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    song = musdb_root / "test" / "Three - Third" / "mixture.wav"
    output = str(tmp_path / "file" / "stems")
    assert main(["separate", str(song), "--model", str(model), "--output", output]) == 1
    assert "cannot be made" in capsys.readouterr().err
