"""The command line: `bsmamba2 separate | train | evaluate | demo`."""

import logging
import sys
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from inspect import signature
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from bsmamba2.errors import InputError

OVERWRITE = "overwrite"
USAGE = """usage: bsmamba2 COMMAND ...

Music source separation with BSMamba2.

commands:
  separate   write the stems of songs
  train      train a model on a MUSDB18 folder
  evaluate   score a model on the tracks of a MUSDB18 folder
  demo       train, evaluate and separate on a short real song, in minutes

`bsmamba2 COMMAND --help` lists the options of a command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status.

    0 done, 1 not possible with what was given, 2 wrong usage, 130 stopped by the user.
    """
    arguments = [_with_underscores(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
    commands = {"separate": _separate, "train": _train, "evaluate": _evaluate, "demo": _demo}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] not in commands:
        print(f"bsmamba2: error: there is no command {arguments[0]!r}; choose {', '.join(commands)}", file=sys.stderr)
        return 2
    _show_log()
    try:
        commands[arguments[0]](arguments[1:])
    except InputError as error:
        print(f"bsmamba2: error: {error}", file=sys.stderr)
        return 1
    except ArgumentError as error:
        reason = " ".join(str(error).split())
        print(f"bsmamba2 {arguments[0]}: error: {reason}; see bsmamba2 {arguments[0]} --help", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bsmamba2: stopped", file=sys.stderr)
        return 130
    return 0


def _show_log() -> None:
    """Shows what the package logs, and only that: other packages speak for themselves."""
    log = logging.getLogger("bsmamba2")
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(logging.StreamHandler())


# Each command imports what it needs, so that `--help` answers at once and a separation loads no training code.
def _separate(arguments: Sequence[str]) -> None:
    from bsmamba2.song_files import separate_files

    parser = _parser("separate", separate_files, skip={"inputs"})
    parser.add_argument("inputs", nargs="+", metavar="INPUT", type=Path, help="audio files: WAV or FLAC")
    _run(parser, arguments, separate_files)


def _train(arguments: Sequence[str]) -> None:
    from bsmamba2.training_command import train

    train(arguments)


def _evaluate(arguments: Sequence[str]) -> None:
    from bsmamba2.evaluation import evaluate

    print(_run(_parser("evaluate", evaluate), arguments, evaluate).table())


def _demo(arguments: Sequence[str]) -> None:
    from bsmamba2.demo import run_demo

    print(_run(_parser("demo", run_demo), arguments, run_demo))


def _parser(command: str, function: Callable[..., Any], skip: AbstractSet[str] = frozenset()) -> ArgumentParser:
    parser = ArgumentParser(prog=f"bsmamba2 {command}", exit_on_error=False)
    parser.add_function_arguments(function, skip={*skip, OVERWRITE})
    if OVERWRITE in signature(function).parameters:
        parser.add_argument(f"--{OVERWRITE}", action="store_true", help="replace what is already there")
    return parser


def _run(parser: ArgumentParser, arguments: Sequence[str], function: Callable[..., Any]) -> Any:
    values = parser.parse_args(list(arguments))
    return function(**values.as_dict())


def _with_underscores(argument: str) -> str:
    """`--batch-size` is `--batch_size`: both spellings are common, and one of them is always forgotten."""
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if name.startswith("--") else argument
