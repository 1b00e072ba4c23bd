"""The time mixing of RWKV-6 (Finch, arXiv:2404.05892), with the parameter names and initialisation of its authors."""

from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.mixing import in_precision
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import Recurrence, choose_scan, wkv

# What is mixed with the step before: decays, keys, values, receptances and gates, in the order of the weights.
INPUTS = "wkvrg"
# Ranks of the maps that make the mixing and the decays depend on the data.
MIXING_RANK, DECAY_RANK = 32, 64
# The floor of the norm over the channels of a head.
NORM_EPSILON = 64e-5


class FoldedRWKV6(NamedTuple):
    """The weight before an `RWKV6`, its last linear map composed with the one after it, and the scan it runs."""

    before: Tensor  # (d,)
    out: Tensor  # (d, d)
    scan: Scan


class RWKV6(nn.Module):
    """Mixing of a sequence in one direction: token shift, decays from the data, the WKV recurrence, norm and gate.

    Args:
        config: Uses dim, depth and rwkv_headdim.
        layer: Number of the layer in the network, from 0, on which the initial values depend.
        reverse: Whether each step sees itself and the future, instead of itself and the past.

    Attributes:
        recurrences: Which recurrences it computes.
        scan: Which scan of `bsmamba2.model.scans` it runs; `BSMamba2.set_scan` sets it in a whole network.
        inner_dim: Values per step inside it.
    """

    recurrences: ClassVar[tuple[Recurrence, ...]] = ("wkv",)
    scan: Scan = "auto"

    def __init__(self, config: ModelConfig, layer: int = 0, reverse: bool = False) -> None:
        super().__init__()
        self.reverse = reverse
        dim = config.dim
        self.heads = dim // config.rwkv_headdim
        self.inner_dim = len(INPUTS) * dim
        self.time_maa_x = nn.Parameter(torch.empty(1, 1, dim))
        for name in INPUTS:
            self.register_parameter(f"time_maa_{name}", nn.Parameter(torch.empty(1, 1, dim)))
        self.time_maa_w1 = nn.Parameter(torch.zeros(dim, len(INPUTS) * MIXING_RANK))
        self.time_maa_w2 = nn.Parameter(torch.empty(len(INPUTS), MIXING_RANK, dim).uniform_(-0.01, 0.01))
        self.time_decay = nn.Parameter(torch.empty(1, 1, dim))
        self.time_decay_w1 = nn.Parameter(torch.zeros(dim, DECAY_RANK))
        self.time_decay_w2 = nn.Parameter(torch.empty(DECAY_RANK, dim).uniform_(-0.01, 0.01))
        self.time_faaaa = nn.Parameter(torch.empty(self.heads, config.rwkv_headdim))
        self.receptance, self.key, self.value, self.gate, self.output = (
            nn.Linear(dim, dim, bias=False) for _ in range(5)
        )
        self.ln_x = nn.GroupNorm(self.heads, dim, eps=NORM_EPSILON)
        self._initialize(layer, config.depth)

    @torch.no_grad()
    def _initialize(self, layer: int, depth: int) -> None:
        """Sets initial values that depend on the channel and on the place in the network, as its authors do."""
        channel = torch.arange(self.ln_x.num_channels)
        share = channel / len(channel)
        progress, rest = layer / max(depth - 1, 1), 1 - layer / depth
        for name in "xwk":
            self.get_parameter(f"time_maa_{name}").copy_(1 - share**rest)
        self.get_parameter("time_maa_v").copy_(1 - (share**rest + 0.3 * progress))
        for name in "rg":
            self.get_parameter(f"time_maa_{name}").copy_(1 - share ** (rest / 2))
        to_last = channel / max(len(channel) - 1, 1)
        self.time_decay.copy_(-6 + 5 * to_last ** (0.7 + 1.3 * progress))
        zigzag = 0.1 * ((channel + 1) % 3 - 1)
        self.time_faaaa.copy_((progress * (1 - to_last) + zigzag).view_as(self.time_faaaa))
        self.ln_x.weight.fill_(((1 + layer) / depth) ** 0.7)
        for linear, gain in ((self.receptance, 1), (self.value, 1), (self.key, 0.1), (self.gate, 0.1)):
            nn.init.orthogonal_(linear.weight, gain)
        nn.init.zeros_(self.output.weight)

    def forward(self, u: Tensor) -> Tensor:
        """Returns the mixed sequence (b, l, d) of u (b, l, d); the scan starts at zero in every row."""
        return self.output(self.mix(u, self.scan))

    def fold(self, before: Tensor, after: Tensor | None = None) -> FoldedRWKV6:
        """Returns what `folded_forward` needs for after · self(before ∘ u).

        Args:
            before: Weight (d,) of the norm that u comes from.
            after: Map (d, d) of the output, if there is one.
        """
        weight = self.output.weight
        # Chosen here, outside of what torch.compile traces.
        scan = choose_scan(weight.device, self.scan, weight.dtype, "wkv")
        return FoldedRWKV6(in_precision(before), in_precision(weight if after is None else after @ weight), scan)

    def folded_forward(self, u: Tensor, folded: FoldedRWKV6) -> Tensor:
        """Returns after · self(before ∘ u), (b, l, d) of u (b, l, d), with what `fold` returns."""
        return F.linear(self.mix(u * folded.before, folded.scan), folded.out)

    def mix(self, u: Tensor, scan: Scan) -> Tensor:
        """Returns all before the last linear map, (b, l, d) of u (b, l, d).

        Args:
            u: Input; each step is mixed with the one before it, or after it in reverse.
            scan: Which scan to run.
        """
        shift = (F.pad(u[:, 1:], (0, 0, 0, 1)) if self.reverse else F.pad(u[:, :-1], (0, 0, 1, 0))) - u
        # Factors of the dtype of u: a processor would convert u for every product.
        low_rank = torch.tanh((u + shift * self.time_maa_x.to(u.dtype)) @ self.time_maa_w1)
        mixing = torch.einsum(
            "b l a m, a m d -> a b l d", rearrange(low_rank, "b l (a m) -> b l a m", m=MIXING_RANK), self.time_maa_w2
        )
        for_decay, for_key, for_value, for_receptance, for_gate = (
            u + shift * (self.get_parameter(f"time_maa_{name}").to(u.dtype) + from_data)
            for name, from_data in zip(INPUTS, mixing, strict=True)
        )
        r, k, v = (
            rearrange(linear(x), "b l (h e) -> b l h e", h=self.heads)
            for linear, x in ((self.receptance, for_receptance), (self.key, for_key), (self.value, for_value))
        )
        decay = torch.tanh(for_decay @ self.time_decay_w1) @ self.time_decay_w2
        dtype = torch.promote_types(decay.dtype, torch.float32)
        log_w = -torch.exp(self.time_decay.to(dtype) + decay.to(dtype))
        log_w = rearrange(log_w, "b l (h e) -> b l h e", h=self.heads)
        y = wkv(r, k, v, log_w, self.time_faaaa, scan, reverse=self.reverse)
        y = F.layer_norm(y.to(dtype), y.shape[-1:], eps=NORM_EPSILON).flatten(2).to(v.dtype)
        normalized = torch.addcmul(self.ln_x.bias.to(y.dtype), y, self.ln_x.weight.to(y.dtype))
        return normalized * F.silu(self.gate(for_gate))
