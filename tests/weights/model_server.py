"""A web server on this machine that has a file, such as that of a model, and misbehaves as requested."""

import contextlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CONTENT = random.Random(0).randbytes(300_000)
PIECE_BYTES = 8192


@dataclass
class Remote:
    """What the server sends, how it misbehaves, and the requests it received.

    Args:
        url: Address of the file.
        content: Bytes of the file.
        ranges: Whether requests for a range are answered with this range.
        statuses: Error statuses of the next answers.
        breaks_after: Most bytes that are sent in one answer.
        stalls: Whether the connection stays open after these, without a byte.
        announces: Whether a Content-Length is sent.
        content_range: Content-Range that is sent instead of the true one.
        missing: Paths that are answered with 404.
        missing_after: Number of requests for a path after which it is answered with 404.
        wrong: Bytes that are sent for some paths instead of the content.
        location: Where the next request is redirected to.
        requests: Path and Range header of all requests.
        sent: How many bytes each of them received.
        released: Ends all stalls.
    """

    url: str
    content: bytes = CONTENT
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    breaks_after: int = 10**9
    stalls: bool = False
    announces: bool = True
    content_range: str | None = None
    missing: set[str] = field(default_factory=set)
    missing_after: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, bytes] = field(default_factory=dict)
    location: str | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def asked_ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]


class Server(ThreadingHTTPServer):
    remote: Remote


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        remote = self.server.remote
        asked = self.headers["Range"]
        remote.requests.append((self.path, asked))
        remote.sent.append(0)
        if remote.location:
            location, remote.location = remote.location, None
            self.send_response(302)
            self.send_header("Location", location)
            self.end_headers()
            return
        asked_before = sum(path == self.path for path, _ in remote.requests) - 1
        if self.path in remote.missing or asked_before > remote.missing_after.get(self.path, asked_before):
            self.send_error(404)
            return
        content = remote.wrong.get(self.path, remote.content)
        if remote.statuses:
            self.send_error(remote.statuses.pop(0))
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and remote.ranges else 0
        body = content[start:]
        self.send_response(206 if asked and remote.ranges else 200)
        if asked and remote.ranges:
            size = len(content)
            self.send_header("Content-Range", remote.content_range or f"bytes {start}-{size - 1}/{size}")
        if remote.announces:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send_body(remote, body[: remote.breaks_after])

    def send_body(self, remote: Remote, body: bytes) -> None:
        index = len(remote.sent) - 1
        try:
            for position in range(0, len(body), PIECE_BYTES):
                piece = body[position : position + PIECE_BYTES]
                # Counted first: as soon as the client has the last piece, the test may look at the count.
                remote.sent[index] += len(piece)
                self.wfile.write(piece)
        except (BrokenPipeError, ConnectionResetError):
            return
        if remote.stalls:
            remote.released.wait(60)

    def log_message(self, format: str, *values: object) -> None:
        pass


@contextlib.contextmanager
def running_server(file_name: str) -> Iterator[Server]:
    """Gives a server of a file while the block runs."""
    with Server(("127.0.0.1", 0), Handler) as server:
        server.remote = Remote(f"http://127.0.0.1:{server.server_port}/{file_name}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.remote.released.set()
            server.shutdown()
            thread.join()


def part_of(folder: Path) -> Path:
    return folder / "weights.ckpt.part"


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"weights.ckpt.lock"}
