"""The command line: `bsmamba2 COMMAND ...`; `USAGE` lists the commands."""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from bsmamba2.errors import InputError, UsageError
from bsmamba2.options import CommandParser, command_parser, named_as_typed, one_of, with_underscores
from bsmamba2.printable import printable
from bsmamba2.suggestions import meant, nearest
from bsmamba2.system.console import log_shown, open_missing_streams
from bsmamba2.system.standard_output import ReaderGoneError, checked_output
from bsmamba2.system.stopping import stopped_by_exception
from bsmamba2.version import __version__

USAGE = """usage: bsmamba2 COMMAND ...

Music source separation with BSMamba2.

commands:
  separate   write the stems of songs
  open       open a page to drop songs on, listen to their stems and mix them
  train      train a model on MUSDB18, or on any folder of songs with stems
  evaluate   score a model, or the estimates of any other tool, on songs with stems
  report     show evaluations side by side on one page
  check-data find errors in a folder of songs with stems, decode its stem files, index it
  models     list, download and verify published models
  convert    extract the weights of a checkpoint
  export     write a model as an ONNX file, for other programs
  doctor     report which devices and scans work on this machine, and how to fix what does not
  demo       separate a short song, score it and draw its spectrogram

`bsmamba2 COMMAND --help` lists the options of a command, `bsmamba2 --version` the version, and
`bsmamba2 --print-completion bash` (or zsh, tcsh, fish) prints a script that completes command lines in that shell.
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
OPEN_EXAMPLES = (
    "bsmamba2 open",
    "bsmamba2 open song.mp3 --output stems",
)
EVALUATE_EXAMPLES = (
    "bsmamba2 evaluate --model model.ckpt --root MUSDB18-HQ --output run",
    "bsmamba2 evaluate --estimates FOLDER --root MUSDB18-HQ --output other",
)
EXPORT_EXAMPLES = (
    "bsmamba2 export vocals.onnx",
    "bsmamba2 export vocals-int8.onnx --model model.ckpt --precision int8",
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
# What a page is served with.
SERVING = ("starlette", "uvicorn", "python_multipart")
# What a report is drawn with.
DRAWING = ("matplotlib", "jinja2", "scipy")
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
    "wandb": "wandb",
    "mlflow": "mlflow",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "onnx",
    "starlette": "page",
    "anyio": "page",
    "uvicorn": "page",
    "python_multipart": "page",
    "huggingface_hub": "hub",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status.

    0 done, 1 not possible with the given input, 2 wrong usage, 130 stopped by the user, 143 stopped by the system.
    """
    open_missing_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    # As other programs have it: `bsmamba2 help separate`.
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    command = next(iter(arguments), "")
    commands: dict[str, Callable[[Sequence[str]], None]] = {
        "separate": _separate,
        "open": _open,
        "train": _train,
        "evaluate": _evaluate,
        "report": _report,
        "check-data": _check_data,
        "models": _models,
        "convert": _convert,
        "export": _export,
        "doctor": _doctor,
        "demo": _demo,
        "--print-completion": _print_completion,
    }
    if command in ("", "-h", "--help", "--version"):
        commands[command] = lambda _: print(f"bsmamba2 {__version__}\n" if command == "--version" else USAGE, end="")
    if command not in commands:
        return _failed(_no_command(command, list(commands)), 2)
    try:
        with log_shown("bsmamba2"), stopped_by_exception(), checked_output():
            commands[command](arguments[1:])
    except UsageError as error:
        return _failed(str(error), 2, command)
    except InputError as error:
        return _failed(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        return _failed(
            f'this needs the package {package}, which is not installed; run pip install "bsmamba2[{EXTRAS[package]}]"',
            command=command,
        )
    except PermissionError as error:
        return _failed(f"{error.filename} may not be read or written; change its permissions")
    except KeyboardInterrupt:
        print("bsmamba2: stopped", file=sys.stderr)
        return 130
    except ReaderGoneError:
        pass
    return 0 if command else 2


def _failed(sentence: str, status: int = 1, command: str = "") -> int:
    """Prints an error, and returns the status."""
    print(printable(f"{f'bsmamba2 {command}'.strip()}: error: {sentence}"), file=sys.stderr)
    return status


def _print(text: str) -> None:
    """Prints text, in which names may be, on the standard output."""
    print(printable(text, kept="\n"))


def _no_command(given: str, commands: Sequence[str]) -> str:
    """Returns the error for a command that does not exist."""
    if given.startswith("-"):
        near = nearest(given, ["--help", "--version", "--print-completion"], 0.7)
        advice = f"did you mean {near}?" if near else "see bsmamba2 --help"
        return f"there is no option {given} before a command; {advice}"
    if os.path.exists(given):
        return f"{given!r} is not a command; did you mean bsmamba2 separate {given}?"
    return f"there is no command {given!r}; {meant(given, [name for name in commands if not name.startswith('-')])}"


# Each command imports what it needs, so that a separation loads no training code and no help waits for torch.
def _separate(arguments: Sequence[str]) -> None:
    from bsmamba2.separation.settings import Page
    from bsmamba2.weights.registry import PRESETS

    arguments = _with_page(arguments, get_args(Page))
    parser = _separate_parser()
    options = parser.options(arguments)
    if options["preset"]:
        if options["model"]:
            raise UsageError(f"--preset {options['preset']} chooses a model too; leave --model or --preset out")
        preset = PRESETS[options["preset"]]
        options = _separate_parser(**preset.options).options(arguments) | {"model": preset.models}
    del options["preset"]
    if options["model"] is None:
        del options["model"]
    catalogue = {name: options.pop(name) for name in ("manifest", "retry_failed", "upload")}
    if catalogue["manifest"] is None:
        for name, value in catalogue.items():
            if value:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} is for the songs of a manifest; give --manifest too, or leave it out")
        if not options["inputs"]:
            raise UsageError("INPUT is missing; see bsmamba2 separate --help")
        outcomes = parser.call(options)
    else:
        outcomes = _separate_manifest(parser, catalogue, options)
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


def _separate_manifest(parser: CommandParser, catalogue: Mapping[str, Any], options: dict[str, Any]) -> list[Any]:
    from bsmamba2.separation.catalogue import Catalogue, separate_catalogue

    if inputs := options.pop("inputs"):
        raise UsageError(f"--manifest lists the songs, so {inputs[0]!r} was not expected; give one of the two")
    return parser.call({"catalogue": Catalogue(**catalogue), **options}, separate_catalogue)


def _separate_parser(**defaults: Any) -> CommandParser:
    """Returns the parser of `separate`, in which some options have other defaults."""
    from bsmamba2.separation.command import separate_files
    from bsmamba2.separation.settings import Page
    from bsmamba2.weights.registry import PRESETS

    special: dict[str, dict[str, Any]] = {
        "inputs": _positional(nargs="*", metavar="INPUT"),
        "manifest": {
            "type": Path,
            "metavar": "CSV",
            "help": "Separate the songs of a CSV file, with columns path, name, stems, start, duration, instead of "
            "inputs. Run the same command again to resume.",
        },
        "retry_failed": {"action": "store_true", "help": "With --manifest, separate only the songs that failed."},
        "upload": {
            "metavar": "URL",
            "help": "With --manifest, upload the stems to a folder, such as s3://bucket/stems, and remove them here.",
        },
        "model": SEVERAL_MODELS,
        "preset": {
            "type": one_of(list(PRESETS)),
            "choices": list(PRESETS),
            "metavar": f"{{{','.join(PRESETS)}}}",
            "help": "Model and options for a purpose (`bsmamba2 models` lists them). Given options override it.",
        },
        "page": {"metavar": f"[{{{','.join(get_args(Page))}}}]"},
    }
    replaced = {name: {"default": value} for name, value in defaults.items()}
    return command_parser("separate", separate_files, special | replaced, SEPARATE_EXAMPLES, SEPARATE_ELSEWHERE)


def _with_page(arguments: Sequence[str], values: Sequence[str]) -> list[str]:
    """Returns arguments in which a `--page` without a value has the first one, as an input may follow it."""
    options = list(arguments).index("--") if "--" in arguments else len(arguments)
    given = [
        f"{argument}={values[0]}" if argument == "--page" and following not in values else argument
        for argument, following in zip(arguments[:options], [*arguments[1:], ""], strict=False)
    ]
    return given + list(arguments[options:])


def _open(arguments: Sequence[str]) -> None:
    from bsmamba2.separation.settings import Page

    parser = _open_parser()
    options = parser.options(_with_page(arguments, get_args(Page)))
    if options["model"] is None:
        del options["model"]
    _require(*SERVING)
    parser.call(options)


def _open_parser() -> CommandParser:
    from bsmamba2.separation.settings import Page
    from bsmamba2.server.command import open_page

    special: dict[str, dict[str, Any]] = {
        "songs": _positional(nargs="*", metavar="SONG"),
        "model": SEVERAL_MODELS,
        "page": {"metavar": f"[{{{','.join(get_args(Page))}}}]"},
    }
    return command_parser("open", open_page, special, OPEN_EXAMPLES)


def _train(arguments: Sequence[str]) -> None:
    from bsmamba2.training.help import training_help
    from bsmamba2.training.options import check_training_options, training_options

    if {"-h", "--help"} & set(arguments):
        print(training_help(), end="")
        # As argparse does for the others.
        sys.exit(0)
    check_training_options(arguments)
    arguments = with_underscores(arguments)
    _require("lightning", "tensorboard")
    # The two import what the others can do without.
    from jsonargparse import ArgumentError

    from bsmamba2.training.command import train

    try:
        with named_as_typed([option.name for option in training_options()]):
            train(arguments)
    except ArgumentError as error:
        raise UsageError(f"{' '.join(str(error).split())}; see bsmamba2 train --help") from error


def _evaluate(arguments: Sequence[str]) -> None:
    parser = _evaluate_parser()
    options = parser.options(arguments)
    no_report = options.pop("no_report")
    if not no_report:
        # Before the evaluation, which takes long.
        _require(*DRAWING)
    results = parser.call(options)
    from bsmamba2.evaluation.runs import REPORT
    from bsmamba2.evaluation.table import results_table

    if results.tracks:
        if not no_report:
            from bsmamba2.report.page import write_report

            write_report([options["output"]], options["output"] / REPORT)
        _print(results_table(results))
    if results.failures:
        name, reason = next(iter(results.failures.items()))
        count = len(results.failures)
        failed = f"{count} of {count + len(results.tracks)} tracks" if results.tracks else "no track"
        raise InputError(f"{failed} could {'not ' if results.tracks else ''}be scored; the first: {name}: {reason}")


def _evaluate_parser() -> CommandParser:
    from bsmamba2.evaluation.command import evaluate

    special: dict[str, dict[str, Any]] = {
        "model": SEVERAL_MODELS,
        "no_report": {"action": "store_true", "help": "Do not write report.html."},
    }
    return command_parser("evaluate", evaluate, special, EVALUATE_EXAMPLES)


def _report(arguments: Sequence[str]) -> None:
    parser = _report_parser()
    options = parser.options(arguments)
    _require(*DRAWING)
    for path in parser.call(options):
        print(printable(str(path)))


def _report_parser() -> CommandParser:
    from bsmamba2.report.command import report

    return command_parser("report", report, {"runs": _positional(nargs="+", metavar="RUN", type=Path)})


def _check_data(arguments: Sequence[str]) -> None:
    report, healthy = _run(_check_data_parser(), arguments)
    _print(report)
    if not healthy:
        raise InputError("the dataset has errors (listed above); fix them before training")


def _check_data_parser() -> CommandParser:
    from bsmamba2.data.command import check_data

    return command_parser("check-data", check_data, {"root": _positional(metavar="ROOT", type=Path)})


def _models(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] in ("-h", "--help"):
        print(MODELS_USAGE, end="")
    elif arguments and arguments[0] in ("download", "verify"):
        _print(_run(_models_parsers()[f"models {arguments[0]}"], arguments[1:]))
    else:
        _print(_run(_models_parsers()["models"], arguments))


def _models_parsers() -> dict[str, CommandParser]:
    """Returns the parsers of `models` and of the commands below it, by their names."""
    from bsmamba2.weights.command import download_models, list_models, verify_models

    listed, wanted = (_positional(nargs=nargs, metavar="NAME") for nargs in "*+")
    return {
        "models": command_parser("models", list_models, {"names": listed}),
        "models download": command_parser("models download", download_models, {"names": wanted}),
        "models verify": command_parser("models verify", verify_models),
    }


def _convert(arguments: Sequence[str]) -> None:
    _print(_run(_convert_parser(), arguments))


def _convert_parser() -> CommandParser:
    from bsmamba2.weights.conversion import convert

    files = {
        "input": _positional(metavar="INPUT", type=Path),
        "output": _positional(metavar="OUTPUT", type=Path),
    }
    return command_parser("convert", convert, files)


def _export(arguments: Sequence[str]) -> None:
    _print(_run(_export_parser(), arguments))


def _export_parser() -> CommandParser:
    from bsmamba2.export.command import export

    return command_parser("export", export, {"output": _positional(metavar="OUTPUT", type=Path)}, EXPORT_EXAMPLES)


def _doctor(arguments: Sequence[str]) -> None:
    report, healthy = _run(_doctor_parser(), arguments)
    _print(report)
    if not healthy:
        raise InputError("something that is installed does not work; the commands above fix it")


def _doctor_parser() -> CommandParser:
    from bsmamba2.commands import doctor

    return command_parser("doctor", doctor)


def _demo(arguments: Sequence[str]) -> None:
    parser = _demo_parser()
    options = parser.options(arguments)
    if options["train"]:
        _require("lightning", "tensorboard")
    _print(parser.call(options))


def _demo_parser() -> CommandParser:
    from bsmamba2.commands import run_demo

    return command_parser("demo", run_demo)


def _print_completion(arguments: Sequence[str]) -> None:
    from bsmamba2.completion import SHELLS, completion
    from bsmamba2.training.options import training_options

    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise UsageError(f"give the name of one shell: {', '.join(SHELLS)}")
    parsers = [
        *(_separate_parser(), _open_parser(), _evaluate_parser(), _report_parser(), _check_data_parser()),
        *(_models_parsers()["models"], _convert_parser(), _export_parser(), _doctor_parser(), _demo_parser()),
    ]
    print(completion(arguments[0], parsers, training_options()))


def _run(parser: CommandParser, arguments: Sequence[str]) -> Any:
    """Calls the function of a command with the options on the command line, and returns what it returns."""
    return parser.call(parser.options(arguments))


def _require(*packages: str) -> None:
    """Checks that packages are installed, before work is done that needs them at its end.

    Raises:
        ModuleNotFoundError: One is not.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)


def _positional(**options: Any) -> dict[str, Any]:
    """Returns the options of an argument that is given without a name."""
    return {"positional": True, "type": str, **options}
