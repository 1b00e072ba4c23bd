"""What a mixer is: a module that mixes rows along one axis, over time or over bands (paper, section 3.2)."""

from typing import Any

import torch
from torch import Tensor, nn

from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import Recurrence


class Mixer(nn.Module):
    """A module x (rows, l, d) → (rows, l, d), residuals included, whose rows do not depend on each other.

    Attributes:
        inner_dim: Values per step inside it, from which the number of rows per tile follows.
        recurrences: What it computes by scans, which `set_scan` chooses.
    """

    inner_dim: int
    recurrences: tuple[Recurrence, ...] = ()

    def set_scan(self, scan: Scan) -> None:
        """Sets which scan it runs, if it runs one."""

    def directions(self) -> tuple[nn.Module, nn.Module] | None:
        """Returns the modules that run along the row and against it, or None if it does not mix by direction."""
        return None

    def fold(self) -> Any:
        """Returns what `forward` can use for several x, made once; None if there is nothing to prepare."""
        return None

    def forward(self, x: Tensor, folded: Any = None) -> Tensor:
        """Returns the mixed rows (rows, l, d) of x (rows, l, d).

        Args:
            x: Rows that do not depend on each other.
            folded: What `fold` returned, if it was called for several x.
        """
        raise TypeError(f"{type(self).__name__} does not define how it mixes")


def in_precision(weight: Tensor) -> Tensor:
    """Returns a weight in the dtype that autocast multiplies in, which would convert it for every tile again."""
    device = weight.device.type
    enabled = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return weight.to(torch.get_autocast_dtype(device)) if enabled else weight
