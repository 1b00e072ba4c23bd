"""Stops training, evaluation, decoding and indexing at random moments, and checks that each resumes to the same end.

    python scripts/attack_runs.py --hits 42 --seed 0

It fails if a file that has appeared is not whole, if a run does not end with the files of one that was never stopped,
if something hidden is left in its folder, or if a stopped run prints a traceback or does not end.
"""

import argparse
import json
import os
import signal
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

# The parent imports all that the commands need; each run is a copy of it, which starts at once.
import bsmamba2.data.checking
import bsmamba2.evaluation.command
import bsmamba2.training.command  # noqa: F401
import forked_program
from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.system.files import LOCK
from bsmamba2.weights.checkpoint import save_model

RATE = 44100
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# What a program ends with after each signal; the first is that of a signal before the program handles it.
STATUSES = {signal.SIGKILL: {-9}, signal.SIGTERM: {-15, 143}, signal.SIGINT: {-2, 130, 1}}
# Far above what a run takes.
LIMIT_SECONDS = 240
CONFIG = ModelConfig(
    *(8, 1, (57, 100, 100)), expand=2, headdim=4, d_state=4, mask_expand=1, n_fft=512, window_length=512,
    hop_length=128, segment_seconds=0.5,
)  # fmt: skip
TRAINING = """
seed_everything: 1
model:
  network: {dim: 8, depth: 1, bands: [57, 100, 100], expand: 2, headdim: 4, d_state: 4, mask_expand: 1, n_fft: 512,
    window_length: 512, hop_length: 128, segment_seconds: 0.5}
  loss: {stft_windows: [512], stft_hop: 256}
data: {epoch_excerpts: 12, batch_size: 2, workers: 0, validation_seconds: 0.5}
trainer: {max_epochs: 3, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
resume: {every_steps: 2}
pictures: {every_n_validations: 100}
"""


@dataclass(frozen=True)
class Attacked:
    """A command that is stopped.

    Args:
        arguments: Returns its command line for a folder.
        result: Returns what its files mean, which does not depend on when it was stopped.
        check: Checks the files that have appeared so far.
    """

    arguments: Callable[[Path], list[str]]
    result: Callable[[Path], Any]
    check: Callable[[Path], None]


def make_inputs(folder: Path, tracks: int) -> None:
    """Writes songs of noise, a model and a training config."""
    for number in range(tracks):
        split = "valid" if number == 0 else "train"
        for stem, seed in (("vocals", 2 * number), ("bass", 2 * number + 1)):
            noise = 0.1 * np.random.default_rng(seed).standard_normal((RATE, 2))
            for root, suffix in (("songs", "wav"), ("packed", "flac")):
                path = folder / root / split / f"artist {number} - title" / f"{stem}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, noise, RATE, "PCM_16")
            packed = folder / "packed" / split / f"artist {number} - title" / f"{stem}.flac"
            packed.unlink()
            write_audio(packed.with_suffix(".mp3"), torch.from_numpy(noise.T).float(), RATE, "mp3", None)
    torch.manual_seed(0)
    save_model(BSMamba2(CONFIG), folder / "model.safetensors")
    (folder / "training.yaml").write_text(TRAINING, encoding="utf-8")


def attacked_commands(inputs: Path) -> dict[str, Attacked]:
    """Returns the commands by name."""
    training = ["train", "--config", inputs / "training.yaml", "--data.root", inputs / "songs", "--ckpt_path", "last"]
    scoring = ["evaluate", "--model", inputs / "model.safetensors", "--root", inputs / "songs", "--split", "train"]
    window = ["--segment-seconds", "0.5"]
    return {
        "train": Attacked(
            lambda folder: [*map(str, training), "--trainer.default_root_dir", str(folder)],
            _trained,
            _check_checkpoints,
        ),
        "evaluate": Attacked(
            lambda folder: [*map(str, scoring), "--output", str(folder), "--no-report"], _scored, _check_records
        ),
        "check-data": Attacked(
            lambda folder: ["check-data", str(inputs / "packed"), *window, "--decoded", str(folder)],
            _decoded,
            _check_audio,
        ),
        "index": Attacked(
            lambda folder: ["check-data", str(inputs / "songs"), *window, "--index", str(folder / "index.json")],
            lambda folder: json.loads((folder / "index.json").read_text(encoding="utf-8")),
            _check_records,
        ),
    }


def _trained(folder: Path) -> Any:
    (run,) = (folder / "lightning_logs").iterdir()
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    weights = {name: value.numpy().tobytes() for name, value in sorted(last["state_dict"].items())}
    best = sorted(path.name for path in (run / "checkpoints").glob("epoch=*.ckpt"))
    return last["global_step"], last["bsmamba2"]["metrics"]["val/usdr"], weights, best


def _check_checkpoints(folder: Path) -> None:
    for path in folder.rglob("*.ckpt"):
        if not path.name.startswith("."):
            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None, f"{path} is damaged"


def _scored(folder: Path) -> Any:
    tracks = json.loads((folder / "results.json").read_text(encoding="utf-8"))["tracks"]
    files = sorted(str(path.relative_to(folder)) for path in (folder / "excerpts").rglob("*.flac"))
    return {name: (track["scores"], track["excerpt"]) for name, track in tracks.items()}, files


def _check_records(folder: Path) -> None:
    for path in folder.rglob("*.json"):
        if not path.name.startswith("."):
            json.loads(path.read_text(encoding="utf-8"))


def _decoded(folder: Path) -> Any:
    # Not the bytes: a file of floats has the time in its header.
    return {str(path.relative_to(folder)): soundfile.read(path)[0].tobytes() for path in folder.rglob("*.wav")}


def _check_audio(folder: Path) -> None:
    for path in folder.rglob("*.wav"):
        if not path.name.startswith("."):
            assert soundfile.info(path).frames > 0, f"{path} is empty"


def start(arguments: list[str], log: Path, cache: Path) -> int:
    """Returns the process that runs a command, with its output in a file."""

    def run() -> int:
        os.environ["XDG_CACHE_HOME"] = str(cache)
        return main(arguments)

    return forked_program.start(run, log)


def run_to_the_end(command: Attacked, folder: Path, log: Path) -> tuple[Any, float]:
    """Returns the result of a command and the seconds that it takes."""
    begun = time.monotonic()
    status = forked_program.status_of(start(command.arguments(folder), log, folder.parent / "cache"), LIMIT_SECONDS)
    if status != 0:
        raise AssertionError(f"status {status} instead of 0: {log.read_text(errors='replace')[-600:]}")
    hidden = [path for path in folder.rglob(".*") if path.name != LOCK]
    assert not hidden, f"{hidden[0]} is left"
    return command.result(folder), time.monotonic() - begun


def attack(command: Attacked, folder: Path, hits: int, random: np.random.Generator) -> Counter[str]:
    """Returns how often each signal hit a run, after the checks of all that it left.

    Raises:
        AssertionError: Something that a user relies on does not hold.
    """
    log = folder / "log"
    expected, seconds = run_to_the_end(command, folder / "whole", log)
    counts: Counter[str] = Counter()
    number = 0
    while counts.total() < hits:
        number += 1
        target = folder / f"stopped-{number}"
        # Some kills, then the end: a run that were always stopped at its start would prove little.
        for _ in range(int(random.integers(1, 6))):
            number_of_signal = SIGNALS[int(random.integers(len(SIGNALS)))]
            process = start(command.arguments(target), log, folder / "cache")
            status = forked_program.status_of(process, float(random.uniform(0, 1.05 * seconds)))
            if status is None:
                os.kill(process, number_of_signal)
                status = forked_program.status_of(process, LIMIT_SECONDS)
                if status is None:
                    os.kill(process, signal.SIGKILL)
                    raise AssertionError(f"it does not end after {number_of_signal.name}: {log.read_text()[-600:]}")
                counts[number_of_signal.name] += 1
                allowed = STATUSES[number_of_signal] | {0}
            else:
                allowed = {0}
            shown = log.read_text(errors="replace")
            assert status in allowed, f"status {status}: {shown[-600:]}"
            assert "Traceback" not in shown, f"a traceback: {shown[-1500:]}"
            command.check(target)
        result, _ = run_to_the_end(command, target, log)
        assert result == expected, f"{target} has a different result than a run that was not stopped"
    return counts


def attack_all(folder: Path, hits: int, seed: int, tracks: int, names: list[str]) -> Mapping[str, Counter[str]]:
    """Returns how often each signal hit, by command; every command is hit at least a share of the hits."""
    inputs = folder / "inputs"
    make_inputs(inputs, tracks)
    commands = attacked_commands(inputs)
    counts = {}
    for name in names:
        (folder / name).mkdir()
        counts[name] = attack(commands[name], folder / name, -(-hits // len(names)), np.random.default_rng(seed))
        print(f"{name}: {', '.join(f'{signal_name} {count}' for signal_name, count in sorted(counts[name].items()))}")
    return counts


def parsed() -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hits", type=int, default=42, help="signals that hit a run, over all commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tracks", type=int, default=5, help="songs of the dataset, one of them to validate on")
    parser.add_argument("--commands", nargs="+", default=["train", "evaluate", "check-data", "index"])
    parser.add_argument("--folder", type=Path, help="empty folder for everything; by default a temporary one")
    return parser.parse_args()


if __name__ == "__main__":
    options = parsed()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        found = attack_all(
            options.folder or Path(temporary), options.hits, options.seed, options.tracks, options.commands
        )
    print(f"{sum(map(Counter.total, found.values()))} hits; every run ended as one that was never stopped")
