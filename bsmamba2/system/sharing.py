"""Distributes songs over processes and machines with Lightning."""

import contextlib
import logging
import signal
import subprocess
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed
from torch.utils.data import DataLoader

from bsmamba2.errors import InputError
from bsmamba2.system.processes import Processes
from bsmamba2.system.stopping import SIGNALS, stop

PATIENCE = timedelta(days=30)
SECONDS_TO_CLEAN_UP = 10

Work = Callable[[Any], Any]


class _Sharing(LightningModule):
    """Processes its share of the items, then gathers the results in all processes."""

    def __init__(self, items: Sequence[Any], worker: Callable[[str], Work]) -> None:
        super().__init__()
        self.items = items
        self.worker = worker
        self.results: dict[int, Any] = {}
        # With fewer items than processes, some have none.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def predict_dataloader(self) -> DataLoader[int]:
        # Not with Lightning's sampler, which fails if a process has no item.
        share = range(self.trainer.global_rank, len(self.items), self.trainer.world_size)
        return DataLoader(list(share), batch_size=None)  # type: ignore[arg-type]

    def on_predict_start(self) -> None:
        # Lightning's handlers would kill the other processes before they have cleaned up; it restores these later.
        for number in (signal.SIGINT, *SIGNALS):
            with contextlib.suppress(ValueError):  # not the main thread, whose owner handles signals
                signal.signal(number, stop)
        self.work = self.worker(str(self.device))

    def predict_step(self, number: int) -> None:
        self.results[number] = self.work(self.items[number])

    def teardown(self, stage: str) -> None:
        # Unlike on_predict_end, this is also called in a process without items.
        shares: list[dict[int, Any] | None] = [None] * self.trainer.world_size
        distributed.all_gather_object(shares, self.results)
        self.results = {number: result for share in shares for number, result in (share or {}).items()}


def share_out(items: Sequence[Any], worker: Callable[[str], Work], device: str, processes: Processes) -> list[Any]:
    """Returns the results of all items in the first process, and an empty list in the others.

    Args:
        items: The items; each is processed by one of the processes.
        worker: Given the name of a device, returns the function from an item to its result.
        device: Kind of device: auto, cpu, cuda, mps.
        processes: How many processes; the strategy auto is ddp.

    Raises:
        InputError: The devices or the strategy cannot be used.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Lightning warns of loaders and of its own use of PyTorch, neither of which concerns the user here.
        warnings.filterwarnings("ignore", module="lightning")
        trainer = _trainer(device, processes)
        sharing = _Sharing(items, worker)
        try:
            trainer.predict(sharing, return_predictions=False)
        except SystemExit as stop:
            _end_others(trainer)
            if stop.code == 128 + signal.SIGINT:
                raise KeyboardInterrupt from None
            raise
    return [sharing.results[number] for number in sorted(sharing.results)] if trainer.is_global_zero else []


def _trainer(device: str, processes: Processes) -> Trainer:
    try:
        kind = device if device == "auto" else torch.device(device).type
        if device != kind:
            raise InputError(f"the device {device!r} is a single one; with several processes give {kind!r}")
        return Trainer(
            accelerator="gpu" if kind == "cuda" else kind,
            devices=processes.devices,
            num_nodes=processes.num_nodes,
            # One process may finish long before another that is still busy with an hours-long song.
            strategy=DDPStrategy(timeout=PATIENCE) if processes.strategy in ("auto", "ddp") else processes.strategy,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except InputError:
        raise
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{processes.devices} devices on {processes.num_nodes} machines cannot be used ({reason}); change the "
            "options"
        ) from error


def _end_others(trainer: Trainer) -> None:
    """Stops the processes that this one started, and waits for them to clean up.

    A process that has finished its share waits inside PyTorch, which handles no signals; it has nothing to clean up.
    """
    launched = getattr(trainer.strategy.launcher, "procs", [])
    others = list(launched)
    # Lightning watches this list, and kills this process too, within seconds, when one in it ends with an error.
    launched.clear()
    for process in others:
        process.terminate()
    for process in others:
        try:
            process.wait(SECONDS_TO_CLEAN_UP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
