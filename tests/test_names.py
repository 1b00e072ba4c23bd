"""One word per thing, one thing per word: every public name is defined in one module of package and benchmarks."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
# Every module has its own logger.
EVERYWHERE = {"log"}
# What each benchmark has, since it is a program.
OF_PROGRAMS = {"PROGRAM", "Options", "benchmark", "main", "rows_of"}


def definitions(module: ast.Module) -> Iterator[str]:
    """Yields the names that a module defines at its top level."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))


def test_every_public_name_is_defined_once() -> None:
    modules = defaultdict(set)
    for path in sorted((*REPOSITORY.glob("bsmamba2/**/*.py"), *REPOSITORY.glob("benchmarks/*.py"))):
        shared = EVERYWHERE | (OF_PROGRAMS if path.parent.name == "benchmarks" else set())
        for name in definitions(ast.parse(path.read_text(encoding="utf-8"))):
            if not name.startswith("_") and name not in shared:
                modules[name].add(str(path.relative_to(REPOSITORY)))
    assert {"bsmamba2/model/network.py", "benchmarks/timing.py"} <= set().union(*modules.values())
    assert {name: sorted(paths) for name, paths in modules.items() if len(paths) > 1} == {}
