"""The training runs of the packaged model, each by `bsmamba2 train`, and their final weights."""

import shutil
import subprocess
import sys
from pathlib import Path

from bsmamba2.data.tracks import track_paths
from bsmamba2.errors import InputError
from bsmamba2.system.files import sha256_of_text
from bsmamba2.training.resuming import find_resume_point
from bsmamba2.weights.checkpoint import WeightsFile, save_model
from default_model.laying_out import RENDERED

PROJECT = Path(__file__).parents[2]
CONFIG = PROJECT / "configs" / "default_model.yaml"
# Options of `bsmamba2 train` by size; medium is the config unchanged.
SIZES = {
    "small": ("--model.network.dim=64", "--model.network.headdim=128", "--model.learning_rate=2e-3"),
    "medium": (),
    "large": (
        "--model.network.dim=128",
        "--model.network.headdim=128",
        "--model.network.depth=4",
        "--model.learning_rate=1e-3",
    ),
}


def training_folder(data: Path, target: Path, songs: float = 1.0, with_selection: bool = False) -> Path:
    """Returns a copy of a dataset with the same share of its real and of its rendered songs to train on.

    Args:
        data: Folder that `lay_out` wrote.
        target: Folder of the copy, which is replaced.
        songs: Share of the songs.
        with_selection: Whether the songs for selection are trained on too; validation is then meaningless.
    """
    if target.exists():
        shutil.rmtree(target)
    kept = [path for rendered in (False, True) for path in _first(track_paths(data / "train"), rendered, songs)]
    kept += track_paths(data / "valid") if with_selection else []
    for path in kept:
        shutil.copytree(path, target / "train" / path.name)
    shutil.copytree(data / "valid", target / "valid")
    return target


def train(data: Path, folder: Path, *options: str) -> Path:
    """Trains, or resumes a run that was stopped, and returns the final checkpoint.

    Args:
        data: Folder of the dataset.
        folder: Folder of this run alone.
        *options: Options of `bsmamba2 train` in addition to the config.

    Raises:
        InputError: The run ended with an error, which it has printed.
    """
    command = [sys.executable, str(PROJECT / "scripts" / "train.py"), f"--config={CONFIG}", f"--data.root={data}"]
    command += [f"--data.cache={folder}", f"--trainer.default_root_dir={folder}", "--ckpt_path=last", *options]
    process = subprocess.Popen(command)
    try:
        status = process.wait()
    # Whatever ends this program also ends the run.
    except BaseException:
        process.terminate()
        process.wait()
        raise
    checkpoint = find_resume_point(folder)
    if status or checkpoint is None:
        raise InputError(f"the training run in {folder} ended with status {status}; its last output is above")
    return checkpoint


def export(checkpoint: Path, path: Path) -> None:
    """Writes the averaged weights of a checkpoint in half precision."""
    save_model(WeightsFile.read(checkpoint).network().half(), path)


def _first(paths: list[Path], rendered: bool, share: float) -> list[Path]:
    """Returns a share of the rendered or of the real songs; a larger share contains every smaller one."""
    alike = [path for path in paths if path.name.startswith(RENDERED) == rendered]
    return sorted(alike, key=lambda path: sha256_of_text(path.name))[: round(share * len(alike))]
