"""The command line: `bsmamba2 separate | train | evaluate | report | check-data | models | convert | doctor | demo`."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bsmamba2.errors import InputError
from bsmamba2.system.stopping import stopped_by_exception

USAGE = """usage: bsmamba2 COMMAND ...

Music source separation with BSMamba2.

commands:
  separate   write the stems of songs
  train      train a model on MUSDB18, or on any folder of songs with stems
  evaluate   score a model, or the estimates of any other tool, on songs with stems
  report     show evaluations side by side on one page
  check-data find errors in a folder of songs with stems, decode its stem files, index it
  models     list, download and verify published models
  convert    extract the weights of a checkpoint
  doctor     report what this machine computes with, and how to fix what does not work
  demo       separate a short song, score it and draw its spectrogram

`bsmamba2 COMMAND --help` lists the options of a command.
"""
MODELS_USAGE = """usage: bsmamba2 models [--json]
       bsmamba2 models download NAME [--json]
       bsmamba2 models verify [--json]

List the published models; download one into the user's cache; verify the downloaded ones and the packaged one.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status.

    0 done, 1 not possible with the given input, 2 wrong usage, 130 stopped by the user, 143 stopped by the system.
    """
    arguments = with_underscores(sys.argv[1:] if arguments is None else arguments)
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
    # Not imported above, so that the usage is printed without delay.
    from jsonargparse import ArgumentError

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
        # The reader of the output, such as head, has stopped; Python would fail when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


@contextlib.contextmanager
def _log_shown() -> Iterator[None]:
    """Shows the log of this package on the standard error while the block runs."""
    log, console = logging.getLogger("bsmamba2"), logging.StreamHandler()
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(console)
    try:
        yield
    finally:
        log.removeHandler(console)


# Each command imports what it needs, so that a separation loads no training code.
def _separate(arguments: Sequence[str]) -> None:
    from bsmamba2.separation.command import separate_files

    inputs = {"nargs": "+", "metavar": "INPUT", "help": "audio or video files, folders, patterns, or - for a pipe"}
    stems = {"type": _names, "metavar": "STEM,..."}
    outcomes = _run("separate", separate_files, arguments, {"inputs": inputs, "--stems": stems})
    failures = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failures:
        raise InputError(
            f"{len(failures)} of {len(outcomes)} files could not be separated; the first: {failures[0].remark}"
        )
    incomplete = [outcome for outcome in outcomes if outcome.state == "incomplete"]
    if incomplete:
        raise InputError(
            f"{len(incomplete)} of {len(outcomes)} files are damaged, and their stems are silent there; the first: "
            f"{incomplete[0].source}: {incomplete[0].remark}"
        )


def _train(arguments: Sequence[str]) -> None:
    from bsmamba2.training.command import train

    train(arguments)


def _evaluate(arguments: Sequence[str]) -> None:
    from bsmamba2.evaluation.command import evaluate
    from bsmamba2.evaluation.runs import REPORT
    from bsmamba2.evaluation.table import results_table
    from bsmamba2.options import parse_options

    special: dict[str, dict[str, Any]] = {
        "--stems": {"type": _names, "metavar": "STEM,..."},
        "--chunk_seconds": {"type": float, "nargs": "+", "metavar": "SECONDS"},
        "--no_report": {"action": "store_true", "help": "Do not write report.html."},
    }
    options = parse_options("evaluate", evaluate, arguments, special)
    no_report = options.pop("no_report")
    results = evaluate(**options)
    if results.tracks:
        if not no_report:
            # Drawing is imported only when it is needed.
            from bsmamba2.report import write_report

            write_report([options["output"]], options["output"] / REPORT)
        print(results_table(results))
    if results.failures:
        name, reason = next(iter(results.failures.items()))
        count = len(results.failures)
        failed = f"{count} of {count + len(results.tracks)} tracks" if results.tracks else "no track"
        raise InputError(f"{failed} could {'not ' if results.tracks else ''}be scored; the first: {name}: {reason}")


def _report(arguments: Sequence[str]) -> None:
    from bsmamba2.report.command import report

    for path in _run("report", report, arguments, {"runs": {"nargs": "+", "metavar": "RUN", "type": Path}}):
        print(path)


def _check_data(arguments: Sequence[str]) -> None:
    from bsmamba2.data.checking import check_data

    report, healthy = _run("check-data", check_data, arguments, {"root": {"metavar": "ROOT", "type": Path}})
    print(report)
    if not healthy:
        raise InputError("the dataset has errors (listed above); fix them before training")


def _models(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] in ("-h", "--help"):
        print(MODELS_USAGE, end="")
        return
    from bsmamba2.weights.command import download_model, list_models, verify_models

    if arguments and arguments[0] == "download":
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
        raise InputError("something that is installed does not work; the commands above fix it")


def _demo(arguments: Sequence[str]) -> None:
    from bsmamba2.demo import run_demo

    print(_run("demo", run_demo, arguments))


def _run(
    command: str,
    function: Callable[..., Any],
    arguments: Sequence[str],
    special: Mapping[str, Mapping[str, Any]] | None = None,
) -> Any:
    """Calls a function with the options on the command line; see `bsmamba2.options.parse_options`."""
    from bsmamba2.options import parse_options

    return function(**parse_options(command, function, arguments, special))


def _names(value: str | list[str]) -> list[str]:
    """Returns names separated by commas; jsonargparse calls it again with the result."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """Returns arguments with options spelled `--batch_size` that may be given as `--batch-size`; not behind `--`."""
    options = list(arguments).index("--") if "--" in arguments else len(arguments)
    return [_with_underscore(argument) for argument in arguments[:options]] + list(arguments[options:])


def _with_underscore(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if name.startswith("--") else argument
