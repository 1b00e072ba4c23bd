"""What an installation needs: the packages of each extra, the configs, the files of the sources."""

import os
import re
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bsmamba2
from bsmamba2.cli import EXTRAS
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.training.configs import config_file
from bsmamba2.weights.checkpoint import save_model
from tests.one_process import answers

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CORE = PROJECT["project"]["dependencies"]
OPTIONAL = PROJECT["project"]["optional-dependencies"]


def needed(requirements: list[str]) -> set[str]:
    """Returns the names of the installed distributions that requirements need, those of their requirements included."""
    names: set[str] = set()
    left = [Requirement(text) for text in requirements]
    while left:
        requirement = left.pop()
        markers = [{"extra": extra} for extra in ("", *requirement.extras)]
        name = canonicalize_name(requirement.name)
        if name in names and not requirement.extras:
            continue
        names.add(name)
        for inner in map(Requirement, metadata.requires(name) or []):
            if inner.marker is None or any(inner.marker.evaluate(each) for each in markers):
                left.append(inner)
    return names


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with links to this package and to the packages that are required on every machine, alone."""
    folder = tmp_path_factory.mktemp("core")
    (folder / "bsmamba2").symlink_to(ROOT / "bsmamba2")
    (folder / "configs").symlink_to(ROOT / "configs")
    for name in needed(CORE):
        distribution = metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(distribution.locate_file(top)))
    return folder


def run(core: Path, folder: Path, *commands: list[str]) -> list[tuple[int, str]]:
    """Returns the exit statuses and standard errors of commands where only the core is installed."""
    # Without site-packages: what is not in the folder of links is not installed.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"PYTHONPATH": str(core), "XDG_CACHE_HOME": str(folder / "cache")}
    return [(status, errors) for status, errors, _ in answers(commands, folder, environment, "-S")]


@pytest.fixture
def folder(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> Path:
    """Returns a folder with a model and a song."""
    save_model(BSMamba2(tiny_config), tmp_path / "model.safetensors")
    shutil.copy(next((musdb_root / "test").iterdir()) / "mixture.wav", tmp_path / "song.wav")
    return tmp_path


def test_the_core_alone_separates_scores_and_converts(core: Path, folder: Path, musdb_root: Path) -> None:
    model = ["--model", "model.safetensors"]
    commands = [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["separate", "song.wav", *model],
        ["evaluate", *model, "--root", str(musdb_root), "--output", "scores", "--no-report"],
        ["models"],
        ["convert", "model.safetensors", "copy.safetensors"],
        ["doctor"],
        ["check-data", str(musdb_root)],
    ]
    for command, (status, errors) in zip(commands, run(core, folder, *commands), strict=True):
        # The songs are too short for the checks.
        assert status == (command[0] == "check-data"), (command, errors)
        assert "not installed" not in errors
    assert sorted(path.name for path in (folder / "stems").glob("*/*")) == ["instrumental.wav", "vocals.wav"]


def test_a_command_without_its_extra_names_it(core: Path, folder: Path) -> None:
    model = ["--model", "model.safetensors"]
    missing = {
        ("train", "--data.root", "."): "lightning",
        ("report", "run"): "matplotlib",
        ("evaluate", *model, "--root", ".", "--output", "scores"): "matplotlib",
        ("separate", "song.wav", *model, "--devices", "2"): "lightning",
        ("open",): "starlette",
        ("export", "vocals.onnx", *model): "onnx",
        ("demo",): "stempeg",
        ("demo", "--train"): "lightning",
    }
    ended = run(core, folder, *map(list, missing))
    for (command, package), (status, errors) in zip(missing.items(), ended, strict=True):
        assert status == 1, (command, errors)
        advice = rf"{package}\b.* is not installed; run pip install \"bsmamba2\[(\w+)\]\"\n$"
        assert re.search(advice, errors), (command, errors)


def test_each_extra_installs_what_is_said_to_need_it() -> None:
    for package, extra in EXTRAS.items():
        names = {canonicalize_name(Requirement(text).name) for text in OPTIONAL[extra]}
        assert canonicalize_name(package) in names


def test_requirements_are_the_core_and_the_extras() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert len(set(listed)) == len(listed)
    parts = [OPTIONAL[extra] for extra in ("train", "report", "museval", "onnx", "page", "remote")]
    assert sorted(listed) == sorted({*CORE, *(text for part in parts for text in part)})


def test_make_installs_all_requirements() -> None:
    installing = re.findall(r"-m pip install (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert len(installing) == 3
    assert all("--constraint constraints.txt --requirement requirements.txt --editable" in line for line in installing)


def test_every_folder_is_a_package_and_every_other_file_is_installed() -> None:
    settings = PROJECT["tool"]["setuptools"]
    folders = {path.parent for path in (ROOT / "bsmamba2").rglob("*.py")}
    names = {".".join(path.relative_to(ROOT).parts) for path in folders}
    assert set(settings["packages"]) == names
    patterns = settings["package-data"]["bsmamba2"]
    data = {path for each in patterns for path in (ROOT / "bsmamba2").glob(each) if path.suffix != ".py"}
    others = {
        path
        for path in (ROOT / "bsmamba2").rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert data == others


def test_the_sources_contain_every_file_of_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no repository of git")
    filelist = pytest.importorskip("setuptools.command.egg_info", reason="setuptools is not installed").FileList
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True, cwd=ROOT)
    # A file that is deleted, but not yet committed, is listed too.
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    monkeypatch.chdir(ROOT)
    sources = filelist()
    for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            sources.process_template_line(line)
    # These setuptools adds.
    added = {
        "MANIFEST.in",
        "pyproject.toml",
        "setup.py",
        PROJECT["project"]["readme"],
        *PROJECT["project"]["license-files"],
    }
    package = {name for name in tracked if name.startswith("bsmamba2/")}
    assert tracked - package - added - {Path(name).as_posix() for name in sources.files} == set()


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs").iterdir()))
def test_configs_have_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file(name).read_bytes() == (ROOT / "configs" / f"{name}.yaml").read_bytes()


def test_a_file_goes_before_a_name_and_an_unknown_name_lists_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").write_text("{}")
    assert config_file("tiny") == Path("tiny")
    with pytest.raises(
        InputError, match=r"no config tini; give a file, or a name: bsmamba2, .*, tiny; did you mean tiny\?$"
    ):
        config_file("tini")


def test_the_version_is_known() -> None:
    assert bsmamba2.__version__ == metadata.version("bsmamba2")
