"""One word per thing, one thing per word: every public name is defined in one module of the package only."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "bsmamba2"
# Every module has its own logger.
EVERYWHERE = {"log"}


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
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in definitions(ast.parse(path.read_text(encoding="utf-8"))):
            if not name.startswith("_") and name not in EVERYWHERE:
                modules[name].add(str(path.relative_to(PACKAGE)))
    assert len(modules) > 300
    assert {name: sorted(paths) for name, paths in modules.items() if len(paths) > 1} == {}
