"""Where a song is loudest, to listen to that part first."""

from pathlib import Path

import torch

from bsmamba2.audio.irregularities import Irregularities
from bsmamba2.audio.reading import audio_info, read_blocks
from bsmamba2.audio.sample_queue import SampleQueue


def loudest_part(path: Path, seconds: float, start_seconds: float = 0.0, longest: float | None = None) -> float:
    """Returns where the part of a song with the most energy begins, in seconds; it begins with a whole second.

    Args:
        path: The song.
        seconds: Length of the part in seconds.
        start_seconds: Where to begin to look for it.
        longest: How many seconds to look at; None to look to the end.

    Raises:
        InputError: The song cannot be read.
    """
    rate = audio_info(path).sample_rate
    waiting, energies = SampleQueue(), []
    for block in read_blocks(path, round(start_seconds * rate), found=Irregularities()):
        waiting.append(block)
        while len(waiting) >= rate:
            energies.append(float(waiting.take(rate).square().mean()))
        if longest is not None and len(energies) >= longest:
            break
    width = min(round(seconds), len(energies))
    if not width:
        return start_seconds
    sums = torch.tensor(energies, dtype=torch.float64).unfold(0, width, 1).sum(1)
    return start_seconds + int(sums.argmax())
