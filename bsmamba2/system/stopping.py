"""Signals as exceptions, so that a program that is stopped removes its temporary files."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

# SIGTERM asks a program to end, SIGHUP reports a closed terminal. Python itself raises KeyboardInterrupt for SIGINT.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def stop(number: int, frame: FrameType | None) -> None:
    """Ends the program by an exception, with the status that a shell gives to a signal."""
    raise SystemExit(128 + number)


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
