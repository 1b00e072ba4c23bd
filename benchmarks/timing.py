"""Time on machines whose speed varies, and memory of processes that never forget their peak."""

import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bsmamba2.errors import InputError

try:
    import resource
except ImportError:  # Windows has no such module.
    resource = None  # type: ignore[assignment]

WARM_UP_RUNS = 3
# How long a process may take to end once its result is there.
END_SECONDS = 20.0


class Timing(NamedTuple):
    """Medians over the timed runs of one thing."""

    seconds: float
    rate: float  # of the matrix products right before and after the runs, in operations per second
    runs: int


def interleaved(
    runs: Mapping[Any, Callable[[], object]], rate: Callable[[], float], repeats: int, device: torch.device
) -> dict[Any, Timing]:
    """Returns the timing of each run; they take turns, and the rate of the machine is measured around every one.

    Args:
        runs: What to time, by any key, all of it warm.
        rate: Measures the operations per second.
        repeats: Timed runs of each.
        device: Where they run.
    """
    seconds: dict[Any, list[float]] = {key: [] for key in runs}
    rates: dict[Any, list[float]] = {key: [] for key in runs}
    before = rate()
    for _ in range(repeats):
        for key, run in runs.items():
            seconds[key].append(elapsed(run, device))
            after = rate()
            rates[key] += [before, after]
            before = after
    return {key: Timing(statistics.median(seconds[key]), statistics.median(rates[key]), repeats) for key in runs}


def median_seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Returns the median time of a run after warm-up."""
    for _ in range(WARM_UP_RUNS):
        run()
    return statistics.median(elapsed(run, device) for _ in range(repeats))


def elapsed(run: Callable[[], object], device: torch.device) -> float:
    """Returns the seconds of one run, until its result is there."""
    _wait_for(device)
    started = time.perf_counter()
    run()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def peak_memory_mib(device: torch.device) -> float | None:
    """Returns the most memory this process has held so far, or None where it cannot be told; see `memory_meaning`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if device.type != "cpu" or resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def present_memory_mib(device: torch.device) -> float | None:
    """Returns the memory this process holds now, or None where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / 2**20
    if device.type != "cpu" or sys.platform != "linux":
        return None
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory_meaning(device: torch.device) -> str:
    """Returns what `peak_memory_mib` measures."""
    return "all tensors on the GPU" if device.type == "cuda" else "a process that does only this, with Python and torch"


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns function(*arguments) from a process of its own, since a process never forgets its peak memory.

    Linux hands the peak on to new processes too, so that this process itself must stay small.

    Raises:
        InputError: The process ended without a result, or this error was raised there.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError as error:
        process.join()
        raise InputError(
            f"{function.__name__} ended with status {process.exitcode}; if nothing above says why, the memory is too "
            "small: give shorter --seconds or --quick"
        ) from error
    else:
        process.join(END_SECONDS)  # An ending of its own, which takes the compiler's processes along.
    finally:
        process.terminate()
        process.join()
    if isinstance(result, InputError):
        raise result
    return result


def _send_result(sender: Connection, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """Sends function(*arguments) through a pipe; the other end decides what a keyboard interrupt does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sender.send(function(*arguments))
    except InputError as error:
        sender.send(error)
