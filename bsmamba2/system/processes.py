"""Which of several processes this one is, before they have met."""

import os

# As Lightning, torchrun and SLURM tell it: the process among all, among those of its machine, and the machine.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


def is_first_process() -> bool:
    """Returns whether this process is the first of those that share a work, or alone."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)
