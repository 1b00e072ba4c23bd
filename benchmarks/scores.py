"""Time of the plain cSDR and of museval on the same audio in the same process, with one source and with four.

    python -m benchmarks.scores

museval is `museval.evaluate`, mode v4, on the same sources: the function to call for its SDR. It accepts a single
source too; only its functions for whole MUSDB18 tracks need two. The audio is noise, since the time of neither depends
on it. Exit status: 0 done, 1 a target or the equality of the scores is missed, 2 wrong usage, 130 stopped by the user.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import museval
import numpy as np
import torch

from benchmarks.command import Row, check_positive, print_table, run
from benchmarks.timing import median_seconds
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.metrics import csdr, defined_median, windowed_sdr

# How many times faster ours has to be, by number of sources.
LEAST_SPEED_UPS = {1: 40, 4: 300}
MOST_DIFFERENCE_DB = 1e-9


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        seconds: Length of the audio.
        repeats: Timed runs of ours, of which the median counts.
        museval_repeats: Timed runs of museval, of which the median counts.

    Raises:
        InputError: A number is out of range.
    """

    seconds: float = 30.0
    repeats: int = 15
    museval_repeats: int = 1

    def __post_init__(self) -> None:
        check_positive(self, "seconds", "repeats", "museval_repeats")


def benchmark(options: Options) -> int:
    """Prints a line per number of sources; returns 1 if a target or the equality of the scores is missed."""
    rows = print_table(f"{options.seconds:g} s of stereo, {torch.get_num_threads()} threads", rows_of(options))
    return int(any(row["ratio"] < row["target"] or row["difference_db"] > MOST_DIFFERENCE_DB for row in rows))


def rows_of(options: Options) -> Iterator[Row]:
    """Yields the row of each number of sources."""
    for count, target in LEAST_SPEED_UPS.items():
        generator = np.random.default_rng(count)
        references = generator.standard_normal((count, 2, round(options.seconds * SAMPLE_RATE)), dtype=np.float32)
        estimates = references + 0.5 * generator.standard_normal(references.shape, dtype=np.float32)
        # museval expects (sources, samples, channels), in float64.
        swapped = [audio.swapaxes(1, 2).astype(np.float64) for audio in (references, estimates)]
        ours, theirs = partial(_plain, references, estimates), partial(_museval, *swapped)
        difference = np.abs(ours() - theirs()).max().item()
        ours_seconds = median_seconds(ours, options.repeats, warm_up=0)
        museval_seconds = median_seconds(theirs, options.museval_repeats, warm_up=0)
        row: Row = {"sources": count, "ours_seconds": ours_seconds, "museval_seconds": museval_seconds}
        yield row | {"ratio": museval_seconds / ours_seconds, "target": target, "difference_db": difference}


def _plain(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    if len(references) == 1:
        return np.array([csdr(estimate=estimates[0], reference=references[0], sample_rate=SAMPLE_RATE)])
    windows = windowed_sdr(estimate=estimates, reference=references, sample_rate=SAMPLE_RATE)
    return np.array([defined_median(stem) for stem in windows])


def _museval(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    return np.nanmedian(museval.evaluate(references, estimates)[0], axis=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    return run("scores.py", __doc__, Options, benchmark, arguments)


if __name__ == "__main__":
    sys.exit(main())
