"""What is answered at once: help, wrong usage, and what is wrong with inputs and outputs, without loading torch."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bsmamba2.completion import SHELLS
from bsmamba2.model import BSMamba2
from bsmamba2.weights.checkpoint import save_model
from tests.one_process import answers
from tests.test_cli import COMMANDS

# Each takes longer to import than an answer may take.
SLOW = ("torch", "numpy", "lightning", "jsonargparse", "matplotlib", "scipy", "soundfile")
MODEL = ["--model", "model.safetensors"]
TRAINING = ["train", "--config", "tiny", "--data.root", "songs"]
EVALUATION = ["evaluate", *MODEL, "--root", "songs", "--output"]


def usages() -> Iterator[tuple[list[str], int]]:
    """Yields command lines and their statuses."""
    yield from [(["--help"], 0), (["--version"], 0), ([], 2), (["seperate"], 2), (["--nope"], 2), (["song.wav"], 2)]
    for command in (*COMMANDS, "models download", "models verify"):
        yield [*command.split(), "--help"], 0
        yield [*command.split(), "--nope"], 2
    for command in ("separate", "train", "evaluate", "report", "check-data", "convert", "export", "models download"):
        yield command.split(), 2
    for shell in SHELLS:
        yield ["--print-completion", shell], 0
    wrong_values = (
        *(["separate", "song.wav", *more] for more in (["-f", "mp4"], ["--overlap", "2"], ["--batch-size", "x"])),
        *([*command, "--device", "gpu"] for command in (["separate", "song.wav"], ["open"], [*EVALUATION, "run"])),
        *(
            ["separate", "song.wav", *more]
            for more in (["--manifest", "songs.csv"], ["--retry-failed"], ["--upload", "s3://a"])
        ),
        *([*TRAINING, *more] for more in (["--model.depth", "2"], ["--data.workers", "x"], ["--model.scan", "fast"])),
        *([*EVALUATION, "run", *more] for more in (["--split", "dev"], ["--overlap", "-1"], ["--ensemble", "max"])),
        *(["open", *more] for more in (["--port", "70000"], ["--stay-minutes", "-1"], ["-f", "mp4"], ["-"])),
        ["report", "run", "-o", "page.pdf"],
        ["check-data", "songs", "--depth", "8"],
        ["models", "kim"],
        ["convert", "model.safetensors", "copy.ckpt"],
        ["convert", "model.safetensors", "copy.safetensors", "--weights", "best"],
        ["demo", "--train", "--training-minutes", "0"],
        ["export", "vocals.txt"],
        ["doctor", "now"],
    )
    yield from ((arguments, 2) for arguments in wrong_values)


def wrong_files() -> Iterator[list[str]]:
    """Yields command lines with an input that is missing or unreadable, or an output that cannot be written."""
    yield from (["separate", name] for name in ("missing.wav", "text.wav", "empty.wav", "empty", "missing/*.wav", "-"))
    yield from (["separate", "--manifest", name, *MODEL] for name in ("missing.csv", "text.wav", "songs.csv"))
    yield ["separate", "song.wav", "--model", "smal-vocals"]
    # The stems of the song exist, whether its model is published, downloaded or not, or a file.
    yield ["separate", "song.wav"]
    yield ["separate", "song.wav", "--model", "mel-vocals-kim"]
    yield ["separate", "song.wav", *MODEL]
    yield ["separate", "song.wav", *MODEL, "--output", "text.wav"]
    yield ["separate", "song.wav", *MODEL, "--stems", "drums"]
    yield from (
        ["open", *more] for more in (["missing.wav"], ["empty"], ["--model", "smal-vocals"], ["-o", "text.wav"])
    )
    yield ["train", "--config", "tini", "--data.root", "songs"]
    yield ["train", "--config", "tiny", "--data.root", "missing"]
    yield [*TRAINING, "--ckpt_path", "missing.ckpt"]
    yield [*TRAINING, "--model.init_from", "smal-vocals"]
    yield [*TRAINING, "--trainer.default_root_dir", "text.wav"]
    yield ["evaluate", *MODEL, "--root", "missing", "--output", "run"]
    yield ["evaluate", "--model", "missing.ckpt", "--root", "songs", "--output", "run"]
    yield ["evaluate", "--estimates", "missing", "--root", "songs", "--output", "run"]
    yield [*EVALUATION, "text.wav"]
    yield [*EVALUATION, "other"]
    yield ["report", "missing"]
    yield ["report", "run", "--output", "report.html"]
    yield ["check-data", "missing"]
    yield ["check-data", "empty"]
    yield ["check-data", "songs", "--decoded", "text.wav"]
    yield ["convert", "missing.ckpt", "copy.safetensors"]
    yield ["convert", "model.safetensors", "model.safetensors"]
    yield ["convert", "model.safetensors", "text.wav/copy.safetensors"]
    yield ["export", "vocals.onnx", "--model", "smal-vocals"]
    yield ["export", "model.onnx"]
    yield ["export", "text.wav/vocals.onnx"]
    # The folder demo/ was not made by a demo.
    yield ["demo"]
    yield ["demo", "--train"]
    yield ["demo", "--train", "--config", "tini"]


@pytest.fixture
def folder(tmp_path: Path, tiny_network: BSMamba2, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the current folder, which has a song and its stems, a model, songs with stems, and wrong files."""
    monkeypatch.chdir(tmp_path)
    save_model(tiny_network, "model.safetensors")
    for name in ("stems/song", "songs/train/a - b", "songs/test/c - d", "run", "other", "empty", "demo"):
        Path(name).mkdir(parents=True)
    for name in ("song", "stems/song/vocals", "stems/song/instrumental", "songs/test/c - d/vocals"):
        soundfile.write(f"{name}.wav", np.zeros((4410, 2)), 44100)
    Path("songs.csv").write_text("path\nsong.wav\n")
    Path("text.wav").write_text("no audio")
    Path("empty.wav").touch()
    Path("model.onnx").touch()
    results = {"format": 1, "description": {}, "tracks": {}, "failures": {}}
    Path("run/results.json").write_text(json.dumps(results))
    Path("other/results.json").write_text("{}")
    Path("report.html").touch()
    return tmp_path


def answered(folder: Path, commands: list[list[str]]) -> list[tuple[int, str, set[str]]]:
    """Returns status, standard error and slow packages that were loaded, after each command."""
    return [(status, errors, set(loaded) & set(SLOW)) for status, errors, loaded in answers(commands, folder)]


def test_help_and_wrong_usage_do_not_wait_for_torch(folder: Path) -> None:
    expected = list(usages())
    for (command, status), (found, errors, loaded) in zip(
        expected, answered(folder, [command for command, _ in expected]), strict=True
    ):
        assert (found, loaded) == (status, set()), (command, errors)
        # One sentence, or help.
        assert errors.count("\n") == (1 if status and command else 0), (command, errors)


def test_wrong_files_do_not_wait_for_torch(folder: Path) -> None:
    before = sorted(path for path in folder.rglob("*"))
    commands = list(wrong_files())
    for command, (status, errors, loaded) in zip(commands, answered(folder, commands), strict=True):
        assert (status, loaded) == (1, set()), (command, errors)
        assert errors.startswith("bsmamba2: error: "), (command, errors)
        assert errors.count("\n") == 1, (command, errors)
    assert sorted(path for path in folder.rglob("*")) == before


def test_a_separation_with_nothing_to_do_does_not_wait_for_torch(folder: Path) -> None:
    ((status, errors, loaded),) = answered(folder, [["separate", "song.wav", *MODEL, "--skip-existing"]])
    assert (status, loaded) == (0, set())
    assert errors.splitlines() == ["skipped: song.wav: all its stems exist", "done 0, skipped 1, failed 0"]
