"""The options of a command, from the signature and docstring of its function."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from inspect import signature
from typing import Any

from docstring_parser import parse
from jsonargparse import ArgumentParser


def parse_options(
    command: str,
    function: Callable[..., Any],
    arguments: Sequence[str],
    special: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Returns the arguments of a function, and of special options that it does not take, from a command line.

    Each parameter is an option, and so is each field of a parameter that is a dataclass; a bool is a flag without a
    value. Help texts are those of the docstrings.

    Args:
        command: Name of the command.
        function: What the command does.
        arguments: The command line behind the name of the command.
        special: Options of `ArgumentParser.add_argument` that replace or complete what the signature gives, by name;
            a name without hyphens is positional.

    Raises:
        ArgumentError: The command line cannot be understood.
        InputError: Values of a dataclass are not allowed.
    """
    special = dict(special or {})
    groups = _groups(function)
    helps: dict[str, Any] = {}
    sources: list[Callable[..., Any]] = [function, *groups.values()]
    for described in sources:
        helps |= _helps(described)
        for name, parameter in signature(described).parameters.items():
            if parameter.annotation is bool:
                special[f"--{name}"] = {"action": "store_true"}
    parser = _Parser(
        prog=f"bsmamba2 {command}", exit_on_error=False, allow_abbrev=False, description=_summary(function)
    )
    for name, options in special.items():
        parser.add_argument(name, **{"help": helps.get(name.removeprefix("--")), **options})
    skipped = {name.removeprefix("--") for name in special} | groups.keys()
    parser.add_function_arguments(function, skip=_own(skipped, function), as_group=False)
    for group in groups.values():
        parser.add_class_arguments(group, skip=_own(skipped, group), as_group=False)
    return grouped(function, parser.parse_args(list(arguments)).as_dict())


def grouped(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a function: options that are fields of its dataclasses are gathered into those.

    Raises:
        InputError: Values of a dataclass are not allowed.
    """
    left = dict(options)
    values = {
        name: group(**{field.name: left.pop(field.name) for field in fields(group) if field.name in left})
        for name, group in _groups(function).items()
    }
    return left | values


def _groups(function: Callable[..., Any]) -> dict[str, type[Any]]:
    """Returns the parameters of a function that are dataclasses."""
    annotations = {name: parameter.annotation for name, parameter in signature(function).parameters.items()}
    return {name: kind for name, kind in annotations.items() if isinstance(kind, type) and is_dataclass(kind)}


def _summary(function: Callable[..., Any]) -> str:
    return parse(function.__doc__ or "").short_description or ""


def _helps(described: Callable[..., Any]) -> dict[str, str]:
    parameters = parse(described.__doc__ or "").params
    return {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in parameters}


def _own(names: set[str], described: Callable[..., Any]) -> set[str | int]:
    return {name for name in names if name in signature(described).parameters}


class _Parser(ArgumentParser):
    """Shows options as they are usually typed, `--batch-size`, and leaves out types that only Python knows."""

    def format_help(self, *arguments: Any, **options: Any) -> str:
        text = re.sub(
            r"--[a-z]+(_[a-z]+)+", lambda name: name[0].replace("_", "-"), super().format_help(*arguments, **options)
        )
        text = re.sub(r"type:\s+<function\s+\w+\s+at\s+\w+>,\s+", "", text)
        return re.sub(r"<class\s+'([\w.]+)'>", r"\1", text)
