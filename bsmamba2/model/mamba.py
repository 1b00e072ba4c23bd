"""What the blocks of Mamba-1 and Mamba-2 have in common."""

import math
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.mixing import in_precision
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import Recurrence, choose_scan

DT_RANGE = (1e-3, 1e-1)
DT_FLOOR = 1e-4


class FoldedMamba(NamedTuple):
    """The linear maps of a `Mamba`, composed with those directly before and after them, and the scan it runs."""

    into: Tensor  # (in_proj, d): a norm's weight, then the projection
    taps: Tensor  # (d_conv, channels): the convolution by step
    out: Tensor  # (d, d_inner): the projection, with a gain before it if there is one, then a map after it
    scan: Scan


class Mamba(nn.Module):
    """Mixing of a sequence in one direction: projection, short convolution, scan and gate, projection.

    Args:
        config: Uses dim, expand and d_conv.
        projected: Values per step that in_proj returns.
        convolved: Channels of the convolution.
        reverse: Whether each step sees itself and the future, instead of itself and the past.

    Attributes:
        recurrences: Which recurrence it computes, alone.
        scan: Which scan of `bsmamba2.model.scans` it runs; `Network.set_scan` sets it in a whole network.
        inner_dim: Values per step inside it.
    """

    recurrences: ClassVar[tuple[Recurrence]]
    scan: Scan = "auto"
    # Made by the subclass, after its other weights.
    out_proj: nn.Linear

    def __init__(self, config: ModelConfig, projected: int, convolved: int, reverse: bool) -> None:
        super().__init__()
        self.reverse = reverse
        self.inner_dim = config.d_inner
        self.in_proj = nn.Linear(config.dim, projected, bias=False)
        self.conv1d = nn.Conv1d(convolved, convolved, config.d_conv, groups=convolved)

    def forward(self, u: Tensor, scan: Scan | None = None) -> Tensor:
        """Returns the mixed sequence (b, l, d) of u (b, l, d); the scan starts at zero in every row.

        Args:
            u: Rows that do not depend on each other.
            scan: Which scan to run, by default that of the attribute.
        """
        return F.linear(self.mix(self.in_proj(u), self._taps(), scan or self.scan), self.out_map())

    def fold(self, before: Tensor, after: Tensor | None = None) -> FoldedMamba:
        """Returns the maps of after · self(before ∘ u), for `folded_forward`.

        Args:
            before: Weight (d,) of the norm that u comes from.
            after: Map (d, d) of the output, if there is one.
        """
        weight = self.out_proj.weight
        return FoldedMamba(
            in_precision(self.in_proj.weight * before),
            in_precision(self._taps()),
            in_precision(self.out_map() if after is None else after @ self.out_map()),
            # Chosen here, outside of what torch.compile traces.
            choose_scan(weight.device, self.scan, weight.dtype, *self.recurrences),
        )

    def folded_forward(self, u: Tensor, folded: FoldedMamba) -> Tensor:
        """Returns after · self(before ∘ u), (b, l, d) of u (b, l, d), with what `fold` returns."""
        return F.linear(self.mix(F.linear(u, folded.into), folded.taps, folded.scan), folded.out)

    def out_map(self) -> Tensor:
        """Returns the map (d, d_inner) of what `mix` returns."""
        return self.out_proj.weight

    def mix(self, projected: Tensor, taps: Tensor, scan: Scan) -> Tensor:
        """Returns all between the two projections, (b, l, d_inner).

        Args:
            projected: Output of in_proj (b, l, projected).
            taps: Weights of the convolution (d_conv, channels), by step.
            scan: Which scan to run.
        """
        raise TypeError(f"{type(self).__name__} does not define how it mixes")

    def convolved(self, x: Tensor, taps: Tensor) -> Tensor:
        """Returns the depthwise convolution over time (b, l, channels) of x (b, l, channels)."""
        reach, length = len(taps) - 1, x.shape[1]
        # All in one dtype: a processor would convert x for every product.
        taps, bias = taps.to(x.dtype), cast(Tensor, self.conv1d.bias).to(x.dtype)
        padded = F.pad(x, (0, 0, 0, reach) if self.reverse else (0, 0, reach, 0))
        convolved = torch.addcmul(bias, padded[:, :length], taps[0])
        for step, tap in enumerate(taps[1:], start=1):
            convolved.addcmul_(padded[:, step : step + length], tap)
        return convolved

    def _taps(self) -> Tensor:
        """Returns the weights of the convolution (d_conv, channels), by step, contiguous as they are used."""
        taps = self.conv1d.weight[:, 0].mT
        return (taps.flip(0) if self.reverse else taps).contiguous()


def initial_dt_bias(count: int) -> Tensor:
    """Returns what softplus maps to random step sizes (count,), log-uniform in `DT_RANGE`."""
    low, high = (math.log(limit) for limit in DT_RANGE)
    dt = torch.exp(low + (high - low) * torch.rand(count)).clamp(min=DT_FLOOR)
    return dt + torch.log(-torch.expm1(-dt))
