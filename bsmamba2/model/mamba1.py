"""The Mamba-1 block (arXiv:2312.00752, section 3.4), with the parameter names and initialisation of mamba-ssm."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.mamba import Mamba, initial_dt_bias
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import selective_scan

# Features per value of the low-rank map of step sizes.
FEATURES_PER_RANK = 16


class Mamba1(Mamba):
    """A `Mamba` with a step size per channel, a decay rate per channel and state, and B and C from the convolved x.

    Args:
        config: Uses dim, expand, mamba1_d_state and d_conv.
        reverse: Whether each step sees itself and the future, instead of itself and the past.
    """

    recurrences = ("selective",)

    def __init__(self, config: ModelConfig, reverse: bool = False) -> None:
        super().__init__(config, 2 * config.d_inner, config.d_inner, reverse)
        channels, states, rank = config.d_inner, config.mamba1_d_state, math.ceil(config.dim / FEATURES_PER_RANK)
        self.x_proj_split = [rank, states, states]
        self.x_proj = nn.Linear(channels, sum(self.x_proj_split), bias=False)
        self.dt_proj = nn.Linear(rank, channels)
        with torch.no_grad():
            self.dt_proj.weight.uniform_(-(rank**-0.5), rank**-0.5)
            self.dt_proj.bias.copy_(initial_dt_bias(channels))
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        self.out_proj = nn.Linear(channels, config.dim, bias=False)

    def mix(self, projected: Tensor, taps: Tensor, scan: Scan) -> Tensor:
        """Returns all between the two projections, (b, l, d_inner).

        Args:
            projected: Output of in_proj, (b, l, 2 d_inner).
            taps: Weights of the convolution (d_conv, d_inner), by step.
            scan: Which scan to run.
        """
        x, z = projected.chunk(2, dim=-1)
        x = F.silu(self.convolved(x, taps))
        dt, B, C = self.x_proj(x).split(self.x_proj_split, dim=-1)
        dtype = torch.promote_types(dt.dtype, torch.float32)
        dt = F.softplus(F.linear(dt, self.dt_proj.weight).to(dtype) + self.dt_proj.bias)
        A = -torch.exp(self.A_log.to(dtype))
        y = torch.addcmul(selective_scan(x, dt, A, B, C, scan, reverse=self.reverse), self.D.to(x.dtype), x)
        return y * F.silu(z)
