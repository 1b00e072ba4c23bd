"""Whole songs by `bsmamba2 separate`: what it takes beyond its network, to its first sample, and with more processes.

    python -m benchmarks.songs
    python -m benchmarks.songs --parts album --songs 12 --minutes 0.5 --processes 1 2 --threads 1

The songs are noise at the rate of the network, in 24 bit. `over_network` is the time of the command in a process that
has imported everything, over that of as many passes of the network, measured right before and after. `first_sample` is
from the start of Python until samples of a stem are on the disk, and `pass` is one pass of the network, which it
contains. Processes of an album have `--threads` each. Exit status: 0 done, 1 something could not be measured, 2 wrong
usage, 130 stopped by the user.
"""

import contextlib
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from benchmarks.command import Problems, Row, check_positive, print_facts, print_table, run, write_json
from benchmarks.networks import PROJECT
from benchmarks.parts import Job, segments_of, work
from benchmarks.processes import in_new_process
from benchmarks.separation import separate, write_noise
from benchmarks.timing import CPU, elapsed
from bsmamba2.errors import InputError
from bsmamba2.model import Network
from bsmamba2.system.versions import hardware, versions
from bsmamba2.weights.checkpoint import load_model
from bsmamba2.weights.registry import DEFAULT_MODEL

SongPart = Literal["network", "start", "album"]
TITLES: dict[SongPart, str] = {
    "network": "One song: the command over the passes of its network",
    "start": "From the start of Python to the first samples of a stem on the disk",
    "album": "Several songs, shared by processes",
}
# More than the header of a file, and less than any stem has.
WAV_HEADER_BYTES = 1000
POLL_SECONDS = 0.005
# Passes of the network before a separation, and after it.
PASSES = 3


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        parts: What to measure.
        model: Published model, or file of weights.
        minutes: Length of a song.
        songs: Songs of the album.
        processes: Numbers of processes that share the album.
        threads: Threads of each process, by default as many as torch chooses.
        repeats: Runs, of which the median counts.
        json: File for the results; an existing one is replaced.

    Raises:
        InputError: A number is out of range.
    """

    parts: Sequence[SongPart] = get_args(SongPart)
    model: str = DEFAULT_MODEL
    minutes: float = 3.0
    songs: int = 12
    processes: Sequence[int] = (1, 2)
    threads: int = torch.get_num_threads()
    repeats: int = 3
    json: Path | None = None

    def __post_init__(self) -> None:
        check_positive(self, "minutes", "songs", "processes", "threads", "repeats")


def benchmark(options: Options) -> int:
    """Measures and prints; returns 1 if something could not be measured.

    Raises:
        InputError: The model cannot be used, or the file for the results cannot be written.
    """
    problems = Problems("songs.py")
    results: dict[str, list[Row]] = {}
    facts = {**hardware(CPU), **versions(), "threads": options.threads, "model": options.model}
    print_facts(facts)
    measures = {"network": over_network, "start": first_sample, "album": album}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for part in options.parts:
            place = Path(folder).absolute() / part
            place.mkdir()
            with problems.skipping(part):
                results[part] = print_table(TITLES[part], measures[part](options, place))
    write_json(options.json, {"environment": facts, **results, "problems": problems.messages})
    return int(bool(problems.messages))


def over_network(options: Options, folder: Path) -> Iterator[Row]:
    """Yields the row of one song.

    Raises:
        InputError: The model cannot be used, or the separation failed.
    """
    song = write_song(folder / "song.wav", options)
    rows = [in_new_process(measure_song, options, song, folder / "stems") for _ in range(options.repeats)]
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    yield {"minutes": options.minutes, **medians, "over_network": medians["seconds"] / medians["network_seconds"]}


def measure_song(options: Options, song: Path, stems: Path) -> Row:
    """Returns the seconds of a separation, of a pass of the network, and of as many passes as the song has segments."""
    network, one_pass = warm_pass(options)
    before = [elapsed(one_pass) for _ in range(PASSES)]
    seconds, _ = separate(
        [str(song), "--model", options.model, "--output", str(stems), "--device", "cpu", "--overwrite"]
    )
    pass_seconds = statistics.median([*before, *(elapsed(one_pass) for _ in range(PASSES))])
    passes = segments_of(network, 60 * options.minutes)
    return {"seconds": seconds, "pass_seconds": pass_seconds, "network_seconds": passes * pass_seconds}


def first_sample(options: Options, folder: Path) -> Iterator[Row]:
    """Yields the row of a song, separated until the first samples are written.

    Raises:
        InputError: The separation ended before.
    """
    song = write_song(folder / "song.wav", options)
    times = [seconds_to_first_sample(options, song, folder / f"stems{number}") for number in range(options.repeats)]
    yield {"first_sample_seconds": statistics.median(times), "pass_seconds": in_new_process(network_seconds, options)}


def network_seconds(options: Options) -> float:
    """Returns the median seconds of a pass."""
    _, one_pass = warm_pass(options)
    return statistics.median(elapsed(one_pass) for _ in range(PASSES))


def warm_pass(options: Options) -> tuple[Network, Callable[[], Tensor]]:
    """Returns a network and a pass of it over a segment, which has run once."""
    torch.set_num_threads(options.threads)
    network = load_model(options.model)
    job = Job(network.config, "cpu", options.threads, 1, False, seconds=network.config.segment_seconds, batch=1)
    one_pass = work(job, network)
    one_pass()
    return network, one_pass


def seconds_to_first_sample(options: Options, song: Path, stems: Path) -> float:
    """Returns the seconds until samples of a stem are on the disk.

    Raises:
        InputError: The command ended before.
    """
    began = time.perf_counter()
    line, quiet = command(options, [song], stems), subprocess.DEVNULL
    process = subprocess.Popen(line, env=own_environment(options), stdout=quiet, stderr=quiet)
    try:
        while True:
            # Asked first, so that a command that ends in between has written all that it will.
            status = process.poll()
            if largest_file(stems) > WAV_HEADER_BYTES:
                return time.perf_counter() - began
            if status is not None:
                raise InputError(f"bsmamba2 separate ended with status {status} before its first sample")
            time.sleep(POLL_SECONDS)
    finally:
        process.terminate()
        process.wait()


def largest_file(folder: Path) -> int:
    """Returns the size of the largest file in a folder, also of one that is being written, or 0 without any."""
    sizes = [0]
    for path in folder.rglob("*"):
        # A file that is written has another name in the end.
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size if path.is_file() else 0)
    return max(sizes)


def album(options: Options, folder: Path) -> Iterator[Row]:
    """Yields the row of each number of processes.

    Raises:
        InputError: A separation failed.
    """
    songs = [write_song(folder / f"song{number}.wav", options) for number in range(options.songs)]
    first = None
    for processes in options.processes:
        line = [*command(options, songs, folder / "stems"), "--devices", str(processes), "--overwrite"]
        seconds = statistics.median(elapsed(functools.partial(finished, line, options)) for _ in range(options.repeats))
        first = first or seconds
        yield {
            "processes": processes,
            "threads_each": options.threads,
            "songs": options.songs,
            "minutes": options.minutes,
            "seconds": seconds,
            "times_faster": first / seconds,
        }


def finished(line: Sequence[str], options: Options) -> None:
    """Runs a command to its end.

    Raises:
        InputError: It failed.
    """
    done = subprocess.run(line, env=own_environment(options), capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or "no message").splitlines()[-1]
        raise InputError(f"bsmamba2 separate ended with status {done.returncode}: {reason}")


def command(options: Options, songs: Sequence[Path], stems: Path) -> list[str]:
    """Returns the command that separates songs."""
    files = [str(song) for song in songs]
    given = ["--model", options.model, "--output", str(stems), "--device", "cpu"]
    return [sys.executable, "-m", "bsmamba2", "separate", *files, *given]


def own_environment(options: Options) -> dict[str, str]:
    """Returns the environment of a command: this project, wherever the command runs, and its threads."""
    return os.environ | {"OMP_NUM_THREADS": str(options.threads), "PYTHONPATH": str(PROJECT)}


@functools.cache
def format_of(model: str) -> tuple[int, int]:
    """Returns the sampling rate and the channels of a model."""
    config = load_model(model).config
    return config.sample_rate, config.channels


def write_song(path: Path, options: Options) -> Path:
    """Writes noise in the format of the network, and returns its path."""
    write_noise(path, options.minutes, *format_of(options.model))
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    return run("songs.py", __doc__, Options, benchmark, arguments)


if __name__ == "__main__":
    sys.exit(main())
