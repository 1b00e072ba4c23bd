"""Which part of the package imports which: the folders, and the modules next to them, are its units."""

import ast
import functools
import os
import subprocess
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bsmamba2

PACKAGE = Path(__file__).parents[1] / "bsmamba2"
# The root of the package, which only re-exports names.
ROOT = "__init__"


@functools.cache
def rooms() -> dict[str, set[str]]:
    """Returns the rooms that each room imports, wherever in a module it does so."""
    found: dict[str, set[str]] = defaultdict(set)
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} imports relatively"
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            for package, *inner in (module.split(".") for module in modules):
                if package == "bsmamba2":
                    found[room].add(inner[0] if inner and inner[0] in names else ROOT)
    return {room: imported - {room} for room, imported in found.items()}


def test_the_imports_are_found() -> None:
    graph = rooms()
    assert graph[ROOT] == {"errors", "model", "separation", "version", "weights"}
    assert {"separation", "evaluation", "report", "training"} <= graph["cli"]
    assert "model" in graph["separation"]


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("audio", {"data", "separation", "evaluation", "training", "report"}),
        ("metrics", {"audio", "data", "separation", "evaluation", "training", "report"}),
        ("data", {"separation", "evaluation", "training", "report", "weights"}),
        ("separation", {"evaluation", "training", "report"}),
        ("evaluation", {"training", "report"}),
        ("training", {"evaluation", "report"}),
    ],
)
def test_no_room_imports_what_builds_on_it(room: str, forbidden: set[str]) -> None:
    assert rooms()[room] & forbidden == set()


def test_the_model_needs_little() -> None:
    assert rooms()["model"] <= {"errors", "stem_names"}


def test_only_the_entry_point_imports_the_command_line() -> None:
    assert [room for room, imported in rooms().items() if "cli" in imported] == ["__main__"]


def test_no_folder_imports_what_uses_all_the_rest() -> None:
    top = {"cli", "commands", "completion", "demo", "demo_files", "doctor"}
    assert {room for room, imported in rooms().items() if imported & top} <= {"__main__", *top}


def test_no_module_imports_from_the_root() -> None:
    """Its names are for users; inside the package they would make circles."""
    assert [room for room, imported in rooms().items() if ROOT in imported] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Wherever in a module they do so, since an import inside a function is a dependency too."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        nodes = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
        imported = {module for n in nodes for module in (n.module, *(f"{n.module}.{alias.name}" for alias in n.names))}
        graph[name] = {module for module in imported if module in names}
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("bsmamba2.model.ssd") < order.index("bsmamba2.model.network") < order.index("bsmamba2.cli")


def test_no_rooms_import_each_other_in_a_circle() -> None:
    order = list(TopologicalSorter(rooms()).static_order())
    assert order.index("model") < order.index("separation") < order.index("cli")


def loaded(*command: str) -> set[str]:
    """Returns the modules that a Python program imports."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        capture_output=True, text=True, check=False, cwd=PACKAGE.parent,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    return {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time:")}


def test_public_names_are_imported_on_first_use() -> None:
    assert "torch" not in loaded("-c", "import bsmamba2; bsmamba2.InputError; dir(bsmamba2)")
    assert "torch" in loaded("-c", "from bsmamba2 import load_model")


def test_public_names() -> None:
    everything: dict[str, object] = {}
    exec("from bsmamba2 import *", everything)
    names = {"BSMamba2", "InputError", "ModelConfig", "SeparationSettings", "Separator", "load_model", "save_model"}
    assert set(bsmamba2.__all__) == everything.keys() - {"__builtins__"} == names
    assert names <= set(dir(bsmamba2))
    from bsmamba2.separation.separator import Separator

    assert bsmamba2.Separator is Separator
    with pytest.raises(AttributeError, match="module 'bsmamba2' has no attribute 'Seperator'"):
        bsmamba2.Seperator  # type: ignore[attr-defined]  # noqa: B018
