"""Training from the command line: Lightning's own command line over our module and data."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from bsmamba2.checkpoint import load_model
from bsmamba2.data.datamodule import MusdbDataModule
from bsmamba2.errors import InputError
from bsmamba2.files import check_writable
from bsmamba2.training import SeparationModule

SEED = 42

log = logging.getLogger(__name__)


class TrainingCLI(LightningCLI):
    """Options of network, data, trainer, averaging and checkpoints; the network decides what the data looks like."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what is not the trainer's, the module's or the data's."""
        parser.link_arguments("model.network.segment_seconds", "data.segment_seconds")
        parser.link_arguments("model.network.sample_rate", "data.sample_rate")
        parser.link_arguments("model.network.channels", "data.channels")
        parser.link_arguments("model.network.stems", "data.targets")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.add_lightning_class_args(EMAWeightAveraging, "ema")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "ema.decay": 0.999,
                "checkpoint.monitor": "val/usdr",
                "checkpoint.mode": "max",
                "checkpoint.save_top_k": 4,
                "checkpoint.save_last": True,
                "checkpoint.filename": "{epoch}-{step}",
            }
        )
        parser.add_argument("--ckpt_path", type=Path | None, default=None, help="checkpoint to go on from")


def train(arguments: Sequence[str]) -> Path:
    """Trains as the options say and returns the path of the best checkpoint, which holds the averaged weights.

    Raises:
        InputError: An option or the data cannot be used.
    """
    with warnings.catch_warnings():
        # Lightning warns whoever calls its command line from Python while the process has arguments of its own.
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        cli = _parsed(arguments)
    check_writable(Path(cli.trainer.default_root_dir))
    resumed = cli.config.ckpt_path
    if resumed is not None and load_model(resumed).config != cli.model.network.config:
        raise InputError(f"{resumed} is of another network than the options say; give the --config it was trained with")
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=resumed, weights_only=True)
    checkpoint = cli.trainer.checkpoint_callback
    if not isinstance(checkpoint, ModelCheckpoint) or not (checkpoint.best_model_path or checkpoint.last_model_path):
        raise InputError("training ended before the first validation, so there is no checkpoint; train for longer")
    path = Path(checkpoint.best_model_path or checkpoint.last_model_path)
    log.info("best checkpoint: %s", path)
    return path


def _parsed(arguments: Sequence[str]) -> TrainingCLI:
    try:
        return TrainingCLI(
            SeparationModule,
            MusdbDataModule,
            seed_everything_default=SEED,
            args=list(arguments),
            run=False,
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": "bsmamba2 train",
                "description": "Train a BSMamba2 on a MUSDB18 folder.",
                "exit_on_error": False,
            },
        )
    except MisconfigurationException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the trainer cannot run as asked ({reason}); change the options --trainer.*") from error
