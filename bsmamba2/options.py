"""The options of a command, from the signature and docstring of its function."""

import argparse
import contextlib
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from docstring_parser import parse

from bsmamba2.errors import InputError, UsageError
from bsmamba2.suggestions import meant, nearest

# Short forms, the same in every command that has the option.
SHORT = {"output": "-o", "model": "-m", "stems": "-s", "format": "-f"}
# Wider lines of help are hard to read.
HELP_COLUMNS = 100
# The errors of argparse in words of ours; it gives both the short and the long name of an option.
_SENTENCES = (
    (r"^argument (?:-\w/)?(--\S+): expected (?:one|at least one) argument$", r"\1 needs a value"),
    (r"^argument (?:-\w/)?(--\S+): ignored explicit argument (.*)$", r"\1 takes no value, but \2 was given"),
    (r"^argument (?:-\w/)?(--\S+): ", r"\1: "),
    (r"(?<=[ ,])-\w/(?=--)", ""),
    (r"^the following arguments are required: (.*), ([^,]*)$", r"\1 and \2 are missing"),
    (r"^the following arguments are required: (.*)$", r"\1 is missing"),
)


def command_parser(
    command: str,
    function: Callable[..., Any],
    special: Mapping[str, Mapping[str, Any]] | None = None,
    examples: Sequence[str] = (),
    foreign: Mapping[str, str] | None = None,
) -> "CommandParser":
    """Returns the parser of a command.

    Each parameter of a function is an option, and so is each field of a parameter that is a dataclass; a bool is a flag
    without a value. Help texts are those of the docstrings. The last value of an option that is given twice counts, but
    lists are joined.

    Args:
        command: Name of the command.
        function: What the command does.
        special: Options of `ArgumentParser.add_argument` that replace or complete what the signature gives, by the
            name of the parameter; those with a true `positional` are not options.
        examples: Command lines that the help begins with.
        foreign: Options that other programs have, and what to use here instead.
    """
    parser = CommandParser(command, function, examples, {"--version": "bsmamba2 --version", **(foreign or {})})
    left = {name: dict(options) for name, options in (special or {}).items()}
    groups = _groups(function)
    sources: list[Callable[..., Any]] = [function, *groups.values()]
    for described in sources:
        helps = _helps(described)
        # The summary of a dataclass is the title of its options.
        section = parser if described is function else parser.add_argument_group(_summary(described).removesuffix("."))
        for name, parameter in signature(described).parameters.items():
            if name not in groups:
                options = {"help": helps.get(name)} | _value(name, parameter) | left.pop(name, {})
                if options.pop("positional", False):
                    parser.add_positional(name, options)
                else:
                    _add(section, name, options)
    for name, options in left.items():
        _add(parser, name, options)
    return parser


@contextlib.contextmanager
def named_as_typed(names: Collection[str]) -> Iterator[None]:
    """Names options in the errors of the block as they are typed: `--batch-size 0` for `batch_size=0`.

    Args:
        names: Names of the options as parameters.
    """

    def typed(match: re.Match[str]) -> str:
        return re.sub(r"([a-z_.]+)=", lambda each: f"{_hyphenated(f'--{each[1]}')} ", match[0])

    try:
        yield
    except InputError as error:
        given = "|".join(map(re.escape, names))
        # Only at the beginning: later in a sentence, it may be what a file contains.
        error.args = (re.sub(rf"^(?:(?:{given})=\S+ ?)+", typed, str(error)),)
        raise


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


def _summary(described: Callable[..., Any]) -> str:
    return parse(described.__doc__ or "").short_description or ""


def _helps(described: Callable[..., Any]) -> dict[str, str]:
    parameters = parse(described.__doc__ or "").params
    return {parameter.arg_name: " ".join((parameter.description or "").split()) for parameter in parameters}


def _add(section: Any, name: str, options: dict[str, Any]) -> None:
    if options.get("help"):
        options["help"] = options["help"].replace("%", "%%")
    default = options.get("default")
    if default not in (None, False) and "by default" not in (options.get("help") or ""):
        options["help"] = f"{options.get('help') or ''} (default: %(default)s)"
    flags = [SHORT[name]] if name in SHORT else []
    section.add_argument(*flags, _hyphenated(f"--{name}"), dest=name, **options)


def _value(name: str, parameter: Parameter) -> dict[str, Any]:
    """Returns how the value of a parameter is read from the command line."""
    if parameter.annotation is bool:
        return {"action": "store_true"}
    required = parameter.default is Parameter.empty
    return ({"required": True} if required else {"default": parameter.default}) | _reading(name, parameter.annotation)


def _reading(name: str, annotation: Any) -> dict[str, Any]:
    """Returns the same for the type of a parameter.

    Raises:
        KeyError: The type is not one that options have.
    """
    kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
    if get_origin(annotation) in (Union, UnionType):
        # A name or a file: both are text.
        return _reading(name, kinds[0])
    if get_origin(annotation) is Literal:
        return {"type": one_of(kinds), "choices": kinds, "metavar": f"{{{','.join(kinds)}}}"}
    if get_origin(annotation) is Sequence and kinds == [float]:
        return {"type": _number, "nargs": "+", "action": _Joined, "metavar": name.rpartition("_")[2].upper()}
    if get_origin(annotation) is Sequence:
        return {
            "type": _names,
            "action": _Joined,
            "metavar": f"{name.rpartition('_')[2].removesuffix('s').upper()},...",
        }
    readings: dict[Any, dict[str, Any]] = {
        str: {"type": str, "metavar": name.rpartition("_")[2].upper()},
        Path: {"type": Path, "metavar": "PATH"},
        int: {"type": _whole_number, "metavar": "N"},
        float: {"type": _number, "metavar": "SECONDS" if name.endswith(("seconds", "start", "duration")) else "NUMBER"},
    }
    return readings[annotation]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """Returns the type of an option whose value is one of some names."""

    def name(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"there is no {text!r}; {meant(text, names)}")
        return text

    return name


class _Joined(argparse.Action):
    """Joins the lists of an option that is given more than once."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if before is self.default else [*before, *values])


class CommandParser(argparse.ArgumentParser):
    """Reads options and positional arguments in any order, and raises a `UsageError` for what it does not know."""

    def __init__(
        self, command: str, function: Callable[..., Any], examples: Sequence[str], foreign: Mapping[str, str]
    ) -> None:
        columns = min(HELP_COLUMNS, shutil.get_terminal_size().columns - 2)
        summary = textwrap.wrap(_summary(function), columns)
        lines = [*summary, *(["", "examples:"] if examples else []), *(f"  {each}" for each in examples)]
        super().__init__(
            prog=f"bsmamba2 {command}",
            description="\n".join(lines),
            allow_abbrev=False,
            formatter_class=lambda prog: _Formatter(prog, max_help_position=28, width=columns),
        )
        self._positionals.title = "arguments"
        self._optionals.title = "options"
        self._actions[0].help = "Show this help and exit."
        self.function = function
        self.summary = _summary(function)
        self.foreign = foreign
        self.positional: dict[str, dict[str, Any]] = {}

    def options(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Returns the arguments of the function, and of special options that it does not take, from a command line.

        Args:
            arguments: The command line behind the name of the command.

        Raises:
            UsageError: It cannot be understood, or a value is not allowed.
        """
        values = self._parsed(arguments)
        try:
            with named_as_typed(values):
                return grouped(self.function, values)
        except InputError as error:
            raise UsageError(str(error)) from error

    def call(self, options: Mapping[str, Any], function: Callable[..., Any] | None = None) -> Any:
        """Returns what the function returns, or another one that takes its options; errors name them as typed."""
        with named_as_typed({action.dest for action in self._actions}):
            return (function or self.function)(**options)

    def named_options(self) -> list[argparse.Action]:
        """Returns the options, without the arguments that have no names."""
        return [action for action in self._actions if action.option_strings]

    def add_positional(self, name: str, options: dict[str, Any]) -> None:
        """Adds an argument without a name; with `nargs` + or *, it takes all that are left."""
        self.positional[name] = options
        # argparse only shows it: it would not take arguments from between options.
        self.add_argument(
            name, nargs=argparse.SUPPRESS, default=argparse.SUPPRESS, metavar=options["metavar"], help=options["help"]
        )

    def _parsed(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Returns the values of all options by parameter.

        Raises:
            UsageError: The command line cannot be understood.
        """
        forms = {"+": "{}...", "*": "[{}...]"}
        shown = [forms.get(each.get("nargs", ""), "{}").format(each["metavar"]) for each in self.positional.values()]
        needed = [f"{each.option_strings[-1]} {each.metavar}" for each in self.named_options() if each.required]
        self.usage = " ".join([self.prog, *shown, *needed, "[options]"])
        end = list(arguments).index("--") if "--" in arguments else len(arguments)
        for argument in arguments[:end]:
            self._check_known(argument.partition("=")[0])
        values, names = self.parse_known_args([_hyphenated(argument) for argument in arguments[:end]])
        return vars(values) | self._placed([*names, *arguments[end + 1 :]])

    def _placed(self, names: Sequence[str]) -> dict[str, Any]:
        """Returns the positional arguments by parameter."""
        values: dict[str, Any] = {}
        for parameter, options in self.positional.items():
            several = "nargs" in options
            taken = [options["type"](name) for name in (names if several else names[:1])]
            if not taken and options.get("nargs") != "*":
                raise UsageError(f"{options['metavar']} is missing; see {self.prog} --help")
            values[parameter] = taken if several else taken[0]
            names = names[len(taken) :]
        if names:
            raise UsageError(f"{names[0]!r} was not expected; see {self.prog} --help")
        return values

    def print_help(self, file: Any = None) -> None:
        """Prints the help; argparse would ignore that it cannot be written."""
        (file or sys.stdout).write(self.format_help())

    def error(self, message: str) -> NoReturn:
        """Raises the error of a command line as one sentence."""
        for pattern, sentence in _SENTENCES:
            message = re.sub(pattern, sentence, message)
        raise UsageError(message if message.endswith("?") else f"{message}; see {self.prog} --help")

    def _check_known(self, option: str) -> None:
        name = _hyphenated(option)
        if not re.match("--?[a-zA-Z]", name) or name in self._option_string_actions:
            return
        # The value may follow a short option at once, as in -ofolder.
        if name[1] != "-" and name[:2] in self._option_string_actions:
            return
        if name in self.foreign:
            raise UsageError(f"there is no option {option}; use {self.foreign[name]}")
        near = nearest(name, list(self._option_string_actions), 0.7)
        advice = f"see {self.prog} --help" if name[1] == "-" else "write -- before a name that begins with -"
        raise UsageError(f"there is no option {option}; {f'did you mean {near}?' if near else advice}")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows the value of an option once, behind all its names."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{', '.join(action.option_strings)} {self._format_args(action, action.dest.upper())}"


def _hyphenated(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("_", "-") + equals + value if name.startswith("--") else argument


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """Returns arguments with options spelled `--batch_size` that may be given as `--batch-size`; not behind `--`."""
    options = list(arguments).index("--") if "--" in arguments else len(arguments)
    return [_with_underscore(argument) for argument in arguments[:options]] + list(arguments[options:])


def _with_underscore(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if name.startswith("--") else argument
