"""Our network beside its peers in one run: time per second of audio, and peak memory.

    python -m benchmarks.peers
    python -m benchmarks.peers --only full demucs --repeats 3 --json peers.json

Every peer lives in a virtual environment of its own, made from the package index at the first run. All weights are
random, nothing else is downloaded. Every network has a process that waits while the others compute; a round is one run
of each, and the median over the rounds counts. Exit status: 0 done, 1 something could not be measured, 2 wrong usage,
130 stopped by the user.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import Row, exit_status
from bsmamba2.errors import InputError
from bsmamba2.system.files import complete_file
from bsmamba2.system.versions import hardware, package_version

WORKER = Path(__file__).with_name("peer_worker.py")
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "PYTHONUTF8": "1"}
SEQUENTIAL = "sequential"
# How long a process may take to end once its input has.
END_SECONDS = 20.0


@dataclass(frozen=True)
class Peer:
    """A package of the index, and in words which network of it is measured."""

    configuration: str
    requirements: tuple[str, ...]
    module: str


@dataclass(frozen=True)
class Own:
    """One of our networks: in words, and as options of the worker."""

    configuration: str
    network: str
    options: tuple[str, ...] = ()


# numpy: demucs 4.1.0 imports it and does not require it.
PEERS = {
    "bsroformer": Peer(
        "BS-RoFormer 1.2.4, dim 256, depth 6, time and frequency depth 1, 1 residual stream, hop 441, 1 stem",
        ("BS-RoFormer==1.2.4",),
        "bs_roformer",
    ),
    "demucs": Peer(
        "HT Demucs (demucs 4.1.0) as released, 4 stems in one pass", ("demucs==4.1.0", "numpy"), "demucs.htdemucs"
    ),
}
OURS = {
    "full": Own("published network, float32, eager", "full"),
    "compiled": Own("published network, float32, compiled", "full", ("--compile",)),
    "bfloat16": Own("published network, bfloat16, compiled", "full", ("--compile", "--precision", "bfloat16")),
    "small": Own("configs/small.yaml, float32, eager", "small"),
    "small-compiled": Own("configs/small.yaml, float32, compiled", "small", ("--compile",)),
    "mini": Own("the network in the package, float32, eager", "mini"),
}
NAMES = (*OURS, *PEERS, SEQUENTIAL)
# bfloat16 is slow on processors that do not have it.
DEFAULT_NAMES = tuple(name for name in NAMES if name != "bfloat16")


class WorkerError(InputError):
    """A network that could not be built or run; the others go on."""


@dataclass
class Worker:
    """A running `peer_worker.py`.

    Args:
        name: Of the network.
        process: Its process.
        errors: The file its standard error goes to.
        facts: What it said when it was built.
        seconds: Times of the runs that count.
        memory: What it said of its memory after the last run.
    """

    name: str
    process: subprocess.Popen[str]
    errors: Any
    facts: Row = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    memory: Row = field(default_factory=dict)

    def answer(self) -> Row:
        """Returns the next line the process says.

        Raises:
            WorkerError: It ended instead.
        """
        line = self.process.stdout.readline() if self.process.stdout else ""
        if line:
            answer: Row = json.loads(line)
            return answer
        status = self.process.wait()
        self.errors.seek(0)
        raise WorkerError(
            f"the network '{self.name}' ended with status {status} ({last_line(self.errors.read())}); give shorter "
            "--seconds if it was for lack of memory, or leave it out with --only"
        )

    def run(self) -> Row:
        """Returns the time and the memory of one run.

        Raises:
            WorkerError: The process ended.
        """
        if self.process.stdin:
            # A process that ended takes no more; `answer` tells why.
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write("run\n")
                self.process.stdin.flush()
        return self.answer()


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(".peers"), help="for the environments of the peers")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the stereo input")
    parser.add_argument(
        "--sequential-seconds", type=float, default=1.0, help="the same where the recurrence runs step by step"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds after one to warm up")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="file for the results; one that is there is replaced")
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=DEFAULT_NAMES, metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument("--quick", action="store_true", help="tiny networks, to see whether all of it runs")
    options = parser.parse_args(arguments)
    return exit_status("peers.py", lambda: benchmark(options))


def benchmark(options: argparse.Namespace) -> int:
    """Measures and prints; returns 1 if something could not be measured.

    Raises:
        InputError: A value is out of range, or the file for the results cannot be written.
    """
    numbers = (options.seconds, options.sequential_seconds, options.repeats, options.threads)
    if not all(0 < number < math.inf for number in numbers):
        raise InputError(
            f"seconds={options.seconds:g}, sequential_seconds={options.sequential_seconds:g}, "
            f"repeats={options.repeats}, threads={options.threads} is not allowed; give values above 0"
        )
    if options.quick:
        print("tiny networks in place of all that are named: these figures mean nothing")
    problems: list[str] = []
    machine = {**hardware(torch.device("cpu")), "threads": options.threads}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder)
        rows = side_by_side(options, weights, problems)
        print_results(rows)
        recurrence = recurrence_over_chunked(options, weights, problems) if SEQUENTIAL in options.only else []
    print()
    for name, value in {**machine, **{f"versions of {row['name']}": words(row["versions"]) for row in rows}}.items():
        print(f"{name:<28}{value}")
    if options.json:
        results = {"machine": machine, "networks": rows, "recurrence": recurrence, "problems": problems}
        with complete_file(options.json) as path:
            path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return int(bool(problems))


def side_by_side(options: argparse.Namespace, weights: Path, problems: list[str]) -> list[Row]:
    """Returns a row for each network that was asked for, with the ratios of ours to each peer's."""
    with contextlib.ExitStack() as stack:
        workers = []
        for name in [name for name in NAMES if name in options.only and name != SEQUENTIAL]:
            with reported(problems):
                worker = stack.enter_context(started(name, options, weights))
                worker.run()
                workers.append(worker)
        for _ in range(options.repeats):
            for worker in list(workers):
                try:
                    answer = worker.run()
                except WorkerError as error:
                    report(error, problems)
                    workers.remove(worker)
                    continue
                worker.seconds.append(answer.pop("seconds"))
                worker.memory = answer
    return with_ratios([row_of(worker) for worker in workers])


def recurrence_over_chunked(options: argparse.Namespace, weights: Path, problems: list[str]) -> list[Row]:
    """Returns the published network by the recurrence itself, once, and by the chunked scan; prints both."""
    rows: list[Row] = []
    for scan, runs in (("chunked", options.repeats), ("sequential", 1)):
        with reported(problems), started("full", options, weights, scan) as worker:
            if scan == "chunked":
                worker.run()
            times = [worker.run()["seconds"] for _ in range(runs)]
            audio = worker.facts["input_seconds"]
            rows.append({"scan": scan, "input_seconds": audio, "per_audio_second": statistics.median(times) / audio})
            print(f"\nscan {scan}, {audio:g} s of audio: {rows[-1]['per_audio_second']:.3g} s per second of audio")
    if len(rows) == 2:
        rows[1]["over_chunked"] = rows[1]["per_audio_second"] / rows[0]["per_audio_second"]
        print(f"the sequential scan takes {rows[1]['over_chunked']:.1f} times as long as the chunked one")
    return rows


@contextlib.contextmanager
def started(name: str, options: argparse.Namespace, weights: Path, scan: str | None = None) -> Iterator[Worker]:
    """Gives a worker that has built its network and waits; it ends with the block.

    Args:
        name: Of the network.
        options: Of the command.
        weights: Folder for the weights of our networks.
        scan: Which scan ours runs, on the shorter input.

    Raises:
        WorkerError: Its environment could not be made, or the network not built.
    """
    seconds = options.sequential_seconds if scan else options.seconds
    arguments = ["--seconds", str(seconds), "--threads", str(options.threads)]
    arguments += ["--quick"] * options.quick + (["--scan", scan] if scan else [])
    if name in OURS:
        own, python = OURS[name], Path(sys.executable)
        file = weights / f"{own.network}.safetensors"
        arguments = [own.network, "--weights", str(file), *own.options, *arguments]
        if not file.exists():
            finish(name, [python, WORKER, *arguments, "--save"])
    else:
        python = environment(name, options.folder)
        arguments = [name, *arguments]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [str(python), str(WORKER), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8",
            env={
                **os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(options.threads),
                # Not the shared cache: a run that was killed may have left half a kernel there.
                "TORCHINDUCTOR_CACHE_DIR": str(weights / "compiled"),
            },
        )  # fmt: skip
        try:
            worker = Worker(name, process, errors)
            print(f"{name}: building and warming up", file=sys.stderr, flush=True)
            worker.facts = worker.answer()
            yield worker
        finally:
            try:
                process.communicate(timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def environment(name: str, folder: Path) -> Path:
    """Returns the Python of a peer's environment, which is made or completed if need be.

    Raises:
        WorkerError: It cannot be made.
    """
    peer, place = PEERS[name], (folder / name).absolute()
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    version = (package_version("torch") or torch.__version__).partition("+")[0]
    if not is_complete(python, peer, version):
        print(f"{name}: making {place}", file=sys.stderr, flush=True)
        finish(name, [sys.executable, "-m", "venv", place])
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        finish(name, [python, *install, f"torch=={version}", *peer.requirements])
        if not is_complete(python, peer, version):
            raise WorkerError(
                f"the environment {place} holds {words(peer.requirements)} but cannot import {peer.module}; remove "
                "that folder and try again, or leave the peer out with --only"
            )
    return python


def is_complete(python: Path, peer: Peer, version: str) -> bool:
    """Returns whether an environment has the torch version and the peer's, and can import its network."""
    if not python.exists():
        return False
    package, _, wanted = peer.requirements[0].partition("==")
    code = (
        f"from importlib.metadata import version\nimport {peer.module}\n"
        f"print(version('torch').partition('+')[0], version('{package}'))"
    )
    checked = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return checked.stdout.split()[-2:] == [version, wanted]


def finish(name: str, command: list[str | Path]) -> None:
    """Runs a command that prepares a network.

    Raises:
        WorkerError: It failed.
    """
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkerError(
            f"the network '{name}' could not be prepared ({last_line(done.stderr or done.stdout)}); check the "
            "connection and the free space, or leave it out with --only"
        )


@contextlib.contextmanager
def reported(problems: list[str]) -> Iterator[None]:
    """Goes on after the block where a network fails in it."""
    try:
        yield
    except WorkerError as error:
        report(error, problems)


def report(error: WorkerError, problems: list[str]) -> None:
    """Prints what went wrong, and keeps it for the exit status."""
    problems.append(str(error))
    print(f"peers.py: error: {error}", file=sys.stderr, flush=True)


def row_of(worker: Worker) -> Row:
    """Returns what was measured of a network."""
    configuration = (OURS[worker.name] if worker.name in OURS else PEERS[worker.name]).configuration
    seconds = statistics.median(worker.seconds)
    return {
        "name": worker.name,
        "configuration": configuration,
        **worker.facts,
        "times": worker.seconds,
        "per_audio_second": seconds / worker.facts["input_seconds"],
        **worker.memory,
    }


def with_ratios(rows: list[Row]) -> list[Row]:
    """Returns the rows, the peers' with the time per second of audio of each of ours over theirs."""
    own = {row["name"]: row["per_audio_second"] for row in rows if row["name"] in OURS}
    return [
        row if row["name"] in OURS else row | {"ratios": {n: t / row["per_audio_second"] for n, t in own.items()}}
        for row in rows
    ]


def print_results(rows: list[Row]) -> None:
    """Prints a line per network, then what the names mean."""
    if not rows:
        return
    own = [row["name"] for row in rows if row["name"] in OURS]
    columns = [
        "parameters M",
        "input s",
        "s per audio s",
        *(f"{name} / it" for name in own),
        "peak MiB",
        "over weights",
    ]
    widths = [max(12, len(column) + 2) for column in columns]
    print(f"\n{'network':<16}" + "".join(f"{column:>{width}}" for column, width in zip(columns, widths, strict=True)))
    for row in rows:
        ratios = row.get("ratios", {})
        values = [row["parameters"] / 1e6, row["input_seconds"], row["per_audio_second"]]
        values += [*(ratios.get(name) for name in own), row["peak_mib"], row["peak_over_weights_mib"]]
        texts = ["-" if value is None else f"{value:.1f}" if value >= 20 else f"{value:.3g}" for value in values]
        print(f"{row['name']:<16}" + "".join(f"{text:>{width}}" for text, width in zip(texts, widths, strict=True)))
    print()
    for row in rows:
        print(f"{row['name']:<16}{row['configuration']}")


def words(values: Any) -> str:
    """Returns names, or names with values, in one line."""
    return (
        ", ".join(f"{name} {value}" for name, value in values.items())
        if isinstance(values, dict)
        else ", ".join(values)
    )


def last_line(text: str) -> str:
    """Returns the last line with something in it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"


if __name__ == "__main__":
    sys.exit(main())
