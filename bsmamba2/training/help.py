"""The help of `bsmamba2 train`: our options and the usual ones of Lightning, a line each."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence

from bsmamba2.options import HELP_COLUMNS
from bsmamba2.training.options import TrainingOption, training_options

# The options of Lightning that most runs need, in words that fit a line.
GENERAL = {
    "config": "Name of a config, or a file; may be repeated.",
    "ckpt_path": "Checkpoint to resume from; last: the newest, if any.",
    "seed_everything": "Start of all randomness.",
    "print_config": "Print all options and their values, and exit.",
}
LIGHTNING = {
    "trainer.default_root_dir": "Folder below which runs are written.",
    "trainer.accelerator": "cpu, gpu, mps or auto.",
    "trainer.devices": "How many, or which: [0, 2].",
    "trainer.num_nodes": "Machines that train together.",
    "trainer.precision": "32-true, bf16-mixed or 16-mixed.",
    "trainer.max_epochs": "Epochs after which training ends.",
    "trainer.max_steps": "Optimiser steps after which it ends; -1: no limit.",
    "trainer.max_time": "Time after which it ends, as DD:HH:MM:SS.",
    "trainer.accumulate_grad_batches": "Batches in an optimiser step.",
    "trainer.gradient_clip_val": "Largest norm of the gradients.",
    "trainer.val_check_interval": "Validations: a share of an epoch, or steps.",
    "trainer.log_every_n_steps": "Steps between two entries in the log.",
    "trainer.logger": "Class of a logger, or false; by default TensorBoard.",
    "trainer.fast_dev_run": "Only try this many batches; writes no checkpoint.",
    "ema.decay": "Share of the average that remains at an update.",
    "ema.update_every_n_steps": "Optimiser steps between two updates.",
    "ema.update_starting_at_step": "Step at which the average begins.",
    "ema.update_starting_at_epoch": "Epoch at which the average begins.",
    "checkpoint.monitor": "Score of the validation that ranks epochs.",
    "checkpoint.mode": "Whether a good score is high (max) or low (min).",
    "checkpoint.save_top_k": "How many of the best epochs are kept.",
    "checkpoint.every_n_epochs": "Epochs between two of them.",
    "checkpoint.filename": "Their names.",
}
# What sections are called, by what the names of their options begin with, in the order in which they are shown.
SECTIONS = {
    "data.": "songs and excerpts",
    "data.augmentation.": "augmentation",
    "model.": "training",
    "model.loss.": "loss, and weights of its terms",
    "model.network.": "network",
    "trainer.": "trainer (the usual options; --help-all lists the rest)",
    "ema.": "averaged weights",
    "checkpoint.": "checkpoints of the best epochs",
    "resume.": "checkpoints to resume from",
    "health.": "checks",
    "pictures.": "spectrograms in the log",
}
EXAMPLES = (
    "bsmamba2 train --config tiny --data.root MUSDB18-HQ",
    "bsmamba2 train --config bsmamba2 --data.root MUSDB18-HQ --trainer.devices 2 --ckpt_path last",
    "bsmamba2 train --config small --data.root songs --data.validation_artists [Name] --model.init_from msst-vocals",
)
DESCRIPTION = "Train a network on a folder of songs with stems, such as MUSDB18."
WARNING = (
    "A config is a program: it can name any Python class, which is then run. Read a config from someone else before "
    "you use it."
)


def training_help() -> str:
    """Returns the help as text."""
    return "\n".join(_help()) + "\n"


def _help() -> Iterator[str]:
    columns = min(HELP_COLUMNS, shutil.get_terminal_size().columns - 2)
    yield "usage: bsmamba2 train --config NAME --data.root FOLDER [options]"
    yield ""
    yield from textwrap.wrap(f"{DESCRIPTION} {WARNING}", columns)
    yield ""
    yield "examples:"
    yield from (f"  {example}" for example in EXAMPLES)
    options = {option.name: option for option in training_options() if option.kind not in ("group", "flag")}
    yield from _lines("options", [option for option in training_options() if option.name in GENERAL], columns)
    for prefix, title in SECTIONS.items():
        longer = tuple(other for other in SECTIONS if other != prefix and other.startswith(prefix))
        names = [name for name in options if name.startswith(prefix) and not name.startswith(longer)]
        described = [name for name in LIGHTNING if name in names]
        yield from _lines(title, [options[name] for name in described or names], columns)
    yield ""
    yield "`bsmamba2 train --help-all` prints every option, Lightning's too, with its whole text, type and default."


def _lines(title: str, options: Sequence[TrainingOption], columns: int) -> Iterator[str]:
    yield ""
    yield f"{title}:"
    # As narrow as the names of a section allow, which leaves more room for what their options do.
    width = max(len(option.name) for option in options)
    for option in options:
        default = f"[{option.default}] " if option.default else ""
        text = (GENERAL | LIGHTNING).get(option.name) or option.help
        name = f"  --{option.name.ljust(width)}  "
        yield name + textwrap.shorten(default + text, columns - len(name), placeholder=" …")
