"""Names and tags with characters that control a terminal, in every command, over the output of a real process."""

import os
import shutil
import sys
from pathlib import Path

import mutagen.flac
import pytest
import torch

from bsmamba2.audio.writing import write_audio
from bsmamba2.model import BSMamba2
from bsmamba2.weights.checkpoint import save_model
from tests import programs
from tests.conftest import TINY

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
# Escape sequences of one and of two bytes, a new line, a bell, text from right to left, and a byte that is not UTF-8.
HOSTILE = "\x1b[2J\x9b31m\n\r\x07\x7f\u202e\u2066\udcff"
# The library of this format takes only names in UTF-8.
MODEL = f"model{HOSTILE[:-1]}.safetensors"
RATE = 44100


def make_track(folder: Path) -> None:
    folder.mkdir(parents=True)
    for stem in ("vocals", "bass"):
        write_audio(folder / f"{stem}.wav", 0.1 * torch.randn(2, RATE), RATE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a model, songs and tracks, all with hostile names and some of them damaged."""
    folder = tmp_path_factory.mktemp("names")
    torch.manual_seed(0)
    save_model(BSMamba2(TINY), folder / MODEL)
    songs = folder / f"songs{HOSTILE}"
    songs.mkdir()
    write_audio(songs / f"whole{HOSTILE}.flac", 0.1 * torch.randn(2, RATE), RATE, "flac", "16")
    tagged = mutagen.flac.FLAC(songs / f"whole{HOSTILE}.flac")
    tagged["title"] = tagged["artist"] = "\x1b[2J\u202e\n"
    tagged.save()
    (songs / f"broken{HOSTILE}.wav").write_bytes(b"RIFF")
    for split in ("train", "valid", "test"):
        make_track(folder / "data" / split / f"Artist - {split}{HOSTILE}")
    (folder / "data" / "test" / f"Artist - empty{HOSTILE}").mkdir()
    damaged = folder / "damaged"
    shutil.copytree(folder / "data", damaged)
    for file in damaged.glob("*/*train*/bass.wav"):
        file.write_bytes(file.read_bytes()[:1000])
    return folder


def printed(folder: Path, *arguments: str | Path) -> str:
    """Returns all that a command prints, after checking that it controls no terminal."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / f"cache{HOSTILE}")}
    command: list[str | Path] = [sys.executable, "-m", "bsmamba2", *arguments]
    process = programs.run(command, cwd=folder, env=environment, capture_output=True, timeout=600, check=False)
    for output in (process.stdout, process.stderr):
        text = output.decode()
        unsafe = {character for character in text if not character.isprintable()} - {"\n"}
        assert unsafe == set(), text
        assert "Traceback" not in text
    return (process.stdout + process.stderr).decode()


def test_separate(folder: Path) -> None:
    text = printed(folder, "separate", f"songs{HOSTILE}", "--model", MODEL)
    assert r"done: songs\x1b[2J\x9b31m\n\r\x07\x7f\u202e\u2066\udcff/whole" in text
    assert "failed: songs" in text
    # A file exists, a folder is missing, and options cannot be used.
    assert "already exists" in printed(folder, "separate", f"songs{HOSTILE}", "--model", MODEL)
    for arguments in (["missing" + HOSTILE], [f"songs{HOSTILE}", "--model", HOSTILE], ["a", HOSTILE], [f"--{HOSTILE}"]):
        assert "error" in printed(folder, "separate", *arguments)
    assert "error" in printed(folder, f"com{HOSTILE}")


def test_check_data(folder: Path) -> None:
    assert "bass.wav" in printed(folder, "check-data", "damaged")
    assert r"\u001b[2J" in printed(folder, "check-data", "damaged", "--json")
    assert "there is no folder" in printed(folder, "check-data", HOSTILE)


def test_evaluate_and_report(folder: Path) -> None:
    run = f"run{HOSTILE}"
    options = ["--model", MODEL, "--root", "data", "--output", run]
    text = printed(folder, "evaluate", *options)
    assert r"Artist - test\x1b[2J" in text
    assert r"page\x1b[2J" in printed(folder, "report", run, "--output", f"page{HOSTILE}.html")
    assert "error" in printed(folder, "report", "missing" + HOSTILE)


def test_doctor_and_models(folder: Path) -> None:
    printed(folder, "doctor")
    printed(folder, "models", "verify")
    assert "error" in printed(folder, "models", HOSTILE)
    assert "error" in printed(folder, "convert", HOSTILE, "x.safetensors")


def test_train(folder: Path) -> None:
    assert "error" in printed(folder, "train", "--data.root", "damaged", "--trainer.fast_dev_run", "true")
    assert "error" in printed(folder, "train", "--data.root", HOSTILE, "--trainer.fast_dev_run", "true")
    assert "error" in printed(folder, "train", f"--{HOSTILE}", HOSTILE)
