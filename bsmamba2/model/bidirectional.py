"""A mixer that runs a core along the sequence and one against it, as BSMamba2 does (paper, section 3.2)."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.mixing import Mixer, in_precision
from bsmamba2.model.norms import RMSNorm, rms_normalized
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import Recurrence


class Core(Protocol):
    """What a `BidirectionalMixer` runs in each direction: a module u (b, l, d) → (b, l, d) that is linear at its ends.

    Attributes:
        inner_dim: Values per step inside it.
        recurrences: What it computes by scans.
        scan: Which scan it runs.
    """

    inner_dim: int
    recurrences: tuple[Recurrence, ...]
    scan: Scan

    def __call__(self, u: Tensor) -> Tensor:
        """Returns the mixed sequence (b, l, d) of u (b, l, d)."""

    def fold(self, before: Tensor, after: Tensor) -> Any:
        """Returns what `folded_forward` needs for a weight (d,) before the core and a map (d, d) after it."""

    def folded_forward(self, u: Tensor, folded: Any) -> Tensor:
        """Returns after · core(before ∘ u), (b, l, d) of u (b, l, d)."""


class Block(nn.Module):
    """A norm and the core after it.

    Args:
        dim: Features per step.
        core: What mixes.
    """

    def __init__(self, dim: int, core: nn.Module) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.mixer = core

    def forward(self, x: Tensor) -> Tensor:
        """Returns the mixing (b, l, d) of x (b, l, d), without a residual."""
        return cast(Tensor, self.mixer(self.norm(x)))


class Folded(NamedTuple):
    """The linear maps of a `BidirectionalMixer`, composed; they have no parameters of their own."""

    blocks: tuple[Any, Any]
    skip: Tensor  # (d, d): the join of the two skip connections


class BidirectionalMixer(Mixer):
    """Two blocks, one along the sequence and one against it, joined by a linear map.

    Args:
        dim: Features per step.
        core: Makes the core of a direction; called with True for the one against the sequence.
    """

    def __init__(self, dim: int, core: Callable[[bool], nn.Module]) -> None:
        super().__init__()
        self.forward_blocks = nn.ModuleList([Block(dim, core(False))])
        self.backward_blocks = nn.ModuleList([Block(dim, core(True))])
        # Published as a transposed convolution of width 1: the weight (2d, d, 1) is that of a Linear, transposed.
        self.linear = nn.ConvTranspose1d(2 * dim, dim, 1)
        self.inner_dim, self.recurrences = self._cores()[0].inner_dim, self._cores()[0].recurrences

    def as_published(self, x: Tensor) -> Tensor:
        """Returns the same as `forward`, up to rounding, computed by the definition.

        Each block has a norm before it and a skip connection around both, and another is around the whole.
        """
        forward, backward = *self.forward_blocks, *self.backward_blocks
        joined = self.linear(torch.cat([forward(x) + x, backward(x) + x], dim=-1).mT).mT
        return cast(Tensor, joined + x)

    def directions(self) -> tuple[nn.Module, nn.Module]:
        """Returns the blocks along the row and against it."""
        return self.forward_blocks, self.backward_blocks

    def set_scan(self, scan: Scan) -> None:
        """Sets which scan both directions run."""
        for core in self._cores():
            core.scan = scan

    def fold(self) -> Folded:
        """Returns the maps that `forward` applies: fewer and smaller than the published ones.

        The two norms before the blocks differ in their weights only, and the projection out of a block and the join
        are two linear maps in a row.
        """
        joins = self.linear.weight.squeeze(-1).mT.chunk(2, dim=-1)
        norms = (block.norm.weight for block in (*self.forward_blocks, *self.backward_blocks))
        forward, backward = (
            core.fold(norm, join) for core, norm, join in zip(self._cores(), norms, joins, strict=True)
        )
        return Folded((forward, backward), in_precision(joins[0] + joins[1]))

    def forward(self, x: Tensor, folded: Folded | None = None) -> Tensor:
        """Returns the mixed rows (rows, l, d) of x (rows, l, d).

        Args:
            x: Rows that do not depend on each other.
            folded: What `fold` returned, if it was called for several x.
        """
        folded = folded or self.fold()
        # Converted here once, not by each product and factor.
        normalized = rms_normalized(x).to(folded.skip.dtype)
        mixed = x + F.linear(x, folded.skip, self.linear.bias)
        for core, maps in zip(self._cores(), folded.blocks, strict=True):
            mixed = mixed + core.folded_forward(normalized, maps)
        return mixed

    def _cores(self) -> tuple[Core, Core]:
        forward, backward = (block.mixer for block in (*self.forward_blocks, *self.backward_blocks))
        return forward, backward
