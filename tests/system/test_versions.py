import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from bsmamba2.system import versions as module
from bsmamba2.system.versions import (
    PACKAGES,
    hardware,
    package_version,
    processor_name,
    revision,
    torch_build,
    versions,
)


def test_versions_of_what_is_installed() -> None:
    found = versions()
    assert list(found) == ["bsmamba2", "Python", "system", "torch", *PACKAGES, "libsndfile"]
    assert found["Python"] == platform.python_version()
    assert found["torch"] == f"{torch.__version__} ({torch_build()})"
    assert found["lightning"] == metadata.version("lightning")
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", found["libsndfile"] or "")
    assert package_version("a-package-that-nobody-made") is None


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_revision_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "bsmamba2" / "system"
    package.mkdir(parents=True)
    (package / "versions.py").write_text("first")
    monkeypatch.setattr(module, "__file__", str(package / "versions.py"))
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    def git(*command: str) -> str:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
        run = subprocess.run(["git", *identity, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    assert revision() is None
    git("init")
    assert revision() is None  # without a commit
    git("add", ".")
    git("commit", "--message", "first")
    assert revision() == git("rev-parse", "HEAD")
    (tmp_path / "untracked").touch()
    assert revision() == git("rev-parse", "HEAD")
    (package / "versions.py").write_text("second")
    assert revision() == git("rev-parse", "HEAD") + "+"


def test_hardware_of_the_cpu() -> None:
    found = hardware(torch.device("cpu"))
    assert found == {
        "device": "cpu",
        "processor": processor_name(),
        "processor cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    assert found["processor"]


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="other systems have other files")
def test_the_name_of_the_processor_is_that_of_linux() -> None:
    assert f": {processor_name()}\n" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
