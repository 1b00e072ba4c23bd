"""The terminal that a command runs in: progress, its log, and what to do if there is none."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from tqdm import tqdm

from bsmamba2.printable import printable


def progress_bar(items: Iterable[Any] | None, title: str, **options: Any) -> "tqdm[Any]":
    """Returns a bar on the standard error, which is shown only in a terminal.

    Args:
        items: What to count while it is iterated over, or None.
        title: What is shown before the bar.
        **options: Other options of tqdm.
    """
    # With disable=None tqdm asks the standard error, which does not exist in programs without a console.
    shown: dict[str, Any] = {"disable": True if sys.stderr is None else None} | options
    return tqdm(items, printable(title), **shown)


def open_missing_streams() -> None:
    """Opens the standard streams that are closed, on nothing.

    Otherwise the next file that is opened gets the number of a closed one, and libraries would print into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


@contextlib.contextmanager
def log_shown(name: str) -> Iterator[None]:
    """Shows a log on the standard error while the block runs, and makes all logs and warnings printable.

    Args:
        name: Name of the logger.
    """
    log, console = logging.getLogger(name), logging.StreamHandler()
    console.setFormatter(_Formatter())
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(console)
    record, warning = logging.getLogRecordFactory(), warnings.formatwarning
    logging.setLogRecordFactory(_PrintableRecord)
    warnings.formatwarning = lambda *args, **options: printable(warning(*args, **options), kept="\n")
    try:
        yield
    finally:
        warnings.formatwarning = warning
        logging.setLogRecordFactory(record)
        log.removeHandler(console)


class _PrintableRecord(logging.LogRecord):
    """A line of any log; other libraries log tables of several lines."""

    def getMessage(self) -> str:  # noqa: N802
        return printable(super().getMessage(), kept="\n")


class _Formatter(logging.Formatter):
    """Formats a message in one line, and a traceback below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))

    def formatException(  # noqa: N802
        self, error: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        return printable(super().formatException(error), kept="\n")
