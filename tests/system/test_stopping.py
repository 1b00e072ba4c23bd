import os
import signal
import subprocess
import sys
import threading

import pytest

from bsmamba2.system.stopping import SIGNALS, stopped_by_exception


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process at once")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_block_by_an_exception(number: int) -> None:
    before = signal.getsignal(number)
    signal.signal(number, signal.SIG_DFL)  # It may be ignored where the tests run.
    try:
        with pytest.raises(SystemExit) as stopped, stopped_by_exception():
            signal.raise_signal(number)
        assert stopped.value.code == 128 + number
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process at once")
def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(SIGNALS[0], signal.SIG_IGN)
    try:
        with stopped_by_exception():
            signal.raise_signal(SIGNALS[0])
            assert signal.getsignal(SIGNALS[0]) == signal.SIG_IGN
    finally:
        signal.signal(SIGNALS[0], before)


def test_other_threads_leave_signals_alone() -> None:
    found: list[object] = []

    def work() -> None:
        with stopped_by_exception():
            found.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(number) for number in SIGNALS]


IGNORED = """
import ctypes, os, signal, sys, time
from bsmamba2.system.stopping import stopped_by_exception

@ctypes.CFUNCTYPE(None)
def call():
    os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with stopped_by_exception():
        call()
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit(9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT between processes")
def test_an_interrupt_is_not_lost_in_a_library_that_calls_python() -> None:
    done = subprocess.run([sys.executable, "-c", IGNORED], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stderr) == (9, "")
