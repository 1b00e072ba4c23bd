"""The processes that share a task: how many, and which of them this one is before they have met."""

import os
from dataclasses import dataclass

from bsmamba2.errors import InputError

# Set by Lightning, torchrun and SLURM: the rank among all processes, among those of a machine, and of the machine.
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
    """Returns whether this process is the first of those that share a task, or the only one."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)
