"""Songs, and the real command that serves them: one for all tests that need nothing special of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bsmamba2.audio.tags import Tags, write_tags
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Track
from bsmamba2.model import BSMamba2
from bsmamba2.stem_names import MIXTURE
from bsmamba2.weights.checkpoint import save_model
from tests.conftest import TINY
from tests.server.running import MODEL, TITLE, Running, running


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, song: Track) -> Path:
    """Returns a folder with a tiny model, songs, and files that are none."""
    folder = tmp_path_factory.mktemp("open")
    torch.manual_seed(0)
    save_model(BSMamba2(TINY).eval(), folder / "tiny.safetensors")
    music = 0.5 * song.read(MIXTURE, 0, 5 * SAMPLE_RATE)
    write_audio(folder / "song.wav", music[:, : 2 * SAMPLE_RATE], SAMPLE_RATE)
    write_tags(folder / "song.wav", Tags({"title": ["Title"], "artist": ["Artist"]}), "wav")
    write_audio(folder / f"{TITLE}.wav", music, SAMPLE_RATE)
    write_audio(folder / "long.wav", music.repeat(1, 24), SAMPLE_RATE)
    write_audio(folder / "previewed.wav", music.repeat(1, 13), SAMPLE_RATE)
    write_audio(folder / "half.wav", music[:, : SAMPLE_RATE // 2], SAMPLE_RATE)
    (folder / "notes.txt").write_text("no song\n" * 100)
    (folder / "empty.wav").touch()
    whole = (folder / "song.wav").read_bytes()
    (folder / "short.wav").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="session")
def served(folder: Path) -> Iterator[Running]:
    """Gives the command with a tiny model, started as users do."""
    with running(folder, *MODEL, fresh=True) as started:
        yield started
