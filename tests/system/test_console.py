import logging
import subprocess
import sys
import warnings

import pytest

from bsmamba2.system.console import log_shown, progress_bar

NAME = "a\x1b[31m\n\x9b\u202e\udcff"
ESCAPED = r"a\x1b[31m\n\x9b\u202e\udcff"


def test_a_log_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("test_console")
    with log_shown("test_console"):
        log.info("song %s", NAME)
        try:
            raise ValueError(NAME)
        except ValueError:
            log.exception("failed: %s", NAME)
        log.info(warnings.formatwarning(NAME, UserWarning, "file", 1, ""))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [f"song {ESCAPED}", f"failed: {ESCAPED}", "Traceback (most recent call last):"]
    assert all(line.isprintable() for line in lines)
    assert not log.handlers
    assert logging.getLogRecordFactory() is logging.LogRecord


def test_other_logs_are_printable_too() -> None:
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("lightning.test")
    log.addHandler(handler)
    with log_shown("test_console"):
        log.warning("two\nlines %s", "\x1b")
    log.removeHandler(handler)
    assert records == ["two\nlines \\x1b"]


def test_a_bar_without_a_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress_bar([1, 2], "title")) == [1, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such descriptors")
@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_no_file_gets_the_number_of_a_closed_stream(closed: str) -> None:
    code = """
import os, sys
from bsmamba2.system.console import open_missing_streams
open_missing_streams()
print("printed")
print("printed", file=sys.stderr, flush=True)
sys.exit(100 + os.open(sys.executable, os.O_RDONLY))
"""
    process = subprocess.run(["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, code], check=False)
    assert process.returncode > 102
