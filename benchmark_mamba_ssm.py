"""Whether the scans agree, then how close they, a mixer, the network and whole-file separation come to two bounds.

    python benchmark_mamba_ssm.py
    python benchmark_mamba_ssm.py --device cpu --seconds [1,4] --json results.json --plot results.png
    python benchmark_mamba_ssm.py --quick --seconds [0.1]

The bounds are the time of the network's matrix products at the rate this machine reaches with them, and the memory
bandwidth. It needs no GPU and no trained weights. Exit status: 0 done, 1 the scans disagree or it is not possible with
what was given, 2 wrong usage, 130 stopped by the user.
"""

import itertools
import json as json_format
import math
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser

from benchmarks.agreement import LENGTHS, agreement, available_scans, check
from benchmarks.bounds import COPY_BYTES
from benchmarks.command import Row, exit_status, print_table
from benchmarks.parts import Job, Precision, measure, measure_compiled_memory, measure_parts
from benchmarks.timing import in_new_process, memory_meaning
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.model.scans import choose_scan, kernel_problem
from bsmamba2.system.devices import choose_device
from bsmamba2.system.files import check_writable, complete_file
from bsmamba2.system.versions import hardware, versions

COMPILERS = ("c++", "g++", "clang++", "cl")
QUICK = ModelConfig(dim=16, depth=1, headdim=16, d_state=8, segment_seconds=1.0)
QUICK_COPY_BYTES = 2**24
# Of a file, in segments: with the default overlap of a quarter this fills three of them.
FILE_SEGMENTS = 2.5

# In the order of printing: the parts come first, each with what it says.
PARTS = {
    "rates": "Matrix products at the network's own shapes: medians of 15",
    "bandwidth": "Memory bandwidth: a copy, read and written",
    "bounds": "The bound: the matrix products of one segment at the rate of the projection in",
    "scans": "The scan alone, one direction, on what the network gives it at once, float32; difference as above",
    "mixers": "One mixer, both directions, on what the network gives it at once",
}


def benchmark(
    seconds: Sequence[float] = (1.0, 4.0, 8.0),
    files: Sequence[float] | None = None,
    repeats: int = 5,
    device: str = "auto",
    batches: Sequence[int] = (1,),
    threads: Sequence[int] = (),
    compile: bool | None = None,
    config: Path | None = None,
    precisions: Sequence[Precision] = (),
    quick: bool = False,
    json: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Compares the scans with each other, then measures how far all parts are from their bound; prints tables.

    On two cores the whole takes about half an hour.

    Args:
        seconds: Lengths of stereo audio that go through the network in one pass; [] leaves this out.
        files: Lengths in seconds of files, which are separated in segments; [] leaves this out. By default one of
            two and a half segments.
        repeats: Timed runs, of which the median counts, after one to warm up.
        device: Where to run: auto, cpu, cuda, mps.
        batches: Pieces of audio in one pass of the network.
        threads: Numbers of threads to compute with; [] is what torch takes by itself.
        compile: Whether the compiled network is measured too. By default where there is CUDA or a C++ compiler.
        config: YAML file with the network's architecture, such as configs/small.yaml; by default the published one.
        precisions: float32, bfloat16; [] is float32, and bfloat16 where the device has products for it.
        quick: Takes a tiny network, if there is no config, and compiles it only if asked to.
        json: File for the results as JSON; one that is there is replaced.
        plot: File for a picture of the results as PNG; one that is there is replaced.

    Raises:
        InputError: A value is out of range, the device is not there or its memory too small, or a file not readable or
            writable.
        SystemExit: The scans disagree.
    """
    positive = (repeats, *seconds, *(files or ()), *batches, *threads)
    if not all(0 < value < math.inf for value in positive) or not batches:
        raise InputError(
            f"seconds={list(seconds)}, files={files}, repeats={repeats}, batches={list(batches)}, "
            f"threads={list(threads)} is not allowed; give values above 0, and at least one batch"
        )
    for file in filter(None, (json, plot)):
        check_writable(file.parent)
    place = choose_device(device)
    network = read_config(config) if config else QUICK if quick else ModelConfig()
    if files is None:
        files = [FILE_SEGMENTS * network.segment_seconds]
    compiled, reason = compilation(place, quick) if compile is None else (compile, "as asked for")
    results: dict[str, Any] = {"environment": environment(place)}
    results["environment"]["compiled"] = f"{'measured' if compiled else 'not measured'}: {reason}"
    for name, value in results["environment"].items():
        print(f"{name:<21}{value}")

    results["agreement"] = print_table(
        "Agreement in float32 with the recurrence in float64: RMS of the difference / RMS, of y and of all gradients",
        (
            agreement(name, length, reverse, place)
            for length in LENGTHS
            for reverse in (False, True)
            for name in available_scans(place)
        ),
    )
    check(results["agreement"])

    with tempfile.TemporaryDirectory() as folder:
        jobs = [
            Job(Path(folder) / "network.safetensors", str(place), number, repeats, compiled, precision)
            for number in threads or [torch.get_num_threads()]
            for precision in precisions or available_precisions(place)
        ]
        copy_bytes = QUICK_COPY_BYTES if quick else COPY_BYTES
        parts = [in_new_process(measure_parts, job, network, copy_bytes) for job in jobs]
        for table, title in PARTS.items():
            results[table] = print_table(title, (row for part in parts for row in part.get(table, [])))
        check(results["scans"])
        results["network"] = print_table(
            f"The network, random weights, stereo, inference; peak memory: {memory_meaning(place)}",
            rows_of(replace(job, seconds=s, batch=b) for s, b, job in itertools.product(seconds, batches, jobs)),
        )
        results["files"] = print_table(
            "Whole files in overlapping segments, which the bound counts in full",
            rows_of(replace(job, seconds=length) for length, job in itertools.product(files, jobs)),
        )
    write(results, json, plot)


def read_config(path: Path) -> ModelConfig:
    """Returns the architecture in a YAML file of training options.

    Raises:
        InputError: It cannot be read or holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return ModelConfig.from_dict((content.get("model") or {}).get("network") or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"{path} is no file of training options ({reason}); give one like configs/small.yaml"
        ) from error


def compilation(device: torch.device, quick: bool) -> tuple[bool, str]:
    """Returns whether to measure the compiled network, and why."""
    if quick:
        return False, "quick"
    if device.type == "cuda":
        return True, "Triton makes the kernels"
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    return (True, f"by {compiler}") if compiler else (False, f"there is no C++ compiler ({', '.join(COMPILERS)})")


def available_precisions(device: torch.device) -> list[Precision]:
    """Returns the precisions whose matrix products a device computes by itself."""
    if device.type == "cpu":
        bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        bfloat16 = device.type == "cuda"
    return ["float32", "bfloat16"] if bfloat16 else ["float32"]


def environment(device: torch.device) -> Row:
    """Returns what the figures depend on."""
    problem = kernel_problem() if device.type == "cuda" else f"the device is {device.type}"
    return {
        **hardware(device),
        **versions(),
        "scan of the network": choose_scan(device),
        "kernel": f"not run: {problem}" if problem else "runs",
    }


def rows_of(jobs: Iterable[Job]) -> Iterable[Row]:
    """Yields the rows of jobs, the eager network before the compiled one, each with its own peak memory."""
    for job in jobs:
        eager, *compiled = in_new_process(measure, job)
        yield eager
        for row in compiled:
            yield row | in_new_process(measure_compiled_memory, job)


def write(results: dict[str, Any], json: Path | None, plot: Path | None) -> None:
    """Writes the results to the files that were asked for.

    Raises:
        InputError: One cannot be written, or there is nothing to draw.
    """
    if json:
        with complete_file(json) as path:
            path.write_text(json_format.dumps(results, indent=2) + "\n", encoding="utf-8")
    if plot:
        # Only here, as this process has to stay small while the others are measured.
        from benchmarks.plots import draw

        draw(results, plot)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    parser = ArgumentParser(prog="benchmark_mamba_ssm.py", description="Needs no GPU and no trained weights.")
    parser.add_function_arguments(benchmark, skip={"quick"})
    parser.add_argument("--quick", action="store_true", help="take a tiny network, and compile it only if asked to")
    options = parser.parse_args(arguments)
    return exit_status(parser.prog, lambda: benchmark(**options.as_dict()))


if __name__ == "__main__":
    sys.exit(main())
