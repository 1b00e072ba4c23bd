"""The Mamba-2 block (arXiv:2405.21060), with the parameter names and initialisation of mamba-ssm."""

import math
from typing import NamedTuple, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.norms import RMSNorm, rms_normalized
from bsmamba2.model.scans import Scan, choose_scan, ssd

DT_RANGE = (1e-3, 1e-1)
DT_FLOOR = 1e-4
A_RANGE = (1.0, 16.0)


class FoldedMamba2(NamedTuple):
    """The linear maps of a `Mamba2`, composed with those directly before and after them, and the scan it runs."""

    into: Tensor  # (in_proj, d): a norm's weight, then the projection
    taps: Tensor  # (d_conv, channels): the convolution by step
    out: Tensor  # (d, d_inner): the weight of the gated norm, the projection, then a map after it
    scan: Scan


class Mamba2(nn.Module):
    """Mixing of a sequence in one direction: projection, short convolution, scan, gated norm, projection.

    Args:
        config: Uses dim, expand, headdim, d_state, ngroups and d_conv.
        reverse: Whether each step sees itself and the future, instead of itself and the past.

    Attributes:
        scan: Which scan of `bsmamba2.model.scans` it runs; `BSMamba2.set_scan` sets it in a whole network.
        inner_dim: Values per step inside it.
    """

    scan: Scan = "auto"

    def __init__(self, config: ModelConfig, reverse: bool = False) -> None:
        super().__init__()
        self.headdim, self.ngroups, self.reverse = config.headdim, config.ngroups, reverse
        self.inner_dim = config.d_inner
        bc_dim = 2 * config.ngroups * config.d_state
        conv_dim = config.d_inner + bc_dim
        self.in_proj_split = [config.d_inner, conv_dim, config.heads]
        self.conv_split = [config.d_inner, bc_dim // 2, bc_dim // 2]
        self.in_proj = nn.Linear(config.dim, sum(self.in_proj_split), bias=False)
        self.conv1d = nn.Conv1d(conv_dim, conv_dim, config.d_conv, groups=conv_dim)
        low, high = (math.log(limit) for limit in DT_RANGE)
        dt = torch.exp(low + (high - low) * torch.rand(config.heads)).clamp(min=DT_FLOOR)
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.A_log = nn.Parameter(torch.empty(config.heads).uniform_(*A_RANGE).log())
        self.D = nn.Parameter(torch.ones(config.heads))
        self.norm = RMSNorm(config.d_inner)
        self.out_proj = nn.Linear(config.d_inner, config.dim, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        """Returns the mixed sequence (b, l, d) of u (b, l, d); the scan starts at zero in every row."""
        return self.out_proj(self.norm.weight * self._mix(self.in_proj(u), self._taps(), self.scan))

    def fold(self, before: Tensor, after: Tensor) -> FoldedMamba2:
        """Returns the maps of after · self(before ∘ u), for `folded_forward`.

        Args:
            before: Weight (d,) of the norm that u comes from.
            after: Map (d, d) of the output.
        """
        return FoldedMamba2(
            self.in_proj.weight * before,
            self._taps(),
            after @ (self.out_proj.weight * self.norm.weight),
            # Chosen here, outside of what torch.compile traces.
            choose_scan(self.D.device, self.scan, self.D.dtype),
        )

    def folded_forward(self, u: Tensor, folded: FoldedMamba2) -> Tensor:
        """Returns after · self(before ∘ u), (b, l, d) of u (b, l, d), with what `fold` returns."""
        return F.linear(self._mix(F.linear(u, folded.into), folded.taps, folded.scan), folded.out)

    def _taps(self) -> Tensor:
        """Returns the weights of the convolution (d_conv, channels), by step, contiguous as they are used."""
        taps = self.conv1d.weight[:, 0].mT
        return (taps.flip(0) if self.reverse else taps).contiguous()

    def _mix(self, projected: Tensor, taps: Tensor, scan: Scan) -> Tensor:
        """Returns all between the two projections: (b, l, d_inner), normalised, without the weight of the norm.

        Args:
            projected: Output of in_proj, (b, l, 2 d_inner + 2 groups d_state + heads).
            taps: What `_taps` returns.
            scan: Which scan to run.
        """
        z, xBC, dt = projected.split(self.in_proj_split, dim=-1)
        x, B, C = F.silu(self._convolved(xBC, taps)).split(self.conv_split, dim=-1)
        x, z = (rearrange(t, "b l (h p) -> b l h p", p=self.headdim) for t in (x, z))
        B, C = (rearrange(t, "b l (g n) -> b l g n", g=self.ngroups) for t in (B, C))
        dtype = torch.promote_types(dt.dtype, torch.float32)
        dt = F.softplus(dt.to(dtype) + self.dt_bias)
        A = -torch.exp(self.A_log.to(dtype))
        y = torch.addcmul(ssd(x, dt, A, B, C, scan, reverse=self.reverse), self.D[:, None], x)
        return rms_normalized(y * F.silu(z), dims=2).flatten(2)

    def _convolved(self, xBC: Tensor, taps: Tensor) -> Tensor:
        """Returns the depthwise convolution over time of (b, l, channels)."""
        reach, length = len(taps) - 1, xBC.shape[1]
        padded = F.pad(xBC, (0, 0, 0, reach) if self.reverse else (0, 0, reach, 0))
        convolved = torch.addcmul(cast(Tensor, self.conv1d.bias), padded[:, :length], taps[0])
        for step, tap in enumerate(taps[1:], start=1):
            convolved.addcmul_(padded[:, step : step + length], tap)
        return convolved.to(xBC.dtype)
