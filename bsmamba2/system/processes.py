"""This process: which of several it is, and how much memory it has used."""

import os
import sys
from pathlib import Path

# Set by Lightning, torchrun and SLURM: the rank among all processes, among those of the machine, and of the machine.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


def is_first_process() -> bool:
    """Returns whether this process is the first of those that share the work, or the only one.

    It works before torch.distributed is initialised.
    """
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def peak_memory_bytes() -> int | None:
    """Returns the most main memory in bytes that this process has used at one time; None on Windows."""
    if sys.platform == "win32":
        return None
    if sys.platform == "linux":
        # Not getrusage: there, a process starts with the peak of the process that started it.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
