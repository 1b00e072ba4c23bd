"""Made-up sources of the recipes: short recordings of noise."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import OFFICIAL_VALIDATION_TRACKS, SAMPLE_RATE
from bsmamba2.stem_names import MUSDB_STEMS
from default_model import sources

SECONDS = 0.8


def noise(seed: int, seconds: float = SECONDS, level: float = 0.05) -> Tensor:
    return level * torch.randn(2, round(seconds * SAMPLE_RATE), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a few short recordings of noise in every source."""
    root = tmp_path_factory.mktemp("sources")
    seed = 0
    songs = {
        "musdb18-7-cc/train": ["One - A", OFFICIAL_VALIDATION_TRACKS[0]],
        "musdb18-7/train": ["Two - B", "Two - C"],
        "musdb18-7/test": ["Three - D"],
    }
    for folder, names in songs.items():
        for name in names:
            for stem in MUSDB_STEMS:
                seed += 1
                write_audio(root / folder / name / f"{stem}.wav", noise(seed), SAMPLE_RATE)
    for stem in MUSDB_STEMS:
        write_audio(
            root / sources.SONGS / "Four - E" / f"{stem}.ogg", noise(100, 1.2), SAMPLE_RATE, format="ogg", depth=None
        )
    write_audio(root / sources.SINGING / "Singer" / "phrase.ogg", noise(101)[:1], SAMPLE_RATE, format="ogg", depth=None)
    write_audio(root / sources.SOLO_SINGING / "solo.wav", noise(102), SAMPLE_RATE)
    write_audio(root / sources.INSTRUMENTALS / "Five - F.ogg", noise(103), SAMPLE_RATE, format="ogg", depth=None)
    (root / sources.INSTRUMENTALS / "tracks.csv").write_text(
        "file,artist,title\nFive - F.ogg,Five,F\n", encoding="utf-8"
    )
    for name in ("drums", "horns"):
        write_audio(root / sources.MULTITRACK / f"{name}.mp3", noise(104), SAMPLE_RATE, format="mp3", depth=None)
    return root
