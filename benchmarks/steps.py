"""Where the time of a step of `bsmamba2 train` goes, over the bound of its products, with threads and processes.

    python -m benchmarks.steps
    python -m benchmarks.steps --configs configs/default_model.yaml --compile yes --root ROOT

Each setting is a training run of its own, with loading, augmentation, loss, averaging and all else that a run does. The
threads are shared by its processes, and so is the batch of the config. The bound is what the matrix products of the
network take at the rate that is measured right before and after the run with all threads; a step counts as three
forward passes. The parts are those of the first process, and add up to a mean step. Exit status: 0 done, 1 something
could not be measured, 2 wrong usage, 130 stopped by the user.
"""

import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Literal, cast

import torch
import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.profilers import Profiler

from benchmarks.bounds import bound_seconds, network_multiply_adds, network_rate
from benchmarks.command import Problems, Row, check_positive, print_facts, print_table, run, write_json
from benchmarks.gpu import TRAINING_PASSES
from benchmarks.gpu_check import write_songs
from benchmarks.networks import PROJECT, config_in, config_sections
from benchmarks.timing import CPU, spread
from bsmamba2.data.datamodule import MusdbDataModule
from bsmamba2.errors import InputError
from bsmamba2.model import Network
from bsmamba2.system.versions import hardware, versions

TRAINER_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
FORWARD = "forward of the network"
# Parts of a step, and what the actions of Lightning's profiler in them contain; the first that fits counts.
STEP_PARTS = {
    "loading": "train_dataloader_next|batch_to_device|on_before_batch_transfer|on_after_batch_transfer",
    "forward": FORWARD,
    "loss": r"Strategy\]\w+\.training_step",
    "backward": r"Strategy\]\w+\.backward",
    "clipping": "configure_gradient_clipping",
    "optimiser": "optimizer_step|optimizer_zero_grad",
    "averaging": r"Callback\]Averaging",
    "health": r"Callback\]Health",
    "other_callbacks": r"Callback\]",
    "rest": "",
}
TRAINING_SONG_SECONDS = 12.0


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        configs: YAML files of training options.
        root: Folder with the training data, by default songs of noise made for this.
        precisions: Precisions of the matrix products.
        compile: Whether the network is compiled.
        processes: Numbers of processes that share the batch.
        threads: Threads of all processes together, by default as many as torch chooses.
        steps: Timed steps.
        warm_up: Steps before them.
        json: File for the results; an existing one is replaced.

    Raises:
        InputError: A number is out of range.
    """

    configs: Sequence[Path] = (Path("configs/tiny.yaml"), Path("configs/default_model.yaml"))
    root: Path | None = None
    precisions: Sequence[Literal["float32", "bfloat16"]] = ("float32",)
    compile: Sequence[Literal["no", "yes"]] = ("no",)
    processes: Sequence[int] = (1, 2)
    threads: int = torch.get_num_threads()
    steps: int = 10
    warm_up: int = 5
    json: Path | None = None

    def __post_init__(self) -> None:
        check_positive(self, "processes", "threads", "steps", "warm_up")


@dataclass(frozen=True)
class StepSetting:
    """One way to train; the batch is that of all processes."""

    config: Path
    batch: int
    precision: Literal["float32", "bfloat16"]
    compile: bool
    processes: int
    threads: int


class OwnTimes(Profiler):
    """How long each action takes, without the actions inside it.

    Attributes:
        seconds: By the name of the action.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = time.perf_counter()

    def start(self, action_name: str) -> None:
        """Begins an action."""
        self.charge()
        self._open.append(action_name)

    def stop(self, action_name: str) -> None:
        """Ends an action."""
        self.charge()
        if action_name in self._open:
            self._open.remove(action_name)

    def charge(self) -> None:
        """Adds the time since the last call to the action that is open."""
        now = time.perf_counter()
        self.seconds[self._open[-1] if self._open else "between actions"] += now - self._since
        self._since = now

    def summary(self) -> str:
        """Returns nothing, as there is nothing to print."""
        return ""


class StepTimes(Callback):
    """Times the steps of a training run and their parts, and writes them to a file.

    Args:
        output: The file.
        warm_up: Steps that do not count.
        steps: Steps that do; it is written after the last one.
    """

    def __init__(self, output: str, warm_up: int, steps: int) -> None:
        super().__init__()
        self.output, self.warm_up, self.steps = Path(output), warm_up, steps
        self.times = OwnTimes()
        self._ends: list[float] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the place of the profiler, and looks at the network."""
        trainer.profiler = self.times  # type: ignore[attr-defined]
        network = cast(Network, pl_module.network)
        network.register_forward_pre_hook(lambda *_: self.times.start(FORWARD))
        network.register_forward_hook(lambda *_: self.times.stop(FORWARD))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Ends a step."""
        self.times.charge()
        self._ends.append(time.perf_counter())
        if len(self._ends) == self.warm_up:
            self.times.seconds.clear()
        if len(self._ends) == self.warm_up + self.steps and trainer.is_global_zero:
            ends = self._ends[self.warm_up - 1 :]
            taken = [end - begin for begin, end in itertools.pairwise(ends)]
            actions = {name: seconds / self.steps for name, seconds in self.times.seconds.items()}
            self.output.write_text(json.dumps({"steps": taken, "actions": actions}), encoding="utf-8")


def benchmark(options: Options) -> int:
    """Measures and prints; returns 1 if something could not be measured.

    Raises:
        InputError: A config cannot be read, or the file for the results cannot be written.
    """
    problems = Problems("steps.py")
    environment = {**hardware(CPU), **versions(), "threads": options.threads}
    print_facts(environment)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        rows = print_table(
            "Training steps; seconds of each part", rows_of(options, Path(folder), problems), STEP_COLUMNS
        )
    write_json(options.json, {"environment": environment, "steps": rows, "problems": problems.messages})
    return int(bool(problems.messages))


STEP_COLUMNS = ("config", "batch", "precision", "compile", "processes", "step_seconds", "times_bound", *STEP_PARTS)


def rows_of(options: Options, folder: Path, problems: Problems) -> Iterator[Row]:
    """Yields the row of each setting that could be measured."""
    root = options.root
    if root is None:
        root = folder / "songs"
        write_songs(root, TRAINING_SONG_SECONDS)
    for config in options.configs:
        default = signature(MusdbDataModule).parameters["batch_size"].default
        batch = config_sections(config)["data"].get("batch_size", default)
        for precision, compiled, processes in itertools.product(options.precisions, options.compile, options.processes):
            setting = StepSetting(config, batch, precision, compiled == "yes", processes, options.threads)
            with problems.skipping(setting):
                yield vars(setting) | {"config": config.stem} | measure_steps(setting, options, root.absolute(), folder)


def measure_steps(setting: StepSetting, options: Options, root: Path, folder: Path) -> Row:
    """Returns the time of a step, over its bound, and of its parts.

    Raises:
        InputError: The batch cannot be shared, or the training run failed.
    """
    if setting.batch % setting.processes or setting.threads % setting.processes:
        raise InputError(
            f"{setting.processes} processes cannot share the batch of {setting.batch} in {setting.config} and "
            f"{setting.threads} threads equally; give other --processes"
        )
    network, dtype = config_in(setting.config), getattr(torch, setting.precision)
    rates = [network_rate(network, CPU, dtype)]
    times = trained(setting, options, root, folder)
    rates.append(network_rate(network, CPU, dtype))
    rate = statistics.fmean(rates)
    products = network_multiply_adds(network, network.segment_seconds)["everything"]["products"]
    bound = bound_seconds(TRAINING_PASSES * setting.batch * products, rate)
    seconds = statistics.median(times["steps"])
    parts = dict.fromkeys(STEP_PARTS, 0.0)
    for action, taken in times["actions"].items():
        parts[next(part for part, pattern in STEP_PARTS.items() if re.search(pattern, action))] += taken
    return {
        "step_seconds": seconds,
        "spread": spread(times["steps"]),
        "audio_per_second": setting.batch * network.segment_seconds / seconds,
        "matrix_gflop_per_second": rate / 1e9,
        "bound_seconds": bound,
        "times_bound": seconds / bound,
        **parts,
        "actions": times["actions"],
    }


def trained(setting: StepSetting, options: Options, root: Path, folder: Path) -> dict[str, Any]:
    """Returns what `StepTimes` wrote in a training run.

    Raises:
        InputError: It failed.
    """
    output, overrides = folder / "times.json", folder / "overrides.yaml"
    output.unlink(missing_ok=True)
    times = {"output": str(output), "warm_up": options.warm_up, "steps": options.steps}
    content = {
        "model": {"compile": setting.compile, "warmup_steps": 0},
        "data": {
            "root": str(root),
            "cache": str(folder / "cache"),
            "batch_size": setting.batch // setting.processes,
            "epoch_excerpts": setting.batch * (options.warm_up + options.steps + 10),
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": setting.processes,
            "strategy": "ddp" if setting.processes > 1 else "auto",
            "precision": TRAINER_PRECISIONS[setting.precision],
            "accumulate_grad_batches": 1,
            "max_steps": options.warm_up + options.steps,
            "enable_progress_bar": False,
            "default_root_dir": str(folder / "runs"),
            "callbacks": [{"class_path": "benchmarks.steps.StepTimes", "init_args": times}],
        },
    }
    overrides.write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [sys.executable, "-m", "bsmamba2", "train", "--config", str(setting.config.absolute())]
    threads = str(setting.threads // setting.processes)
    done = subprocess.run(
        [*command, "--config", str(overrides)],
        cwd=PROJECT,
        env=os.environ | {"OMP_NUM_THREADS": threads},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not output.exists():
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise InputError(f"bsmamba2 train ended with status {done.returncode}: {reason}")
    times_of_steps: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return times_of_steps


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    return run("steps.py", __doc__, Options, benchmark, arguments)


if __name__ == "__main__":
    sys.exit(main())
