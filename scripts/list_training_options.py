"""Writes the options of `bsmamba2 train` to bsmamba2/training/options.json, where its help finds them at once."""

import argparse
import json
import warnings
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from lightning.pytorch.cli import LightningArgumentParser

from bsmamba2.data.datamodule import MusdbDataModule
from bsmamba2.training.command import DEFAULT_SEED, HELP_ALL, TrainingCLI
from bsmamba2.training.module import SeparationModule
from bsmamba2.training.options import TABLE

# What values are read as, by the type of an option.
KINDS: dict[object, str] = {int: "whole number", float: "number", bool: "truth", str: "text", Path: "text"}
LONGEST_DEFAULT = 24
OURS = ("--data.", "--model.", "--resume.", "--health.", "--pictures.")


class ParserMadeError(Exception):
    """Carries the parser."""


class ParsingNothing(TrainingCLI):
    """Makes the parser of training, and parses nothing."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> NoReturn:
        """Raises the parser."""
        raise ParserMadeError(parser)


def table() -> str:
    """Returns the options as JSON, one in a line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ParsingNothing(
                SeparationModule,
                MusdbDataModule,
                seed_everything_default=DEFAULT_SEED,
                run=False,
                auto_configure_optimizers=False,
            )
    except ParserMadeError as made:
        entries = [entry for action in made.args[0]._actions if (entry := described(action))]
    entries.append(entry_of(HELP_ALL[2:], "flag", help="Print every option, with its whole text, and exit."))
    return "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "\n]\n"


def described(action: argparse.Action) -> dict[str, object] | None:
    """Returns an option; None for what only prints something or cannot be given."""
    names = [name for name in action.option_strings if name.startswith("--") and not name.endswith("+")]
    if not names or action.dest in ("help", "print_shtab") or action.dest.endswith(".help"):
        return None
    kind, optional = "any", False
    choices: tuple[str, ...] = ()
    if action.dest == "config":
        kind = "text"
    elif action.dest == "print_config":
        kind = "flag"
    elif action.metavar == "CONFIG":
        kind = "group"
    elif hasattr(action, "_typehint"):
        kind, optional, choices = read_as(action._typehint)
    default = "" if action.default in (None, argparse.SUPPRESS) else shown(action.default)
    # The help has words of its own for Lightning's.
    ours = names[0].startswith(OURS)
    text = " ".join((action.help or "").replace("%%", "%").split()) if ours else ""
    return entry_of(names[0][2:], kind, optional, choices, default, text)


def entry_of(
    name: str, kind: str, optional: bool = False, choices: tuple[str, ...] = (), default: str = "", help: str = ""
) -> dict[str, object]:
    """Returns the fields of a `TrainingOption`."""
    return {
        "name": name, "kind": kind, "optional": optional, "choices": choices, "default": default, "help": help
    }  # fmt: skip


def read_as(annotation: Any) -> tuple[str, bool, tuple[str, ...]]:
    """Returns what a value of a type is read as, whether it may be null, and the choices."""
    optional = False
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
        optional = len(kinds) < len(get_args(annotation))
        # Paths and names are both text, and a whole number is a number.
        if set(kinds) == {str, Path}:
            return "text", optional, ()
        if set(kinds) == {int, float}:
            return "number", optional, ()
        if len(kinds) > 1:
            return "any", optional, ()
        annotation = kinds[0]
    if get_origin(annotation) is Literal:
        return "text", optional, tuple(str(choice) for choice in get_args(annotation))
    return KINDS.get(annotation, "any"), optional, ()


def shown(value: object) -> str:
    """Returns a default as text that fits a line of help."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    # As lists are typed, without brackets, which the help adds.
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else text
    return text if len(text) <= LONGEST_DEFAULT else text[: LONGEST_DEFAULT - 4] + " …"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    TABLE.write_text(table(), encoding="utf-8")
