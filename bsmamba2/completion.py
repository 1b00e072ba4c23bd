"""What completes the command lines of `bsmamba2` in a shell."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from bsmamba2.options import CommandParser
from bsmamba2.training.configs import config_names
from bsmamba2.training.options import TrainingOption
from bsmamba2.weights.registry import PUBLISHED_MODELS

SHELLS = ("bash", "zsh", "tcsh", "fish")
# Options whose values are names, of models and of configs, or files.
NAMED = {"model": "models", "model.init_from": "models", "config": "configs"}
FOLDERS = ("output", "root", "estimates", "decoded", "runs", "data.root", "trainer.default_root_dir")
# Functions of a shell that offer names and files.
_OFFER = {
    "bash": """_bsmamba2_{title}() {{
  compgen -W "{names}" -- "$1"
  compgen -f -- "$1"
}}
""",
    "zsh": """_bsmamba2_{title}() {{
  _alternative 'names:name:({names})' 'files:file:_files'
}}
""",
}


def completion(shell: str, commands: Iterable[CommandParser], training: Sequence[TrainingOption]) -> str:
    """Returns a program for a shell that completes commands, options, their values, and files.

    Args:
        shell: One of `SHELLS`.
        commands: The parsers of the commands, except for `train`.
        training: The options of `train`.
    """
    import shtab

    top = argparse.ArgumentParser(prog="bsmamba2")
    top.add_argument("--version", action="store_true", help="print the version")
    top.add_argument(
        "--print-completion", choices=SHELLS, help="print a script that completes command lines in a shell"
    )
    below = top.add_subparsers()
    for command in commands:
        copy = below.add_parser(command.prog.split()[1], add_help=False, help=command.summary)
        for action in command.named_options():
            _complete(copy._add_action(action), action.dest)
        for title, options in command.positional.items():
            given = copy.add_argument(title, nargs=options.get("nargs"), metavar=options["metavar"])
            if title == "names":
                given.choices = ["download", "verify", *PUBLISHED_MODELS]
            _complete(given, title)
    train = below.add_parser("train", help="train a model")
    for option in training:
        values = {"action": "store_true"} if option.kind == "flag" else {"choices": option.choices or None}
        _complete(train.add_argument(f"--{option.name}", help=option.help.replace("%", "%%"), **values), option.name)
    return shtab.complete(top, shell, preamble=_offers(_OFFER.get(shell, "")))


def _lists() -> dict[str, str]:
    return {"models": " ".join(PUBLISHED_MODELS), "configs": " ".join(config_names())}


def _offers(form: str) -> str:
    return "".join(form.format(title=title, names=names) for title, names in _lists().items())


def _complete(action: argparse.Action, name: str) -> None:
    """Sets how the value of an option is completed, if it is a name or a path."""
    import shtab

    if action.nargs == 0 or action.choices:
        return
    if name in NAMED:
        offer = f"_bsmamba2_{NAMED[name]}"
        # tcsh can offer either names or files.
        fish = f"{_lists()[NAMED[name]]} {shtab.FILE['fish']}"
        action.complete = {"bash": offer, "zsh": offer, "tcsh": "f:*", "fish": fish}  # type: ignore[attr-defined]
    elif name in FOLDERS:
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    elif action.type is Path or name in ("input", "inputs", "ckpt_path", "data.index"):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
