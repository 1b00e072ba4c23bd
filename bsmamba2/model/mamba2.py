"""The Mamba-2 block (arXiv:2405.21060), with the parameter names and initialisation of mamba-ssm."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.mamba import Mamba, initial_dt_bias
from bsmamba2.model.norms import RMSNorm, rms_normalized
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import ssd

A_RANGE = (1.0, 16.0)


class Mamba2(Mamba):
    """A `Mamba` with one step size and decay rate per head, B and C from the projection, and a norm after the gate.

    Args:
        config: Uses dim, expand, headdim, d_state, ngroups and d_conv.
        reverse: Whether each step sees itself and the future, instead of itself and the past.
    """

    recurrences = ("ssd",)

    def __init__(self, config: ModelConfig, reverse: bool = False) -> None:
        bc_dim = 2 * config.ngroups * config.d_state
        in_proj_split = [config.d_inner, config.d_inner + bc_dim, config.heads]
        super().__init__(config, sum(in_proj_split), in_proj_split[1], reverse)
        self.headdim, self.ngroups = config.headdim, config.ngroups
        self.in_proj_split = in_proj_split
        self.conv_split = [config.d_inner, bc_dim // 2, bc_dim // 2]
        self.dt_bias = nn.Parameter(initial_dt_bias(config.heads))
        self.A_log = nn.Parameter(torch.empty(config.heads).uniform_(*A_RANGE).log())
        self.D = nn.Parameter(torch.ones(config.heads))
        self.norm = RMSNorm(config.d_inner)
        self.out_proj = nn.Linear(config.d_inner, config.dim, bias=False)

    def out_map(self) -> Tensor:
        """Returns the weight of the norm and the projection after it as one map (d, d_inner)."""
        return self.out_proj.weight * self.norm.weight

    def mix(self, projected: Tensor, taps: Tensor, scan: Scan) -> Tensor:
        """Returns all between the two projections: (b, l, d_inner), normalised, without the weight of the norm.

        Args:
            projected: Output of in_proj, (b, l, 2 d_inner + 2 groups d_state + heads).
            taps: Weights of the convolution (d_conv, channels), by step.
            scan: Which scan to run.
        """
        z, xBC, dt = projected.split(self.in_proj_split, dim=-1)
        x, B, C = F.silu(self.convolved(xBC, taps)).split(self.conv_split, dim=-1)
        x, z = (rearrange(t, "b l (h p) -> b l h p", p=self.headdim) for t in (x, z))
        B, C = (rearrange(t, "b l (g n) -> b l g n", g=self.ngroups) for t in (B, C))
        dtype = torch.promote_types(dt.dtype, torch.float32)
        dt = F.softplus(dt.to(dtype) + self.dt_bias)
        A = -torch.exp(self.A_log.to(dtype))
        y = torch.addcmul(ssd(x, dt, A, B, C, scan, reverse=self.reverse), self.D.to(x.dtype)[:, None], x)
        return rms_normalized(y * F.silu(z), dims=2).flatten(2)
