"""Programs that are stopped take their temporary files with them, as those that fail do."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

# Asked to end, terminal closed. SIGINT is Python's own KeyboardInterrupt.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def stop(number: int, frame: FrameType | None) -> None:
    """Ends the program by an exception, with the status that a shell gives to a signal."""
    raise SystemExit(128 + number)


@contextlib.contextmanager
def stopped_by_exception(numbers: Sequence[int] = SIGNALS) -> Iterator[None]:
    """Turns signals into SystemExit while the block runs; those that are ignored, as nohup does, stay ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield  # its owner looks after signals
        return
    caught = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, stop) for number in caught}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
