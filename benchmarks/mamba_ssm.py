"""Whether the scans agree, then how close they, a mixer, the network and whole-file separation come to two bounds.

    python benchmark_mamba_ssm.py
    python benchmark_mamba_ssm.py --device cpu --seconds 1 4 --json results.json --plot results.png
    python benchmark_mamba_ssm.py --quick --seconds 0.1

The bounds are the time of the network's matrix products at the rate this machine reaches with them, and the memory
bandwidth. It needs no GPU and no trained weights. On two cores it takes about half an hour. Exit status: 0 done, 1 the
scans disagree or it is not possible with what was given, 2 wrong usage, 130 stopped by the user.
"""

import itertools
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.agreement import SCAN_LENGTHS, available_scans, check, errors_of
from benchmarks.bounds import COPY_BYTES
from benchmarks.command import Row, check_positive, print_facts, print_table, run, write_json
from benchmarks.memory import memory_meaning
from benchmarks.networks import QUICK, config_in
from benchmarks.parts import Job, measure, measure_compiled_memory, measure_parts
from benchmarks.processes import in_new_process
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.model.scans import choose_scan, kernel_problem
from bsmamba2.separation.settings import Precision
from bsmamba2.system.devices import choose_device
from bsmamba2.system.files import check_writable
from bsmamba2.system.versions import hardware, versions

PROGRAM = "benchmark_mamba_ssm.py"
COMPILERS = ("c++", "g++", "clang++", "cl")
QUICK_COPY_BYTES = 2**24
# Length of a file in segments: with the default overlap of a quarter this fills three of them.
FILE_SEGMENTS = 2.5

# In the order of printing, each with its title.
PARTS = {
    "rates": "Matrix products at the shapes of the linear maps in the mixers: medians of 15",
    "bandwidth": "Memory bandwidth: a copy, read and written",
    "bounds": "The bound: the matrix products of one segment at the first of these rates",
    "scans": "The scan alone, one direction, on what the network gives it at once, float32; difference as above",
    "mixers": "One mixer, both directions, on what the network gives it at once",
}


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        seconds: Lengths of stereo audio for one pass of the network; without any, this is left out.
        files: Lengths in seconds of files, which are separated in segments; without any, this is left out. By default
            one of two and a half segments.
        repeats: Timed runs, of which the median counts, after one to warm up.
        device: Where to run, one of auto, cpu, cuda, mps.
        batches: Pieces of audio in one pass of the network.
        threads: Numbers of threads to compute with, by default the one torch chooses.
        compile: Whether the compiled network is measured too. By default where there is CUDA or a C++ compiler.
        config: YAML file with the network's architecture, such as configs/small.yaml; by default the published one.
        precisions: float32, bfloat16; by default float32, and bfloat16 where the device has products for it.
        quick: Use a tiny network if there is no config, and compile it only if asked to.
        json: File for the results as JSON; an existing one is replaced.
        plot: File for a figure of the results as PNG; an existing one is replaced.

    Raises:
        InputError: A number is out of range.
    """

    seconds: Sequence[float] = (1.0, 4.0, 8.0)
    files: Sequence[float] | None = None
    repeats: int = 5
    device: str = "auto"
    batches: Sequence[int] = (1,)
    threads: Sequence[int] = ()
    compile: bool | None = None
    config: Path | None = None
    precisions: Sequence[Precision] = ()
    quick: bool = False
    json: Path | None = None
    plot: Path | None = None

    def __post_init__(self) -> None:
        check_positive(self, "seconds", "files", "repeats", "batches", "threads")
        if not self.batches:
            raise InputError("batches=[] is not allowed; give at least one number of pieces")


def benchmark(options: Options) -> None:
    """Compares the scans with each other, then measures how far all parts are from their bound; prints tables.

    Raises:
        InputError: The scans disagree, the device is not there or its memory too small, or a file not readable or
            writable.
    """
    for file in filter(None, (options.json, options.plot)):
        check_writable(file.parent)
    place = choose_device(options.device)
    config = config_in(options.config) if options.config else QUICK if options.quick else ModelConfig()
    files = [FILE_SEGMENTS * config.segment_seconds] if options.files is None else options.files
    chosen = compilation(place, options.quick) if options.compile is None else (options.compile, "as requested")
    results: dict[str, Any] = {"environment": environment(place, *chosen)}
    print_facts(results["environment"])

    results["agreement"] = print_table(
        "Agreement in float32 with the recurrence in float64: RMS of the difference / RMS, of y and of all gradients",
        (
            errors_of(name, length, reverse, place)
            for length in SCAN_LENGTHS
            for reverse in (False, True)
            for name in available_scans(place)
        ),
    )
    check(results["agreement"])

    jobs = [
        Job(config, str(place), threads, options.repeats, chosen[0], precision)
        for threads in options.threads or [torch.get_num_threads()]
        for precision in options.precisions or available_precisions(place)
    ]
    copy_bytes = QUICK_COPY_BYTES if options.quick else COPY_BYTES
    parts = [in_new_process(measure_parts, job, copy_bytes) for job in jobs]
    for table, title in PARTS.items():
        results[table] = print_table(title, (row for part in parts for row in part.get(table, [])))
    check(results["scans"])
    passes = itertools.product(options.seconds, options.batches, jobs)
    results["network"] = print_table(
        f"The network, random weights, stereo, inference; peak memory: {memory_meaning(place)}",
        rows_of(replace(job, seconds=seconds, batch=batch) for seconds, batch, job in passes),
    )
    results["files"] = print_table(
        "Whole files in overlapping segments, which the bound counts in full",
        rows_of(replace(job, seconds=seconds) for seconds, job in itertools.product(files, jobs)),
    )
    write_json(options.json, results)
    if options.plot:
        # Imported here because this process has to stay small while the others are measured.
        from benchmarks.plots import draw_results

        draw_results(results, options.plot)


def compilation(device: torch.device, quick: bool) -> tuple[bool, str]:
    """Returns whether to measure the compiled network by default, and why."""
    if quick:
        return False, "quick"
    if device.type == "cuda":
        return True, "Triton makes the kernels"
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    return (True, f"by {compiler}") if compiler else (False, f"there is no C++ compiler ({', '.join(COMPILERS)})")


def available_precisions(device: torch.device) -> list[Precision]:
    """Returns the precisions whose matrix products a device computes natively."""
    if device.type == "cpu":
        bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        bfloat16 = device.type == "cuda"
    return ["float32", "bfloat16"] if bfloat16 else ["float32"]


def environment(device: torch.device, compiled: bool, reason: str) -> Row:
    """Returns what the figures depend on."""
    problem = kernel_problem() if device.type == "cuda" else f"the device is {device.type}"
    return {
        **hardware(device),
        **versions(),
        "scan of the network": choose_scan(device),
        "kernel": f"not run: {problem}" if problem else "runs",
        "compiled": f"{'measured' if compiled else 'not measured'}: {reason}",
    }


def rows_of(jobs: Iterable[Job]) -> Iterable[Row]:
    """Yields the rows of jobs, the eager network before the compiled one, each with its own peak memory."""
    for job in jobs:
        eager, *compiled = in_new_process(measure, job)
        yield eager
        for row in compiled:
            yield row | in_new_process(measure_compiled_memory, job)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    return run(PROGRAM, __doc__, Options, benchmark, arguments)
