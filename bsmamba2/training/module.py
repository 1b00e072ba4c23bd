"""Network, loss and optimiser as one Lightning module."""

import logging
import math
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bsmamba2.data.excerpts import Excerpts, Stems
from bsmamba2.data.tracks import mixture_of
from bsmamba2.errors import DivergedError, InputError
from bsmamba2.metrics import csdr, defined_median, is_silent, leakage, usdr
from bsmamba2.model import ModelConfig, make_network
from bsmamba2.model.scan_names import Scan
from bsmamba2.separation.separator import Separator
from bsmamba2.separation.settings import SeparationSettings
from bsmamba2.training.losses import LossConfig, SeparationLoss
from bsmamba2.training.resuming import LOSS, advice_to_resume, learning_rate
from bsmamba2.training.trainers import check_trainer
from bsmamba2.weights.checkpoint import WeightsFile

Scores = dict[str, float]
# The score that counts stems whose reference is silent.
SILENT = "silent"
MOST_SONGS_NAMED = 10
# Parameters that have several axes, but are no matrices: decay rates of Mamba-1, gains and slopes of PrimeKnet.
NO_MATRICES = ("A_log", "beta", "beta_t", "beta_f", "slope")

log = logging.getLogger(__name__)


class SeparationModule(LightningModule):
    """Trains a network. The defaults are the published recipe (paper, section 4).

    Args:
        network: Architecture.
        loss: Terms of the loss and their weights.
        learning_rate: Peak learning rate of AdamW.
        betas: Decay rates of AdamW's averages of gradients and squared gradients.
        weight_decay: Weight decay of AdamW.
        decayed: Parameters with weight decay: all, as published, or matrices (not A_log, D, dt_bias, norms and biases).
        warmup_steps: Optimiser steps over which the learning rate rises linearly to its peak.
        schedule: Learning rate after the warm-up: constant, as published, or a cosine that ends at 0.
        init_from: Name of a published model, or file of weights, to start from; for fine-tuning.
        validation_overlap: Share of a segment that overlaps the next one in validation.
        scan: Scan to run; auto chooses the fastest for the device.
        recompute: Recompute the inside of each layer in the backward pass instead of storing it; takes less memory and
            more time.
        compile: Compile the layers with torch.compile; the first steps are slow.
    """

    def __init__(
        self,
        network: ModelConfig = ModelConfig(),  # noqa: B008 (frozen; a None would hide the defaults from the help)
        loss: LossConfig = LossConfig(),  # noqa: B008
        learning_rate: float = 5e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
        decayed: Literal["all", "matrices"] = "all",
        warmup_steps: int = 0,
        schedule: Literal["constant", "cosine"] = "constant",
        init_from: str | Path | None = None,
        validation_overlap: float = SeparationSettings.overlap,
        scan: Scan = "auto",
        recompute: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        # Lightning's load_from_checkpoint gives it as it was saved.
        network = ModelConfig.from_dict(network) if isinstance(network, dict) else network
        if not (0 < learning_rate < math.inf and 0 <= weight_decay < math.inf and all(0 <= beta < 1 for beta in betas)):
            raise InputError(
                f"learning_rate={learning_rate}, betas={betas}, weight_decay={weight_decay} is not "
                "allowed; give a rate above 0, betas from 0 to below 1 and a decay of at least 0"
            )
        if warmup_steps < 0:
            raise InputError(f"warmup_steps={warmup_steps} is not allowed; give a number of at least 0")
        # Plain values only: the checkpoint opens with weights_only=True and rebuilds the network without a config file.
        self.save_hyperparameters({"network": network.to_dict(), "learning_rate": learning_rate})
        self.network = make_network(network)
        self.network.set_scan(scan)
        self.loss = SeparationLoss(loss)
        self.learning_rate = learning_rate
        self.betas = betas
        self.weight_decay = weight_decay
        self.decayed = decayed
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        # None: in the precision of the trainer, as in training.
        self.validation = SeparationSettings(overlap=validation_overlap, precision=None, scan=scan)
        self.recompute = recompute
        self.compiled = compile
        self.gradient_norm = math.nan
        self.validation_scores: dict[str, Scores] = {}
        self._silence_reported = False
        self.initial_songs: tuple[str, ...] = ()
        if init_from is not None:
            file = WeightsFile.find(init_from)
            file.load_into(self.network)
            self.initial_songs = file.training_songs

    def setup(self, stage: str) -> None:
        """Checks the trainer.

        Raises:
            InputError: One of its settings or callbacks cannot be used.
        """
        check_trainer(self.trainer)

    def on_fit_start(self) -> None:
        """Compiles the network where asked to."""
        if self.compiled:
            self.network.compile()

    def optimizer(self) -> Optimizer:
        """Returns AdamW over all parameters, at the peak learning rate."""
        groups: list[dict[str, Any]] = [{"params": list(self.parameters())}]
        if self.decayed == "matrices":
            named = [
                (value, value.ndim > 1 and not name.endswith(NO_MATRICES)) for name, value in self.named_parameters()
            ]
            groups = [
                {"params": [value for value, is_matrix in named if is_matrix]},
                {"params": [value for value, is_matrix in named if not is_matrix], "weight_decay": 0.0},
            ]
        # Fused, it is one launch for all parameters, but reads gradients before the scaling of 16-mixed is taken back.
        fused = self.device.type == "cuda" and self.trainer.precision != "16-mixed"
        return torch.optim.AdamW(
            groups, self.learning_rate, betas=self.betas, weight_decay=self.weight_decay, fused=fused or None
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns the optimiser and, unless the learning rate is constant, its schedule per optimiser step."""
        optimizer = self.optimizer()
        if self.schedule == "constant" and not self.warmup_steps:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self._scheduler(optimizer), "interval": "step"}}

    def on_train_start(self) -> None:
        """Sets the optimiser options of a resumed run to those of this run instead of the saved ones."""
        optimizer = self.trainer.optimizers[0]
        for group, fresh in zip(optimizer.param_groups, self.optimizer().param_groups, strict=True):
            group |= {name: fresh[name] for name in ("lr", "betas", "weight_decay")}
        for config in self.trainer.lr_scheduler_configs:
            scheduler = cast(LambdaLR, config.scheduler)
            scheduler.base_lrs = [group["lr"] for group in optimizer.param_groups]
            for group, factor in zip(optimizer.param_groups, scheduler.lr_lambdas, strict=True):
                group |= {"initial_lr": group["lr"], "lr": group["lr"] * factor(scheduler.last_epoch)}

    def training_step(self, batch: Excerpts, batch_index: int) -> Tensor:
        """Returns the loss of a batch of stems (b, c, n) by name."""
        terms = self._terms(batch)
        loss, size = self.loss.total(terms), len(next(iter(batch.stems.values())))
        self.log(LOSS, loss, prog_bar=True, batch_size=size)
        self.log_dict({f"train/{name}": term for name, term in terms.items()}, batch_size=size)
        return loss

    def loss_of(self, batch: Excerpts) -> Tensor:
        """Returns the loss of a batch of stems (b, c, n) by name, without logging it."""
        return self.loss.total(self._terms(batch))

    def _terms(self, batch: Excerpts) -> dict[str, Tensor]:
        mixture, references = mixture_of(batch.stems), self._references(batch.stems, dim=1)
        estimates = self.network(mixture, recompute=self.recompute)
        return self.loss.terms(estimates=estimates, references=references, mixture=mixture)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradients as configured; if one is not finite, drops them all, so that the step changes nothing."""
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None])
        self.gradient_norm = norm.item()
        if not math.isfinite(self.gradient_norm):
            optimizer.zero_grad(set_to_none=True)
        # Not by Lightning, which would compute the norm again, and does not clip for a fused optimiser.
        elif gradient_clip_val and gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
        elif gradient_clip_val:
            nn.utils.clip_grads_with_norm_(self.parameters(), gradient_clip_val, norm)

    def on_validation_epoch_start(self) -> None:
        """Clears the scores of the last validation."""
        self.validation_scores = {}

    def validation_step(self, batch: tuple[str, Stems], batch_index: int) -> dict[str, Any]:
        """Separates a song as `separate` does everywhere, and scores it.

        Returns its name, mixture (c, n), estimates and references (s, c, n), and scores: loss, the number of stems
        whose reference is silent, the means of cSDR and uSDR in dB over the others, and that of the leakage in dBFS.
        They are NaN if they are not defined for any stem.

        Raises:
            DivergedError: An estimate is not finite.
        """
        name, stems = batch
        config = self.network.config
        mixture = mixture_of(stems)
        separator = Separator(self.network, self.validation, device=self.device)
        # A GPU computes all segments of a song at once: to compile for each number of them would take minutes.
        stance: Literal["force_eager", "default"] = "force_eager" if self.device.type == "cuda" else "default"
        try:
            with torch.compiler.set_stance(stance):
                estimates = torch.stack(list(separator(mixture, config.sample_rate).values())).to(self.device)
        except DivergedError as error:
            raise DivergedError(
                f"training has diverged: the estimate of {name} is not finite after step {self.global_step}, at a "
                f"learning rate of {learning_rate(self.trainer):.4g}; {advice_to_resume(self.trainer)}"
            ) from error
        references = self._references(stems, dim=0)
        # Segment by segment: the spectra of a whole song would take too much memory.
        pieces = zip(*(t.split(config.segment, dim=-1) for t in (estimates, references, mixture)), strict=True)
        losses = [self.loss(estimates=e, references=r, mixture=m) for e, r, m in pieces]
        pairs = [{"estimate": e, "reference": r} for e, r in zip(estimates, references, strict=True)]
        scores = {
            "loss": torch.stack(losses).mean().item(),
            "csdr": _mean([csdr(**pair, sample_rate=config.sample_rate) for pair in pairs]),
            "usdr": _mean([usdr(**pair) for pair in pairs]),
            "leakage_dbfs": _mean(
                [leakage(**pair, mixture=mixture, sample_rate=config.sample_rate).dbfs for pair in pairs]
            ),
            SILENT: sum(is_silent(reference) for reference in references),
        }
        self.validation_scores[name] = scores
        audio = {"mixture": mixture, "estimates": estimates, "references": references}
        return {"name": name, "scores": scores, **{kind: tensor.cpu() for kind, tensor in audio.items()}}

    def on_validation_epoch_end(self) -> None:
        """Logs the scores of all songs (mean loss, mean uSDR, median cSDR and leakage) and of each song.

        Scores that are not defined are left out, and the stems with a silent reference counted.
        """
        songs = self._gathered_scores()
        scores = list(songs.values())
        self.log("val/loss", _mean([score["loss"] for score in scores]), sync_dist=True)
        self.log("val/usdr", _mean([score["usdr"] for score in scores]), prog_bar=True, sync_dist=True)
        medians = torch.tensor([score["csdr"] for score in scores], dtype=torch.float64)
        self.log("val/csdr", defined_median(medians), prog_bar=True, sync_dist=True)
        leaked = defined_median(torch.tensor([score["leakage_dbfs"] for score in scores], dtype=torch.float64))
        if not math.isnan(leaked):
            self.log("val/leakage_dbfs", leaked, sync_dist=True)
        silent = [name for name, score in songs.items() if score[SILENT]]
        self.log("val/silent_references", float(sum(score[SILENT] for score in scores)), sync_dist=True)
        if silent and not self._silence_reported:
            self._silence_reported = True
            more = f" and {len(silent) - MOST_SONGS_NAMED} more" if len(silent) > MOST_SONGS_NAMED else ""
            log.warning(
                "uSDR and cSDR leave out stems that are silent, in %d of %d validation songs: %s%s",
                len(silent),
                len(songs),
                "; ".join(silent[:MOST_SONGS_NAMED]),
                more,
            )
        if self.logger is not None and not self.trainer.sanity_checking:
            named = {
                f"val_tracks/{kind}/{name}": value
                for name, score in songs.items()
                for kind, value in score.items()
                if kind != SILENT and not math.isnan(value)
            }
            self.logger.log_metrics(named, self.global_step)

    def _gathered_scores(self) -> dict[str, Scores]:
        """Returns the scores of all processes by song; an uneven share scores one song twice."""
        if self.trainer.world_size == 1:
            return self.validation_scores
        shares: list[dict[str, Scores]] = [{}] * self.trainer.world_size
        torch.distributed.all_gather_object(shares, self.validation_scores)
        return {name: scores for share in shares for name, scores in share.items()}

    def _scheduler(self, optimizer: Optimizer) -> LambdaLR:
        steps = int(self.trainer.estimated_stepping_batches)
        if self.schedule == "cosine" and steps <= self.warmup_steps:
            raise InputError(
                f"warmup_steps={self.warmup_steps} leaves none of the {steps} training steps for the schedule; give "
                "fewer, or train for longer"
            )

        def factor(step: int) -> float:
            if step < self.warmup_steps:
                return (step + 1) / self.warmup_steps
            if self.schedule == "constant":
                return 1.0
            done = (step - self.warmup_steps) / (steps - self.warmup_steps)
            return (1 + math.cos(math.pi * min(1.0, done))) / 2

        return LambdaLR(optimizer, factor)

    def _references(self, stems: Stems, dim: int) -> Tensor:
        return torch.stack([stems[stem] for stem in self.network.config.stems], dim)


def _mean(values: list[float]) -> float:
    """Returns the mean of the values that are not NaN, as is the cSDR of a stem that is silent throughout."""
    return torch.tensor(values, dtype=torch.float64).nanmean().item()
