"""A training run that was stopped and resumed ends with the same weights as an uninterrupted one."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader

from bsmamba2.cli import main
from bsmamba2.data.datamodule import MusdbDataModule
from bsmamba2.data.excerpts import Excerpts
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.system.stopping import SIGNALS
from bsmamba2.training.command import train
from bsmamba2.training.resuming import CompleteCheckpointIO, find_resume_point
from bsmamba2.version import __version__
from bsmamba2.weights.checkpoint import WeightsFile, save_model
from bsmamba2.weights.conversion import convert
from tests import programs
from tests.conftest import PATIENCE_SECONDS, TINY, full_disk
from tests.training.test_command import options

pytestmark = pytest.mark.usefixtures("no_figures")

BATCHES = 4
EPOCHS = 3
# Few parameters: every step writes a checkpoint.
SMALL = replace(TINY, bands=(65, 64))

PROJECT = Path(__file__).parents[2]

Train = Callable[..., Path]
Script = Callable[..., subprocess.CompletedProcess[str]]


STOP_AT = "--trainer.callbacks=tests.training.test_resuming.StopAt"


class StopAt(Callback):
    """Stops a run like Ctrl-C, before a batch, during a validation or after it; gently after a batch; or by SIGKILL."""

    def __init__(
        self,
        batch: int = -1,
        validation: int = -1,
        after_validation: int = -1,
        gently: int = -1,
        killed_after: int = -1,
    ) -> None:
        self.batch, self.validation, self.after_validation, self.gently = batch, validation, after_validation, gently
        self.killed_after = killed_after

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch * BATCHES + batch_idx == self.batch:
            raise KeyboardInterrupt
        if trainer.global_step == self.killed_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *arguments: Any) -> None:
        # As Lightning's own time limit does.
        if trainer.current_epoch * BATCHES + arguments[-1] == self.gently:
            trainer.should_stop = True

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if trainer.current_epoch == self.validation and not trainer.sanity_checking:
            raise KeyboardInterrupt

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.current_epoch == self.after_validation:
            raise KeyboardInterrupt


class Explode(Callback):
    """Makes the weights huge after a step, or in the validation after a step."""

    def __init__(self, step: int = -1, validation: int = -1) -> None:
        self.step, self.validation = step, validation

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:
            self._explode(module)

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.validation:
            self._explode(module)

    def _explode(self, module: LightningModule) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(1e30)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns one folder for the index of all runs in this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def training(musdb_root: Path, cache: Path) -> Train:
    """Returns a function that trains three epochs of four batches into a folder."""

    def run(output: Path, *more: str) -> Path:
        return train(arguments(SMALL, musdb_root, cache, output, *more))

    return run


@pytest.fixture
def script(musdb_root: Path, cache: Path) -> Script:
    """Returns a function that does the same in a process of its own; if fresh, in one of a new interpreter."""

    def run(
        output: Path, *more: str, program: Path = PROJECT / "scripts" / "train.py", fresh: bool = False
    ) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, str(program), *arguments(SMALL, musdb_root, cache, output, *more)]
        # As many threads as here give the same rounding; the path makes the callback above importable.
        environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(PROJECT)}
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE_SECONDS}
        if fresh:
            return subprocess.run(line, env=environment, **options)
        return programs.run(line, env=environment, starts_copies=True, **options)

    return run


def arguments(config: ModelConfig, root: Path, cache: Path, output: Path, *more: str) -> list[str]:
    return options(
        config,
        root,
        output,
        f"--data.cache={cache}",
        f"--data.epoch_excerpts={2 * BATCHES}",
        f"--trainer.max_epochs={EPOCHS}",
        "--ema.decay=0.9",
        "--checkpoint.save_top_k=2",
        "--resume.every_steps=1",
        *more,
    )


def resume_point_in(root: Path) -> Path | None:
    """Returns the checkpoint that `--ckpt_path last` takes with the default logger."""
    return find_resume_point(sorted(root.glob("lightning_logs/*/checkpoints")), root)


def last_of(output: Path) -> dict[str, Any]:
    (path,) = output.rglob("last.ckpt")
    return torch.load(path, weights_only=True)


def differences(left: Any, right: Any, name: str = "") -> list[str]:
    """Returns where two nested values differ, apart from the text of the options, which holds the output folder."""
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        names = [key for key in left if key != "config"]
        return [found for key in names for found in differences(left[key], right[key], f"{name}.{key}")]
    if isinstance(left, list | tuple) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [found for key, pair in pairs for found in differences(*pair, f"{name}.{key}")]
    same = torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right
    return [] if same else [name]


def results(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Returns what must be equal: weights, average, optimiser, schedule, position and the scores of the best."""
    names = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers")
    callbacks = checkpoint["callbacks"].items()
    (best,) = (state for name, state in callbacks if name.startswith("ModelCheckpoint"))
    scores = {Path(path).name: score for path, score in best["best_k_models"].items()}
    timeless = {name: value for name, value in checkpoint["bsmamba2"]["metrics"].items() if "seconds" not in name}
    return {
        **{name: checkpoint[name] for name in (*names, "epoch", "global_step")},
        "record": checkpoint["bsmamba2"] | {"metrics": timeless},
        "best": scores,
        "best_path": Path(best["best_model_path"]).name,
    }


@pytest.fixture(scope="module")
def straight(
    tmp_path_factory: pytest.TempPathFactory, musdb_root: Path, cache: Path, request: pytest.FixtureRequest
) -> Callable[..., dict[str, Any]]:
    """Returns a function that returns the results of an uninterrupted run, trained once for each set of options."""
    ends: dict[tuple[str, ...], dict[str, Any]] = {}

    def end(*more: str) -> dict[str, Any]:
        if more not in ends:
            output = tmp_path_factory.mktemp("straight")
            train(arguments(SMALL, musdb_root, cache, output, *more))
            ends[more] = results(last_of(output))
        return ends[more]

    return end


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, musdb_root: Path, cache: Path) -> Path:
    """Returns the folder of a run of one epoch, whose checkpoints no test changes."""
    output = tmp_path_factory.mktemp("finished")
    train(arguments(SMALL, musdb_root, cache, output, "--trainer.max_epochs=1"))
    return output


SCHEDULE = ("--model.schedule=cosine", "--model.warmup_steps=2")
ACCUMULATED = ("--trainer.accumulate_grad_batches=2",)
BY_STEPS = ("--trainer.max_epochs=-1", "--trainer.max_steps=10")
VALIDATED_TWICE = ("--trainer.val_check_interval=0.5",)


@pytest.mark.parametrize(
    ("more", "stops"),
    [
        (SCHEDULE, ["batch=1", "gently=2", "after_validation=1", "batch=4", "batch=5", "validation=1"]),
        (ACCUMULATED, ["gently=2", "batch=3", "after_validation=1", "batch=8"]),
        (BY_STEPS, ["gently=2", "after_validation=1", "batch=4", "validation=1", "batch=9"]),
        (VALIDATED_TWICE, ["validation=1"]),
    ],
)
def test_resume_gives_what_an_uninterrupted_training_gives(
    training: Train, straight: Callable[..., dict[str, Any]], tmp_path: Path, more: tuple[str, ...], stops: list[str]
) -> None:
    """One run is stopped at each place in turn; whatever a resume gets wrong remains in the weights at the end."""
    resumed = ["--ckpt_path=last"]
    for number, stop in enumerate(stops):
        name, value = stop.split("=")
        stopped = (*more, *(resumed if number else []), STOP_AT, f"--trainer.callbacks.{name}={value}")
        with pytest.raises(KeyboardInterrupt) if name != "gently" else contextlib.nullcontext():
            training(tmp_path, *stopped)
    before = last_of(tmp_path)["global_step"]
    training(tmp_path, *more, *resumed)
    after = results(last_of(tmp_path))
    assert before < after["global_step"]
    assert differences(after, straight(*more)) == []
    assert [path.name for path in tmp_path.glob("lightning_logs/*")] == ["version_0"]


def test_resume_from_a_best_checkpoint_gives_the_same_end(
    training: Train, straight: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """It was written after the validation of its epoch; resuming from a file other than `last` starts a new run."""
    with pytest.raises(KeyboardInterrupt):
        training(
            tmp_path,
            STOP_AT,
            "--trainer.callbacks.after_validation=2",
        )
    (best,) = tmp_path.rglob("epoch=1-step=8.ckpt")
    (first,) = tmp_path.rglob("last.ckpt")
    training(tmp_path, f"--ckpt_path={best}")
    (last,) = set(tmp_path.rglob("last.ckpt")) - {first}
    weights = torch.load(last, weights_only=True)["current_model_state"]
    assert differences(weights, straight()["current_model_state"]) == []


class Signal(Callback):
    """Sends a signal to its own process before a batch, or in the validation of an epoch."""

    def __init__(self, number: int, batch: int = -1, validation: int = -1, times: int = 1) -> None:
        self.number, self.batch, self.validation, self.times = number, batch, validation, times

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch * BATCHES + batch_idx == self.batch:
            self._send()

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if trainer.current_epoch == self.validation:
            self._send()

    def _send(self) -> None:
        for _ in range(self.times):
            signal.raise_signal(self.number)


@pytest.mark.parametrize(
    ("more", "name", "stop", "steps"),
    [
        (SCHEDULE, "SIGINT", "batch=1", 2),
        (SCHEDULE, "SIGTERM", "batch=8", 9),
        # In the middle of a step, and before and in a validation.
        (ACCUMULATED, "SIGTERM", "batch=2", 2),
        (SCHEDULE, "SIGINT", "batch=7", 8),
        (SCHEDULE, "SIGTERM", "validation=1", 8),
        (VALIDATED_TWICE, "SIGTERM", "batch=1", 3),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_a_stopped_run_is_resumed_from_its_last_step(
    straight: Callable[..., dict[str, Any]],
    musdb_root: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    name: str,
    stop: str,
    steps: int,
) -> None:
    rare = (*more, "--resume.every_steps=100")
    number, (kind, value) = signal.Signals[name], stop.split("=")
    send = ("--trainer.callbacks=tests.training.test_resuming.Signal", f"--trainer.callbacks.number={int(number)}",
            f"--trainer.callbacks.{kind}={value}")  # fmt: skip
    line = arguments(SMALL, musdb_root, cache, tmp_path, *rare)
    handler = signal.getsignal(signal.SIGTERM)
    status: Any = None
    try:
        status = main(["train", *line, *send])
    except SystemExit as ended:
        status = ended.code
    assert status == 128 + number
    (last,) = tmp_path.rglob("last.ckpt")
    assert f"run the same command with --ckpt_path last to resume from {last}" in capsys.readouterr().err
    assert last_of(tmp_path)["global_step"] == steps
    assert signal.getsignal(signal.SIGTERM) == handler
    assert main(["train", *line, "--ckpt_path=last"]) == 0
    assert differences(results(last_of(tmp_path)), straight(*rare)) == []


class StoppedLoading(MusdbDataModule):
    """Is stopped when it starts to load data."""

    def train_dataloader(self) -> DataLoader[Excerpts]:
        loader = super().train_dataloader()
        return StoppedLoader(loader.dataset, sampler=loader.sampler)


class StoppedLoader(DataLoader[Excerpts]):
    """Cannot be iterated over because a signal arrives first."""

    def __iter__(self) -> Any:
        raise SystemExit(143)


def test_a_run_that_is_stopped_while_data_loading_starts(musdb_root: Path, cache: Path, tmp_path: Path) -> None:
    """Lightning's clean-up fails then."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)]
    with pytest.raises(SystemExit) as stop:
        train(arguments(SMALL, musdb_root, cache, tmp_path), StoppedLoading)
    assert stop.value.code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)] == handlers


def test_a_second_signal_stops_at_once(training: Train, tmp_path: Path) -> None:
    send = ("--trainer.callbacks=tests.training.test_resuming.Signal", "--trainer.callbacks.number=2")
    with pytest.raises(KeyboardInterrupt):
        training(
            tmp_path, "--resume.every_steps=100", *send, "--trainer.callbacks.batch=2", "--trainer.callbacks.times=2"
        )
    assert last_of(tmp_path)["global_step"] == 0


def test_resume_with_different_optimiser_options(training: Train, tmp_path: Path) -> None:
    training(tmp_path, "--trainer.max_epochs=1")
    slower = ("--model.learning_rate=1e-5", "--model.weight_decay=0.5", "--model.betas=[0.5,0.9]")
    training(tmp_path, *slower, "--ckpt_path=last", "--trainer.max_epochs=2")
    (group,) = last_of(tmp_path)["optimizer_states"][0]["param_groups"]
    assert (group["lr"], group["weight_decay"], tuple(group["betas"])) == (1e-5, 0.5, (0.5, 0.9))
    with pytest.raises(InputError, match=r"was trained with a different --model\.decayed than matrices"):
        training(tmp_path, "--model.decayed=matrices", "--ckpt_path=last")


def test_resume_does_not_need_the_weights_it_once_started_from(training: Train, tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save_model(BSMamba2(SMALL), start)
    training(tmp_path, f"--model.init_from={start}", "--trainer.max_epochs=1")
    start.unlink()
    training(tmp_path, f"--model.init_from={start}", "--ckpt_path=last")
    assert f"init_from: {start}" in last_of(tmp_path)["bsmamba2"]["config"]


# A step, and the same command line again: the first process keeps a copy of the checkpoint between them.
STEP_AND_RESUME = """
import os, shutil, sys
from pathlib import Path
from bsmamba2.training.command import train

options = sys.argv[1:]
written = train([*options, "--trainer.max_steps=1"])
if os.environ["LOCAL_RANK"] == "0":
    shutil.copyfile(written.with_name("last.ckpt"), Path(__file__).with_name("first.ckpt"))
train([*options, "--trainer.max_epochs=2"])
"""


def test_resume_by_two_processes(training: Train, script: Script, tmp_path: Path) -> None:
    """Two processes compute the first gradients of one, and after a resume its weights, up to the order of sums."""
    one, two, step = tmp_path / "one", tmp_path / "two", tmp_path / "step"
    program = tmp_path / "step_and_resume.py"
    program.write_text(STEP_AND_RESUME)
    ended = script(two, "--trainer.devices=2", "--data.batch_size=1", "--ckpt_path=last", program=program)
    assert ended.returncode == 0, ended.stderr
    training(step, "--trainer.max_steps=1")
    starts = [last_of(step), torch.load(tmp_path / "first.ckpt", weights_only=True)]
    assert [start["bsmamba2"]["next_excerpt"] for start in starts] == [2, 2]
    # AdamW's first average of gradients is a tenth of the gradient.
    gradients = [
        [10 * state["exp_avg"] for state in start["optimizer_states"][0]["state"].values()] for start in starts
    ]
    largest = max(gradient.abs().max() for gradient in gradients[0])
    assert largest > 1e-3
    for single, double in zip(*gradients, strict=True):
        assert (single - double).abs().max() < 1e-5 * max(1, largest)
    training(one, "--trainer.max_epochs=2")
    ends = [last_of(folder) for folder in (one, two)]
    assert [end["bsmamba2"]["next_excerpt"] for end in ends] == [4 * BATCHES] * 2
    for name, value in ends[0]["current_model_state"].items():
        assert torch.allclose(value, ends[1]["current_model_state"][name], atol=1e-3), name


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_resume_after_kill_9(
    training: Train,
    script: Script,
    straight: Callable[..., dict[str, Any]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A process with data loading workers is killed as it trains; the same options resume it."""
    more = ("--data.epoch_excerpts=16", "--trainer.max_epochs=2", "--resume.every_steps=3")
    workers = ("--data.workers=1", "--ckpt_path=last")
    kill = (STOP_AT, "--trainer.callbacks.killed_after=5")
    killed = script(tmp_path, *more, *workers, *kill, fresh=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert "starting from the beginning" in killed.stderr
    assert last_of(tmp_path)["global_step"] == 3
    with caplog.at_level("INFO", "bsmamba2"):
        training(tmp_path, *more, *workers)
    assert "resuming from" in caplog.text
    end = results(last_of(tmp_path))
    assert end["global_step"] == 16
    assert differences(end, straight(*more)) == []


def test_resume_passes_over_a_truncated_file(training: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training(tmp_path)
    (last,) = tmp_path.rglob("last.ckpt")
    previous = last.with_name("previous.ckpt")
    contents = last.read_bytes(), previous.read_bytes()
    for kept in (0, 100, -100):
        last.write_bytes(contents[0][:kept])
        previous.write_bytes(contents[1])
        caplog.clear()
        assert resume_point_in(tmp_path) == previous
        assert f"{last} is damaged; resuming from {previous}" in caplog.text
        training(tmp_path, "--ckpt_path=last")
        assert last_of(tmp_path)["global_step"] == EPOCHS * BATCHES
    previous.write_bytes(last.read_bytes()[:1000])
    last.write_bytes(b"")
    with pytest.raises(InputError, match=r"last\.ckpt and .*previous\.ckpt cannot be read; give --ckpt_path"):
        training(tmp_path, "--ckpt_path=last")


def test_resume_notices_a_changed_byte(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (last,) = tmp_path.rglob("last.ckpt")
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    assert resume_point_in(tmp_path) == last.with_name("previous.ckpt")


def test_resume_between_the_two_renames(finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (last,) = tmp_path.rglob("last.ckpt")
    last.replace(last.with_name("previous.ckpt"))
    assert resume_point_in(tmp_path) == last.with_name("previous.ckpt")
    assert f"{last} is missing; resuming from" in caplog.text


def test_resume_clears_what_a_kill_left(training: Train, tmp_path: Path) -> None:
    training(tmp_path, "--trainer.max_epochs=1")
    (last,) = tmp_path.rglob("last.ckpt")
    left = last.with_name(f".{'0a' * 16}.ckpt")
    left.write_bytes(b"half")
    training(tmp_path, "--ckpt_path=last")
    assert not left.exists()
    assert last.exists()


def test_resume_takes_the_newest_run(training: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of those that this command wrote; only if there is none, of those elsewhere in the folder."""
    assert resume_point_in(tmp_path) is None
    training(tmp_path / "elsewhere", "--trainer.max_epochs=1")
    (elsewhere,) = tmp_path.rglob("last.ckpt")
    assert resume_point_in(tmp_path) == elsewhere
    training(tmp_path, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert f"there is no checkpoint where this command writes them; resuming from {elsewhere}" in caplog.text
    assert torch.load(elsewhere, weights_only=True)["global_step"] == 2 * BATCHES
    for _ in range(2):
        training(tmp_path, "--trainer.max_epochs=1")
    newest = tmp_path / "lightning_logs"
    assert sorted(path.name for path in newest.iterdir()) == ["version_0", "version_1", "version_2"]
    os.utime(elsewhere)
    assert resume_point_in(tmp_path) == newest / "version_2" / "checkpoints" / "last.ckpt"


class ServerLogger(Logger):
    """Gives a run its version when it starts, as Weights & Biases does."""

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self._save_dir = save_dir
        self._version: str | None = None

    @property
    def save_dir(self) -> str:
        return self._save_dir

    @property
    def name(self) -> str:
        return "project"

    @property
    def version(self) -> str | None:
        return self._version

    @property
    def experiment(self) -> Any:
        self._version = self._version or uuid4().hex[:8]

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        pass

    def log_hyperparams(self, *arguments: Any, **more: Any) -> None:
        pass


CSV = "--trainer.logger=CSVLogger"
TENSORBOARD = "--trainer.logger=TensorBoardLogger"
SAVE_DIR = "--trainer.logger.save_dir"


@pytest.mark.parametrize(
    "logger",
    [
        (CSV, f"{SAVE_DIR}={{root}}/csv"),
        (CSV, f"{SAVE_DIR}={{outside}}", "--trainer.logger.version=mine"),
        (TENSORBOARD, f"{SAVE_DIR}={{outside}}", "--trainer.logger.name=mine"),
        ("--trainer.logger+=CSVLogger", f"{SAVE_DIR}={{outside}}", "--trainer.logger+=TensorBoardLogger",
         f"{SAVE_DIR}={{root}}"),
        ("--trainer.logger=tests.training.test_resuming.ServerLogger", f"{SAVE_DIR}={{outside}}"),
        ("--trainer.logger=false",),
        ("--trainer.logger=true", "--checkpoint.dirpath={outside}"),
    ],
)  # fmt: skip
def test_resume_asks_the_logger_where_the_run_is(training: Train, tmp_path: Path, logger: tuple[str, ...]) -> None:
    root = tmp_path / "root"
    more = [option.format(root=root, outside=tmp_path / "outside") for option in logger]
    training(root, *more, "--trainer.max_epochs=1")
    training(root, *more, "--trainer.max_epochs=2", "--ckpt_path=last")
    # All checkpoints of the run are in one folder.
    assert len({path.parent for path in tmp_path.rglob("*.ckpt")}) == 1
    assert last_of(tmp_path)["global_step"] == 2 * BATCHES
    if "--trainer.logger.version=mine" in more:
        assert sorted(path.name for path in tmp_path.rglob("*.csv")) == ["metrics-to-step-4.csv", "metrics.csv"]


def test_resume_keeps_runs_with_names_apart(training: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    named = (CSV, f"{SAVE_DIR}={tmp_path}", "--trainer.max_epochs=1", "--ckpt_path=last")
    training(tmp_path, *named, "--trainer.logger.version=first")
    with caplog.at_level("INFO", "bsmamba2"):
        training(tmp_path, *named, "--trainer.logger.version=second")
    assert "starting from the beginning" in caplog.text
    assert len(list(tmp_path.rglob("last.ckpt"))) == 2


@pytest.mark.parametrize("logger", [(), (CSV, f"{SAVE_DIR}={{root}}")])
def test_a_run_without_its_resume_point_is_not_started_again(
    training: Train, tmp_path: Path, logger: tuple[str, ...]
) -> None:
    more = [option.format(root=tmp_path) for option in logger] + ["--trainer.log_every_n_steps=1", "--ckpt_path=last"]
    training(tmp_path, *more, "--trainer.max_epochs=1")
    for path in tmp_path.rglob("*.ckpt"):
        if path.name in ("last.ckpt", "previous.ckpt"):
            path.unlink()
    with pytest.raises(InputError, match=r"has checkpoints, but neither last\.ckpt nor previous.*epoch=0-step=4\.ckpt"):
        training(tmp_path, *more)
    (best,) = tmp_path.rglob("*.ckpt")
    best.unlink()
    with pytest.raises(InputError, match=r"version_0 has the log of a run, but its checkpoints are not there"):
        training(tmp_path, *more)


def test_a_run_that_was_killed_before_its_first_step_is_started_again(script: Script, tmp_path: Path) -> None:
    """Otherwise a cluster job that restarts after a kill would never run."""
    more = (
        "--trainer.log_every_n_steps=1",
        "--ckpt_path=last",
        "--trainer.max_epochs=1",
        "--trainer.limit_val_batches=0",
    )
    for step in (0, 1):
        killed = script(
            tmp_path, *more, "--resume.every_steps=100", STOP_AT, f"--trainer.callbacks.killed_after={step}"
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert last_of(tmp_path)["global_step"] == 0
        assert ("starting from the beginning" in killed.stderr) == (step == 0)


class Intruder(Callback):
    """Starts the same command while it trains, and keeps its error."""

    error: InputError | None = None

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if trainer.global_step == 1:
            (last,) = Path(trainer.default_root_dir).rglob("last.ckpt")
            before = {path: path.read_bytes() for path in last.parent.parent.rglob("*") if path.is_file()}
            try:
                train(arguments(SMALL, Path("none"), Path("none"), Path(trainer.default_root_dir), "--ckpt_path=last"))
            except InputError as error:
                type(self).error = error
            assert {path: path.read_bytes() for path in last.parent.parent.rglob("*") if path.is_file()} == before


def test_a_run_that_is_running_is_not_started_a_second_time(training: Train, tmp_path: Path) -> None:
    training(tmp_path, "--trainer.callbacks=tests.training.test_resuming.Intruder", "--trainer.max_epochs=1")
    assert re.search(r"another training run is writing to .*version_0.checkpoints; wait for it", str(Intruder.error))
    training(tmp_path, "--trainer.max_epochs=2", "--ckpt_path=last")


def test_a_run_that_fails_at_its_start_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        train(arguments(SMALL, tmp_path / "none", tmp_path, tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").rglob("*") if path.name != "lightning_logs"] == []


def test_resume_from_before_the_first_step(
    training: Train, straight: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, STOP_AT, "--trainer.callbacks.batch=0")
    assert last_of(tmp_path)["global_step"] == 0
    training(tmp_path, "--ckpt_path=last")
    assert differences(results(last_of(tmp_path)), straight()) == []


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        # At the next resume point, before a validation, and in a validation.
        (("--model.learning_rate=1e30",), 0),
        (("--model.learning_rate=1e30", "--resume.every_steps=100"), 0),
        (("--trainer.callbacks=tests.training.test_resuming.Explode", "--trainer.callbacks.step=6"), 5),
        (("--trainer.callbacks=tests.training.test_resuming.Explode", "--trainer.callbacks.validation=4"), 3),
    ],
)
def test_a_run_that_diverges_can_be_resumed_from_before(
    training: Train, tmp_path: Path, more: tuple[str, ...], kept: int
) -> None:
    with pytest.raises(InputError) as error:
        training(tmp_path, *more)
    (last,) = tmp_path.rglob("last.ckpt")
    message = str(error.value)
    assert re.search(r"not finite after step \d, at a learning rate of (1e\+30|0\.0005)", message), message
    assert message.endswith(f"resume from {last} with a lower --model.learning_rate")
    content = torch.load(last, weights_only=True)
    assert content["global_step"] == kept
    assert all(value.abs().max() < 100 for value in content["current_model_state"].values())
    training(tmp_path, f"--ckpt_path={last}", "--model.learning_rate=1e-4", "--trainer.max_epochs=2")


@pytest.mark.parametrize("logger", ["--trainer.logger=false", "--checkpoint.dirpath={root}/here"])
def test_a_new_run_does_not_replace_the_checkpoints_of_another(training: Train, tmp_path: Path, logger: str) -> None:
    training(tmp_path, logger.format(root=tmp_path), "--trainer.max_epochs=1")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.ckpt")}
    with pytest.raises(InputError, match="contains the checkpoints of a run, which this one would replace"):
        training(tmp_path, logger.format(root=tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.ckpt")} == before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--seed_everything=7", "seed=42 and this run has 7"),
        ("--data.epoch_excerpts=10", "epoch_excerpts=8 and this run has 10"),
        ("--data.batch_size=1", "batch_over_devices=2 and this run has 1"),
        ("--data.validation_artists=[One]", "data_hash="),
    ],
)
def test_resume_with_different_excerpts_is_an_error(training: Train, finished: Path, option: str, message: str) -> None:
    with pytest.raises(InputError, match=f"{message}.*start from the weights with --model.init_from"):
        training(finished, "--ckpt_path=last", option)


def test_resume_points_are_written_when_due(training: Train, tmp_path: Path) -> None:
    """Never between the batches accumulated for one step, and always at the end."""
    training(
        tmp_path, "--trainer.accumulate_grad_batches=2", "--resume.every_steps=100", "--resume.every_minutes=0.0001"
    )
    (previous,) = tmp_path.rglob("previous.ckpt")
    points = [torch.load(path, weights_only=True) for path in (previous, previous.with_name("last.ckpt"))]
    assert [point["global_step"] for point in points] == [5, 6]
    assert [point["bsmamba2"]["next_excerpt"] for point in points] == [20, 24]
    training(tmp_path / "rare", "--resume.every_steps=100")
    (previous,) = (tmp_path / "rare").rglob("previous.ckpt")
    assert torch.load(previous, weights_only=True)["global_step"] == BATCHES * (EPOCHS - 1)


@pytest.mark.parametrize("option", ["--resume.every_steps=0", "--resume.every_minutes=0"])
def test_resume_points_need_an_interval(training: Train, tmp_path: Path, option: str) -> None:
    with pytest.raises(InputError, match="is not allowed; give at least 1 and a time"):
        training(tmp_path, option)


def test_checkpoints_record_what_made_them(training: Train, tmp_path: Path) -> None:
    best = training(tmp_path, "--model.learning_rate=0.003", "--trainer.max_epochs=1")
    for path in (best, *tmp_path.rglob("last.ckpt")):
        record = torch.load(path, weights_only=True)["bsmamba2"]
        assert record["seed"] == 42
        assert "learning_rate: 0.003" in record["config"]
        assert {"train/loss", "val/loss", "val/usdr", "val/csdr"} <= set(record["metrics"])
        assert record["data_hash"]
        assert record["version"]


def test_checkpoints_remember_their_songs_and_those_of_the_weights_they_started_from(
    training: Train, tmp_path: Path
) -> None:
    best = training(tmp_path / "first", "--trainer.max_epochs=1")
    assert WeightsFile.read(best).training_songs == ("One - First", "Two - Second")
    start = tmp_path / "start.safetensors"
    convert(best, start)
    tuned = ("--data.validation_artists=[One]", f"--model.init_from={start}")
    training(tmp_path / "tuned", *tuned, "--trainer.max_epochs=1")
    assert last_of(tmp_path / "tuned")["bsmamba2"]["training_songs"] == [
        "Leaf - Summerghost",
        "One - First",
        "Two - Second",
    ]
    start.unlink()
    training(tmp_path / "tuned", *tuned, "--trainer.max_epochs=2", "--ckpt_path=last")
    (last,) = (tmp_path / "tuned").rglob("last.ckpt")
    assert WeightsFile.read(last).training_songs == ("Leaf - Summerghost", "One - First", "Two - Second")


def test_resume_from_a_checkpoint_of_a_version_that_did_not_remember_songs(training: Train, tmp_path: Path) -> None:
    training(tmp_path, "--trainer.max_epochs=1")
    (last,) = tmp_path.rglob("last.ckpt")
    content = last_of(tmp_path)
    del content["bsmamba2"]["training_songs"]
    torch.save(content, last)
    training(tmp_path, "--trainer.max_epochs=2", "--ckpt_path=last")
    assert last_of(tmp_path)["global_step"] == 2 * BATCHES
    assert WeightsFile.read(last).training_songs == ("One - First", "Two - Second")


def test_a_checkout_that_is_not_installed_trains_and_resumes(
    training: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = metadata.version

    def version(package: str) -> str:
        if package == "bsmamba2":
            raise metadata.PackageNotFoundError(package)
        return installed(package)

    monkeypatch.setattr(metadata, "version", version)
    training(tmp_path, "--trainer.max_epochs=1")
    training(tmp_path, "--trainer.max_epochs=2", "--ckpt_path=last")
    assert last_of(tmp_path)["bsmamba2"]["version"] == __version__


def test_a_full_disk_keeps_the_old_checkpoint(
    training: Train,
    musdb_root: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A limit on file sizes acts like the end of a disk: while a checkpoint is written."""
    training(tmp_path, "--trainer.max_epochs=1", "--trainer.logger=false")
    (last,) = tmp_path.rglob("last.ckpt")
    before = {path.name: path.read_bytes() for path in last.parent.iterdir()}
    more = ("--ckpt_path=last", "--trainer.logger=false", "--trainer.max_epochs=2")
    line = arguments(SMALL, musdb_root, cache, tmp_path, *more)
    capsys.readouterr()
    with full_disk(last.stat().st_size // 2):
        assert main(["train", *line, "--trainer.limit_val_batches=0"]) == 0
    assert "last.ckpt is kept, and training continues" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in last.parent.iterdir()} == before
    # The best of a validation would be lost.
    with full_disk(last.stat().st_size // 2):
        assert main(["train", *line]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert "cannot be written" in shown.strip().splitlines()[-1]
    assert {path.name: path.read_bytes() for path in last.parent.iterdir()} == before


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        CompleteCheckpointIO().save_checkpoint({"a": 1}, tmp_path / "file" / "x.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_trial_run_leaves_nothing_to_resume(training: Train, tmp_path: Path) -> None:
    assert training(tmp_path, "--trainer.fast_dev_run=true") == tmp_path
    assert resume_point_in(tmp_path) is None
