"""The command `train`: LightningCLI with this package's module and data."""

import contextlib
import errno
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, set_loader
from lightning import LightningDataModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from yaml import YAMLError

from bsmamba2.data.datamodule import MusdbDataModule
from bsmamba2.errors import InputError
from bsmamba2.system.files import LOCK, check_writable, locked
from bsmamba2.system.processes import is_first_process
from bsmamba2.system.stopping import handlers_restored
from bsmamba2.training.averaging import Averaging
from bsmamba2.training.best import BestCheckpoints
from bsmamba2.training.configs import load_config, with_config_files
from bsmamba2.training.health import Health
from bsmamba2.training.help import DESCRIPTION
from bsmamba2.training.loggers import LIGHTNING_LOGS, is_run_named, make_loggers
from bsmamba2.training.module import SeparationModule
from bsmamba2.training.pictures import Pictures
from bsmamba2.training.progress import TrainingProgressBar
from bsmamba2.training.resuming import (
    CHECKPOINTS_FOLDER,
    METRICS_TABLE,
    CompleteCheckpointIO,
    ResumePoints,
    RunRecord,
    find_resume_point,
)
from bsmamba2.training.trainers import check_trainer
from bsmamba2.weights.checkpoint import WeightsFile, load_model
from bsmamba2.weights.headers import RECORD

DEFAULT_SEED = 42
LAST_KEYWORD = "last"
# Metrics that can select the best checkpoints, and their direction.
MONITORED = {"val/usdr": "max", "val/csdr": "max", "val/loss": "min"}

log = logging.getLogger(__name__)
# Spelt as other options of Lightning are.
HELP_ALL = "--help_all"
# Our name for the reader of configs, which jsonargparse wants.
PARSER_MODE = "bounded-yaml"


class TrainingCLI(LightningCLI):
    """Options of network, data, trainer, averaging and checkpoints; the network determines the format of the data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options of the callbacks, and links the data's options to the network's."""
        parser.link_arguments("model.network.segment_seconds", "data.segment_seconds")
        parser.link_arguments("model.network.sample_rate", "data.sample_rate")
        parser.link_arguments("model.network.channels", "data.channels")
        parser.link_arguments("model.network.stems", "data.targets")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_whole)
        parser.add_lightning_class_args(Averaging, "ema")
        parser.add_lightning_class_args(BestCheckpoints, "checkpoint")
        parser.add_lightning_class_args(ResumePoints, "resume")
        parser.add_lightning_class_args(Health, "health")
        parser.add_lightning_class_args(Pictures, "pictures")
        parser.set_defaults(
            {
                "ema.decay": 0.999,
                # Buffers are constants: averaging them would only add rounding errors, and truncate whole numbers.
                "ema.use_buffers": False,
                "checkpoint.monitor": "val/usdr",
                "checkpoint.mode": "max",
                "checkpoint.save_top_k": 4,
                "checkpoint.filename": "{epoch}-{step}",
                # Only a validation saves one, so the score is that of the saved weights.
                "checkpoint.save_on_train_epoch_end": False,
                # A step that is repeated after a resume overwrites its file.
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.add_argument(
            "--ckpt_path",
            type=Path | None,
            default=None,
            help="checkpoint to resume from; `last` is the newest of this run, if there is one",
        )

    def instantiate_classes(self) -> None:
        """Creates network, data and trainer; a resumed run does not need the file of --model.init_from."""
        _check_options(self.config)
        self.options = self.parser.dump(self.config, skip_none=False)
        self.root = Path(self.config.trainer.default_root_dir or ".").absolute()
        init_from, logger = self.config.model.init_from, self.config.trainer.logger
        # Now, because the loggers decide where the run is, and so which checkpoint is its last.
        self.loggers = make_loggers(logger, self.root)
        self.resume_point: Path | None = None
        self.resume_point = self._resume_point()
        if self.resume_point is not None:
            self.config.model.init_from = None
        self.config.trainer.logger = None
        super().instantiate_classes()
        self.config.model.init_from, self.config.trainer.logger = init_from, logger

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Returns the trainer; it continues in the folder of the run that --ckpt_path last resumes."""
        options = self.config_init.trainer
        # Lightning has one folder for the checkpoints of a run; all of ours are in it.
        self.config_init.resume.best = self.config_init.checkpoint
        self.config_init.resume.start = self.resume_point
        self.config_init.resume.weights_check = self.config_init.health
        if self.resume_point is not None and self._continues:
            self.config_init.checkpoint.dirpath = str(self.resume_point.parent)
        kwargs["logger"] = self._continued_loggers() or False
        callbacks: list[Callback] = [RunRecord(self.options, self.datamodule, self.model.initial_songs)]
        if self.loggers:
            callbacks.append(LearningRateMonitor("step"))
        if options.enable_progress_bar is not False:
            callbacks.append(TrainingProgressBar())
        kwargs["callbacks"] = [*_listed(options.callbacks), *callbacks]
        kwargs["plugins"] = [*_listed(options.plugins), CompleteCheckpointIO()]
        return super().instantiate_trainer(**kwargs)

    @property
    def _continues(self) -> bool:
        return self.config.ckpt_path == Path(LAST_KEYWORD)

    def _continued_loggers(self) -> list[Logger]:
        """Returns the loggers; the default one continues the log of the run that is resumed."""
        if self.resume_point is None or not self._continues:
            return self.loggers
        run = self.resume_point.parent.parent
        if self.config.trainer.logger not in (None, True) or run.parent != self.root / LIGHTNING_LOGS:
            return self.loggers
        # Discard what the interrupted run logged after the checkpoint.
        step = WeightsFile.read(self.resume_point).content["global_step"]
        return [TensorBoardLogger(self.root, LIGHTNING_LOGS, version=run.name, purge_step=step)]

    def keep_tables(self) -> None:
        """Renames the tables of metrics of the run that is resumed, which Lightning would delete."""
        if self.resume_point is None or not self._continues or not is_first_process():
            return
        step = WeightsFile.read(self.resume_point).content["global_step"]
        for table in [Path(logger.log_dir) / METRICS_TABLE for logger in self.loggers if isinstance(logger, CSVLogger)]:
            if table.exists():
                table.replace(table.with_stem(f"{table.stem}-to-step-{step}"))

    def _resume_point(self) -> Path | None:
        given: Path | None = self.config.ckpt_path
        if not self._continues:
            return given
        folders, below = self._own_folders()
        found = find_resume_point(folders, below)
        if found is None:
            log.info("no checkpoint to resume from in %s; starting from the beginning", self.root)
        elif found.parent in folders:
            log.info("resuming from %s", found)
        else:
            log.warning("there is no checkpoint where this command writes them; resuming from %s", found)
        return found

    @property
    def checkpoints_folder(self) -> Path | None:
        """The folder of the run's checkpoints; None if the logger has not decided."""
        if self.resume_point is not None and self._continues:
            return self.resume_point.parent
        if self.config.checkpoint.dirpath is not None:
            return Path(self.config.checkpoint.dirpath).absolute()
        if not self.loggers:
            return self.root / CHECKPOINTS_FOLDER
        version = self.loggers[0].version
        run = version if isinstance(version, str) else f"version_{version}"
        return None if version is None else self._runs_folder / run / CHECKPOINTS_FOLDER

    @property
    def _runs_folder(self) -> Path:
        logger = self.loggers[0]
        return Path(logger.save_dir or self.root).absolute() / str(logger.name)

    def _own_folders(self) -> tuple[list[Path], Path | None]:
        """Returns where this command has written checkpoints, if ever, and the folder below which to search otherwise.

        It is None for a run that has a name of its own: the others are of different runs.
        """
        folder = self.checkpoints_folder
        if folder is not None and (self.config.checkpoint.dirpath is not None or not self.loggers):
            return [folder], self.root
        # Without a name, a number is the next free one, and a text is that of a run that MLflow has just made.
        named = is_run_named(self.config.trainer.logger)
        if folder is not None and (
            folder.is_dir() or (named and (isinstance(self.loggers[0].version, str) or folder.parent.is_dir()))
        ):
            return [folder], None
        return sorted(self._runs_folder.glob(f"*/{CHECKPOINTS_FOLDER}")), self.root


def train(arguments: Sequence[str], data: type[LightningDataModule] = MusdbDataModule) -> Path:
    """Trains with these options and returns the path of the best checkpoint, or of the last one without validation.

    The checkpoint contains the averaged weights. A trial with fast_dev_run writes none and returns the root folder.

    Raises:
        InputError: An option or the data cannot be used.
    """
    with warnings.catch_warnings():
        # Lightning warns when its CLI gets `args` while sys.argv has arguments as well.
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        # Caused by Lightning and torch, not by this code.
        warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated")
        # A resumed run writes to its old folder, where its log is kept.
        warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        # RunRecord resumes the data in the middle of an epoch.
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
        cli = _parsed(arguments, data)
        if cli.config.ckpt_path != Path(LAST_KEYWORD):
            # A run that starts from a checkpoint of a different run has its own best checkpoints.
            warnings.filterwarnings("ignore", "The dirpath has changed")
        check_trainer(cli.trainer)
        check_writable(Path(cli.trainer.default_root_dir))
        if cli.resume_point is not None:
            _check_resume_point(cli.resume_point, cli.model)
        with _locked(None if cli.trainer.fast_dev_run else cli.checkpoints_folder):  # type: ignore[attr-defined]
            cli.keep_tables()
            _fit(cli)
    if cli.trainer.fast_dev_run:  # type: ignore[attr-defined]
        log.info("the trial run succeeded; it writes no checkpoint")
        return cli.root
    paths = [callback.path for callback in cli.trainer.checkpoint_callbacks if isinstance(callback, ResumePoints)]
    paths += [Path(c.best_model_path) for c in cli.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    written = [path for path in paths if path.is_file()]
    if not written or not cli.trainer.global_step:
        raise InputError("training ended before its first step, so there is no checkpoint; train for longer")
    if cli.trainer.is_global_zero:
        log.info("checkpoint: %s", written[-1])
    return written[-1]


@contextlib.contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    """Locks the checkpoints of a run for this process and those that it starts, and removes a folder without any."""
    if folder is None or not is_first_process():
        yield
        return
    refusal = f"another training run is writing to {folder}; wait for it, or give another --trainer.default_root_dir"
    with locked(folder, refusal):
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [LOCK]:
                (folder / LOCK).unlink()
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    folder.parent.rmdir()


def _check_options(options: Namespace) -> None:
    """Refuses options of Lightning that would break the guarantees of our checkpoints."""
    checkpoint = options.checkpoint
    if MONITORED.get(checkpoint.monitor) != checkpoint.mode:
        allowed = ", ".join(f"{monitor} with mode {mode}" for monitor, mode in MONITORED.items())
        raise InputError(
            f"checkpoint.monitor={checkpoint.monitor} with checkpoint.mode={checkpoint.mode} is not allowed; give "
            f"{allowed}"
        )
    if checkpoint.save_weights_only or checkpoint.save_last:
        raise InputError(
            "checkpoint.save_weights_only and checkpoint.save_last are not allowed: checkpoints contain the averaged "
            "weights and everything needed to resume, and last.ckpt is always written; leave them out"
        )


def _check_resume_point(path: Path, module: SeparationModule) -> None:
    if load_model(path).config != module.network.config:
        raise InputError(f"{path} has a different network than these options; give the --config it was trained with")
    content = WeightsFile.read(path).content
    if RECORD not in content:
        raise InputError(
            f"{path} has weights, but no state to resume; start from the weights with --model.init_from instead"
        )
    if len(content["optimizer_states"][0]["param_groups"]) != len(module.optimizer().param_groups):
        raise InputError(
            f"{path} was trained with a different --model.decayed than {module.decayed}; give the same value"
        )


def _whole(seed: int | bool) -> int:
    # For Lightning, `true` means a random seed and `false` none.
    if isinstance(seed, bool):
        raise InputError(f"seed_everything={seed} is not allowed; give a whole number")
    return seed


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


@contextlib.contextmanager
def _first_exception() -> Iterator[None]:
    """Raises what stopped training, where Lightning's clean-up fails: while data loading processes start."""
    try:
        yield
    except RuntimeError as error:
        stopped = error.__context__
        if isinstance(stopped, SystemExit | KeyboardInterrupt | InputError):
            raise stopped from None
        raise


def _fit(cli: TrainingCLI) -> None:
    try:
        # Lightning draws its bar on the standard output, whose reader may stop before the run does.
        # Its clean-up, which restores the handlers of signals, may fail.
        with _first_exception(), handlers_restored(), contextlib.redirect_stdout(sys.stderr):
            cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=cli.resume_point, weights_only=True)
    except SystemExit as stop:
        last = cli.config_init.resume.path
        if last.exists() and cli.trainer.is_global_zero:
            log.warning("stopped; run the same command with --ckpt_path last to resume from %s", last)
        # Lightning's exit status after Ctrl-C; a signal has a different one.
        if stop.code == 1 and cli.trainer.interrupted:
            raise KeyboardInterrupt from stop
        raise
    except InputError as error:
        # For an error in a data loading process, torch passes on the traceback, which ends with the sentence.
        raise InputError(str(error).strip().rpartition(f"{InputError.__name__}: ")[2]) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise InputError(
            f"the training run cannot be written ({error.strerror}); free some space and resume with --ckpt_path last"
        ) from error


def _parsed(arguments: Sequence[str], data: type[LightningDataModule]) -> TrainingCLI:
    files = with_config_files(arguments)
    set_loader(PARSER_MODE, load_config, (YAMLError,))
    try:
        return TrainingCLI(
            SeparationModule,
            data,
            seed_everything_default=DEFAULT_SEED,
            save_config_kwargs={"overwrite": True},
            args=["--help" if argument == HELP_ALL else argument for argument in files],
            run=False,
            auto_configure_optimizers=False,
            parser_kwargs={
                "parser_mode": PARSER_MODE,
                "prog": "bsmamba2 train",
                "description": DESCRIPTION,
                "exit_on_error": False,
                # An abbreviation would change its meaning when an option is added.
                "allow_abbrev": False,
            },
        )
    except InputError:
        raise
    except (MisconfigurationException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"training cannot run with these options ({reason}); change that option") from error
