"""What a mixer is: a module that mixes rows along one axis, over time or over bands (paper, section 3.2)."""

from typing import Any, ClassVar

from torch import Tensor, nn

from bsmamba2.model.scans import Scan


class Mixer(nn.Module):
    """A module x (rows, l, d) → (rows, l, d), residuals included, whose rows do not depend on each other.

    Attributes:
        inner_dim: Values per step inside it, from which the number of rows per tile follows.
        scans: Whether it runs a scan, which `set_scan` chooses.
    """

    inner_dim: int
    scans: ClassVar[bool] = False

    def set_scan(self, scan: Scan) -> None:
        """Sets which scan it runs, if it runs one."""

    def fold(self) -> Any:
        """Returns what `forward` can use for several x, made once; None where there is nothing of the kind."""
        return None

    def forward(self, x: Tensor, folded: Any = None) -> Tensor:
        """Returns the mixed rows (rows, l, d) of x (rows, l, d).

        Args:
            x: Rows that do not depend on each other.
            folded: What `fold` returned, if it was called for several x.
        """
        raise TypeError(f"{type(self).__name__} does not define how it mixes")
