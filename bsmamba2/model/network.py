"""The network: band split, dual-path mixers, masks (arXiv:2508.14556)."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bsmamba2.errors import InputError
from bsmamba2.model.bands import BandSplit
from bsmamba2.model.config import ModelConfig, contiguous_starts
from bsmamba2.model.dual_path import DualPathLayer
from bsmamba2.model.masks import MaskEstimator
from bsmamba2.model.mixing import Mixer
from bsmamba2.model.norms import L2Norm
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import choose_scan
from bsmamba2.model.stft import istft, stft


class BSMamba2(nn.Module):
    """Separates a mixture into stems by complex masks on its spectrum.

    Parameter names are those of the published weights.

    Args:
        config: Architecture; the default is the published network.
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ModelConfig()
        hidden_dim = config.dim * config.mask_expand
        starts = config.band_starts or contiguous_starts(config.bands)
        self.transform = {
            "n_fft": config.n_fft,
            "window_length": config.window_length,
            "hop_length": config.hop_length,
        }
        self.band_split = BandSplit(config.bands, starts, config.channels, config.dim)
        self.layers = nn.ModuleList(DualPathLayer(config, layer) for layer in range(config.depth))
        self.final_norm = L2Norm(config.dim) if config.output_norm == "final" else nn.Identity()
        self.mask_estimators = nn.ModuleList(
            MaskEstimator(config.bands, starts, config.channels, config.dim, config.mask_depth, hidden_dim)
            for _ in config.stems
        )

    def mixers(self) -> Iterator[Mixer]:
        """Yields the mixers of all layers, over time and over bands in turn."""
        for layer in self.layers:
            yield from cast(Iterable[Mixer], layer)

    @property
    def runs_scan(self) -> bool:
        """Whether some mixer runs a scan."""
        return any(mixer.recurrences for mixer in self.mixers())

    def check_scan(self, scan: Scan) -> None:
        """Checks that a scan other than auto is for this network.

        Raises:
            InputError: No mixer of this network runs a scan.
        """
        if scan != "auto" and not self.runs_scan:
            raise InputError(f"scan={scan!r} cannot be used, since no mixer of this network runs a scan; leave it out")

    def scan_on(self, device: torch.device, scan: Scan = "auto") -> str:
        """Returns the scan that runs on a device, all of them if mixers differ, or none.

        Raises:
            InputError: The scan does not exist, or it cannot run there.
        """
        recurrences = {recurrence for mixer in self.mixers() for recurrence in mixer.recurrences}
        chosen = {choose_scan(device, scan, recurrence=recurrence) for recurrence in recurrences}
        return ", ".join(sorted(chosen)) or "none"

    def set_scan(self, scan: Scan) -> None:
        """Sets which scan of `bsmamba2.model.scans` the mixers run; auto, the default, is the best for their device.

        Raises:
            InputError: No mixer of this network runs a scan.
        """
        self.check_scan(scan)
        for mixer in self.mixers():
            mixer.set_scan(scan)

    def compile(self, *_: Any, **options: Any) -> None:
        """Compiles the mixers in place with torch.compile, one by one, since they are alike.

        Parameters keep their names. The first pass over each length of audio takes a minute longer; it needs a C++
        compiler on a CPU, Triton on a GPU.

        Args:
            **options: Of `torch.compile`.
        """
        for mixer in self.mixers():
            mixer.compile(**({"dynamic": False} | options))

    def forward(self, mixture: Tensor, *, recompute: bool = False) -> Tensor:
        """Returns the estimates (b, s, c, n) of a mixture (b, c, n), for every n >= 1, in at least single precision.

        Weights of 16 bits are used as under torch.autocast: norms, decays and spectra are in single precision.

        Args:
            mixture: Audio at config.sample_rate, full scale at 1.
            recompute: Whether the backward pass computes each layer again instead of keeping what is inside it.

        Raises:
            InputError: The mixture has a different shape, or the scan that was set cannot run on its device.
        """
        if mixture.ndim != 3 or mixture.shape[1] != self.config.channels or mixture.shape[2] < 1:
            raise InputError(
                f"the mixture has shape {tuple(mixture.shape)}; the network takes (batch, {self.config.channels}, "
                "samples) with at least one sample"
            )
        weight = next(self.parameters())
        if weight.dtype in (torch.float16, torch.bfloat16):
            with torch.autocast(weight.device.type, dtype=weight.dtype):
                return self._estimates(mixture, recompute)
        return self._estimates(mixture, recompute)

    def _estimates(self, mixture: Tensor, recompute: bool) -> Tensor:
        spectrum = stft(mixture, **self.transform)
        x = self.band_split(spectrum)
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if recompute else layer(x)
        x = self.final_norm(x)
        # In turn, so that only one mask is held at a time.
        estimates = [
            istft(mask_estimator(x) * spectrum, length=mixture.shape[-1], **self.transform)
            for mask_estimator in self.mask_estimators
        ]
        return torch.stack(estimates, dim=1)
