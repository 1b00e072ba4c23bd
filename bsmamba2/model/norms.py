"""The two root-mean-square norms of the network; both compute in at least single precision."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Mean-square norm with a floor inside the root, as in Mamba-2.

    Args:
        dim: Features of the last axis.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Returns x / sqrt(mean(x²) + 1e-5) · weight over the last axis, in the shape of x."""
        return rms_normalized(x) * self.weight


def rms_normalized(x: Tensor, dims: int = 1) -> Tensor:
    """Returns x / sqrt(mean(x²) + 1e-5), the mean taken over the last dims axes, in the shape of x."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.rms_norm(x, x.shape[-dims:], eps=1e-5)


class L2Norm(nn.Module):
    """Norm of unit length without a floor inside the root, as in the band split and before the masks.

    Args:
        dim: Features of the last axis.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Returns x / max(‖x‖₂, 1e-12) · sqrt(d) · gamma over the last axis, in the shape of x."""
        return l2_normalized(x) * self.gamma


def l2_normalized(x: Tensor) -> Tensor:
    """Returns x / max(‖x‖₂, 1e-12) · sqrt(d) over the last axis, in the shape of x."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.normalize(x, dim=-1, eps=1e-12) * x.shape[-1] ** 0.5
