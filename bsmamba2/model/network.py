"""The network: band split, dual-path mixers, masks (arXiv:2508.14556)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bsmamba2.model.bands import BandSplit
from bsmamba2.model.config import ModelConfig, contiguous_starts
from bsmamba2.model.contract import Network
from bsmamba2.model.dual_path import DualPathLayer
from bsmamba2.model.masks import MaskEstimator
from bsmamba2.model.mixing import Mixer
from bsmamba2.model.norms import L2Norm
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import Recurrence
from bsmamba2.model.stft import istft, stft


class BSMamba2(Network):
    """Separates a mixture into stems by complex masks on its spectrum.

    Parameter names are those of the published weights.

    Args:
        config: Architecture; the default is the published network.
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        config = config or ModelConfig()
        super().__init__(config)
        hidden_dim = config.dim * config.mask_expand
        starts = config.band_starts or contiguous_starts(config.bands)
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
    def recurrences(self) -> frozenset[Recurrence]:
        """What its mixers compute by scans."""
        return frozenset(recurrence for mixer in self.mixers() for recurrence in mixer.recurrences)

    @property
    def mask_modules(self) -> Sequence[nn.Module]:
        """The mask heads, one for each stem."""
        return tuple(self.mask_estimators)

    @property
    def opposed_modules(self) -> Mapping[str, tuple[Iterable[nn.Module], Iterable[nn.Module]]]:
        """Mixers over time and over bands, and if they have them, those along the row and against it."""
        mixers = list(self.mixers())
        groups: dict[str, tuple[Iterable[nn.Module], Iterable[nn.Module]]] = {
            "time_to_bands": (mixers[::2], mixers[1::2])
        }
        directions = [modules for mixer in mixers if (modules := mixer.directions())]
        if directions:
            forward, backward = zip(*directions, strict=True)
            groups["forward_to_backward"] = (forward, backward)
        return groups

    def set_scan(self, scan: Scan) -> None:
        """Sets which scan of `bsmamba2.model.scans` the mixers run; auto, the default, is the best for their device.

        Raises:
            InputError: No mixer of this network runs a scan.
        """
        self.check_scan(scan)
        for mixer in self.mixers():
            mixer.set_scan(scan)

    def compile(self, *_: Any, **options: Any) -> None:
        """Compiles the mixers, as `Network.compile` describes."""
        for mixer in self.mixers():
            mixer.compile(**({"dynamic": False} | options))

    def estimates(self, mixture: Tensor, recompute: bool) -> Tensor:
        """Returns what `forward` does, for a mixture that it has checked."""
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
