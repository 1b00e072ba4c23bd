"""The options of `bsmamba2 train`, known without Lightning: their help, and what is wrong with a command line."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bsmamba2.errors import InputError, UsageError
from bsmamba2.suggestions import meant, nearest
from bsmamba2.system.files import check_can_be_made
from bsmamba2.training.configs import CONFIG, CONFIG_SHORT, config_file
from bsmamba2.weights.registry import check_models_exist

# scripts/list_training_options.py writes it from the options themselves, whose import takes seconds.
TABLE = Path(__file__).with_name("options.json")
# Spellings that read as true or false.
TRUTHS = ("true", "false", "yes", "no", "on", "off", "1", "0")
SEE = "see bsmamba2 train --help"
# Options of other programs that train, MSST among them, and ours.
ELSEWHERE = {
    "lr": "model.learning_rate",
    "epochs": "trainer.max_epochs",
    "gpus": "trainer.devices",
    "device_ids": "trainer.devices",
    "num_workers": "data.workers",
    "seed": "seed_everything",
    "data_path": "data.root",
    "config_path": "config",
    "results_path": "trainer.default_root_dir",
    "start_check_point": "model.init_from",
}


@dataclass(frozen=True)
class TrainingOption:
    """An option of training.

    Args:
        name: Its name, without --.
        kind: What its value is read as: `number`, `whole number`, `truth`, `text` (one of the choices, if it has some),
            `group` (a file with the options whose names begin with this one), `flag` (no value), or `any` (what only
            Lightning can read, which may have options of its own).
        optional: Whether its value may be null.
        choices: The values that are allowed; empty if any is.
        default: Its default as text; empty if it has none.
        help: What it does.
    """

    name: str
    kind: str
    optional: bool
    choices: tuple[str, ...]
    default: str
    help: str


@cache
def training_options() -> tuple[TrainingOption, ...]:
    """Returns all options."""
    entries = json.loads(TABLE.read_text(encoding="utf-8"))
    return tuple(TrainingOption(**(entry | {"choices": tuple(entry["choices"])})) for entry in entries)


def check_training_options(arguments: Sequence[str]) -> None:
    """Checks a command line as far as that is possible before Lightning is imported.

    Args:
        arguments: The command line behind `bsmamba2 train`; names of options may have hyphens.

    Raises:
        UsageError: An option does not exist, lacks a value, or has one that is not allowed; or there is no --data.root.
        InputError: A config, a folder, a checkpoint or a model does not exist.
    """
    given: dict[str, str] = {}
    configs: list[Path] = []
    for option, name, value in _given(arguments):
        if name == "config":
            configs.append(config_file(value))
        elif option.name == name:
            _check_value(option, value)
            given[name] = value
    if not given.keys() & {"data.root", "data", "print_config", "help_all"} and not any(map(_has_root, configs)):
        raise UsageError(f"--data.root is missing, the folder of songs to train on; {SEE}")
    root = given.get("data.root")
    if root is not None and not Path(root).is_dir():
        raise InputError(f"there is no folder {root}; give --data.root the one that contains train/")
    resumed = given.get("ckpt_path", "last")
    if resumed not in ("last", "null") and not Path(resumed).is_file():
        raise InputError(f"the checkpoint {resumed} does not exist; check the path")
    if given.get("model.init_from", "null") != "null" and "ckpt_path" not in given:
        check_models_exist([given["model.init_from"]])
    if given.get("trainer.default_root_dir", "null") != "null":
        check_can_be_made(Path(given["trainer.default_root_dir"]))


def _given(arguments: Sequence[str]) -> Iterator[tuple[TrainingOption, str, str]]:
    """Yields the options of a command line, each with its name as given and its value."""
    options = {option.name: option for option in training_options()}
    left = iter(arguments)
    for argument in left:
        typed, equals, value = argument.partition("=")
        typed = CONFIG if typed == CONFIG_SHORT else typed
        if not typed.startswith("--"):
            raise UsageError(f"{argument!r} was not expected; {SEE}")
        name = typed[2:].removesuffix("+").replace("-", "_")
        option = options.get(name) or _owner(name, options)
        if option is None:
            near = ELSEWHERE.get(name) or nearest(name, list(options), 0.7)
            raise UsageError(f"there is no option {typed}; {f'did you mean --{near}?' if near else SEE}")
        if not equals and option.kind != "flag":
            following = next(left, None)
            if following is None or following.startswith("--"):
                raise UsageError(f"{typed} needs a value; {SEE}")
            value = following
        yield option, name, value


def _owner(name: str, options: Mapping[str, TrainingOption]) -> TrainingOption | None:
    """Returns the option that an option of its own belongs to, such as that of a logger; None if there is none."""
    parts = name.split(".")
    owners = (options.get(".".join(parts[:count])) for count in range(1, len(parts)))
    return next((owner for owner in owners if owner and owner.kind == "any"), None)


def _check_value(option: TrainingOption, value: str) -> None:
    text = value.strip().lower()
    if option.kind in ("any", "group", "flag") or (option.optional and text in ("null", "none")):
        return
    if option.choices and value not in option.choices:
        raise UsageError(f"--{option.name}: there is no {value!r}; {meant(value, option.choices)}")
    if option.kind == "truth" and text not in TRUTHS:
        raise UsageError(f"--{option.name}: {value!r} is neither true nor false")
    if option.kind in ("number", "whole number"):
        try:
            number = float(text)
        except ValueError:
            number = None
        if number is None or (option.kind == "whole number" and not (math.isfinite(number) and number == int(number))):
            raise UsageError(f"--{option.name}: {value!r} is not a {option.kind}")


def _has_root(config: Path) -> bool:
    """Returns whether a config gives the folder of songs; a file that cannot be read is reported later."""
    import yaml

    try:
        content: Any = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return True
    data = content.get("data") if isinstance(content, dict) else None
    # Text is the name of another file.
    return isinstance(data, str) or (isinstance(data, dict) and "root" in data)
