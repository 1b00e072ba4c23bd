"""Functions take few parameters: choices that belong together are values, frozen dataclasses."""

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PLACES = ("bsmamba2/**/*.py", "benchmarks/*.py", "scripts/**/*.py", "*.py")
MOST = 8
# Functions that take more, and why.
OF_TRAINING = "its parameters are the options and config keys of a training run"
REASONS = {
    "bsmamba2/training/module.py: SeparationModule.__init__": OF_TRAINING,
    "bsmamba2/data/datamodule.py: MusdbDataModule.__init__": OF_TRAINING,
    "scripts/default_model/datamodule.py: RecordingMixes.__init__": OF_TRAINING,
}


def functions(node: ast.AST, name: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yields all functions below a node, inner ones too, with their qualified names."""
    for child in ast.iter_child_nodes(node):
        inner = (
            f"{name}{child.name}" if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else ""
        )
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inner, child
        yield from functions(child, f"{inner}." if inner else name)


def count(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"])) + bool(given.vararg) + bool(given.kwarg)


def test_no_function_takes_many_parameters_without_a_reason() -> None:
    counts = {
        f"{path.relative_to(REPOSITORY).as_posix()}: {name}": count(function)
        for place in PLACES
        for path in sorted(REPOSITORY.glob(place))
        for name, function in functions(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert len(counts) > 1000
    assert {name for name, parameters in counts.items() if parameters > MOST} == REASONS.keys()
