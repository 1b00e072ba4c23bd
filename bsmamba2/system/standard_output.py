"""The standard output, whose errors are one sentence: it may be a full disk, closed, or without Unicode."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from bsmamba2.errors import OutputError


class ReaderGoneError(Exception):
    """The reader of the standard output, such as head, has stopped."""


class _CheckedOutput:
    """The standard output, which reports what cannot be written.

    Args:
        stream: What Python writes to; None if it is closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes text; characters that the output does not have are escaped."""
        if self._stream is None:
            raise OutputError("the standard output is closed; send it to a file or a terminal")
        with self._reported():
            try:
                self._stream.write(text)
            except UnicodeEncodeError as error:
                self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered."""
        if self._stream is not None:
            with self._reported():
                self._stream.flush()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Python would fail again when it writes the rest at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if isinstance(error, BrokenPipeError):
                raise ReaderGoneError from error
            raise OutputError(
                f"the standard output cannot be written ({error.strerror}); free some space, or send it elsewhere"
            ) from error


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Reports what cannot be written to the standard output while the block runs, and at its end.

    Raises:
        OutputError: It is closed, or what it leads to is full.
        ReaderGoneError: Nobody reads it any more.
    """
    checked = _CheckedOutput(sys.stdout)
    with contextlib.redirect_stdout(checked):
        try:
            yield
        # argparse ends the program after it has printed the help.
        except SystemExit as stop:
            if not stop.code:
                checked.flush()
            raise
        checked.flush()
