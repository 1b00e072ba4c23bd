"""What results depend on besides code and data: versions, processor, graphics card."""

import contextlib
import importlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = ("lightning", "soundfile", "av", "mamba-ssm", "causal-conv1d", "triton")


def versions() -> dict[str, str | None]:
    """Returns the versions of what computes here, by name; None for what is not installed."""
    own = {
        "bsmamba2": package_version("bsmamba2"),
        "Python": platform.python_version(),
        "system": platform.platform(),
        "torch": f"{torch.__version__} ({torch_build()})",
    }
    return {**own, **{package: package_version(package) for package in PACKAGES}, "libsndfile": _libsndfile()}


def revision() -> str | None:
    """Returns the commit of this package's own checkout, with "+" if files were changed; None where it is none."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        git = ["git", "-C", str(folder)]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=30, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
    return None


def hardware(device: torch.device) -> dict[str, str | int]:
    """Returns the processor, its threads and the graphics card of a computation."""
    card = f"{device}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)
    return {
        "device": card,
        "processor": processor_name(),
        "processor cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }


def processor_name() -> str:
    """Returns the name of the processor, which Linux gives in a file only."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def package_version(package: str) -> str | None:
    """Returns the version of an installed package, None where there is none."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def torch_build() -> str:
    """Returns what PyTorch was built for."""
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"


def _libsndfile() -> str | None:
    with contextlib.suppress(ImportError, OSError):  # OSError where the library itself cannot be loaded
        return str(importlib.import_module("soundfile").__libsndfile_version__)
    return None
