"""Copies of this program, each with an output of its own: they start at once, since all is imported already."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch


def start(run: Callable[[], int], log: Path) -> int:
    """Returns the process of a copy that ends with the status that a function returns; its output is in a file."""
    sys.stdout.flush()
    # A signal waits until the copy can answer it: an exception out of this function would run the program's own end.
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    process = os.fork()
    if process == 0:
        # This copy must end here, also after any error.
        status = 70
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, usual)
            # PyTorch replaces its pool of threads after a fork, and fails if two threads ask for it first.
            torch.set_num_threads(1)
            status = run()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        except KeyboardInterrupt:
            status = 130
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    signal.pthread_sigmask(signal.SIG_SETMASK, usual)
    return process


def status_of(process: int, seconds: float) -> int | None:
    """Returns the status that a process ends with, negative for a signal; None if it has not ended by then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None
