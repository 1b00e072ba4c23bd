"""Time on machines whose speed varies. Imports PyTorch alone, since `peer_worker.py` runs in foreign environments."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

CPU = torch.device("cpu")
WARM_UP_RUNS = 3


class Timing(NamedTuple):
    """Medians over the timed runs of one thing."""

    seconds: float
    rate: float  # of the matrix products right before and after the runs, in operations per second
    runs: int
    spread: float  # of the middle half of the runs, as a share of the median


def interleaved(
    runs: Mapping[Any, Callable[[], object]], rate: Callable[[], float], repeats: int, device: torch.device
) -> dict[Any, Timing]:
    """Returns the timing of each run; they take turns, and the rate of the machine is measured around every one.

    Args:
        runs: What to time, by any key, already warm.
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
    return {
        key: Timing(statistics.median(times), statistics.median(rates[key]), repeats, spread(times))
        for key, times in seconds.items()
    }


def spread(times: Sequence[float]) -> float:
    """Returns how far apart the quarters of times are, as a share of the median; of one time it is 0."""
    if len(times) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return (high - low) / middle


def median_seconds(
    run: Callable[[], object], repeats: int, device: torch.device = CPU, warm_up: int = WARM_UP_RUNS
) -> float:
    """Returns the median time of a run after warm-up."""
    for _ in range(warm_up):
        run()
    return statistics.median(elapsed(run, device) for _ in range(repeats))


def elapsed(run: Callable[[], object], device: torch.device = CPU) -> float:
    """Returns the seconds of one run, until its result is available."""
    _wait_for(device)
    started = time.perf_counter()
    run()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
