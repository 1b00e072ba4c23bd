"""Which settings and callbacks of a Lightning trainer fit a training run."""

from lightning import Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    Callback,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)

from bsmamba2.errors import InputError

PRECISIONS = ("bf16-mixed", "16-mixed", "32-true", "64-true")
# Why a callback of Lightning cannot be used, and what to do instead.
REFUSED: dict[type[Callback], str] = {
    BatchSizeFinder: "it would change which excerpts a run is trained on; give --data.batch_size",
    LearningRateFinder: "its trial steps would be part of the run; give --model.learning_rate",
    StochasticWeightAveraging: "the weights are averaged already; give --ema.decay",
    BaseFinetuning: "it would change the parameters of the optimiser on the way; all weights are trained",
}


def check_trainer(trainer: Trainer) -> None:
    """Checks that a trainer can train a `SeparationModule` before it starts.

    Raises:
        InputError: A setting or a callback cannot be used.
    """
    if trainer.precision not in PRECISIONS:
        raise InputError(
            f"trainer.precision={trainer.precision} is not allowed, because weights of 16 bits are too coarse for "
            f"small steps and averages; give {', '.join(PRECISIONS)}"
        )
    if trainer.overfit_batches:  # type: ignore[attr-defined]  # a part sets it
        raise InputError(
            "trainer.overfit_batches is not allowed, because every epoch has its own excerpts; use few tracks instead"
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for kind, reason in REFUSED.items():
            if isinstance(callback, kind):
                raise InputError(f"the callback {type(callback).__name__} cannot be used, because {reason}")
    if sum(isinstance(callback, WeightAveraging) for callback in trainer.callbacks) > 1:  # type: ignore[attr-defined]
        raise InputError(
            "a second callback that averages weights cannot be used, because both would save theirs in the same place; "
            "leave it out, and give --ema.decay"
        )
