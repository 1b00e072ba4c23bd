"""The Mamba-2 block (arXiv:2405.21060), with the parameter names and initialisation of mamba-ssm."""

import math
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.norms import RMSNorm, rms_normalized
from bsmamba2.model.ssd import Scan, ssd

DT_RANGE = (1e-3, 1e-1)
DT_FLOOR = 1e-4
A_RANGE = (1.0, 16.0)


class Mamba2(nn.Module):
    """Mixing of a sequence in one direction: projection, short convolution, scan, gated norm, projection.

    Args:
        config: Uses dim, expand, headdim, d_state, ngroups and d_conv.
        reverse: Whether each step sees itself and the future, instead of itself and the past.
    """

    def __init__(self, config: ModelConfig, reverse: bool = False) -> None:
        super().__init__()
        self.headdim, self.ngroups, self.reverse = config.headdim, config.ngroups, reverse
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

    def forward(self, u: Tensor, scan: Scan = "auto") -> Tensor:
        """Returns the mixed sequence (b, l, d) of u (b, l, d); the scan starts at zero in every row."""
        return self.out_proj(self.norm.weight * self.mix(self.in_proj(u), self.taps(), scan))

    def taps(self) -> Tensor:
        """Returns the weights of the convolution (d_conv, channels), by step of time, in memory as they are used."""
        taps = self.conv1d.weight[:, 0].mT
        return (taps.flip(0) if self.reverse else taps).contiguous()

    def mix(self, projected: Tensor, taps: Tensor, scan: Scan = "auto") -> Tensor:
        """Returns what lies between the two projections: (b, l, d_inner), normalised, without the weight of the norm.

        Args:
            projected: What in_proj gives, (b, l, 2 d_inner + 2 groups d_state + heads).
            taps: What `taps` returns.
            scan: Which scan of `bsmamba2.model.ssd` to run.
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
