"""The command line: `bsmamba2 separate | train | evaluate | report | check-data | models | convert | doctor | demo`."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from docstring_parser import parse
from jsonargparse import ArgumentError, ArgumentParser

from bsmamba2.errors import InputError
from bsmamba2.system.stopping import stopped_by_exception

USAGE = """usage: bsmamba2 COMMAND ...

Music source separation with BSMamba2.

commands:
  separate   write the stems of songs
  train      train a model on MUSDB18, or on any folder of songs with stems
  evaluate   score a model, or what any other tool separated, on songs with stems
  report     show evaluations side by side on one page
  check-data find what is wrong in such a folder, decode its stem files, index it
  models     list, download and verify published models
  convert    turn a checkpoint into a small file of weights
  doctor     say what this machine will compute with, and mend it
  demo       separate a short real song, score it and show it, in a minute

`bsmamba2 COMMAND --help` lists the options of a command.
"""
MODELS_USAGE = """usage: bsmamba2 models [--json]
       bsmamba2 models download NAME [--json]
       bsmamba2 models verify [--json]

List the published models; fetch one into the user's cache; check those that are there and the one in the package.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status.

    0 done, 1 not possible with what was given, 2 wrong usage, 130 stopped by the user, 143 stopped by the system.
    """
    arguments = _with_underscores(sys.argv[1:] if arguments is None else arguments)
    commands = {
        "separate": _separate,
        "train": _train,
        "evaluate": _evaluate,
        "report": _report,
        "check-data": _check_data,
        "models": _models,
        "convert": _convert,
        "doctor": _doctor,
        "demo": _demo,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] not in commands:
        print(f"bsmamba2: error: there is no command {arguments[0]!r}; choose {', '.join(commands)}", file=sys.stderr)
        return 2
    try:
        with _log_shown(), stopped_by_exception():
            commands[arguments[0]](arguments[1:])
            sys.stdout.flush()
    except InputError as error:
        print(f"bsmamba2: error: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"bsmamba2: error: {error.filename} may not be read or written; change its permissions", file=sys.stderr)
        return 1
    except ArgumentError as error:
        reason = " ".join(str(error).split())
        print(f"bsmamba2 {arguments[0]}: error: {reason}; see bsmamba2 {arguments[0]} --help", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bsmamba2: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who reads the output, such as head, has enough; Python would complain when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


@contextlib.contextmanager
def _log_shown() -> Iterator[None]:
    """Shows what the package logs, and only that: other packages speak for themselves."""
    log, console = logging.getLogger("bsmamba2"), logging.StreamHandler()
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(console)
    try:
        yield
    finally:
        log.removeHandler(console)


# Each command imports what it needs, so that `--help` answers at once and a separation loads no training code.
def _separate(arguments: Sequence[str]) -> None:
    from bsmamba2.separation.command import separate_files

    inputs = {"nargs": "+", "metavar": "INPUT", "help": "audio or video files, folders, patterns, or - for a pipe"}
    stems = {"type": _names, "metavar": "STEM,..."}
    _run("separate", separate_files, arguments, {"inputs": inputs, "--stems": stems})


def _train(arguments: Sequence[str]) -> None:
    from bsmamba2.training.command import train

    train(arguments)


def _evaluate(arguments: Sequence[str]) -> None:
    from bsmamba2.evaluation.command import evaluate
    from bsmamba2.evaluation.table import results_table

    stems = {"type": _names, "metavar": "STEM,..."}
    chunks = {"type": float, "nargs": "+", "metavar": "SECONDS"}
    results = _run("evaluate", evaluate, arguments, {"--stems": stems, "--chunk_seconds": chunks})
    print(results_table(results))
    if results.failures:
        name, reason = next(iter(results.failures.items()))
        raise InputError(
            f"{len(results.failures)} of {len(results.failures) + len(results.tracks)} tracks could not be scored; the "
            f"first: {name}: {reason}"
        )


def _report(arguments: Sequence[str]) -> None:
    from bsmamba2.report.command import report

    for path in _run("report", report, arguments, {"runs": {"nargs": "+", "metavar": "RUN", "type": Path}}):
        print(path)


def _check_data(arguments: Sequence[str]) -> None:
    from bsmamba2.data.checking import check_data

    report, healthy = _run("check-data", check_data, arguments, {"root": {"metavar": "ROOT", "type": Path}})
    print(report)
    if not healthy:
        raise InputError("the data have errors, listed above; mend them before a training")


def _models(arguments: Sequence[str]) -> None:
    from bsmamba2.weights.command import download_model, list_models, verify_models

    if arguments and arguments[0] in ("-h", "--help"):
        print(MODELS_USAGE, end="")
    elif arguments and arguments[0] == "download":
        print(_run("models download", download_model, arguments[1:], {"name": {"metavar": "NAME"}}))
    elif arguments and arguments[0] == "verify":
        print(_run("models verify", verify_models, arguments[1:]))
    else:
        print(_run("models", list_models, arguments))


def _convert(arguments: Sequence[str]) -> None:
    from bsmamba2.weights.conversion import convert

    files = {
        "input": {"metavar": "INPUT", "type": Path, "help": "the checkpoint: a .ckpt, .pt or .safetensors file"},
        "output": {"metavar": "OUTPUT", "type": Path, "help": "the .safetensors file to write"},
        "--stems": {"type": _names, "metavar": "STEM,..."},
    }
    print(_run("convert", convert, arguments, files))


def _doctor(arguments: Sequence[str]) -> None:
    from bsmamba2.doctor import doctor

    report, healthy = _run("doctor", doctor, arguments)
    print(report)
    if not healthy:
        raise InputError("something that is installed does not work; the commands above mend it")


def _demo(arguments: Sequence[str]) -> None:
    from bsmamba2.demo import run_demo

    print(_run("demo", run_demo, arguments))


def _run(
    command: str,
    function: Callable[..., Any],
    arguments: Sequence[str],
    special: dict[str, dict[str, Any]] | None = None,
) -> Any:
    """Calls a function with the options that its signature and docstring describe; a bool is a flag without a value.

    Args:
        command: Name of the command.
        function: What it does.
        arguments: What was given on the command line.
        special: Arguments that are declared otherwise, by name; one without hyphens is positional.
    """
    special = dict(special or {})
    described = parse(function.__doc__ or "")
    helps = {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in described.params}
    for name, parameter in signature(function).parameters.items():
        if parameter.annotation is bool:
            special[f"--{name}"] = {"action": "store_true"}
    parser = _Parser(prog=f"bsmamba2 {command}", exit_on_error=False, description=described.short_description or "")
    names: set[str | int] = {name.removeprefix("--") for name in special}
    for name, options in special.items():
        parser.add_argument(name, **{"help": helps[name.removeprefix("--")]} | options)
    parser.add_function_arguments(function, skip=names, as_group=False)
    return function(**parser.parse_args(list(arguments)).as_dict())


class _Parser(ArgumentParser):
    """Shows options as they are usually written, `--batch-size`, and types without what only Python knows of them."""

    def format_help(self, *arguments: Any, **options: Any) -> str:
        text = re.sub(
            r"--[a-z]+(_[a-z]+)+", lambda name: name[0].replace("_", "-"), super().format_help(*arguments, **options)
        )
        text = re.sub(r"type:\s+<function\s+\w+\s+at\s+\w+>,\s+", "", text)
        return re.sub(r"<class\s+'([\w.]+)'>", r"\1", text)


def _names(value: str | list[str]) -> list[str]:
    """Jsonargparse asks again with what it was given."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _with_underscores(arguments: Sequence[str]) -> list[str]:
    """`--batch-size` is `--batch_size`: both spellings are common, and one of them is always forgotten.

    What follows `--` is no option.
    """
    options = list(arguments).index("--") if "--" in arguments else len(arguments)
    return [_with_underscore(argument) for argument in arguments[:options]] + list(arguments[options:])


def _with_underscore(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if name.startswith("--") else argument
