"""Network, loss and optimiser as one Lightning module."""

from collections.abc import Sequence
from dataclasses import asdict

import torch
from lightning import LightningModule
from torch import Tensor

from bsmamba2.data.excerpts import Excerpts, Stems
from bsmamba2.data.tracks import mixture_of
from bsmamba2.errors import InputError
from bsmamba2.losses import SeparationLoss
from bsmamba2.metrics import usdr
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.ssd import Scan
from bsmamba2.separation import OVERLAP, Separator


class SeparationModule(LightningModule):
    """Trains a BSMamba2. The defaults are the published recipe (paper, section 4).

    Args:
        network: Architecture.
        l1_weight: Factor of the waveform distance in the loss.
        stft_windows: Window lengths in samples of the spectra in the loss, each with weight 1.
        stft_hop: Distance between their frames in samples.
        stft_min_n_fft: Length of their Fourier transform where the window is not longer.
        learning_rate: Of AdamW.
        betas: Of AdamW.
        weight_decay: Of AdamW, on every parameter.
        validation_overlap: Share of a segment that overlaps the next one in validation.
        scan: Which scan to run; by itself the best for the device.
    """

    def __init__(
        self,
        network: ModelConfig = ModelConfig(),  # noqa: B008 (frozen; a None would hide the defaults from the help)
        l1_weight: float = 10.0,
        stft_windows: Sequence[int] = (4096, 2048, 1024, 512, 256),
        stft_hop: int = 147,
        stft_min_n_fft: int = 2048,
        learning_rate: float = 5e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
        validation_overlap: float = OVERLAP,
        scan: Scan = "auto",
    ) -> None:
        super().__init__()
        if not (learning_rate > 0 and weight_decay >= 0 and all(0 <= beta < 1 for beta in betas)):
            raise InputError(
                f"learning_rate={learning_rate}, betas={betas}, weight_decay={weight_decay} is not "
                "allowed; give a rate above 0, betas from 0 to below 1 and a decay of at least 0"
            )
        # Plain values only: the checkpoint opens with weights_only=True and rebuilds the network without a config file.
        self.save_hyperparameters({"network": asdict(network), "learning_rate": learning_rate})
        self.network = BSMamba2(network)
        self.loss = SeparationLoss(l1_weight, stft_windows, stft_hop, stft_min_n_fft)
        self.learning_rate = learning_rate
        self.betas = betas
        self.weight_decay = weight_decay
        self.validation_overlap = validation_overlap
        self.scan = scan

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns AdamW over all parameters at a constant rate."""
        return torch.optim.AdamW(
            self.parameters(), self.learning_rate, betas=self.betas, weight_decay=self.weight_decay
        )

    def training_step(self, batch: Excerpts, batch_index: int) -> Tensor:
        """Returns the loss of a batch of stems (b, c, n) by name."""
        estimates = self.network(mixture_of(batch.stems), self.scan)
        loss = self.loss(estimates=estimates, references=self._references(batch.stems, dim=1))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(estimates))
        return loss

    def validation_step(self, batch: tuple[str, Stems], batch_index: int) -> None:
        """Separates a song as `separate` does everywhere and logs its loss and the mean uSDR of its stems in dB."""
        _, stems = batch
        separator = Separator(self.network, overlap=self.validation_overlap, device=self.device, scan=self.scan)
        named = separator(mixture_of(stems), self.network.config.sample_rate)
        estimates = torch.stack(list(named.values()))
        references = self._references(stems, dim=0)
        # Segment by segment: the spectra of a whole song would not fit beside the network.
        pieces = zip(*(t.split(self.network.config.segment, dim=-1) for t in (estimates, references)), strict=True)
        losses = [self.loss(estimates=estimate, references=reference) for estimate, reference in pieces]
        scores = [usdr(estimate=e, reference=r) for e, r in zip(estimates, references, strict=True)]
        self.log("val/loss", torch.stack(losses).mean(), batch_size=1, sync_dist=True)
        self.log("val/usdr", sum(scores) / len(scores), prog_bar=True, batch_size=1, sync_dist=True)

    def _references(self, stems: Stems, dim: int) -> Tensor:
        return torch.stack([stems[stem] for stem in self.network.config.stems], dim)
