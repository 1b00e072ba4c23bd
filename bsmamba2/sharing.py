"""Songs shared out over processes and machines, by Lightning."""

import contextlib
import logging
import signal
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import distributed
from torch.utils.data import DataLoader

from bsmamba2.errors import InputError

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
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not the main thread: its owner looks after signals
                signal.signal(number, _stop)
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
        kind = torch.device(device).type if device != "auto" else device
        return Trainer(
            accelerator="gpu" if kind == "cuda" else kind,
            devices=devices,
            num_nodes=num_nodes,
            strategy="ddp" if strategy == "auto" else strategy,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{devices} devices on {num_nodes} machines cannot be used ({reason}); change the options"
        ) from error


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _end_others(trainer: Trainer) -> None:
    """Stops the processes that this one started, and waits for them to clean up."""
    others = getattr(trainer.strategy.launcher, "procs", [])
    for process in others:
        process.terminate()
    for process in others:
        process.wait()
