"""Copies of a process are programs like those that a new interpreter runs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import programs

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux lets a process take the children of another"
)
STATE = """
import json, os, signal, sys
import __main__
print(json.dumps({
    "name": [__name__, __main__.__name__], "arguments": sys.argv, "first folder": sys.path[0], "folder": os.getcwd(),
    "path": [path for path in sys.path if path.startswith("/a")], "variables": dict(os.environ),
    "parent": os.getppid(), "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "input": [sys.stdin.read(), sys.stdin.seekable(), sys.stdin.isatty()], "encoding": sys.stdout.encoding,
    "buffered": [sys.stdout.line_buffering, sys.stdout.write_through],
    "signals": [str(signal.getsignal(number)) for number in (2, 13, 15)], "masked": list(signal.pthread_sigmask(0, [])),
    "open": sorted(int(number) for number in os.listdir("/proc/self/fd"))[:3],
}))
print("at the end", file=sys.stderr)
"""
Run = Callable[..., subprocess.CompletedProcess[Any]]


@pytest.fixture(params=["code", "file", "module"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Returns the command of a program that prints its state, as code, as a file and as a module."""
    (tmp_path / "state.py").write_text(STATE)
    given = {"code": ["-c", STATE], "file": ["state.py"], "module": ["-m", "state"]}[request.param]
    return [sys.executable, *given, "one", "--two"]


@pytest.mark.parametrize("new_session", [False, True])
def test_a_copy_has_the_state_of_a_new_process(command: list[str], new_session: bool, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": "/a:/ab", "A_VARIABLE": "value"}
    outputs = []
    for run in (subprocess.run, programs.run):
        ended = run(
            command, cwd=tmp_path, env=environment, input="given\n", capture_output=True, text=True,
            start_new_session=new_session, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        outputs.append((json.loads(ended.stdout), ended.stderr))
    assert outputs[0] == outputs[1]
    assert outputs[1][0]["parent"] == os.getpid()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("", 0), ("sys.exit(300)", 44), ("sys.exit('why')", 1), ("sys.exit(None)", 0), ("raise KeyError", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT), ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("os.kill(os.getpid(), 15)", -signal.SIGTERM), ("os._exit(7)", 7),
        ("atexit.register(print, 'later'); print('now'); sys.exit(3)", 3),
        ("threading.Thread(target=lambda: (time.sleep(0.1), print('later'))).start()", 0),
    ],
)  # fmt: skip
def test_a_copy_ends_like_a_new_process(code: str, status: int) -> None:
    command = [sys.executable, "-c", f"import atexit, os, sys, threading, time\n{code}"]
    real, copy = (run(command, capture_output=True, text=True, check=False) for run in (subprocess.run, programs.run))
    assert (copy.returncode, copy.stdout) == (real.returncode, real.stdout)
    assert copy.returncode == status
    assert copy.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]


def test_a_copy_has_imported_what_the_commands_need() -> None:
    code = "import sys; print({'torch', 'lightning', 'torch._dynamo', 'museval', 'bsmamba2.cli'} <= set(sys.modules))"
    assert programs.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


def test_a_compiler_that_was_used_here_needs_no_new_process() -> None:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", os.environ.copy())
        cache_dir()
        used = dict(os.environ)
    code = "import sys; print('torch' in sys.modules)"
    assert programs.run([sys.executable, "-c", code], capture_output=True, text=True, env=used).stdout == "True\n"


def test_flags_of_this_python_need_no_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of variables such as PYTHONDONTWRITEBYTECODE, too."""
    monkeypatch.setattr(programs, "interpreter_flags", lambda: ["-B"])
    code = "import sys; print('torch' in sys.modules, sys.argv)"
    for flags, copied in (["-B"], True), (["-I"], False):
        ended = programs.run([sys.executable, *flags, "-c", code, "given"], capture_output=True, text=True)
        assert ended.stdout == f"{copied} ['-c', 'given']\n"


def test_what_changes_python_itself_needs_a_new_process() -> None:
    code = "import sys; print('torch' in sys.modules, sys.flags.optimize)"
    changed = os.environ | {"PYTHONOPTIMIZE": "1"}
    ended = programs.run([sys.executable, "-c", code], capture_output=True, text=True, env=changed)
    assert ended.stdout == "False 1\n"


def test_the_group_of_a_copy_is_killed_with_the_copies_that_it_starts() -> None:
    waiting = "import sys; print(1, flush=True); sys.stdin.read()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {waiting!r}])"
    with programs.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True, starts_copies=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        os.killpg(process.pid, signal.SIGKILL)
        # The end of the pipe, which both have.
        assert process.stdout.read() == ""
    assert process.returncode == -signal.SIGKILL
