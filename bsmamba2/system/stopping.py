"""Signals as exceptions, so that a program that is stopped removes its temporary files."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

# SIGTERM asks a program to end, SIGHUP reports a closed terminal. Python itself raises KeyboardInterrupt for SIGINT.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

# Time for a library to return from what it has called.
SECONDS_TO_RETURN = 0.05


def stop(number: int, frame: FrameType | None) -> None:
    """Ends the program by an exception, with the status that a shell gives to a signal."""
    raise SystemExit(128 + number)


class DeferredStop:
    """Remembers the first signal to stop until the program can stop without loss; the second one stops it at once.

    Attributes:
        number: The signal that was received, if any.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def listen(self) -> None:
        """Replaces the handlers of signals that stop the program, except those that are ignored, as under nohup."""
        if threading.current_thread() is threading.main_thread():
            numbers = [n for n in (signal.SIGINT, *SIGNALS) if signal.getsignal(n) != signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._handle) for number in numbers}

    def restore(self) -> None:
        """Restores the handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def stop(self) -> None:
        """Ends the program by the exception of the signal that was received, in this process or another."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        stop(self.number or signal.SIGTERM, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        before, self.number = self.number, number
        if before is not None:
            self.stop()


@contextlib.contextmanager
def handlers_restored() -> Iterator[None]:
    """Restores the handlers of signals that stop the program at the end of the block, which a library may replace."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread can handle signals.
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            if handler is not None:  # It is not Python's.
                signal.signal(number, handler)


@contextlib.contextmanager
def stopped_by_exception(numbers: Sequence[int] = SIGNALS) -> Iterator[None]:
    """Turns signals into SystemExit while the block runs, except those that are ignored, as under nohup.

    A KeyboardInterrupt is not lost in a library that ignores exceptions.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread can handle signals.
        return
    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook = lambda kind, error, trace: None if kind is KeyboardInterrupt else hooks[0](kind, error, trace)
    sys.unraisablehook = lambda ignored: _send_again() if ignored.exc_type is KeyboardInterrupt else hooks[1](ignored)
    with handlers_restored():
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, stop)
        try:
            yield
        finally:
            sys.excepthook, sys.unraisablehook = hooks


def _send_again() -> None:
    """Sends SIGINT again, soon: it came while a library called Python, which prints the exception and ignores it."""
    threading.Timer(SECONDS_TO_RETURN, os.kill, (os.getpid(), signal.SIGINT)).start()
