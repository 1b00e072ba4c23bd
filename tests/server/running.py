"""The real command `bsmamba2 open` as a process, and requests to it."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from tests import programs
from tests.conftest import PATIENCE_SECONDS

REPOSITORY = Path(__file__).parents[2]
# Longer segments than those of the tests take less time.
MODEL = ("--model", "tiny.safetensors", "--device", "cpu", "--segment-seconds", "1")
# A name that would run as a program if it were markup.
TITLE = "<img src=x onerror=alert(1)> & Änne 夜"


class Running:
    """The command while it runs.

    Args:
        process: The process.
        log: File with what it prints.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process, self.log = process, log
        wait_for(lambda: "the page is at http" in self.printed() or process.poll() is not None)
        (self.address,) = re.findall(r"the page is at (http://\S+)", self.printed())
        self.site = urlsplit(self.address)

    def printed(self) -> str:
        """Returns what it has printed so far."""
        return self.log.read_text(encoding="utf-8")

    def ask(
        self, method: str, path: str = "", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Returns status, headers and body of an answer; a path that begins with / replaces the one with the token."""
        connection = http.client.HTTPConnection(self.site.hostname or "", self.site.port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            place = path if path.startswith("/") else self.site.path + path
            connection.request(method, place, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def json(self, method: str, path: str, body: object = None) -> Any:
        """Returns the JSON of an answer that is no refusal; None if it is empty."""
        status, _, content = self.ask(method, path, None if body is None else json.dumps(body).encode())
        assert status < 300, content
        return json.loads(content) if content else None

    def send(self, *files: Path, **fields: str) -> list[dict[str, Any]]:
        """Sends songs, and returns them."""
        body, headers = form(*files, **fields)
        status, _, content = self.ask("POST", "songs", body, headers)
        assert status == 201, content
        songs: list[dict[str, Any]] = json.loads(content)["songs"]
        return songs

    def ended(self, song: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a song once it is done, or has failed."""
        wait_for(lambda: self.json("GET", f"songs/{song['id']}")["state"] not in ("waiting", "separating"))
        found: dict[str, Any] = self.json("GET", f"songs/{song['id']}")
        return found

    def worker(self) -> int:
        """Returns the id of the process that computes."""
        listed = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(self.process.pid)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        (pid,) = [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]
        return pid

    def stop(self, number: int = signal.SIGINT) -> int:
        """Returns the exit status after a signal."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)


@contextlib.contextmanager
def running(folder: Path, *arguments: str, fresh: bool = False, **options: Any) -> Iterator[Running]:
    """Gives the command while it runs in a folder, with a folder for temporary files in it; then ends it.

    Args:
        folder: Where it runs.
        arguments: Its arguments.
        fresh: Whether it and the process that computes are new interpreters, instead of copies of one.
        options: More of `subprocess.Popen`.
    """
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    log = folder / f"log-{uuid4().hex}"
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(folder)}
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        environment.pop(name, None)
    with log.open("wb") as written:
        command = [sys.executable, "-m", "bsmamba2", "open", "--no-browser", "--port", "0", *arguments]
        options |= {"cwd": folder, "env": environment, "stdout": written, "stderr": written, "start_new_session": True}
        process = (
            subprocess.Popen(command, **options) if fresh else programs.Popen(command, starts_copies=True, **options)
        )
    try:
        yield Running(process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_SECONDS)


def form(*files: Path, **fields: str) -> tuple[bytes, dict[str, str]]:
    """Returns the body and the headers of a form."""
    boundary = uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for file in files:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="song"; filename="{file.name}"\r\n\r\n'
        parts += [head.encode(), file.read_bytes(), b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits for a condition."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "nothing happened for long"
        time.sleep(0.05)
