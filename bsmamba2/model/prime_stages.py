"""The stages of PrimeKnet: channel attention, then kernels of prime lengths or Mamba-1, over time or over frequency.

Shapes here have the channels first, as convolutions take them: (rows, d, l), or (b, d, t, f) for whole spectrograms.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.mamba1 import Mamba1
from bsmamba2.model.scan_names import Scan

# Width of the convolution in the gate; Mamba mixes neighbours itself.
GATE_KERNELS = {"mamba": 1, "prime": 3}


class ChannelNorm(nn.Module):
    """Layer norm over the channels.

    Args:
        channels: Their number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Returns x (rows, d, l) normalised at each step."""
        return F.layer_norm(x.mT, self.weight.shape, self.weight, self.bias, eps=1e-6).mT


class ChannelAttention(nn.Module):
    """A product of two convolved maps, weighted by channel according to its mean over the row.

    Args:
        channels: Channels.
        kernel: Width of the convolution, odd.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.gate = nn.Sequential(nn.Conv1d(channels, 2 * channels, 1), depthwise(2 * channels, kernel))
        self.channel_attn = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Conv1d(channels, channels, 1))
        self.pwconv = nn.Conv1d(channels, channels, 1)
        self.beta = gain(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns x (rows, d, l) plus what was made of it."""
        first, second = self.gate(self.norm(x)).chunk(2, dim=1)
        z = first * second
        return x + self.beta * self.pwconv(z * self.channel_attn(z))


class PrimeNetwork(nn.Module):
    """Group prime kernels: groups of channels, each convolved with two kernels of its own length and multiplied.

    Args:
        channels: Channels, and of each group.
        kernels: Length of the kernels of each group, odd.
    """

    def __init__(self, channels: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.kernels = tuple(kernels)
        self.norm = ChannelNorm(channels)
        self.proj_conv1 = nn.Conv1d(channels, len(self.kernels) * channels, 1)
        self.proj_conv2 = nn.Conv1d(len(self.kernels) * channels, channels, 1)
        self.beta = gain(channels)
        for kernel in self.kernels:
            weights = nn.Sequential(depthwise(channels, kernel), nn.Conv1d(channels, channels, 1))
            self.add_module(f"attn_{kernel}", weights)
            self.add_module(f"conv_{kernel}", depthwise(channels, kernel))

    def forward(self, x: Tensor) -> Tensor:
        """Returns x (rows, d, l) plus what was made of it."""
        groups = self.proj_conv1(self.norm(x)).chunk(len(self.kernels), dim=1)
        products = [
            self.get_submodule(f"attn_{kernel}")(group) * self.get_submodule(f"conv_{kernel}")(group)
            for kernel, group in zip(self.kernels, groups, strict=True)
        ]
        return x + self.beta * self.proj_conv2(torch.cat(products, dim=1))


class MambaNetwork(nn.Module):
    """A Mamba-1 between two linear maps, forward in time only.

    Args:
        config: Uses dense_channel, mamba_hidden_size, mamba_d_state and mamba_expand.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, hidden = config.dense_channel, config.mamba_hidden_size
        self.norm = ChannelNorm(channels)
        self.proj_conv1 = nn.Conv1d(channels, hidden, 1)
        self.mamba = Mamba1(
            ModelConfig(
                dim=hidden,
                expand=config.mamba_expand,
                mamba1_d_state=config.mamba_d_state,
                time_mixer="mamba1",
                band_mixer="mamba1",
            )
        )
        self.proj_conv2 = nn.Conv1d(hidden, channels, 1)
        self.beta = gain(channels)

    def forward(self, x: Tensor, scan: Scan) -> Tensor:
        """Returns x (rows, d, l) plus what was made of it by a scan."""
        mixed = self.mamba(self.proj_conv1(self.norm(x)).mT, scan)
        return x + self.beta * self.proj_conv2(mixed.mT)


class TwoStageBlock(nn.Module):
    """A stage over time, every frequency on its own, then a stage over frequency, every frame on its own.

    Args:
        config: Architecture of the network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, kernels = config.dense_channel, config.freq_block_kernel
        mamba = config.time_stage == "mamba"
        self.beta_t, self.beta_f = gain(channels), gain(channels)
        self.time_stage = nn.ModuleList(
            nn.ModuleList(
                [
                    ChannelAttention(channels, GATE_KERNELS[config.time_stage]),
                    MambaNetwork(config) if mamba else PrimeNetwork(channels, kernels),
                ]
            )
            for _ in range(config.time_block_num)
        )
        self.freq_stage = nn.ModuleList(
            nn.ModuleList([ChannelAttention(channels, GATE_KERNELS["prime"]), PrimeNetwork(channels, kernels)])
            for _ in range(config.freq_block_num)
        )

    def forward(self, x: Tensor, scan: Scan) -> Tensor:
        """Returns mixed features (b, d, t, f) of features (b, d, t, f), by a scan if the time stage runs one."""
        batch = x.shape[0]
        y = rearrange(x, "b d t f -> (b f) d t")
        y = staged(self.time_stage, y, scan) + y * self.beta_t
        y = rearrange(y, "(b f) d t -> (b t) d f", b=batch)
        y = staged(self.freq_stage, y, scan) + y * self.beta_f
        return rearrange(y, "(b t) d f -> b d t f", b=batch)


def staged(stage: nn.ModuleList, x: Tensor, scan: Scan) -> Tensor:
    """Returns what the modules of a stage make of x (rows, d, l), one after the other."""
    for attention_and_network in stage:
        for module in attention_and_network.children():
            x = module(x, scan) if isinstance(module, MambaNetwork) else module(x)
    return x


def depthwise(channels: int, kernel: int) -> nn.Conv1d:
    """Returns a convolution of each channel on its own, with as many zeros before as behind; the width is odd."""
    return nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)


def gain(channels: int) -> nn.Parameter:
    """Returns a gain (1, d, 1) of zero for each channel."""
    return nn.Parameter(torch.zeros(1, channels, 1))
