"""Peak memory and time of `bsmamba2 separate` for songs of different lengths, each in a process of its own.

    python -m benchmarks.separation --minutes 0.5 1 5 60 --repeats 3 --json growth.json

The network is tiny, so that an hour of music takes minutes: what is measured is everything around it. The song is
noise at 48 kHz in 24 bit, so that both resamplings are part of it. The time is that of the command itself, without the
start of Python; the median of the runs counts. Exit status: 0 done, 1 the peak memory grows with the length by more
than 5 %, or something failed, 2 wrong usage, 130 stopped by the user.
"""

import contextlib
import io
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.command import Row, check_positive, print_table, run, write_json
from benchmarks.networks import random_network
from benchmarks.processes import in_new_process
from benchmarks.timing import elapsed
from bsmamba2.audio.reading import audio_info
from bsmamba2.audio.writing import audio_writer
from bsmamba2.cli import main as bsmamba2
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.system.processes import peak_memory_bytes
from bsmamba2.weights.checkpoint import save_model

SONG_RATE = 48_000
TINY_CONFIG = ModelConfig(
    dim=8, depth=1, bands=(64,) * 15 + (65,), headdim=8, d_state=8, mask_expand=1, hop_length=512, segment_seconds=4.0
)
MOST_GROWTH = 0.05


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        minutes: Lengths of the songs.
        repeats: Runs for each length.
        device: Where to compute, one of auto, cpu, cuda, mps.
        json: File for the results; an existing one is replaced.

    Raises:
        InputError: A number is out of range.
    """

    minutes: Sequence[float] = (1.0, 5.0, 60.0)
    repeats: int = 1
    device: str = "cpu"
    json: Path | None = None

    def __post_init__(self) -> None:
        check_positive(self, "minutes", "repeats")
        if not self.minutes:
            raise InputError("minutes=[] is not allowed; give at least one length")


def benchmark(options: Options) -> int:
    """Measures and prints a table; returns 1 if the peak memory grows with the length by more than 5 %.

    Raises:
        InputError: The device is not there, or a file cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=".") as folder:
        rows = print_table("Separating songs", rows_of(options, Path(folder)))
    write_json(options.json, rows)
    peaks = [row["peak_mib"] for row in rows if row["peak_mib"] is not None]
    if not peaks:
        return 0
    growth = max(peaks) / min(peaks) - 1
    print(f"the highest peak is {100 * growth:.1f} % above the lowest (limit {100 * MOST_GROWTH:.0f} %)")
    return int(growth > MOST_GROWTH)


def rows_of(options: Options, folder: Path) -> Iterator[Row]:
    """Yields the row of each length: medians over the runs, the time over that of the first, the stems."""
    model, song, stems = folder / "tiny.safetensors", folder / "song.wav", folder / "stems"
    save_model(random_network(TINY_CONFIG), model)
    arguments = [str(song), "--model", str(model), "--output", str(stems), "--device", options.device]
    first = None
    for minutes in options.minutes:
        write_noise(song, minutes, SONG_RATE, 2)
        seconds, peaks = zip(
            *(in_new_process(separate, [*arguments, "--overwrite"]) for _ in range(options.repeats)), strict=True
        )
        files = sorted(stems.rglob("*.wav"))
        per_audio_second = statistics.median(seconds) / (60 * minutes)
        first = first or per_audio_second
        yield {
            "minutes": minutes,
            "peak_mib": statistics.median(peaks) if None not in peaks else None,
            "seconds": statistics.median(seconds),
            "times_real_time": 1 / per_audio_second,
            "per_audio_second": per_audio_second,
            "over_first": per_audio_second / first,
            "stems": len(files),
            "samples": audio_info(files[0]).length,
        }


def write_noise(path: Path, minutes: float, sample_rate: int, channels: int) -> None:
    """Writes noise in 24 bit."""
    length = round(60 * minutes * sample_rate)
    generator = torch.Generator().manual_seed(0)
    with audio_writer(path, sample_rate, channels, length, "wav", "24") as write:
        for start in range(0, length, sample_rate):
            write(0.1 * torch.randn(channels, min(sample_rate, length - start), generator=generator))


def separate(arguments: list[str]) -> tuple[float, float | None]:
    """Returns the seconds of `bsmamba2 separate`, and the peak memory of this process in MiB.

    Raises:
        InputError: It failed.
    """
    statuses: list[int] = []
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        seconds = elapsed(lambda: statuses.append(bsmamba2(["separate", *arguments])))
    if any(statuses):
        reason = printed.getvalue().strip().splitlines()[-1]
        raise InputError(f"bsmamba2 separate ended with status {statuses[0]}: {reason}")
    peak = peak_memory_bytes()
    return seconds, None if peak is None else peak / 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    return run("separation.py", __doc__, Options, benchmark, arguments)


if __name__ == "__main__":
    sys.exit(main())
