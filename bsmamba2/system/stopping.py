"""Signals as exceptions, so that a program that is stopped removes its temporary files."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

# SIGTERM asks a program to end, SIGHUP reports a closed terminal. Python itself raises KeyboardInterrupt for SIGINT.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


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
def stopped_by_exception(numbers: Sequence[int] = SIGNALS) -> Iterator[None]:
    """Turns signals into SystemExit while the block runs, except those that are ignored, as under nohup."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread can handle signals.
        return
    caught = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in caught}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
