"""Small data that the tests make, and where they look for more."""

import os

# Before torch: processes that test side by side would otherwise take each other's cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Track
from bsmamba2.demo import example_song
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS

TINY = ModelConfig(
    dim=8,
    depth=1,
    bands=(8, 24, 33, 64),
    expand=2,
    headdim=4,
    d_state=4,
    mask_expand=1,
    n_fft=256,
    window_length=256,
    hop_length=64,
    segment_seconds=0.1,
)


@pytest.fixture
def tiny_config() -> ModelConfig:
    """Returns an architecture that runs in milliseconds."""
    return TINY


@pytest.fixture
def tiny_network() -> BSMamba2:
    """Returns that network with random weights, always the same."""
    torch.manual_seed(0)
    return BSMamba2(TINY).eval()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Returns the folder with more test data, or skips the test."""
    folder = Path(os.environ.get("BSMAMBA2_TEST_DATA", "../shared"))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; name their folder in BSMAMBA2_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def song() -> Track:
    """Returns the real song excerpt that the package stempeg carries."""
    return example_song()


@pytest.fixture(scope="session")
def song_stems(song: Track) -> dict[str, Tensor]:
    """Returns two seconds of its stems and its mixture, (c, n) by name."""
    return {name: song.read(name, 0, 2 * SAMPLE_RATE) for name in (MIXTURE, *MUSDB_STEMS)}


@pytest.fixture(scope="session")
def musdb_root(tmp_path_factory: pytest.TempPathFactory, song_stems: dict[str, Tensor]) -> Path:
    """Returns a MUSDB18-HQ folder of four short tracks: two to train, one official validation track, one to test."""
    root = tmp_path_factory.mktemp("musdb18hq")
    places = ["train/One - First", "train/Two - Second", "train/Leaf - Summerghost", "test/Three - Third"]
    for place in places:
        for name, audio in song_stems.items():
            write_audio(root / place / f"{name}.wav", audio, SAMPLE_RATE)
    return root
