"""What the benchmarks have in common as programs: options, tables, errors and files of results."""

import contextlib
import json
import math
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from docstring_parser import parse
from jsonargparse import ArgumentParser

from bsmamba2.errors import InputError
from bsmamba2.options import with_underscores
from bsmamba2.system.files import complete_file
from bsmamba2.text_table import text_table

Row = dict[str, Any]
Options = TypeVar("Options")


def run(
    program: str,
    description: str | None,
    options: type[Options],
    benchmark: Callable[[Options], int | None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs a benchmark with the options of a command line and returns the exit status; see `exit_status`."""
    parsed = (
        parser_of(program, description, options)
        .parse_args(with_underscores(sys.argv[1:] if arguments is None else arguments))
        .as_dict()
    )
    return exit_status(program, lambda: benchmark(options(**parsed)))


def parser_of(program: str, description: str | None, options: type) -> ArgumentParser:
    """Returns a parser of the fields of a dataclass, described by its docstring.

    A field without a default is positional, a bool is a flag without a value, a sequence takes any number of values.
    """
    parser = ArgumentParser(prog=program, description=description, formatter_class=RawDescriptionHelpFormatter)
    described = {argument.arg_name: argument.description for argument in parse(options.__doc__ or "").params}
    types = get_type_hints(options)
    for field in fields(options):
        parser.add_argument(
            field.name if field.default is MISSING else f"--{field.name}",
            help=" ".join((described[field.name] or "").split()),
            **_accepted(types[field.name], field.default),
        )
    return parser


def _accepted(kind: Any, default: Any) -> dict[str, Any]:
    if default is MISSING:
        return {"type": kind}
    if kind is bool:
        return {"action": "store_true"}
    for part in (kind, *get_args(kind)):
        if get_origin(part) is Sequence:
            return {"type": get_args(part)[0], "nargs": "*", "default": None if default is None else list(default)}
    return {"type": kind, "default": default}


def check_positive(options: object, *names: str) -> None:
    """Checks that the named options, numbers or sequences of them, are above 0 and finite; None is not checked.

    Raises:
        InputError: One is not.
    """
    for name in names:
        value = getattr(options, name)
        numbers = value if isinstance(value, Sequence) else [] if value is None else [value]
        if not all(0 < number < math.inf for number in numbers):
            raise InputError(f"{name}={value} is not allowed; give values above 0")


def exit_status(program: str, benchmark: Callable[[], int | None]) -> int:
    """Returns the status of a benchmark: its own, 1 after an error and 130 after a stop, each with one sentence."""
    try:
        return benchmark() or 0
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return 130


class Problems:
    """What could not be measured: each is printed at once and kept for the results and the exit status.

    Args:
        program: Name of the benchmark.
    """

    def __init__(self, program: str) -> None:
        self.program = program
        self.messages: list[str] = []

    def add(self, message: str) -> None:
        """Prints a problem and keeps it."""
        self.messages.append(message)
        print(f"{self.program}: error: {message}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def skipping(self, what: object, errors: type[Exception] = InputError) -> Iterator[None]:
        """Adds an error in the block to the problems, and continues after the block.

        Args:
            what: What the block measures.
            errors: Which errors; any other one is raised.
        """
        try:
            yield
        except InputError as error:
            self.add(str(error))
        except errors as error:
            reason = next(iter(str(error).strip().splitlines()), "no message")[:200]
            self.add(f"{what} failed with {type(error).__name__} ({reason})")


def print_facts(facts: dict[str, Any]) -> None:
    """Prints names and values, one pair per line."""
    print(text_table([(name, str(value)) for name, value in facts.items()], left=(0, 1)))


def print_table(title: str, rows: Iterable[Row], columns: Sequence[str] | None = None) -> list[Row]:
    """Prints each row as soon as it is measured, and returns all of them.

    Args:
        title: What is printed above the table.
        rows: What to print.
        columns: The keys to print, by default those of the first row; a row that lacks one gets a dash there.
    """
    done: list[Row] = []
    for row in rows:
        if not done:
            columns = columns or list(row)
            print(f"\n{title}")
            print("".join(f"{name.replace('_', ' '):>{max(12, len(name) + 2)}}" for name in columns))
        cells = {name: cell(row.get(name)) for name in columns or ()}
        print("".join(f"{t:>{max(12, len(n) + 2, len(t) + 2)}}" for n, t in cells.items()), flush=True)
        done.append(row)
    return done


def cell(value: Any) -> str:
    """Returns a value as text, numbers with three digits."""
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return f"{value:#.3g}".rstrip(".") if isinstance(value, float) else str(value)


def write_json(path: Path | None, results: object) -> None:
    """Writes results to a file, which replaces one that exists; without a path it does nothing.

    Raises:
        InputError: The file cannot be written.
    """
    if path:
        with complete_file(path) as temporary:
            temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
