"""The processes that share a task: how many, which of them this one is, and how much memory it has used."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.errors import InputError

# Set by Lightning, torchrun and SLURM: the rank among all processes, among those of the machine, and of the machine.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


@dataclass(frozen=True)
class Processes:
    """How many processes share the songs.

    Args:
        devices: Processes on this machine that share the songs, each with its own device.
        num_nodes: Machines that share the songs; start the command on each like any Lightning program.
        strategy: Lightning's strategy for several processes.

    Raises:
        InputError: A value is not allowed.
    """

    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        if self.devices < 1 or self.num_nodes < 1:
            raise InputError(
                f"devices={self.devices}, num_nodes={self.num_nodes} is not allowed; give at least 1 of each"
            )
        if self.strategy != "auto" and not self.several:
            raise InputError(f"--strategy {self.strategy} is for several processes; give --devices or --num-nodes too")

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return self.devices * self.num_nodes > 1


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
