"""Runs several commands in one process of its own, which takes seconds to start."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.conftest import PATIENCE_SECONDS

PROGRAM = """
import contextlib, io, json, sys
from bsmamba2.cli import main

for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(command)
        except SystemExit as stop:
            status = stop.code
    print(json.dumps([status, errors.getvalue(), [name for name in sys.modules if "." not in name]]))
"""


def answers(
    commands: Sequence[Sequence[str]], folder: Path, environment: Mapping[str, str] = os.environ, *options: str
) -> list[tuple[int, str, list[str]]]:
    """Returns the statuses and standard errors of commands, and the packages that are imported after each.

    Args:
        commands: Arguments behind `bsmamba2`.
        folder: Where they run.
        environment: Its variables.
        options: Of the Python interpreter.
    """
    ended = subprocess.run(
        [sys.executable, *options, "-c", PROGRAM, json.dumps(commands)],
        capture_output=True, text=True, check=False, cwd=folder, env=dict(environment), timeout=PATIENCE_SECONDS,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return [tuple(json.loads(line)) for line in ended.stdout.splitlines()]
