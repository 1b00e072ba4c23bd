"""Runs Python programs as copies of itself: it has imported all that they need, which takes seconds.

`python -m tests.program_server SOCKET` serves `tests.programs`. A copy runs a program as a new interpreter would: it is
a child of the process that asked, with its own arguments, streams, folder, environment, session and end.
"""

import atexit
import contextlib
import gc
import importlib
import io
import json
import multiprocessing.process
import os
import pkgutil
import runpy
import signal
import socket
import sys
import tempfile
import threading
import time
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests import programs

# What the commands import only when they need it.
ALSO_IMPORTED = (
    "lightning.pytorch.loggers", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "museval",
    "mutagen.asf", "omegaconf", "tensorboard", "torch.profiler", "torch.utils.tensorboard",
)  # fmt: skip
LARGEST_MESSAGE = 1 << 20
MOST_FILES = 32


@dataclass(frozen=True)
class Program:
    """What is to be run.

    Args:
        arguments: Those of the interpreter: a file, or `-m` and a module, or `-c` and code, and the program's own.
        folder: Its current folder.
        environment: Its variables.
        files: Its open files by their numbers, each with the one here.
        starts_copies: Whether the processes of Python that it starts are copies too.
    """

    arguments: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    files: Mapping[int, int]
    starts_copies: bool


def import_all() -> None:
    """Imports the package and what its commands need; what is not installed is left out."""
    import bsmamba2

    own = (found.name for found in pkgutil.walk_packages(bsmamba2.__path__, "bsmamba2."))
    for name in (*(name for name in own if not name.endswith("__main__")), *ALSO_IMPORTED):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def next_program(connection: socket.socket) -> Program | None:
    """Returns the next program in the copy that is to run it, and None in this process once no more can come."""
    while True:
        message, files, _, _ = socket.recv_fds(connection, LARGEST_MESSAGE, MOST_FILES)
        if not message:
            return None
        asked = json.loads(message)
        numbers = asked.pop("numbers")
        receiver, sender = os.pipe()
        between = os.fork()
        if between == 0:
            between = os.getpid()
            copy = os.fork()
            if copy:
                os.write(sender, str(copy).encode())
                # Its child is now one of the process that asked, which takes such children at this time.
                os._exit(0)
            while os.getppid() == between:
                time.sleep(0.0002)
            for number in (connection.detach(), receiver, sender):
                os.close(number)
            if asked.pop("new_session"):
                os.setsid()
            program = Program(files=dict(zip(numbers, files, strict=True)), **asked)
            if not program.starts_copies:
                return program
            connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if os.fork():
                connection.close()
                programs.serve_by(theirs)
                return program
            # This process serves the copy from now on.
            theirs.close()
            for number in files:
                os.close(number)
            continue
        os.close(sender)
        os.waitpid(between, 0)
        connection.send(os.read(receiver, 100))
        for number in (receiver, *files):
            os.close(number)


def become(program: Program) -> None:
    """Gives this process the streams, the folder and the environment of a program."""
    # First all to numbers that none of them is to have.
    held = {number: _moved_up(file) for number, file in program.files.items()}
    for number, file in held.items():
        os.dup2(file, number, inheritable=True)
        os.close(file)
    os.chdir(program.folder)
    os.environ.clear()
    os.environ.update(program.environment)
    # It may have been looked up before.
    tempfile.tempdir = None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Not the standard error: handlers of logs keep the one they found when they were imported.
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)), sys.stdin.encoding, sys.stdin.errors)
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    output: Any = io.FileIO(1, "w")
    sys.stdout = io.TextIOWrapper(
        output if at_once else io.BufferedWriter(output), sys.stdout.encoding, sys.stdout.errors,
        line_buffering=os.isatty(1), write_through=at_once,
    )  # fmt: skip
    multiprocessing.process.ORIGINAL_DIR = os.getcwd()  # type: ignore[attr-defined]


def _moved_up(file: int) -> int:
    import fcntl

    moved = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 1000)
    os.close(file)
    return moved


def run(arguments: Sequence[str], own_path: Sequence[str]) -> None:
    """Runs a program in this process, which then ends as the program does.

    Args:
        arguments: Those of the interpreter.
        own_path: Where modules are looked for after the folder of the program and `PYTHONPATH`.
    """
    import torch

    # PyTorch replaces its pool of threads after a fork, and fails if two threads ask for it first.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    first, *rest = arguments
    added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if first == "-c":
        sys.path[:] = ["", *added, *own_path]
        sys.argv = ["-c", *rest[1:]]
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif first == "-m":
        sys.path[:] = [os.getcwd(), *added, *own_path]
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[:] = [os.path.dirname(os.path.realpath(first)), *added, *own_path]
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def end(stop: SystemExit) -> None:
    """Ends this process as Python does, except that it does not spend half a second on what the system takes back."""
    if stop.code is not None and not isinstance(stop.code, int):
        raise stop
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        # Python ends with a status of its own then.
        raise stop from None
    os._exit((stop.code or 0) & 0xFF)


if __name__ == "__main__":
    # Ctrl-C is for the process that asks; this one ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import_all()
    gc.collect()
    gc.freeze()
    added_here = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path_here = [path for path in sys.path[1:] if path not in added_here]
    asked_for = next_program(socket.socket(fileno=int(sys.argv[1])))
    if asked_for is None:
        os._exit(0)
    become(asked_for)
    try:
        run(asked_for.arguments, path_here)
    except SystemExit as stop:
        end(stop)
    else:
        end(SystemExit())
