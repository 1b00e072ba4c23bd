"""The command `train`: LightningCLI with this package's module and data."""

import errno
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import LightningDataModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    Callback,
    EMAWeightAveraging,
    LearningRateMonitor,
    ModelCheckpoint,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger

from bsmamba2.data.datamodule import MusdbDataModule
from bsmamba2.errors import InputError
from bsmamba2.system.files import check_writable
from bsmamba2.training.configs import with_config_files
from bsmamba2.training.health import Health
from bsmamba2.training.module import SeparationModule
from bsmamba2.training.pictures import Pictures
from bsmamba2.training.progress import TrainingProgressBar
from bsmamba2.training.resuming import (
    LIGHTNING_LOGS,
    CompleteCheckpointIO,
    ResumePoints,
    RunRecord,
    find_resume_point,
)
from bsmamba2.weights.checkpoint import RECORD, WeightsFile, load_model

DEFAULT_SEED = 42
LAST_KEYWORD = "last"
# Metrics that can select the best checkpoints, and their direction.
MONITORED = {"val/usdr": "max", "val/csdr": "max", "val/loss": "min"}

log = logging.getLogger(__name__)


class TrainingCLI(LightningCLI):
    """Options of network, data, trainer, averaging and checkpoints; the network determines the format of the data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options of the callbacks, and links the data's options to the network's."""
        parser.link_arguments("model.network.segment_seconds", "data.segment_seconds")
        parser.link_arguments("model.network.sample_rate", "data.sample_rate")
        parser.link_arguments("model.network.channels", "data.channels")
        parser.link_arguments("model.network.stems", "data.targets")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_whole)
        parser.add_lightning_class_args(EMAWeightAveraging, "ema")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
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
            help="checkpoint to resume from; `last` is the newest in --trainer.default_root_dir, if there is one",
        )

    def instantiate_classes(self) -> None:
        """Creates network, data and trainer; a resumed run does not need the file of --model.init_from."""
        _check_options(self.config)
        self.options = self.parser.dump(self.config, skip_none=False)
        self.root = Path(self.config.trainer.default_root_dir or ".").absolute()
        self.resume_point = self._resume_point()
        init_from = self.config.model.init_from
        if self.resume_point is not None:
            self.config.model.init_from = None
        super().instantiate_classes()
        self.config.model.init_from = init_from

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Returns the trainer; it continues in the folder of the run that --ckpt_path last resumes."""
        options = self.config_init.trainer
        if options.logger in (None, True):
            kwargs["logger"] = self._logger()
        callbacks: list[Callback] = [RunRecord(self.options, self.datamodule, self.model.initial_songs)]
        if options.logger is not False:
            callbacks.append(LearningRateMonitor("step"))
        if options.enable_progress_bar is not False:
            callbacks.append(TrainingProgressBar())
        kwargs["callbacks"] = [*_listed(options.callbacks), *callbacks]
        kwargs["plugins"] = [*_listed(options.plugins), CompleteCheckpointIO()]
        return super().instantiate_trainer(**kwargs)

    def _logger(self) -> TensorBoardLogger:
        run = (
            self.resume_point.parent.parent
            if self.resume_point and self.config.ckpt_path == Path(LAST_KEYWORD)
            else None
        )
        if self.resume_point is None or run is None or run.parent != self.root / LIGHTNING_LOGS:
            return TensorBoardLogger(self.root, LIGHTNING_LOGS)
        # Discard what the interrupted run logged after the checkpoint.
        step = WeightsFile.read(self.resume_point).content["global_step"]
        return TensorBoardLogger(self.root, LIGHTNING_LOGS, version=run.name, purge_step=step)

    def _resume_point(self) -> Path | None:
        given: Path | None = self.config.ckpt_path
        if given != Path(LAST_KEYWORD):
            return given
        found = find_resume_point(self.root)
        if found is None:
            log.info("no checkpoint to resume from in %s; starting afresh", self.root)
        else:
            log.info("resuming from %s", found)
        return found


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
        # A resumed run writes to its old folder.
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        # RunRecord resumes the data in the middle of an epoch.
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
        cli = _parsed(arguments, data)
        if cli.config.ckpt_path != Path(LAST_KEYWORD):
            # A run that starts from a checkpoint of a different run has its own best checkpoints.
            warnings.filterwarnings("ignore", "The dirpath has changed")
        check_writable(Path(cli.trainer.default_root_dir))
        if cli.resume_point is not None:
            _check_resume_point(cli.resume_point, cli.model)
        _fit(cli)
    if cli.trainer.fast_dev_run:  # type: ignore[attr-defined]
        log.info("the trial run succeeded; it writes no checkpoint")
        return cli.root
    paths = [callback.path for callback in cli.trainer.checkpoint_callbacks if isinstance(callback, ResumePoints)]
    paths += [Path(c.best_model_path) for c in cli.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    written = [path for path in paths if path.is_file()]
    if not written:
        raise InputError("training ended before its first step, so there is no checkpoint; train for longer")
    if cli.trainer.is_global_zero:
        log.info("checkpoint: %s", written[-1])
    return written[-1]


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
    if options.trainer.overfit_batches:
        raise InputError(
            "trainer.overfit_batches is not allowed, because every epoch has its own excerpts; use few tracks instead"
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


def _fit(cli: TrainingCLI) -> None:
    try:
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=cli.resume_point, weights_only=True)
    except SystemExit as stop:
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
    try:
        return TrainingCLI(
            SeparationModule,
            data,
            seed_everything_default=DEFAULT_SEED,
            save_config_kwargs={"overwrite": True},
            args=files,
            run=False,
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": "bsmamba2 train",
                "description": "Train a BSMamba2 on a folder of songs with stems, such as MUSDB18.",
                "exit_on_error": False,
                # An abbreviation would change its meaning when an option is added.
                "allow_abbrev": False,
            },
        )
    except (MisconfigurationException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"training cannot run with these options ({reason}); change that option") from error
