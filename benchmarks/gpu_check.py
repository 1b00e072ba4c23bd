"""Everything that is to be known about a GPU, in the order of its value, within a number of minutes.

    python -m benchmarks.gpu_check --minutes 8 --output gpu-check
    python -m benchmarks.gpu_check --minutes 2 --output trial --device cpu --quick

Each part is a command in a process of its own, which is stopped at its limit; what a part leaves of its time goes to
those after it. Output and results of a part are in files of its name, and `summary.json` is written after each part.
Exit status: 0 done, 1 a part failed or was stopped, 2 wrong usage, 130 stopped by the user.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.command import Row, check_positive, print_facts, print_table, run, write_json
from benchmarks.networks import PROJECT
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import OFFICIAL_VALIDATION_TRACKS, SAMPLE_RATE
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.stem_names import MUSDB_STEMS
from bsmamba2.system.devices import choose_device
from bsmamba2.system.files import check_writable
from bsmamba2.system.versions import hardware, versions
from bsmamba2.weights.checkpoint import save_model

# How long a stopped command may take to end.
GRACE_SECONDS = 5.0
SONGS = ("One - First", "Two - Second", min(OFFICIAL_VALIDATION_TRACKS))


@dataclass(frozen=True)
class Options:
    """What to check.

    Args:
        output: Folder for the results.
        minutes: How long everything may take.
        device: Where to compute, one of auto, cpu, cuda, mps.
        parts: Names of parts, by default all.
        quick: Use tiny sizes, as a trial without a GPU.

    Raises:
        InputError: A number is out of range, or a part does not exist.
    """

    output: Path = Path("gpu-check")
    minutes: float = 8.0
    device: str = "cuda"
    parts: Sequence[str] = ()
    quick: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "minutes")
        names = [part.name for part in parts_of(self)]
        for name in self.parts:
            if name not in names:
                raise InputError(f"the part {name!r} does not exist; choose {', '.join(names)}")


@dataclass(frozen=True)
class CheckPart:
    """A part of the check.

    Args:
        name: Of its files.
        share: Its share of the time, relative to the other parts.
        commands: Arguments of Python, one command after the other.
    """

    name: str
    share: float
    commands: tuple[tuple[str, ...], ...]


def parts_of(options: Options) -> list[CheckPart]:
    """Returns all parts, the most valuable first; the kernels are last, since they tune for minutes at first use."""
    output, device = options.output, ("--device", options.device)
    small = options.quick
    gpu = ("-m", "benchmarks.gpu", "--repeats", "3", "--minutes", "0.1" if small else "2")
    gpu += ("--seconds", "1" if small else "8", "--batches", *(("1",) if small else ("1", "8")))
    train = (
        "-m", "bsmamba2", "train", "--config", "tiny", f"--data.root={output / 'songs'}", "--data.workers=0",
        f"--data.cache={output / 'cache'}", f"--trainer.default_root_dir={output / 'run'}",
        f"--trainer.accelerator={'gpu' if options.device == 'cuda' else options.device}",
        "--trainer.enable_progress_bar=false", "--ckpt_path=last",
        *(("--model.network.dim=16", "--model.network.depth=1", "--data.batch_size=1") if small else ()),
    )  # fmt: skip
    steps = 2 if small else 20
    return [
        CheckPart(
            "chunked", 3, ((*gpu, "--scans", "chunked", "--profile", "--json", str(output / "chunked.json")),)
        ),
        CheckPart(
            "training step", 3,
            ((
                "-m", "benchmarks.training", "--configs", f"configs/{'tiny' if small else 'default_model'}.yaml",
                "--batch_sizes", *(("1",) if small else ("8", "16", "32")), "--precisions", "bfloat16",
                "--scans", "chunked", "--recompute", "no", "--compile", *(("no",) if small else ("no", "yes")), *device,
            ),),
        ),
        CheckPart(
            "training and resuming", 1,
            ((*train, f"--trainer.max_steps={steps}"), (*train, f"--trainer.max_steps={2 * steps}")),
        ),
        CheckPart(
            "too little memory", 1,
            ((
                "-m", "bsmamba2", "separate", str(output / "long.wav"), "--model", str(output / "full.safetensors"),
                "--output", str(output / "stems"), "--batch-size", "4096", "--overwrite", *device,
            ),),
        ),
        CheckPart(
            "mixers", 2,
            ((
                "-m", "benchmarks.mixers", "--steps", "20", *device,
                *(("--dim", "16", "--depth", "1", "--seconds", "0.5", "--training_seconds", "0.5") if small else ()),
            ),),
        ),
        CheckPart(
            "kernels", 4,
            ((*gpu, "--scans", "kernel", "--compile", "no", "--json", str(output / "kernels.json")),),
        ),
        CheckPart("doctor", 1, (("-m", "bsmamba2", "doctor"),)),
    ]  # fmt: skip


def benchmark(options: Options) -> int:
    """Runs the parts; returns 1 if one failed or was stopped.

    Raises:
        InputError: The device is not there, or the results cannot be written.
    """
    place = choose_device(options.device)
    options.output.mkdir(parents=True, exist_ok=True)
    check_writable(options.output)
    facts = hardware(place) | versions()
    print_facts(facts)
    write_inputs(options)
    end = time.monotonic() + 60 * options.minutes
    waiting = [part for part in parts_of(options) if not options.parts or part.name in options.parts]
    rows: list[Row] = []

    def measured() -> Row:
        part, shares = waiting[0], sum(part.share for part in waiting)
        row = run_part(part, options.output, (end - time.monotonic()) * part.share / shares)
        rows.append(row)
        write_json(options.output / "summary.json", {"options": _plain(options), "environment": facts, "parts": rows})
        waiting.pop(0)
        return row

    print_table("Parts", (measured() for _ in range(len(waiting))))
    return int(any(row["status"] != 0 for row in rows))


def run_part(part: CheckPart, output: Path, seconds: float) -> Row:
    """Returns the name of a part, its status (that of the last command, or why there is none), time and limit."""
    begun = time.monotonic()
    status: int | str = 0
    with (output / f"{part.name.replace(' ', '-')}.log").open("w", encoding="utf-8") as log:
        for command in part.commands:
            status = run_until(command, log.fileno(), begun + seconds)
            if status != 0:
                break
    return {"part": part.name, "status": status, "seconds": time.monotonic() - begun, "limit_seconds": seconds}


def run_until(command: Sequence[str], log: int, end: float) -> int | str:
    """Returns the exit status of a command of Python, or that it was stopped at a time of the monotonic clock."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
        # A session of its own, so that the compilers that it starts are stopped with it.
        start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return "stopped at its limit"
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it has started."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_inputs(options: Options) -> None:
    """Writes songs to train on, a long song and a network of random weights."""
    write_songs(options.output / "songs", 4.0)
    random = torch.Generator().manual_seed(0)
    minute = 0.1 * torch.randn(2, 60 * SAMPLE_RATE, generator=random)
    write_audio(options.output / "long.wav", minute.repeat(1, 1 if options.quick else 40), SAMPLE_RATE)
    torch.manual_seed(0)
    tiny = ModelConfig(dim=16, depth=1, headdim=16, d_state=8, segment_seconds=1.0)
    save_model(BSMamba2(tiny if options.quick else ModelConfig()), options.output / "full.safetensors")


def write_songs(root: Path, seconds: float) -> None:
    """Writes songs of noise to train on, in the folders of MUSDB18."""
    random = torch.Generator().manual_seed(0)
    for name in SONGS:
        for stem in MUSDB_STEMS:
            noise = 0.1 * torch.randn(2, round(seconds * SAMPLE_RATE), generator=random)
            write_audio(root / "train" / name / f"{stem}.wav", noise, SAMPLE_RATE)


def _plain(options: Options) -> dict[str, object]:
    return asdict(options) | {"output": str(options.output)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    return run("gpu_check.py", __doc__, Options, benchmark, arguments)


if __name__ == "__main__":
    sys.exit(main())
