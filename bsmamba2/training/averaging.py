"""Averaged weights: those that are validated and saved, as soon as there are any."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging


class Averaging(EMAWeightAveraging):
    """Lightning's exponential moving average of the weights; until it begins, the trained weights take its place.

    Without this, Lightning validates and saves the weights from before the first step until the average begins.
    """

    @property
    def begun(self) -> bool:
        """Whether the average contains any trained weights."""
        return self._average_model is not None and bool(self._average_model.n_averaged)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validates the average if it has begun."""
        if self.begun:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the trained weights back."""
        if self.begun:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves the average in the module if it has begun."""
        if self.begun:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Saves the average in the place of the trained weights if it has begun, and what resuming needs."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if not self.begun and "current_model_state" in checkpoint:
            checkpoint["state_dict"] = checkpoint["current_model_state"]
