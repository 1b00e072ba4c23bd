"""Whether the scans agree, then how long they and the whole network take, and how much memory.

    python benchmark_mamba_ssm.py
    python benchmark_mamba_ssm.py --device cpu --seconds [1,4] --json results.json
    python benchmark_mamba_ssm.py --quick --seconds [0.1]

It needs no GPU and no trained weights. Exit status: 0 done, 1 the scans disagree or it is not possible with what was
given, 2 wrong usage, 130 stopped by the user.
"""

import json as json_format
import math
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.files import complete_file
from bsmamba2.machine import hardware, versions
from bsmamba2.model import BSMamba2
from bsmamba2.model.ssd import choose_scan, kernel_problem, ssd_chunked, ssd_kernel, ssd_sequential
from bsmamba2.separation import choose_device

try:
    import resource
except ImportError:  # Windows has no such module.
    resource = None  # type: ignore[assignment]

SCANS = {"sequential": ssd_sequential, "chunked": ssd_chunked, "kernel": ssd_kernel}
ARGUMENTS = ("x", "dt", "A", "B", "C")
AGREEMENT_LENGTHS = (1, 5, 17, 62, 130, 401)
# The kernel multiplies float32 in TF32, which keeps 10 bits of the mantissa.
TOLERANCES = {"sequential": 1e-5, "chunked": 1e-5, "kernel": 5e-3}
# Rows and length of the network's scans in 8 s of audio: over time for every band, and over bands for every frame.
SHAPES = ((62, 801), (801, 62))
QUICK_DIVISOR = 20
LONG_SECONDS = 60.0

Row = dict[str, Any]


def benchmark(
    seconds: Sequence[float] = (1.0, 4.0, 8.0),
    repeats: int = 3,
    device: str = "auto",
    quick: bool = False,
    json: Path | None = None,
) -> None:
    """Compares the scans with each other, then measures them and the network; prints tables.

    Args:
        seconds: Lengths of stereo audio that the network separates; [] leaves the network out.
        repeats: Timed runs, of which the median counts, after one to warm up. No run starts once those before it took
            a minute together; if there was only one, it counts.
        device: Where to run: auto, cpu, cuda, mps.
        quick: Times the scans at a twentieth of their rows.
        json: File for the results as JSON; one that is there is replaced.

    Raises:
        InputError: A value is out of range, the device is not there or its memory too small, or the file not writable.
        SystemExit: The scans disagree.
    """
    if repeats < 1 or not all(0 < length < math.inf for length in seconds):
        raise InputError(f"seconds={list(seconds)}, repeats={repeats} is not allowed; give values above 0")
    place = choose_device(device)
    results: dict[str, Any] = {"environment": environment(place)}
    for name, value in results["environment"].items():
        print(f"{name:<21}{value}")

    results["agreement"] = print_table(
        "Agreement in float32 with the recurrence in float64: RMS of the difference / RMS, of y and of all gradients",
        (agreement(name, length, place) for length in AGREEMENT_LENGTHS for name in available_scans(place)),
    )
    check(results["agreement"])

    shapes = [(rows // QUICK_DIVISOR if quick else rows, length) for rows, length in SHAPES]
    results["scans"] = print_table(
        "The scan: 16 heads of 64, d_state 128, float32, inference (minutes on a CPU); difference as above",
        (row for shape in shapes for row in in_new_process(measure_scans, *shape, repeats, str(place))),
    )
    check(results["scans"])

    precisions = ("float32", "bfloat16") if place.type == "cuda" else ("float32",)
    if seconds:
        results["network"] = print_table(
            f"The published network, random weights, stereo, inference; peak memory: {memory_meaning(place)}",
            (
                in_new_process(measure_network, length, precision, repeats, str(place))
                for precision in precisions
                for length in seconds
            ),
        )
    if json:
        with complete_file(json) as path:
            path.write_text(json_format.dumps(results, indent=2) + "\n", encoding="utf-8")


def environment(device: torch.device) -> Row:
    """Returns what the figures depend on."""
    problem = kernel_problem() if device.type == "cuda" else f"the device is {device.type}"
    return {
        **hardware(device),
        **versions(),
        "scan of the network": choose_scan(device),
        "kernel": f"not run: {problem}" if problem else "runs",
    }


def available_scans(device: torch.device) -> list[str]:
    """Returns the names of the scans that run on a device; the sequential one comes first."""
    return [name for name in SCANS if name != "kernel" or (device.type == "cuda" and kernel_problem() is None)]


def agreement(name: str, length: int, device: torch.device) -> Row:
    """Returns how far y and the five gradients of a scan in float32 are from the recurrence in float64 on the CPU."""
    inputs = scan_inputs(3, length, heads=4, headdim=16, groups=2, d_state=16)
    weight = torch.randn_like(inputs[0])
    expected = with_gradients(ssd_sequential, [t.double() for t in inputs], weight.double())
    actual = with_gradients(SCANS[name], [t.to(device) for t in inputs], weight.to(device))
    errors = [relative_error(*pair) for pair in zip(actual, expected, strict=True)]
    return {"length": length, "scan": name, **dict(zip(("y", *ARGUMENTS), errors, strict=True))}


def scan_inputs(rows: int, length: int, heads: int, headdim: int, groups: int, d_state: int) -> list[Tensor]:
    """Returns x, dt, A, B, C, always the same, with dt and A in the ranges the network starts from."""
    torch.manual_seed(0)
    dt = torch.exp(torch.empty(rows, length, heads).uniform_(math.log(1e-3), math.log(1e-1)))
    A = -torch.empty(heads).uniform_(1, 16)
    B, C = torch.randn(2, rows, length, groups, d_state)
    return [torch.randn(rows, length, heads, headdim), dt, A, B, C]


def with_gradients(scan: Callable[..., Tensor], inputs: list[Tensor], weight: Tensor) -> list[Tensor]:
    """Returns y and the gradients of the weighted sum of y."""
    inputs = [t.requires_grad_() for t in inputs]
    y = scan(*inputs)
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), inputs)]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Returns RMS(actual − expected) / RMS(expected); the gradient of A is 0 at length 1, hence the floor."""
    actual, expected = actual.cpu().double(), expected.cpu().double()
    rms = expected.square().mean().sqrt().clamp(min=1e-30)
    return ((actual - expected).square().mean().sqrt() / rms).item()


def check(rows: list[Row]) -> None:
    """Stops with one sentence at the first error that is too large or NaN."""
    for row in rows:
        for name in ("y", *ARGUMENTS, "difference"):
            if not row.get(name, 0.0) <= TOLERANCES[row["scan"]]:
                raise SystemExit(
                    f"benchmark_mamba_ssm.py: error: the {row['scan']} scan disagrees with the recurrence at length "
                    f"{row['length']}: {name} {row[name]:.1e}, allowed is {TOLERANCES[row['scan']]:.0e}"
                )


def measure_scans(rows: int, length: int, repeats: int, device: str) -> list[Row]:
    """Returns the times of all scans at one shape, and how far their y is from that of the sequential one."""
    place = torch.device(device)
    inputs = [t.to(place) for t in scan_inputs(rows, length, heads=16, headdim=64, groups=1, d_state=128)]
    results: list[Row] = []
    for name in available_scans(place):
        times, y = timed(partial(SCANS[name], *inputs), repeats, place)
        if not results:
            expected = y
        results.append({"rows": rows, "length": length, "scan": name})
        results[-1] |= {"seconds": statistics.median(times), "runs": len(times)}
        results[-1] |= {"times_faster": results[0]["seconds"] / results[-1]["seconds"]}
        results[-1] |= {"difference": relative_error(y, expected)}
    return results


def measure_network(seconds: float, precision: str, repeats: int, device: str) -> Row:
    """Returns the time and the peak memory of the published network for one length of audio."""
    place = torch.device(device)
    torch.manual_seed(0)
    network = BSMamba2().eval().to(place)
    mixture = 0.1 * torch.randn(1, network.config.channels, max(1, round(seconds * network.config.sample_rate)))
    with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bfloat16"):
        times, _ = timed(partial(network, mixture.to(place)), repeats, place)
    return {
        "audio_seconds": seconds,
        "precision": precision,
        "seconds": statistics.median(times),
        "runs": len(times),
        "per_audio_second": statistics.median(times) / seconds,
        "peak_memory_mib": peak_memory_mib(place),
    }


def timed(run: Callable[[], Tensor], repeats: int, device: torch.device) -> tuple[list[float], Tensor]:
    """Returns the seconds of each run that counts, and the result of the last; see `repeats` of `benchmark`."""
    times: list[float] = []
    with torch.inference_mode():
        while len(times) <= repeats and sum(times) < LONG_SECONDS:
            started = time.perf_counter()
            result = run()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            times.append(time.perf_counter() - started)
    return times[1:] or times, result


def peak_memory_mib(device: torch.device) -> float | None:
    """Returns the most memory this process has held so far, or None where it cannot be told; see `memory_meaning`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if device.type != "cpu" or resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def memory_meaning(device: torch.device) -> str:
    """Returns what `peak_memory_mib` measures."""
    return "all tensors on the GPU" if device.type == "cuda" else "a process that does only this, with Python and torch"


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns function(*arguments) from a process of its own, since a process never forgets its peak memory.

    Linux hands the peak on to new processes too, so that this process itself must stay small.

    Raises:
        InputError: The process ended without a result.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_result, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError as error:
        raise InputError(
            f"{function.__name__}{arguments} failed, probably for lack of memory; give shorter --seconds or --quick"
        ) from error
    finally:
        process.terminate()
        process.join()


def send_result(sender: Connection, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """Sends function(*arguments) through a pipe; the other end decides what a keyboard interrupt does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sender.send(function(*arguments))


def print_table(title: str, rows: Iterable[Row]) -> list[Row]:
    """Prints rows with the same keys as soon as each is there, and returns them."""
    print(f"\n{title}", flush=True)
    done: list[Row] = []
    for row in rows:
        widths = [max(12, len(name) + 2) for name in row]
        if not done:
            print("".join(f"{name.replace('_', ' '):>{width}}" for name, width in zip(row, widths, strict=True)))
        print("".join(f"{cell(v):>{w}}" for v, w in zip(row.values(), widths, strict=True)), flush=True)
        done.append(row)
    return done


def cell(value: Any) -> str:
    """Returns a value as text, numbers with three digits."""
    if value is None:
        return "not measured"
    return f"{value:#.3g}".rstrip(".") if isinstance(value, float) else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    parser = ArgumentParser(prog="benchmark_mamba_ssm.py", description="Needs no GPU and no trained weights.")
    parser.add_function_arguments(benchmark, skip={"quick"})
    parser.add_argument("--quick", action="store_true", help="time the scans at a twentieth of their rows")
    try:
        benchmark(**parser.parse_args(arguments).as_dict())
    except InputError as error:
        print(f"benchmark_mamba_ssm.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmark_mamba_ssm.py: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
