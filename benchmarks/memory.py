"""The memory of a computation. Needs PyTorch alone, since `peer_worker.py` runs in foreign environments."""

import os
import sys
from pathlib import Path

import torch

from bsmamba2.system.processes import peak_memory_bytes


def peak_memory_mib(device: torch.device) -> float | None:
    """Returns the peak memory so far in MiB, or None where it is not known; see `memory_meaning`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = peak_memory_bytes() if device.type == "cpu" else None
    return None if peak is None else peak / 2**20


def present_memory_mib(device: torch.device) -> float | None:
    """Returns the memory in use at present in MiB, or None where it is not known."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    if device.type != "cpu" or sys.platform != "linux":
        return None
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory_meaning(device: torch.device) -> str:
    """Returns what `peak_memory_mib` measures."""
    return "all tensors on the GPU" if device.type == "cuda" else "a process that does only this, with Python and torch"
