"""What the documents refer to exists: links, paths, modules, commands with options and values; the README's example."""

import ast
import contextlib
import functools
import importlib
import importlib.util
import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml

from bsmamba2.audio.writing import write_audio
from bsmamba2.version import __version__

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "bsmamba2"
DOCUMENTS = sorted(
    path for pattern in ("*.md", "docs/*.md", "bsmamba2/**/*.md", ".github/*.md") for path in REPOSITORY.glob(pattern)
)
# A change log also names what is gone.
CURRENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
FOLDERS = r"bsmamba2|benchmarks|configs|docs|scripts|tests|\.ci|\.github"
PATH = re.compile(rf"(?<![\w/.*-])(?:{FOLDERS})/[\w./*-]*")
FILE_NAME = re.compile(r"(?<![\w/.*-])(?:[\w-]+\.(?:py|toml|cff|txt)|Makefile)(?![\w/.])")
MODULE = re.compile(r"(?<![\w/.-])(?:bsmamba2|benchmarks)(?:\.\w+)+")
OPTION = re.compile(r"(?<![\w-])--[a-zA-Z][\w.-]*")
# What documented commands leave to the reader, and a value to parse instead.
PLACEHOLDERS = {"FILE": "configs/tiny.yaml", "S": "1", "SEED": "1", "OPTIONS": ""}
# Programs of ours in a command, as `run_program` takes them.
PROGRAM = re.compile(
    r"(?<!from )\bbsmamba2 (?:models (?:download|verify)|[a-z]+(?:-[a-z]+)*)"
    r"|-m benchmarks\.\w+|\bscripts/\w+\.py|\bbenchmark_\w+\.py"
)


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(REPOSITORY)) for path in paths]


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def code(text: str) -> Iterator[str]:
    """Yields the code of a document: the commands of its blocks, each with its continuation lines, and its spans."""
    for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
        yield from re.sub(r"\\\n", " ", block).splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors(text: str) -> set[str]:
    """Returns the anchors that GitHub makes of the headings of a document."""
    headings = re.findall(r"^#+ +(.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def python_file(program: str) -> Path:
    if program.startswith("-m "):
        spec = importlib.util.find_spec(program.removeprefix("-m "))
        assert spec is not None, program
        assert spec.origin is not None, program
        return Path(spec.origin)
    return REPOSITORY / program


def run_program(program: str, *arguments: str) -> tuple[int, str]:
    """Runs a program in this process and returns its exit status and what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            if program.startswith("bsmamba2 "):
                from bsmamba2.cli import main

                return main([*program.split()[1:], *arguments]), printed.getvalue()
            path = python_file(program)
            with patch.object(sys, "argv", [str(path), *arguments]):
                runpy.run_path(str(path), run_name="__main__")
            status: Any = 0
        except SystemExit as ended:
            status = ended.code or 0
    return status, printed.getvalue()


@functools.cache
def help_of(program: str) -> str:
    """Returns what a program prints for --help."""
    _, printed = run_program(program, "--help-all" if program == "bsmamba2 train" else "--help")
    assert "--help" in printed or "usage:" in printed, program
    return printed


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the programs of ours in the code of a document with their arguments, except in synopses of a usage.

    Options with a point and a value are those of training if they are not preceded by a program.
    """
    variables = dict(re.findall(r"^(\w+)='(.*)'$", text, re.MULTILINE))
    for line in code(text):
        command = line.partition("  #")[0]
        if "..." in command or " [--" in command:
            continue
        if re.fullmatch(r"(--\w+\.[\w.]+ [^-]\S* ?)+", command):
            command = f"bsmamba2 train {command}"
        _, *parts = re.split(f"({PROGRAM.pattern})", command)
        for program, given in zip(parts[::2], parts[1::2], strict=True):
            words = [variables.get(word.removeprefix("$"), word) for word in shlex.split(given)]
            words = [PLACEHOLDERS.get(word, word) for word in words]
            yield program, [word for word in words if word]


def spelled(option: str) -> str:
    """Returns an option in one spelling: both are taken."""
    return option.replace("_", "-").rstrip(".-")


def options_of(program: str) -> set[str]:
    return {spelled(option) for option in OPTION.findall(help_of(program))} | {"--help"}


def is_resolved(dotted: str) -> bool:
    """Returns whether a dotted name is a module, or something in one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found: Any = importlib.import_module(".".join(parts[:count]))
            for attribute in parts[count:]:
                found = getattr(found, attribute, None)
            return found is not None
    return False


@pytest.mark.parametrize("name", names(DOCUMENTS))
def test_links_lead_somewhere(name: str) -> None:
    text = read(name)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(r"https?:|mailto:", target):
            continue
        place, _, anchor = target.partition("#")
        path = (REPOSITORY / name).parent / place if place else REPOSITORY / name
        assert path.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{name} links to {target}"


@functools.cache
def file_names() -> set[str]:
    folders = [REPOSITORY / folder.replace("\\", "") for folder in FOLDERS.split("|")]
    return {path.name for path in (*REPOSITORY.glob("*"), *(path for top in folders for path in top.rglob("*")))}


@functools.cache
def all_options() -> set[str]:
    """Returns the options of all programs that the documents name."""
    programs = {found for name in names(CURRENT) for line in code(read(name)) for found in PROGRAM.findall(line)}
    return {option for program in programs if is_checked(program) for option in options_of(program)}


def is_checked(program: str) -> bool:
    # The usage of `models` alone is written by hand.
    return not program.startswith("bsmamba2 models")


@pytest.mark.parametrize("name", names(CURRENT))
def test_paths_and_modules_exist(name: str) -> None:
    for line in code(read(name)):
        for path in PATH.findall(line):
            assert any(REPOSITORY.glob(path.rstrip("/."))), f"{name} mentions {path}"
        for file in FILE_NAME.findall(line):
            assert file in file_names(), f"{name} mentions {file}"
        for dotted in MODULE.findall(line):
            if not re.search(r"\.(yaml|pt|ckpt|safetensors)$", dotted):
                assert is_resolved(dotted), f"{name} mentions {dotted}"


def test_commands_have_the_options_they_are_given() -> None:
    """One test for all documents, so that one process alone asks every program for its help."""
    wrong = []
    lines = [(name, line) for name in names(CURRENT) for line in code(read(name))]
    for name, line in lines:
        # What is before the first program, then each program and what follows it.
        _, *parts = re.split(f"({PROGRAM.pattern})", line.partition("  #")[0])
        for program, given in zip(parts[::2], parts[1::2], strict=True):
            if is_checked(program):
                unknown = [option for option in OPTION.findall(given) if spelled(option) not in options_of(program)]
                wrong += [f"{name}: {program} has no {option}" for option in unknown]
        if line.startswith("--"):
            unknown = [option for option in OPTION.findall(line) if spelled(option) not in all_options()]
            wrong += [f"{name}: no command has {option}" for option in unknown]
    assert wrong == []


def test_commands_have_the_values_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser checks each value when it reaches it, and stops at --help, so that nothing is run."""
    monkeypatch.chdir(REPOSITORY)
    given = {(program, *words): name for name in names(CURRENT) for program, words in commands(read(name)) if words}
    assert len(given) > 30
    wrong = []
    for (program, *words), name in given.items():
        status, printed = run_program(program, *words, "--help")
        if status != 0:
            wrong.append(f"{name}: {program} {shlex.join(words)}: {printed[-300:]}")
    assert wrong == []


def test_options_are_spelled_with_hyphens() -> None:
    """Except those of training, which are keys of its configs."""
    spelled_differently = [
        f"{name}: {program} {word}"
        for name in names(CURRENT)
        for program, words in commands(read(name))
        if program not in ("bsmamba2 train", "scripts/train.py")
        for word in words
        if word.startswith("--") and "_" in word.partition("=")[0]
    ]
    assert spelled_differently == []


def test_new_names_in_the_changelog_exist() -> None:
    rows = re.findall(r"^ *\| `bsmamba2\..*\| (.*) \|$", read("CHANGELOG.md"), re.MULTILINE)
    after = [dotted for row in rows for dotted in MODULE.findall(row)]
    assert len(after) > 10
    assert [dotted for dotted in after if not is_resolved(dotted)] == []


@pytest.mark.parametrize("name", names(CURRENT))
def test_make_has_the_targets(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    named = {target for line in code(read(name)) for target in re.findall(r"^make ([a-z]+)", line)}
    assert named <= targets


def test_the_example_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", read("README.md"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    write_audio(Path("song.mp3"), 0.1 * torch.randn(2, 24000), 44100, "mp3", None)
    given = {"mixture": 0.1 * torch.randn(2, 24000), "true_vocals": 0.1 * torch.randn(2, 24000)}
    with torch.inference_mode():
        exec(example, given)
    assert capsys.readouterr().out.count(" dB\n") == 2
    assert given["estimates"].shape == (1, 4, 2, 22050)
    assert sorted(path.name for path in Path("stems").iterdir()) == ["instrumental.wav", "vocals.wav"]


@pytest.mark.parametrize("name", names(CURRENT))
def test_python_in_documents_parses_and_its_imports_exist(name: str) -> None:
    for block in re.findall(r"```python\n(.*?)```", read(name), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bsmamba2"):
                assert all(is_resolved(f"{node.module}.{alias.name}") for alias in node.names), f"{name}: {node.module}"


def test_folders_import_from_below_only() -> None:
    """In the order of the table in docs/architecture.md, which lists every folder."""
    order = re.findall(r"^\| `bsmamba2/(\w+)/` \|", read("docs/architecture.md"), re.MULTILINE)
    assert set(order) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    imports = {
        (folder, node.module.split(".")[1])
        for folder in order
        for path in (PACKAGE / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bsmamba2.") and node.module is not None
    }
    upwards = {(one, two) for one, two in imports if two in order and order.index(two) < order.index(one)}
    assert upwards == set()


def test_the_readme_lists_every_folder() -> None:
    """The folders of the package, and those next to it that have code or configs."""
    listed = re.findall(r"^\| `([\w/]+)/` \|", read("README.md"), re.MULTILINE)
    of_package = {f"bsmamba2/{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")}
    assert sorted(listed) == sorted(of_package | {"benchmarks", "configs", "scripts", "tests"})


def test_the_architecture_names_every_module_next_to_the_folders() -> None:
    modules = {f"bsmamba2/{path.name}" for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    assert {module for module in modules if f"`{module}`" not in read("docs/architecture.md")} == set()


def test_every_folder_of_code_has_a_folder_of_tests() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {"benchmarks", "scripts"}
    assert folders == {path.parent.name for path in (REPOSITORY / "tests").glob("*/__init__.py")}


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", read("CHANGELOG.md"), re.MULTILINE)
    assert versions == sorted(versions, key=lambda text: [int(part) for part in text.split(".")], reverse=True)
    assert versions[0] == __version__


def test_the_citation_names_software_and_paper() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "title", "message", "type", "authors", "version", "preferred-citation"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors", "year", "doi", "url"} <= set(paper)
    assert [author["family-names"] for author in paper["authors"]] == ["Kim", "Choi"]
    assert paper["title"] in " ".join(read("README.md").replace("*", "").split())
    assert paper["url"] in read("README.md")


@pytest.mark.parametrize("name", ["bug", "feature", "song"])
def test_forms_of_issues_are_complete(name: str) -> None:
    form = yaml.safe_load(read(f".github/ISSUE_TEMPLATE/{name}.yml"))
    assert {"name", "description", "labels", "body"} == set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    for field in form["body"]:
        assert field["type"] in ("textarea", "dropdown")
        assert field["attributes"]["label"]
        if field["type"] == "dropdown":
            # Bare yes and no would be read as booleans.
            assert all(isinstance(option, str) for option in field["attributes"]["options"])
