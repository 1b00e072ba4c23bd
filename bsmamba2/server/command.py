"""The command `bsmamba2 open`: a page on this machine to drop songs on."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from bsmamba2.errors import InputError, UsageError
from bsmamba2.separation.inputs import STANDARD_INPUT, check_any_exists, find_song_files, is_pipe
from bsmamba2.separation.settings import SeparationSettings, StemSettings
from bsmamba2.system.files import check_can_be_made
from bsmamba2.weights.registry import DEFAULT_MODEL, ModelNames, check_models_exist

if TYPE_CHECKING:
    from bsmamba2.server.app import Interface
    from bsmamba2.server.guard import Keys
    from bsmamba2.server.session import Session

# How many ports are tried if the first is in use.
MOST_PORTS = 100
LARGEST_PORT = 2**16 - 1
EVERYWHERE = ("0.0.0.0", "::")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where the page is.

    Args:
        host: Address of this machine at which the page can be reached; by default only from this machine.
        port: Port of the page; if it is in use, the next free one.
        no_browser: Only print the address of the page.
        stay_minutes: Minutes after which the command ends once its page is closed everywhere and nothing is left to
            separate; 0 to wait for Ctrl-C.

    Raises:
        InputError: A value is not allowed.
    """

    host: str = "127.0.0.1"
    port: int = 8642
    no_browser: bool = False
    stay_minutes: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= LARGEST_PORT:
            raise InputError(f"port={self.port} is not allowed; give a number from 0 to {LARGEST_PORT}")
        if not self.stay_minutes >= 0:
            raise InputError(f"stay_minutes={self.stay_minutes} is not allowed; give minutes of at least 0")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the page."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def open_page(
    songs: Sequence[str] = (),
    model: ModelNames = DEFAULT_MODEL,
    output: Path | None = None,
    address: Address = Address(),
    stem_settings: StemSettings = StemSettings(),
    settings: SeparationSettings = SeparationSettings(),
) -> None:
    """Opens a page in the browser to drop songs on, and to listen to, mix and download their stems.

    It is served by this machine and requests nothing from anywhere. Ctrl-C ends it.

    Args:
        songs: Audio or video files, folders or patterns that the page begins with.
        model: The model that is chosen at first: the name of a published one, or a file. Several, given as A,B or one
            by one, separate together.
        output: Folder in which the stems are kept; by default they are deleted at the end.
        address: Where the page is.
        stem_settings: What is chosen at first for the stems.
        settings: How to separate.

    Raises:
        InputError: An option cannot be used, or the page cannot be served.
    """
    if any(song == STANDARD_INPUT or is_pipe(Path(song)) for song in songs):
        raise UsageError("the page cannot read the standard input or another pipe; give files, or drop them on it")
    names = tuple(check_models_exist(model))
    found = find_song_files(songs, output or Path("stems"))
    check_any_exists(found)
    if output is not None:
        check_can_be_made(output)
    # Imported only now, as other extras are.
    from bsmamba2.server.app import Interface
    from bsmamba2.server.folders import session_folder
    from bsmamba2.server.guard import Keys
    from bsmamba2.server.messages import SongSettings
    from bsmamba2.server.session import QueuedSong, Session

    with _listening(address) as listening, session_folder(output) as folder:
        session = Session(folder, output, SongSettings(names, stem_settings, settings))
        given = [
            QueuedSong(song.track, str(song.path), song.folder.parts, song.path, False, session.defaults)
            for song in found
        ]
        interface = Interface(session, address.is_local)
        keys = Keys()

        def begin() -> None:
            for song in given:
                session.add(song)
            port = listening.getsockname()[1]
            _announce(address, port, keys)

        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(interface, session, keys, address, listening, begin))
        any_done = any(song.folder for song in session.songs.values())
    if any_done and output is None:
        log.info("the stems were temporary and have been deleted; give --output to keep them")
    elif any_done:
        log.info("the stems are in %s", output)


async def _serve(
    interface: "Interface",
    session: "Session",
    keys: "Keys",
    address: Address,
    listening: socket.socket,
    begin: Callable[[], None],
) -> None:
    """Serves the page until it is stopped, or has been closed for long enough."""
    import uvicorn

    from bsmamba2.server.guard import LOOPBACK_NAMES, Guard

    loop = asyncio.get_running_loop()

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # The event streams would otherwise keep it from ending.
            loop.call_soon_threadsafe(session.close)
            super().handle_exit(sig, frame)

    guard = Guard(interface.app(), keys, LOOPBACK_NAMES if address.is_local else None)
    server = Server(
        uvicorn.Config(
            guard,
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="asyncio",
            http="h11",
            ws="none",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)

    async def watch() -> None:
        while not server.started:
            await asyncio.sleep(0.02)
        begin()
        while True:
            await asyncio.sleep(1)
            unused = session.seconds_unused()
            if address.stay_minutes and not interface.uploading and (unused or 0) > 60 * address.stay_minutes:
                log.info("the page is closed; this ends")
                session.close()
                server.should_exit = True

    try:
        session.begin()
        watching = asyncio.create_task(watch())
        await server.serve([listening])
        watching.cancel()
    finally:
        session.end()


@contextlib.contextmanager
def _listening(address: Address) -> Iterator[socket.socket]:
    """Gives a socket that listens at the port, or the next free one.

    Raises:
        InputError: The host is none of this machine, or no port is free.
    """
    last = min(address.port + MOST_PORTS, LARGEST_PORT) if address.port else 0
    error: OSError | None = None
    for port in range(address.port, last + 1):
        try:
            family, _, _, _, place = socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM)[0]
            with socket.create_server(place, family=family, backlog=128) as listening:
                # Otherwise an answer of two parts takes 40 ms.
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if port != address.port:
                    log.info("port %d is in use; the page is at port %d", address.port, port)
                yield listening
            return
        except socket.gaierror as unknown:
            raise InputError(
                f"the host {address.host} is unknown ({unknown.strerror}); give an address of this machine"
            ) from unknown
        except PermissionError as denied:
            raise InputError(
                f"the port {port} may not be used here ({denied.strerror}); give a --port from 1024 on"
            ) from denied
        except OSError as occupied:
            error = occupied
            if occupied.errno != errno.EADDRINUSE:
                break
    raise InputError(
        f"the page cannot be served at {address.host}, port {address.port} ({error.strerror if error else ''}); give "
        "another --host or --port"
    )


def _announce(address: Address, port: int, keys: "Keys") -> None:
    """Prints where the page is, and opens it in the browser."""
    from bsmamba2.server.file_manager import has_desktop

    host = socket.gethostname() if address.host in EVERYWHERE else address.host
    site = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if not address.is_local:
        log.warning(
            "everyone who can reach %s over the network and knows the address below can use this page, listen to its "
            "songs and fill the disk; what is sent is not encrypted",
            host,
        )
    log.info("the page is at %s/%s/ (Ctrl-C ends it)", site, keys.token)
    if address.no_browser:
        return
    if not has_desktop():
        log.info("there is no desktop here to open it on; open this address in a browser")
        return

    def show() -> None:
        if not webbrowser.open(f"{site}/start/{keys.ticket}"):
            log.info("no browser was found; open this address in one")

    # A browser may not return until it is closed.
    threading.Thread(target=show, daemon=True).start()
