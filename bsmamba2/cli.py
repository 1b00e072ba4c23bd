"""The command line: `bsmamba2 separate | train | evaluate | report | check-data | models | convert | doctor | demo`."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from bsmamba2.errors import InputError
from bsmamba2.options import UsageError, meant, one_of, parse_options
from bsmamba2.system.stopping import stopped_by_exception
from bsmamba2.version import __version__

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

`bsmamba2 COMMAND --help` lists the options of a command, `bsmamba2 --version` the version.
"""
MODELS_USAGE = """usage: bsmamba2 models [NAME ...] [--stems STEM,...] [--json]
       bsmamba2 models download NAME ... [--json]
       bsmamba2 models verify [--json]

List the published models, those that give some stems, or all that is known about a model; download models into the
user's cache; verify the downloaded ones and the packaged one.
"""


SEPARATE_EXAMPLES = (
    "bsmamba2 separate song.mp3",
    "bsmamba2 separate album/ -o stems -f flac",
    "bsmamba2 separate song.mp3 -m msst-vocals -s vocals",
    "bsmamba2 separate song.mp3 --preset karaoke",
    "bsmamba2 separate song.mp3 --page",
)
# Options of Demucs, Spleeter, audio-separator and MSST, by which they are known.
SEPARATE_ELSEWHERE = {
    "--two-stems": "--stems vocals,instrumental",
    "--shifts": "--overlap 0.75, which averages shifted segments too",
    "-n": "--model",
    "--name": "--model",
    "--mp3": "--format mp3",
    "--flac": "--format flac",
    "--float32": "--bit-depth float",
    "--int24": "--bit-depth 24",
    "--out": "--output",
    "--filename": "--template",
    "--clip-mode": "--peak",
    "--jobs": "--devices",
    "-j": "--devices",
    "--segment": "--segment-seconds",
    "--output-dir": "--output",
    "--output-format": "--format",
    "--model-filename": "--model",
    "--single-stem": "--stems",
    "--store-dir": "--output",
    "--start-check-point": "--model",
    "-d": "--device",
    "-p": "--model",
    "--extra-models": "--model once more",
    "--ensemble-algorithm": "--ensemble",
    "--ensemble-preset": "--preset",
}
# Models may be given one by one.
SEVERAL_MODELS = {"action": "append", "default": None}
# The extra of pyproject.toml that installs a package, by the name it is imported by.
EXTRAS = {
    "lightning": "train",
    "tensorboard": "train",
    "matplotlib": "report",
    "jinja2": "report",
    "scipy": "report",
    "musdb": "museval",
    "museval": "museval",
    "stempeg": "museval",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status.

    0 done, 1 not possible with the given input, 2 wrong usage, 130 stopped by the user, 143 stopped by the system.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
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
    if arguments[0] == "--version":
        print(f"bsmamba2 {__version__}")
        return 0
    if arguments[0] not in commands:
        advice = meant(arguments[0], list(commands))
        print(f"bsmamba2: error: there is no command {arguments[0]!r}; {advice}", file=sys.stderr)
        return 2
    try:
        with _log_shown(), stopped_by_exception():
            commands[arguments[0]](arguments[1:])
            sys.stdout.flush()
    except InputError as error:
        print(f"bsmamba2: error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        print(
            f"bsmamba2 {arguments[0]}: error: this needs the package {package}, which is not installed; run "
            f'pip install "bsmamba2[{EXTRAS[package]}]"',
            file=sys.stderr,
        )
        return 1
    except PermissionError as error:
        print(f"bsmamba2: error: {error.filename} may not be read or written; change its permissions", file=sys.stderr)
        return 1
    except UsageError as error:
        print(f"bsmamba2 {arguments[0]}: error: {error}", file=sys.stderr)
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
    from bsmamba2.separation.settings import Page
    from bsmamba2.weights.registry import PRESETS

    special: dict[str, dict[str, Any]] = {
        "inputs": _positional(nargs="+", metavar="INPUT"),
        "model": SEVERAL_MODELS,
        "preset": {
            "type": one_of(list(PRESETS)),
            "metavar": f"{{{','.join(PRESETS)}}}",
            "help": "Model and options for a purpose (`bsmamba2 models` lists them). An option that is given wins.",
        },
        "page": {"metavar": f"[{{{','.join(get_args(Page))}}}]"},
    }
    arguments = _with_page(arguments, get_args(Page))

    def parsed(**defaults: Any) -> dict[str, Any]:
        replaced = {name: {"default": value} for name, value in defaults.items()}
        return parse_options(
            "separate", separate_files, arguments, special | replaced, SEPARATE_EXAMPLES, SEPARATE_ELSEWHERE
        )

    options = parsed()
    if options["preset"]:
        if options["model"]:
            raise UsageError(f"--preset {options['preset']} chooses a model too; leave --model or --preset out")
        preset = PRESETS[options["preset"]]
        options = parsed(**preset.options) | {"model": preset.models}
    del options["preset"]
    if options["model"] is None:
        del options["model"]
    outcomes = separate_files(**options)
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


def _with_page(arguments: Sequence[str], values: Sequence[str]) -> list[str]:
    """Returns arguments in which a `--page` without a value has the first one, as an input may follow it."""
    options = list(arguments).index("--") if "--" in arguments else len(arguments)
    given = [
        f"{argument}={values[0]}" if argument == "--page" and following not in values else argument
        for argument, following in zip(arguments[:options], [*arguments[1:], ""], strict=False)
    ]
    return given + list(arguments[options:])


def _train(arguments: Sequence[str]) -> None:
    # The two import what the others can do without.
    from jsonargparse import ArgumentError

    from bsmamba2.training.command import train

    try:
        train(with_underscores(arguments))
    except ArgumentError as error:
        raise UsageError(f"{' '.join(str(error).split())}; see bsmamba2 train --help") from error


def _evaluate(arguments: Sequence[str]) -> None:
    from bsmamba2.evaluation.command import evaluate
    from bsmamba2.evaluation.runs import REPORT
    from bsmamba2.evaluation.table import results_table

    special: dict[str, dict[str, Any]] = {
        "model": SEVERAL_MODELS,
        "no_report": {"action": "store_true", "help": "Do not write report.html."},
    }
    options = parse_options("evaluate", evaluate, arguments, special)
    no_report = options.pop("no_report")
    if not no_report:
        # Before the evaluation, which takes long: drawing needs packages that may be missing.
        from bsmamba2.report import write_report
    results = evaluate(**options)
    if results.tracks:
        if not no_report:
            write_report([options["output"]], options["output"] / REPORT)
        print(results_table(results))
    if results.failures:
        name, reason = next(iter(results.failures.items()))
        count = len(results.failures)
        failed = f"{count} of {count + len(results.tracks)} tracks" if results.tracks else "no track"
        raise InputError(f"{failed} could {'not ' if results.tracks else ''}be scored; the first: {name}: {reason}")


def _report(arguments: Sequence[str]) -> None:
    from bsmamba2.report.command import report

    for path in _run("report", report, arguments, {"runs": _positional(nargs="+", metavar="RUN", type=Path)}):
        print(path)


def _check_data(arguments: Sequence[str]) -> None:
    from bsmamba2.data.checking import check_data

    report, healthy = _run("check-data", check_data, arguments, {"root": _positional(metavar="ROOT", type=Path)})
    print(report)
    if not healthy:
        raise InputError("the dataset has errors (listed above); fix them before training")


def _models(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] in ("-h", "--help"):
        print(MODELS_USAGE, end="")
        return
    from bsmamba2.weights.command import download_models, list_models, verify_models

    if arguments and arguments[0] == "download":
        names = _positional(nargs="+", metavar="NAME")
        print(_run("models download", download_models, arguments[1:], {"names": names}))
    elif arguments and arguments[0] == "verify":
        print(_run("models verify", verify_models, arguments[1:]))
    else:
        print(_run("models", list_models, arguments, {"names": _positional(nargs="*", metavar="NAME")}))


def _convert(arguments: Sequence[str]) -> None:
    from bsmamba2.weights.conversion import convert

    files = {
        "input": _positional(metavar="INPUT", type=Path),
        "output": _positional(metavar="OUTPUT", type=Path),
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
    return function(**parse_options(command, function, arguments, special))


def _positional(**options: Any) -> dict[str, Any]:
    """Returns the options of an argument that is given without a name."""
    return {"positional": True, "type": str, **options}


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """Returns arguments with options spelled `--batch_size` that may be given as `--batch-size`; not behind `--`."""
    options = list(arguments).index("--") if "--" in arguments else len(arguments)
    return [_with_underscore(argument) for argument in arguments[:options]] + list(arguments[options:])


def _with_underscore(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if name.startswith("--") else argument
