"""The process that computes, as the server sees it."""

import contextlib
import multiprocessing
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from bsmamba2.server.messages import Command, SongSettings, WorkerReport
from bsmamba2.server.worker import run_worker

# Time for the process to remove its temporary files.
SECONDS_TO_END = 3.0


class Computer:
    """A process that separates and mixes.

    Args:
        first: Settings whose models are loaded at once.
        report: Takes each report, in a thread of its own; at last None, when the process has ended.
    """

    def __init__(self, first: SongSettings, report: Callable[[WorkerReport | None], None]) -> None:
        # A process that is forked would share the sockets of the server.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=run_worker, args=(theirs, first), daemon=True)
        self._process.start()
        # The end of the process is noticed by the end of the connection.
        theirs.close()
        threading.Thread(target=_read, args=(self._connection, report), daemon=True).start()

    def send(self, command: Command) -> None:
        """Sends a command; the end of the process, in which it is lost, is reported."""
        with contextlib.suppress(OSError):
            self._connection.send(command)

    def status(self) -> int | None:
        """Returns the exit status of the process that has ended: the number of a signal, negative, if one ended it."""
        self._process.join(SECONDS_TO_END)
        return self._process.exitcode

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()

    def end(self) -> None:
        """Ends the process; a song that it separates is cancelled."""
        # To close the connection would not end it: the thread that reads keeps it open.
        with contextlib.suppress(OSError):
            self._connection.send(None)
        self._process.join(SECONDS_TO_END)
        if self._process.is_alive():
            self.kill()
            self._process.join()


def _read(connection: Connection, report: Callable[[WorkerReport | None], None]) -> None:
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            report(None)
            return
        report(message)
