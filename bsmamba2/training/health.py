"""Checks of a training run that stop it with a clear error, and the figures behind them."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from bsmamba2.data.excerpts import Excerpts, Stems
from bsmamba2.errors import DivergedError, InputError
from bsmamba2.model import BSMamba2, ModelConfig, Network
from bsmamba2.system.processes import peak_memory_bytes
from bsmamba2.training.branches import BranchBalance, parallel_blocks, variations
from bsmamba2.training.resuming import advice_to_resume, learning_rate

THROUGHPUT = "train/audio_seconds_per_second"
BRANCH_RATIO = "health/gradient_rwkv6_to_mamba2"
RECENT_STEPS = 100
FEWEST_SKIPPED = 10

log = logging.getLogger(__name__)


class SupportsLoss(Protocol):
    """A module that is trained."""

    def loss_of(self, batch: Excerpts) -> Tensor:
        """Returns the loss of a batch, a scalar."""


class Health(Callback):
    """Checks the first batch, the loss, the gradients and the audio files of a training run, and logs figures of them.

    An optimiser step counts as skipped if its loss or gradients are not finite; if the gradients are not, the module
    leaves the weights unchanged. With several processes, each counts its own unreadable audio; after a resume, all
    start from the count of the main process.

    Args:
        max_skipped_share: Share of the last 100 optimiser steps that may be skipped; up to 9 skipped steps are
            always allowed.
        max_unreadable: Unreadable pieces of audio per process before training stops.
    """

    def __init__(self, max_skipped_share: float = 0.05, max_unreadable: int = 100) -> None:
        super().__init__()
        if not 0 <= max_skipped_share <= 1 or max_unreadable < 0:
            raise InputError(
                f"max_skipped_share={max_skipped_share}, max_unreadable={max_unreadable} is not allowed; give a share "
                "from 0 to 1 and a number of at least 0"
            )
        self.max_skipped_share = max_skipped_share
        self.max_unreadable = max_unreadable
        self.skipped = 0
        self.unreadable = 0
        self._recent: deque[bool] = deque(maxlen=RECENT_STEPS)
        self._faults: set[str] = set()
        self._hooks: list[RemovableHandle] = []
        self._masks: list[Tensor] = []
        self._start()

    def _start(self) -> None:
        self._first_batch = True
        self._figures_due = False
        self._stepped = False
        self._loss_finite: Tensor | None = None
        # The last finite loss and the number of its step.
        self._last_loss = torch.tensor(math.nan)
        self._last_step = torch.tensor(0)
        self._ratios: dict[str, Tensor] = {}
        self._balance = BranchBalance()
        self._audio_seconds = 0.0
        self._stopwatch = _Stopwatch()

    def state_dict(self) -> dict[str, Any]:
        """Returns the counts as plain values."""
        return {"skipped": self.skipped, "unreadable": self.unreadable, "recent": list(self._recent)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the counts of a checkpoint."""
        self.skipped, self.unreadable = state_dict["skipped"], state_dict["unreadable"]
        self._recent = deque(state_dict["recent"], maxlen=RECENT_STEPS)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clears the state of an earlier fit."""
        self._start()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Excerpts, batch_idx: int
    ) -> None:
        """Checks the batch, and registers hooks on the masks if figures are due."""
        network = _network(pl_module)
        if self._first_batch:
            _check_stems(batch.stems, network.config)
        self._count_faults(batch.faults)
        self._stopwatch.run()
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # a part sets it
        self._figures_due = every > 0 and (trainer.global_step + 1) % every == 0
        if self._figures_due:
            self._hooks = [estimator.register_forward_hook(self._see_mask) for estimator in network.mask_modules]
            if isinstance(network, BSMamba2) and parallel_blocks(network):
                for index, layer in enumerate(network.layers):
                    self._hooks.append(layer.register_forward_pre_hook(self._see_layer(network, index)))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measures the gradients before they are clipped."""
        self._stepped = True
        if self._figures_due:
            self._ratios = _gradient_ratios(_network(pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Excerpts, batch_idx: int
    ) -> None:
        """Checks the loss and the optimiser step, if there was one, and logs the figures.

        Raises:
            InputError: The first loss is not finite, or too many steps were skipped.
        """
        self._remove_hooks()
        loss_finite = torch.isfinite(outputs["loss"])
        if self._first_batch and not loss_finite:
            raise InputError(
                f"the loss of the first batch is {float(outputs['loss'])}, although its audio is finite, so the "
                "weights or the precision cannot be used; resume from a different checkpoint or give "
                "--trainer.precision 32"
            )
        self._first_batch = False
        # Without waiting for the device.
        loss, step = outputs["loss"].detach(), trainer.global_step + (not self._stepped)
        self._last_loss = torch.where(loss_finite, loss, self._last_loss.to(loss))
        self._last_step = torch.where(loss_finite, step, self._last_step.to(loss.device))
        # Over all batches of a step.
        self._loss_finite = loss_finite if self._loss_finite is None else loss_finite & self._loss_finite
        audio = next(iter(batch.stems.values()))
        seconds = len(audio) * audio.shape[-1] / _network(pl_module).config.sample_rate
        self._audio_seconds += seconds * trainer.world_size
        if self._stepped:
            # The module sets it when it clips the gradients.
            gradient_norm = cast(float, pl_module.gradient_norm)
            loss_was_finite, self._loss_finite, self._stepped = bool(self._loss_finite), None, False
            self._count_step(trainer, loss_was_finite, gradient_norm)
            self._log(trainer, pl_module, gradient_norm)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pauses the stopwatch until the next training batch."""
        self._stopwatch.pause()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Pauses the stopwatch."""
        self._stopwatch.pause()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Removes the hooks from the network."""
        self._remove_hooks()

    def _count_faults(self, faults: list[str]) -> None:
        for fault in faults:
            self.unreadable += 1
            if fault not in self._faults:
                self._faults.add(fault)
                log.warning("%s", fault)
        if faults and self.unreadable > self.max_unreadable:
            raise InputError(
                f"{self.unreadable} pieces of audio could not be read, and max_unreadable={self.max_unreadable} are "
                f"allowed; the last was: {faults[-1]}; `bsmamba2 check-data` lists all such files; replace or remove "
                "them"
            )

    def check_weights(self, trainer: Trainer, pl_module: LightningModule, batch: Excerpts) -> None:
        """Checks that the loss of a batch with the present weights is finite, in all processes.

        Raises:
            DivergedError: It is not.
        """
        # With gradients, although they are not used: compiled layers would be compiled again without.
        with trainer.precision_plugin.train_step_context():
            loss = cast(SupportsLoss, pl_module).loss_of(batch).detach()
        if not trainer.strategy.reduce_boolean_decision(bool(torch.isfinite(loss)), all=True):
            raise DivergedError(
                f"training has diverged: the loss is not finite after step {trainer.global_step}, "
                f"{self._circumstances(trainer)}; {advice_to_resume(trainer)}"
            )

    def _circumstances(self, trainer: Trainer) -> str:
        known = bool(torch.isfinite(self._last_loss))
        last = (
            f"; the last finite loss was {float(self._last_loss):.4g}, in step {int(self._last_step)}" if known else ""
        )
        return f"at a learning rate of {learning_rate(trainer):.4g}{last}"

    def _count_step(self, trainer: Trainer, loss_finite: bool, gradient_norm: float) -> None:
        skipped = not (loss_finite and math.isfinite(gradient_norm))
        self.skipped += skipped
        self._recent.append(skipped)
        recent = list(self._recent)
        in_a_row = len(recent) >= FEWEST_SKIPPED and all(recent[-FEWEST_SKIPPED:])
        too_many = sum(recent) >= FEWEST_SKIPPED and sum(recent) > self.max_skipped_share * len(recent)
        if skipped and (in_a_row or too_many):
            what = "gradients are" if loss_finite else "loss is"
            since = trainer.global_step - len(recent) + recent.index(True) + 1
            raise InputError(
                f"the {what} not finite, in {sum(recent)} of the last {len(recent)} optimiser steps since step "
                f"{since}, {self._circumstances(trainer)}; {advice_to_resume(trainer)}, or with --trainer.precision 32 "
                "or bf16-mixed, and look for broken audio with `bsmamba2 check-data`"
            )

    def _log(self, trainer: Trainer, module: LightningModule, gradient_norm: float) -> None:
        # At every step, for the progress bar; stopwatch and count are reset when figures are due.
        throughput = self._audio_seconds / self._stopwatch.seconds
        module.log(THROUGHPUT, throughput, prog_bar=True, rank_zero_only=True)
        if not self._figures_due:
            return
        if BRANCH_RATIO in self._ratios:
            self._balance.judge(float(self._ratios[BRANCH_RATIO]), trainer.global_step)
        figures: dict[str, Tensor | float] = {
            "health/gradient_norm": gradient_norm,
            "health/skipped": self.skipped,
            "health/skipped_share": sum(self._recent) / len(self._recent),
            **self._ratios,
        }
        # Empty if the network is compiled as a whole, which ignores hooks.
        if self._masks:
            figures["health/mask_magnitude"] = torch.stack(self._masks).mean()
        peak_memory_gib = _peak_memory_gib(module.device)
        if peak_memory_gib is not None:
            figures["health/peak_memory_gib"] = peak_memory_gib
        module.log_dict(figures, rank_zero_only=True)
        module.log("health/unreadable", self.unreadable, reduce_fx="sum", sync_dist=True)
        self._masks, self._audio_seconds, self._stopwatch = [], 0.0, _Stopwatch()
        self._stopwatch.run()

    def _see_mask(self, module: nn.Module, inputs: Any, mask: Tensor) -> None:
        self._masks.append(mask.detach().abs().mean())

    def _see_layer(self, network: BSMamba2, index: int) -> Callable[[nn.Module, Any], None]:
        def see(module: nn.Module, inputs: Any) -> None:
            for branch, variation in variations(network.layers, index, inputs[0]):
                self._balance.judge_variation(branch, variation)

        return see

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


class _Stopwatch:
    """Sums the seconds between each `run` and the next `pause`."""

    def __init__(self) -> None:
        self._passed = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        return self._passed + (0.0 if self._since is None else time.perf_counter() - self._since)

    def run(self) -> None:
        self._since = time.perf_counter() if self._since is None else self._since

    def pause(self) -> None:
        self._passed, self._since = self.seconds, None


def _network(module: LightningModule) -> Network:
    return cast(Network, module.network)


def _check_stems(stems: Stems, config: ModelConfig) -> None:
    missing = [stem for stem in config.stems if stem not in stems]
    if missing:
        raise InputError(
            f"the first batch has no stem {missing[0]!r}, which the network estimates, but {', '.join(stems)}; choose "
            "--model.network.stems from these"
        )
    batch = len(stems[config.stems[0]])
    for stem, audio in stems.items():
        if audio.shape != (batch, config.channels, config.segment):
            raise InputError(
                f"the stem {stem!r} of the first batch has shape {tuple(audio.shape)}, but the network is trained on "
                f"(excerpts, channels, samples) = {(batch, config.channels, config.segment)}; change the data to match"
            )
        if not torch.isfinite(audio).all():
            raise InputError(
                f"the stem {stem!r} of the first batch has samples that are not finite; find the file with "
                "`bsmamba2 check-data` and replace or remove it"
            )


def _gradient_ratios(network: Network) -> dict[str, Tensor]:
    """Returns ratios of gradient norms: those of the network's opposed modules, and of two parallel branches."""
    ratios = {
        f"health/gradient_{name}": _gradient_norm(first) / _gradient_norm(second)
        for name, (first, second) in network.opposed_modules.items()
    }
    if blocks := parallel_blocks(network):
        rwkv6, mamba2 = _gradient_norm(b.rwkv6 for b in blocks), _gradient_norm(b.mamba2 for b in blocks)
        ratios[BRANCH_RATIO] = rwkv6 / mamba2
    return ratios


def _gradient_norm(modules: Iterable[nn.Module]) -> Tensor:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def _peak_memory_gib(device: torch.device) -> float | None:
    """Returns the peak memory in GiB of tensors on a CUDA device, otherwise of the process; None on Windows."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = peak_memory_bytes()
    return None if peak is None else peak / 2**30
