"""Small data made for the tests, where to find more, and limits that several test files share."""

import os

# Before torch: test processes that run in parallel would otherwise compete for cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import contextlib
import ctypes
import multiprocessing.util
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def pytest_sessionstart() -> None:
    """Lets tests be stopped by SIGINT, which a shell makes the programs that it starts in the background ignore."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collectstart() -> None:
    """Imports Lightning before all tests, but not in the process that only gives tests to others.

    It logs to the standard error of the moment it is imported, which must not be that of a test: that is closed.
    """
    import lightning.pytorch  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def _ready_workers() -> Iterator[None]:
    """Makes the processes of `multiprocessing` copies of one that has imported all that they need."""
    from tests.programs import spawn

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing.util, "spawnv_passfds", spawn)
        yield


# A safety net for processes that hang, far above what they take on the slowest machine.
PATIENCE_SECONDS = 1200


@contextlib.contextmanager
def full_disk(limit_bytes: int) -> Iterator[None]:
    """Lets no file grow beyond a limit in this process, which looks like a full disk; skips the test on Windows."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on file sizes")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def permissions_matter() -> Iterator[None]:
    """Takes root's right to ignore the permissions of files from this process, where it runs as root on Linux."""
    if getattr(os, "geteuid", lambda: None)() != 0:
        if sys.platform == "win32":
            pytest.skip("Windows has no such permissions")
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root may read every file")
    libc = ctypes.CDLL(None, use_errno=True)
    # Version 3 of Linux's capabilities, of this thread; its second half is for numbers from 32 on.
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    effective_permitted_inheritable = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, effective_permitted_inheritable) == 0
    before = effective_permitted_inheritable[0]
    dac_override, dac_read_search = 1 << 1, 1 << 2
    effective_permitted_inheritable[0] &= ~(dac_override | dac_read_search)
    assert libc.capset(header, effective_permitted_inheritable) == 0
    yield
    effective_permitted_inheritable[0] = before
    assert libc.capset(header, effective_permitted_inheritable) == 0


@pytest.fixture
def tiny_config() -> ModelConfig:
    """Returns an architecture that runs in milliseconds."""
    return TINY


@pytest.fixture
def tiny_network() -> BSMamba2:
    """Returns that network with random weights from a fixed seed."""
    torch.manual_seed(0)
    return BSMamba2(TINY).eval()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Returns the folder of additional test data, or skips the test where there is none."""
    folder = Path(os.environ.get("BSMAMBA2_TEST_DATA", "../shared"))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set BSMAMBA2_TEST_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def song() -> Track:
    """Returns the real song excerpt that the package stempeg carries."""
    return example_song()


@pytest.fixture(scope="session")
def song_stems(song: Track) -> dict[str, Tensor]:
    """Returns two seconds of its stems and mixture, (c, n) by name."""
    return {name: song.read(name, 0, 2 * SAMPLE_RATE) for name in (MIXTURE, *MUSDB_STEMS)}


@pytest.fixture(scope="session")
def musdb_root(tmp_path_factory: pytest.TempPathFactory, song_stems: dict[str, Tensor]) -> Path:
    """Returns a MUSDB18-HQ folder of four short tracks: two for training, one for validation, one for testing."""
    root = tmp_path_factory.mktemp("musdb18hq")
    places = ["train/One - First", "train/Two - Second", "train/Leaf - Summerghost", "test/Three - Third"]
    for place in places:
        for name, audio in song_stems.items():
            write_audio(root / place / f"{name}.wav", audio, SAMPLE_RATE)
    return root


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Returns Chromium: that of the system, or playwright's own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in names if (path := shutil.which(name))), None)
    with sync_api.sync_playwright() as playwright:
        path = found or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("there is no Chromium; install it, or run: playwright install chromium")
        launched = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield launched
        launched.close()
