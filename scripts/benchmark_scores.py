"""Time of the plain cSDR and of museval on the same audio in the same process, with one source and with four.

museval is `museval.evaluate`, mode v4, on the same sources: what one calls for its SDR. It takes a single source too;
only its functions for whole MUSDB18 tracks want two. The audio is noise, of which neither depends.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import museval
import numpy as np
import torch

from bsmamba2.metrics import csdr, defined_median, windowed_sdr

SAMPLE_RATE = 44100
# How much faster ours has to be, by number of sources.
TARGETS = {1: 40, 4: 300}


def main() -> int:
    """Prints a table, a line per number of sources; returns 1 if a target or the equality of the scores is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="length of the audio")
    parser.add_argument("--repeats", type=int, default=15, help="times that ours is run, for the median")
    parser.add_argument("--museval-repeats", type=int, default=1, help="times that museval is run, for the median")
    options = parser.parse_args()
    failed = False
    print(f"{options.seconds:g} s of stereo, {torch.get_num_threads()} threads")
    print(f"{'sources':>7} {'ours s':>8} {'museval s':>10} {'ratio':>7} {'target':>7} {'differ by dB':>13}")
    for count, target in TARGETS.items():
        generator = np.random.default_rng(count)
        references = generator.standard_normal((count, 2, round(options.seconds * SAMPLE_RATE)), dtype=np.float32)
        estimates = references + 0.5 * generator.standard_normal(references.shape, dtype=np.float32)
        # museval wants (sources, samples, channels), in float64.
        swapped = [audio.swapaxes(1, 2).astype(np.float64) for audio in (references, estimates)]
        ours, our_seconds = _measure(_plain, [references, estimates], options.repeats)
        theirs, their_seconds = _measure(_museval, swapped, options.museval_repeats)
        ratio = their_seconds / our_seconds
        difference = np.abs(ours - theirs).max()
        print(
            f"{count:7} {our_seconds:8.4f} {their_seconds:10.2f} {ratio:7.0f} {target:7} {difference:13.1e}", flush=True
        )
        failed |= ratio < target or difference > 1e-9
    return int(failed)


def _plain(audio: list[np.ndarray]) -> np.ndarray:
    references, estimates = audio
    if len(references) == 1:
        return np.array([csdr(estimate=estimates[0], reference=references[0], sample_rate=SAMPLE_RATE)])
    windows = windowed_sdr(estimate=estimates, reference=references, sample_rate=SAMPLE_RATE)
    return np.array([defined_median(source) for source in windows])


def _museval(audio: list[np.ndarray]) -> np.ndarray:
    return np.nanmedian(museval.evaluate(*audio)[0], axis=1)


def _measure(
    scores: Callable[[list[np.ndarray]], np.ndarray], audio: list[np.ndarray], repeats: int
) -> tuple[np.ndarray, float]:
    """Returns the cSDR of each source and the median time in seconds."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = scores(audio)
        seconds.append(time.perf_counter() - started)
    return result, statistics.median(seconds)


if __name__ == "__main__":
    sys.exit(main())
