"""Programs in processes of their own that start at once: copies of one that has imported all that they need.

They are used like `subprocess`, and are processes like those that it starts: children of this one with their own
streams, folder, environment, session, signals and status. What a test measures from a process's start on, its imports,
its memory or its installation, needs a new interpreter, and so `subprocess`.
"""

import atexit
import ctypes
import inspect
import json
import multiprocessing.util
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

PROJECT = Path(__file__).parents[1]
# Linux alone lets a process take the children of another.
PR_SET_CHILD_SUBREAPER = 36
USUAL_POPEN = subprocess.Popen
USUAL_SPAWN = multiprocessing.util.spawnv_passfds


def read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that Python and its libraries read when they start."""
    beginnings = ("PYTHON", "LC_", "LANG", "MPL", "TORCH", "CXX", "KMP_", "MKL_")
    # PyTorch sets the last one here as soon as a test compiles something, and reads it whenever it compiles.
    given_to_copies = ("PYTHONPATH", "PYTHONUNBUFFERED", "TORCHINDUCTOR_CACHE_DIR")
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(beginnings) and name not in given_to_copies
    }


def without_flags(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of an interpreter without the flags of this one, which `multiprocessing` repeats."""
    flags = interpreter_flags()
    return list(arguments[len(flags) :] if list(arguments[: len(flags)]) == flags else arguments)


def interpreter_flags() -> list[str]:
    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]


class Server:
    """Starts programs; its own process begins with the first one."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self.connection: socket.socket | None = None
        self._lock = threading.Lock()

    def can_start(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Returns whether a copy does what a new interpreter would."""
        arguments = without_flags(command[1:])
        return (
            sys.platform == "linux"
            and command[0] == sys.executable
            and len(arguments) > 0
            and (not arguments[0].startswith("-") or arguments[0] in ("-c", "-m"))
            and read_at_start(environment) == read_at_start(self._environment)
        )

    def start(
        self,
        command: Sequence[str],
        files: Mapping[int, int],
        environment: Mapping[str, str],
        folder: str,
        new_session: bool = False,
        starts_copies: bool = False,
    ) -> int:
        """Returns the process, a child of this one.

        Args:
            command: The interpreter, then its arguments.
            files: The process's open files by their numbers there, each with the one here.
            environment: Its variables.
            folder: Its current folder.
            new_session: Whether it leads a session of its own.
            starts_copies: Whether the processes of Python that it starts are copies too.
        """
        connection = self.connection or self._connected()
        program = {
            "arguments": without_flags(command[1:]), "folder": folder, "environment": dict(environment),
            "numbers": list(files), "new_session": new_session, "starts_copies": starts_copies,
        }  # fmt: skip
        libc = ctypes.CDLL(None)
        with self._lock:
            libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(connection, [json.dumps(program).encode()], list(files.values()))
                return int(connection.recv(100))
            finally:
                libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)

    def _connected(self) -> socket.socket:
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = USUAL_POPEN(
            [sys.executable, *interpreter_flags(), "-m", "tests.program_server", str(theirs.fileno())], cwd=PROJECT,
            env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
        )  # fmt: skip
        theirs.close()
        atexit.register(_end, self.connection, process)
        return self.connection


def _end(connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
    connection.close()
    process.wait()


SERVED = Server()


def serve_by(connection: socket.socket) -> None:
    """Makes all processes of Python that this process starts copies, which a server at the other end makes."""
    SERVED.connection = connection
    subprocess.Popen = Popen  # type: ignore[misc]
    multiprocessing.util.spawnv_passfds = spawn  # type: ignore[assignment]


class Popen(USUAL_POPEN):
    """A program of Python, given as to `subprocess.Popen`; any other is started as usual.

    Args:
        given: Those of `subprocess.Popen`.
        starts_copies: Whether the processes of Python that it starts are copies too.
        options: Those of `subprocess.Popen`.
    """

    def __init__(self, *given: Any, starts_copies: bool = False, **options: Any) -> None:
        self._starts_copies = starts_copies
        super().__init__(*given, **options)

    def _execute_child(self, *given: Any) -> None:
        usual = super()._execute_child  # type: ignore[misc]
        named = inspect.signature(usual).bind(*given).arguments
        words = [named["args"]] if isinstance(named["args"], str | os.PathLike) else named["args"]
        command: list[str] = [os.fspath(word) for word in words]
        environment = os.environ if named["env"] is None else named["env"]
        if named["preexec_fn"] or named["shell"] or not SERVED.can_start(command, environment):
            usual(*given)
            return
        ends = (named["p2cread"], named["c2pwrite"], named["errwrite"])
        files = {number: number if end == -1 else end for number, end in enumerate(ends)}
        files |= {number: number for number in named["pass_fds"]}
        folder = os.fspath(named["cwd"] or os.getcwd())
        self.pid = SERVED.start(command, files, environment, folder, named["start_new_session"], self._starts_copies)
        self._child_created = True
        self._close_pipe_fds(*(named[end] for end in PIPE_ENDS))  # type: ignore[attr-defined]


PIPE_ENDS = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


def run(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Returns what `subprocess.run` does."""
    with mock.patch.object(subprocess, "Popen", Popen):
        return subprocess.run(command, **options)


def spawn(path: bytes, arguments: Sequence[Any], files: Sequence[int]) -> int:
    """Returns a process of `multiprocessing`, as its own function for that does."""
    command = [os.fsdecode(argument) for argument in arguments]
    if not SERVED.can_start(command, os.environ):
        return USUAL_SPAWN(path, arguments, files)
    return SERVED.start(command, {number: number for number in (0, 1, 2, *files)}, os.environ, os.getcwd())
