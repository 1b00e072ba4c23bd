"""Types of the public names, as a strict checker sees them in a script of a user."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_SECONDS

ROOT = Path(__file__).parents[1]
SCRIPT = """
from pathlib import Path

import numpy as np
import torch
from bsmamba2 import BSMamba2, InputError, ModelConfig, SeparationSettings, Separator, load_model, save_model
from bsmamba2.metrics import csdr, usdr
from bsmamba2.model import Network


def separate(path: Path) -> list[Path]:
    separator = Separator("small-vocals", SeparationSettings(overlap=0.5), device="cpu")
    song = separator.separate_file(path, callback=print)
    vocals: torch.Tensor = song.vocals
    print(song.sample_rate, song.instrumental.shape)
    stems = separator(np.zeros((2, 44100), dtype=np.float32), 44100)
    print(stems["vocals"].dtype, usdr(estimate=vocals, reference=vocals))
    print(csdr(estimate=vocals, reference=vocals, sample_rate=song.sample_rate))
    return song.save("stems")


def convert(model: str) -> Network:
    try:
        network = load_model(model)
    except InputError as error:
        raise SystemExit(str(error)) from error
    save_model(network, "model.safetensors")
    fresh = BSMamba2(ModelConfig(stems=("vocals",), dim=64, depth=1))
    estimates: torch.Tensor = fresh(torch.randn(1, 2, 22050))
    print(estimates.shape)
    return network
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Returns the Python of an environment that has what this one has, except for this package."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = next(path for place in ("bin", "Scripts") for path in (tmp_path / "env" / place).glob("python*"))
    folder = next((tmp_path / "env").glob("**/site-packages"))
    (folder / "others.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder for what the checker knows of other packages."""
    return tmp_path_factory.mktemp("types")


@pytest.mark.parametrize("kind", ["editable", "wheel"])
def test_a_script_of_a_user_passes_strict_type_checks(
    kind: str, environment: Path, tmp_path: Path, cache: Path
) -> None:
    # A copy, because building writes into the sources.
    sources = tmp_path / "sources"
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "tests", "docs", "__pycache__")
    shutil.copytree(ROOT, sources, ignore=ignored)
    install = f"-m pip --python {environment} install --quiet --no-deps --no-build-isolation".split()
    commands = [
        [sys.executable, *install, *(["--editable"] if kind == "editable" else []), str(sources)],
        [sys.executable, *f"-m mypy --strict --cache-dir {cache} --python-executable {environment} script.py".split()],
    ]
    (tmp_path / "script.py").write_text(SCRIPT)
    for command in commands:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=PATIENCE_SECONDS
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    packaged = subprocess.run(
        [environment, "-c", "from bsmamba2.training.configs import config_names; print(*config_names())"],
        capture_output=True, text=True, check=True, cwd=tmp_path, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert packaged.stdout.split() == sorted(path.stem for path in (ROOT / "configs").iterdir())
