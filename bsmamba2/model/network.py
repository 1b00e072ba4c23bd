"""BSMamba2: band split, dual-path bidirectional Mamba-2, masks (arXiv:2508.14556)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bsmamba2.errors import InputError
from bsmamba2.model.bands import BandSplit
from bsmamba2.model.config import ModelConfig
from bsmamba2.model.dual_path import BidirectionalMixer, DualPathLayer
from bsmamba2.model.masks import MaskEstimator
from bsmamba2.model.norms import L2Norm
from bsmamba2.model.ssd import Scan, choose_scan
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
        self.transform = {
            "n_fft": config.n_fft,
            "window_length": config.window_length,
            "hop_length": config.hop_length,
        }
        self.band_split = BandSplit(config.bands, config.channels, config.dim)
        self.layers = nn.ModuleList(DualPathLayer(config) for _ in range(config.depth))
        self.final_norm = L2Norm(config.dim)
        self.mask_estimators = nn.ModuleList(
            MaskEstimator(config.bands, config.channels, config.dim, config.mask_depth, hidden_dim)
            for _ in config.stems
        )

    def compile(self, *_: Any, **options: Any) -> None:
        """Lets torch.compile make kernels of the mixers, in place: one by one, since they are alike.

        Parameters keep their names. The first pass over each length of audio takes a minute longer; it needs a C++
        compiler on a CPU, Triton on a GPU.

        Args:
            **options: Of `torch.compile`.
        """
        for mixer in self.modules():
            if isinstance(mixer, BidirectionalMixer):
                mixer.compile(**({"dynamic": False} | options))

    def forward(self, mixture: Tensor, scan: Scan = "auto", recompute: bool = False) -> Tensor:
        """Returns the estimates (b, s, c, n) of a mixture (b, c, n), for every n >= 1.

        Args:
            mixture: Audio at config.sample_rate, full scale at 1.
            scan: Which scan of `bsmamba2.model.ssd` to run; by itself the best for the device.
            recompute: Whether the backward pass computes each layer again instead of keeping what is inside it.

        Raises:
            InputError: The mixture has another shape, or a forced scan cannot run here.
        """
        if mixture.ndim != 3 or mixture.shape[1] != self.config.channels or mixture.shape[2] < 1:
            raise InputError(
                f"the mixture has shape {tuple(mixture.shape)}; the network takes (batch, {self.config.channels}, "
                "samples) with at least one sample"
            )
        scan = choose_scan(mixture.device, scan, mixture.dtype)
        spectrum = stft(mixture, **self.transform)
        x = self.band_split(spectrum)
        for layer in self.layers:
            x = checkpoint(layer, x, scan, use_reentrant=False) if recompute else layer(x, scan)
        x = self.final_norm(x)
        masks = torch.stack([mask_estimator(x) for mask_estimator in self.mask_estimators], dim=1)
        return istft(masks * spectrum[:, None], length=mixture.shape[-1], **self.transform)
