"""What a network is to the rest of the program: a mixture in, estimates out, and a config that states the format."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from bsmamba2.errors import InputError
from bsmamba2.model.config import ModelConfig
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import Recurrence, choose_scan


class Network(nn.Module):
    """A network that separates a mixture into the stems of its config.

    Args:
        config: Architecture.

    Attributes:
        transform: The lengths in samples that `bsmamba2.model.stft` takes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transform = {
            "n_fft": config.n_fft,
            "window_length": config.window_length,
            "hop_length": config.hop_length,
        }

    @property
    def recurrences(self) -> frozenset[Recurrence]:
        """What it computes by scans."""
        raise TypeError(f"{type(self).__name__} does not define its scans")

    @property
    def mask_modules(self) -> Sequence[nn.Module]:
        """The modules whose outputs are masks of the spectrum."""
        return ()

    @property
    def opposed_modules(self) -> Mapping[str, tuple[Iterable[nn.Module], Iterable[nn.Module]]]:
        """Pairs of groups of modules whose gradients should be alike in size, by name."""
        return {}

    def set_scan(self, scan: Scan) -> None:
        """Sets which scan of `bsmamba2.model.scans` it runs; auto, the default, is the best for its device.

        Raises:
            InputError: It runs no scan.
        """
        raise TypeError(f"{type(self).__name__} does not define its scans")

    def check_scan(self, scan: Scan) -> None:
        """Checks that a scan other than auto is for this network.

        Raises:
            InputError: It runs no scan.
        """
        if scan != "auto" and not self.recurrences:
            raise InputError(f"scan={scan!r} cannot be used, since no mixer of this network runs a scan; leave it out")

    def scan_on(self, device: torch.device, scan: Scan = "auto") -> str:
        """Returns the scan that runs on a device, all of them if they differ, or none.

        Raises:
            InputError: The scan does not exist, or it cannot run there.
        """
        chosen = {choose_scan(device, scan, recurrence=recurrence) for recurrence in self.recurrences}
        return ", ".join(sorted(chosen)) or "none"

    def compile(self, *_: Any, **options: Any) -> None:
        """Compiles its parts in place with torch.compile, one by one, since they are alike.

        Parameters keep their names. The first pass over each length of audio takes a minute longer; it needs a C++
        compiler on a CPU, Triton on a GPU.

        Args:
            **options: Of `torch.compile`.
        """
        raise TypeError(f"{type(self).__name__} does not define what is compiled")

    def forward(self, mixture: Tensor, *, recompute: bool = False) -> Tensor:
        """Returns the estimates (b, s, c, n) of a mixture (b, c, n), for every n >= 1, in at least single precision.

        Weights of 16 bits are used as under torch.autocast: norms, decays and spectra are in single precision.

        Args:
            mixture: Audio at config.sample_rate, full scale at 1. If config.channelwise, any number of channels, each
                an item of its own.
            recompute: Whether the backward pass computes each layer again instead of keeping what is inside it.

        Raises:
            InputError: The mixture has a different shape, or the scan that was set cannot run on its device.
        """
        channelwise = self.config.channelwise
        if mixture.ndim != 3 or not (channelwise or mixture.shape[1] == self.config.channels) or 0 in mixture.shape:
            raise InputError(
                f"the mixture has shape {tuple(mixture.shape)}; the network takes (batch, "
                f"{'channels' if channelwise else self.config.channels}, samples) with at least one sample"
            )
        if channelwise and mixture.shape[1] > 1:
            items = self(rearrange(mixture, "b c n -> (b c) 1 n"), recompute=recompute)
            return rearrange(items, "(b c) s 1 n -> b s c n", c=mixture.shape[1])
        weight = next(self.parameters())
        if weight.dtype in (torch.float16, torch.bfloat16):
            with torch.autocast(weight.device.type, dtype=weight.dtype):
                return self.estimates(mixture, recompute)
        return self.estimates(mixture, recompute)

    def estimates(self, mixture: Tensor, recompute: bool) -> Tensor:
        """Returns what `forward` does, for a mixture that it has checked."""
        raise TypeError(f"{type(self).__name__} does not define how it estimates")
