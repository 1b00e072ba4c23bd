import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bsmamba2.errors import OutputError
from bsmamba2.system.standard_output import checked_output
from tests import programs

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
COMMANDS = [
    *(["--help"], ["--version"], ["models"], ["separate", "--help"]),
    ["train", "--config", "tiny", "--print_config"],
]


def run(command: list[str], stdout: int | None, **environment: str) -> tuple[int, list[str]]:
    """Runs a command and returns its status and the lines of its standard error."""
    done = programs.run(
        [sys.executable, "-m", "bsmamba2", *command],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        preexec_fn=(lambda: os.close(1)) if stdout is None else None,
        check=False,
    )
    return done.returncode, done.stderr.splitlines()


@needs_full
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_behind_the_standard_output_is_one_sentence(command: list[str]) -> None:
    with open("/dev/full", "w") as full:
        status, shown = run(command, full.fileno())
    assert status == 1
    assert shown[-1].startswith("bsmamba2: error: the standard output cannot be written (No space left on device);")
    assert "Traceback" not in "".join(shown)


@needs_full
def test_a_full_disk_is_noticed_without_a_buffer() -> None:
    with open("/dev/full", "w") as full:
        status, shown = run(["models"], full.fileno(), PYTHONUNBUFFERED="1")
    assert (status, len(shown)) == (1, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="closes a descriptor as shells of Unix do")
def test_a_closed_standard_output_is_no_error() -> None:
    """As in programs without a console."""
    assert run(["models"], None) == (0, [])


@pytest.mark.parametrize(("command", "expected"), [(["models"], 0), (["train", "--help"], 0), ([], 2)])
def test_a_reader_that_stops_is_no_error(command: list[str], expected: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert run(command, writing) == (expected, [])
    finally:
        os.close(writing)


def test_characters_that_the_output_does_not_have_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with checked_output():
        sys.stdout.write("Sóley \udcff\n")
    assert written.getvalue() == b"S\\xf3ley \\udcff\n"


@needs_full
def test_what_is_buffered_is_written_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OutputError, match="cannot be written"), checked_output():
            sys.stdout.write("text")
            # It is only noticed when the buffer is written.
