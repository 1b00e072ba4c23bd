"""Versions, processor and graphics card: what results depend on besides code and data."""

import contextlib
import importlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from bsmamba2.version import __version__

PACKAGES = ("lightning", "soundfile", "av", "mamba-ssm", "causal-conv1d", "triton")


def versions() -> dict[str, str | None]:
    """Returns the versions of this package and its dependencies by name; None for those that are not installed."""
    own = {
        "bsmamba2": __version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
        "torch": f"{torch.__version__} ({torch_build()})",
    }
    return {**own, **{package: package_version(package) for package in PACKAGES}, "libsndfile": _libsndfile()}


def revision() -> str | None:
    """Returns the commit of this package's checkout, with "+" if files were changed; None outside a checkout."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
        return _git(folder, "rev-parse", "HEAD") + ("+" if changed else "")
    return None


def _git(folder: Path, *command: str) -> str:
    git = ["git", "-C", str(folder), *command]
    return subprocess.run(git, capture_output=True, text=True, timeout=30, check=True).stdout.strip()


def hardware(device: torch.device) -> dict[str, str | int]:
    """Returns the device of a computation, the processor, its cores and the threads that torch uses."""
    card = f"{device}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)
    return {
        "device": card,
        "processor": processor_name(),
        "processor cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }


def processor_name() -> str:
    """Returns the name of the processor, which on Linux is only in a file."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def package_version(package: str) -> str | None:
    """Returns the version of a package; None if it is not installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def torch_build() -> str:
    """Returns what PyTorch was built for: a version of CUDA or ROCm, or the CPU."""
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"


def _libsndfile() -> str | None:
    with contextlib.suppress(ImportError, OSError):  # OSError: the library itself cannot be loaded
        return str(importlib.import_module("soundfile").__libsndfile_version__)
    return None
