"""Our network compared with other projects' in one run: time per second of audio, and peak memory.

    python -m benchmarks.peers
    python -m benchmarks.peers --only full demucs --repeats 3 --json peers.json

Every peer has a virtual environment of its own, made from the package index at the first run. All weights are random,
nothing else is downloaded. Every network has a process that waits while the others compute; a round is one run of each,
and the median over the rounds counts. Exit status: 0 done, 1 something could not be measured, 2 wrong usage, 130
stopped by the user.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from benchmarks.command import Problems, Row, check_positive, print_facts, print_table, run, write_json
from benchmarks.networks import PROJECT
from benchmarks.processes import END_SECONDS
from bsmamba2.errors import InputError
from bsmamba2.system.versions import hardware, package_version

# Workers find this project by its path, and none of the packages in this environment.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "PYTHONUTF8": "1", "PYTHONPATH": str(PROJECT)}


@dataclass(frozen=True)
class Peer:
    """A package of the index, and in words which network of it is measured."""

    configuration: str
    requirements: tuple[str, ...]
    module: str


@dataclass(frozen=True)
class Own:
    """One of our networks: in words, and as a request to the worker."""

    configuration: str
    network: str
    compile: bool = False
    precision: str = "float32"


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
    "compiled": Own("published network, float32, compiled", "full", compile=True),
    "bfloat16": Own("published network, bfloat16, compiled", "full", compile=True, precision="bfloat16"),
    "small": Own("configs/small.yaml, float32, eager", "small"),
    "small-compiled": Own("configs/small.yaml, float32, compiled", "small", compile=True),
    "mini": Own("the network in the package, float32, eager", "mini"),
    "roformer": Own("our BS-RoFormer in the sizes of the package's, float32, eager", "roformer"),
}
# Ours, the peers, then ours with the recurrence step by step.
Name = Literal[
    "full", "compiled", "bfloat16", "small", "small-compiled", "mini", "roformer", "bsroformer", "demucs", "sequential"
]
NAMES: tuple[Name, ...] = get_args(Name)


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        folder: Folder for the environments of the peers.
        seconds: Length of the stereo input.
        sequential_seconds: Length of the input where the recurrence runs step by step.
        repeats: Timed rounds, after one to warm up.
        threads: Threads of each process, by default the number torch chooses.
        json: File for the results; an existing one is replaced.
        only: Networks to measure, by default all but bfloat16, which is slow on processors without it.
        quick: Use tiny networks, to see whether everything runs.

    Raises:
        InputError: A number is out of range.
    """

    folder: Path = Path(".peers")
    seconds: float = 8.0
    sequential_seconds: float = 1.0
    repeats: int = 5
    threads: int = torch.get_num_threads()
    json: Path | None = None
    only: Sequence[Name] = tuple(name for name in NAMES if name != "bfloat16")
    quick: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "seconds", "sequential_seconds", "repeats", "threads")


class WorkerError(InputError):
    """A network that could not be built or run; the rest can still be measured."""


@dataclass
class Worker:
    """A running `peer_worker.py`.

    Args:
        name: Name of the network.
        process: Its process.
        errors: The file its standard error goes to.
        facts: Its answer when it was built.
        seconds: Times of the runs that count.
        memory: Its memory after the last run.
    """

    name: str
    process: subprocess.Popen[str]
    errors: Any
    facts: Row = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    memory: Row = field(default_factory=dict)

    def answer(self) -> Row:
        """Returns the next answer of the process.

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
            "--seconds if it ran out of memory, or leave it out with --only"
        )

    def run(self) -> Row:
        """Returns the time and the memory of one run.

        Raises:
            WorkerError: The process ended.
        """
        if self.process.stdin:
            # A process that has ended accepts no input; `answer` reports why.
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write("run\n")
                self.process.stdin.flush()
        return self.answer()


def benchmark(options: Options) -> int:
    """Measures and prints; returns 1 if something could not be measured.

    Raises:
        InputError: The file for the results cannot be written.
    """
    if options.quick:
        print("tiny networks in place of the named ones: these figures mean nothing")
    problems = Problems("peers.py")
    machine = {**hardware(torch.device("cpu")), "threads": options.threads}
    with tempfile.TemporaryDirectory() as folder:
        rows = side_by_side(options, Path(folder), problems)
        print_results(rows)
        recurrence = recurrence_over_chunked(options, Path(folder), problems) if "sequential" in options.only else []
    print()
    print_facts(machine | {f"versions of {row['name']}": words(row["versions"]) for row in rows})
    results = {"machine": machine, "networks": rows, "recurrence": recurrence, "problems": problems.messages}
    write_json(options.json, results)
    return int(bool(problems.messages))


def side_by_side(options: Options, cache: Path, problems: Problems) -> list[Row]:
    """Returns a row for each network that was asked for, with the ratios of ours to each peer's."""
    with contextlib.ExitStack() as stack:
        workers = []
        for name in [name for name in (*OURS, *PEERS) if name in options.only]:
            with problems.skipping(name):
                worker = stack.enter_context(started(name, options, cache))
                worker.run()
                workers.append(worker)
        for _ in range(options.repeats):
            running, workers = workers, []
            for worker in running:
                with problems.skipping(worker.name):
                    worker.memory = worker.run()
                    worker.seconds.append(worker.memory.pop("seconds"))
                    workers.append(worker)
    return with_ratios([row_of(worker) for worker in workers])


def recurrence_over_chunked(options: Options, cache: Path, problems: Problems) -> list[Row]:
    """Returns the published network by the recurrence itself, once, and by the chunked scan; prints both."""
    rows: list[Row] = []
    for scan, runs in (("chunked", options.repeats), ("sequential", 1)):
        with problems.skipping(scan), started("full", options, cache, scan) as worker:
            if scan == "chunked":
                worker.run()
            times = [worker.run()["seconds"] for _ in range(runs)]
            audio = worker.facts["input_seconds"]
            rows.append({"scan": scan, "input_seconds": audio, "per_audio_second": statistics.median(times) / audio})
    if len(rows) == 2:
        rows[1]["over_chunked"] = rows[1]["per_audio_second"] / rows[0]["per_audio_second"]
    return print_table(
        "The recurrence step by step", rows, ["scan", "input_seconds", "per_audio_second", "over_chunked"]
    )


@contextlib.contextmanager
def started(name: str, options: Options, cache: Path, scan: str | None = None) -> Iterator[Worker]:
    """Gives a worker that has built its network and waits; it ends with the block.

    Args:
        name: Name of the network.
        options: Options of the benchmark.
        cache: Folder for compiled code.
        scan: Which scan ours runs, on the shorter input.

    Raises:
        WorkerError: Its environment could not be made, or the network not built.
    """
    request = {"name": name, "threads": options.threads, "quick": options.quick, "precision": "float32"}
    request |= {"seconds": options.sequential_seconds if scan else options.seconds, "scan": scan or "auto"}
    if name in OURS:
        own, python = OURS[name], Path(sys.executable)
        request |= {"name": own.network, "compile": own.compile, "precision": own.precision}
    else:
        python = python_of(name, options.folder)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [str(python), "-m", "benchmarks.peer_worker", json.dumps(request)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8",
            env={
                **os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(options.threads),
                # Not the shared cache: a run that was killed may have left half a kernel there.
                "TORCHINDUCTOR_CACHE_DIR": str(cache / "compiled"),
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


def python_of(name: str, folder: Path) -> Path:
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
                f"the environment {place} contains {words(peer.requirements)} but cannot import {peer.module}; remove "
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
    columns = {"parameters": "parameters M", "input_seconds": "input s", "per_audio_second": "s per audio s"}
    own = {row["name"]: f"{row['name']} / it" for row in rows if row["name"] in OURS}
    table = []
    for row in rows:
        values = row | row.get("ratios", {}) | {"parameters": row["parameters"] / 1e6}
        shown = columns | own | {"peak_mib": "peak MiB", "peak_over_weights_mib": "over weights"}
        table.append({"network": row["name"]} | {title: values.get(name) for name, title in shown.items()})
    print_table("Side by side", table)
    if rows:
        print()
        print_facts({row["name"]: row["configuration"] for row in rows})


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    return run("peers.py", __doc__, Options, benchmark, arguments)


if __name__ == "__main__":
    sys.exit(main())
