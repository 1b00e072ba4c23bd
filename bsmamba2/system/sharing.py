"""Songs shared out over processes and machines, by Lightning."""

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
from bsmamba2.system.stopping import SIGNALS, stop

PATIENCE = timedelta(days=30)
SECONDS_TO_CLEAN_UP = 10

Work = Callable[[Any], Any]


class _Sharing(LightningModule):
    """Does a process's share of the items, and then tells the results to all processes."""

    def __init__(self, items: Sequence[Any], worker: Callable[[str], Work]) -> None:
        super().__init__()
        self.items = items
        self.worker = worker
        self.results: dict[int, Any] = {}
        # Of fewer items than processes, some have none.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def predict_dataloader(self) -> DataLoader[int]:
        # Not by Lightning's sampler, which fails where a process has no item.
        share = range(self.trainer.global_rank, len(self.items), self.trainer.world_size)
        return DataLoader(list(share), batch_size=None)  # type: ignore[arg-type]

    def on_predict_start(self) -> None:
        # In the place of Lightning's, which kills the other processes before they have cleaned up; it restores ours.
        for number in (signal.SIGINT, *SIGNALS):
            with contextlib.suppress(ValueError):  # not the main thread: its owner looks after signals
                signal.signal(number, stop)
        self.work = self.worker(str(self.device))

    def predict_step(self, number: int) -> None:
        self.results[number] = self.work(self.items[number])

    def teardown(self, stage: str) -> None:
        # Unlike on_predict_end, this is called in a process without items too.
        shares: list[dict[int, Any] | None] = [None] * self.trainer.world_size
        distributed.all_gather_object(shares, self.results)
        self.results = {number: result for share in shares for number, result in (share or {}).items()}


def share_out(
    items: Sequence[Any], worker: Callable[[str], Work], device: str, devices: int, num_nodes: int, strategy: str
) -> list[Any]:
    """Returns the results of a work on items, each done by one of several processes; nothing but in the first.

    Args:
        items: What is worked on.
        worker: Given the name of a device, returns the work, which maps an item to its result.
        device: Kind of device: auto, cpu, cuda, mps.
        devices: Processes per machine.
        num_nodes: Machines.
        strategy: Name of a Lightning strategy for several processes; auto is ddp.

    Raises:
        InputError: The devices or the strategy cannot be used.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # It speaks of loaders and of its own use of PyTorch; the files are not its concern.
        warnings.filterwarnings("ignore", module="lightning")
        trainer = _trainer(device, devices, num_nodes, strategy)
        sharing = _Sharing(items, worker)
        try:
            trainer.predict(sharing, return_predictions=False)
        except SystemExit as stop:
            _end_others(trainer)
            if stop.code == 128 + signal.SIGINT:
                raise KeyboardInterrupt from None
            raise
    return [sharing.results[number] for number in sorted(sharing.results)] if trainer.is_global_zero else []


def _trainer(device: str, devices: int, num_nodes: int, strategy: str) -> Trainer:
    try:
        kind = device if device == "auto" else torch.device(device).type
        if device != kind:
            raise InputError(f"the device {device!r} is one alone; with several processes give {kind!r}")
        return Trainer(
            accelerator="gpu" if kind == "cuda" else kind,
            devices=devices,
            num_nodes=num_nodes,
            # One process may be done long before another that still works on an hours-long song.
            strategy=DDPStrategy(timeout=PATIENCE) if strategy in ("auto", "ddp") else strategy,
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
            f"{devices} devices on {num_nodes} machines cannot be used ({reason}); change the options"
        ) from error


def _end_others(trainer: Trainer) -> None:
    """Stops the processes that this one started, and waits for them to clean up.

    One that has done its share waits inside PyTorch, where no signal is heard; it has nothing to clean up.
    """
    others = getattr(trainer.strategy.launcher, "procs", [])
    for process in others:
        process.terminate()
    for process in others:
        try:
            process.wait(SECONDS_TO_CLEAN_UP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
