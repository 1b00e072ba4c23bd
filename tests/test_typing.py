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


def environment(root: Path) -> Path:
    """Returns the Python of an environment that has what this one has, except for this package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
    python = next(path for place in ("bin", "Scripts") for path in (root / place).glob("python*"))
    folder = next(root.glob("**/site-packages"))
    (folder / "others.pth").write_text(sysconfig.get_path("purelib"))
    return python


def test_a_script_of_a_user_passes_strict_type_checks(tmp_path: Path) -> None:
    """Both ways to install the package in one test: the checker keeps what it knows of other packages."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    for kind in ("editable", "wheel"):
        (tmp_path / kind).mkdir()
        check_script(kind, tmp_path / kind, tmp_path / "types")


def check_script(kind: str, folder: Path, cache: Path) -> None:
    python = environment(folder / "env")
    # A copy, because building writes into the sources; the Dockerfile builds the wheel from the same files.
    sources = folder / "sources"
    sources.mkdir()
    for name in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        path = ROOT / name.removeprefix("!")
        if name.startswith("!") and path.is_dir():
            shutil.copytree(path, sources / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif name.startswith("!"):
            shutil.copy(path, sources)
    install = f"-m pip --python {python} install --quiet --no-deps --no-build-isolation".split()
    commands = [
        [sys.executable, *install, *(["--editable"] if kind == "editable" else []), str(sources)],
        [sys.executable, *f"-m mypy --strict --cache-dir {cache} --python-executable {python} script.py".split()],
    ]
    (folder / "script.py").write_text(SCRIPT)
    for command in commands:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=folder, timeout=PATIENCE_SECONDS
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    packaged = subprocess.run(
        [python, "-c", "from bsmamba2.training.configs import config_names; print(*config_names())"],
        capture_output=True, text=True, check=True, cwd=folder, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert packaged.stdout.split() == sorted(path.stem for path in (ROOT / "configs").iterdir())
