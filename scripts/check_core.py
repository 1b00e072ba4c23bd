"""Checks an installation of the core alone: what it can do works, and what it lacks is named with its extra."""

import importlib.util
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

import bsmamba2
from bsmamba2.cli import EXTRAS

SONG = Path("song.wav")
# Commands by the package that they lack; None for those that need nothing else.
COMMANDS = {
    ("--help",): None,
    ("--version",): None,
    ("separate", str(SONG)): None,
    ("evaluate", "--model", "small-vocals", "--root", "songs", "--output", "run", "--no-report"): None,
    ("convert", str(Path(bsmamba2.__file__).parent / "weights" / "small-vocals.safetensors"), "copy.safetensors"): None,
    ("check-data", "songs", "--segment-seconds", "0.5"): None,
    ("models",): None,
    ("doctor",): None,
    ("train", "--help"): None,
    ("train", "--data.root", "songs"): "lightning",
    ("report", "run"): "matplotlib",
    ("open",): "starlette",
    ("export", "vocals.onnx"): "onnx",
    ("demo",): "stempeg",
}


def main() -> None:
    """Runs every command, and imports every module.

    Raises:
        SystemExit: Something did not work as it should.
    """
    # torch requires jinja2.
    installed = [package for package in EXTRAS if package != "jinja2" and importlib.util.find_spec(package)]
    if installed:
        raise SystemExit(f"not the core alone: {', '.join(installed)} are installed")
    wrong = [f"{name} needs {error.name}" for name, error in failed_imports() if error.name not in EXTRAS]
    with tempfile.TemporaryDirectory() as folder:
        make_songs(Path(folder))
        for command, lacks in COMMANDS.items():
            ended = subprocess.run(
                [sys.executable, "-m", "bsmamba2", *command], capture_output=True, text=True, check=False, cwd=folder
            )
            named = lacks is None or (lacks in ended.stderr and 'run pip install "bsmamba2[' in ended.stderr)
            if ended.returncode != (lacks is not None) or not named:
                wrong.append(f"{' '.join(command)}: status {ended.returncode}: {ended.stderr}")
    if wrong:
        raise SystemExit("\n".join(wrong))


def failed_imports() -> list[tuple[str, ModuleNotFoundError]]:
    """Returns the modules that cannot be imported, with the reason."""
    failed = []
    for module in pkgutil.walk_packages(bsmamba2.__path__, "bsmamba2.", onerror=lambda name: None):
        if module.name == "bsmamba2.__main__":
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            failed.append((module.name, error))
    return failed


def make_songs(folder: Path) -> None:
    """Writes a song, and two songs with stems."""
    generator = np.random.default_rng(0)
    for place in ("train/One - First", "test/Two - Second"):
        stems = {name: 0.1 * generator.standard_normal((44100, 2)) for name in ("drums", "bass", "other", "vocals")}
        stems["mixture"] = np.sum(list(stems.values()), axis=0)
        (folder / "songs" / place).mkdir(parents=True)
        for name, audio in stems.items():
            soundfile.write(folder / "songs" / place / f"{name}.wav", audio, 44100)
    soundfile.write(folder / SONG, stems["mixture"], 44100)


if __name__ == "__main__":
    main()
