"""Files at URLs, through fsspec: fetched whole and uploaded whole, each error in one sentence."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bsmamba2.errors import InputError
from bsmamba2.system.files import unwritable

WEB = ("http", "https")
# Without a byte from the server for so long, a transfer has failed; as a whole it may take any time.
SILENCE_SECONDS = 30.0


def is_url(text: str) -> bool:
    """Returns whether a text is a URL, such as https://host/song.mp3 or s3://bucket/song.mp3, and not a path."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", text) is not None


def file_name_of(url: str) -> str:
    """Returns the name of the file at a URL."""
    path = unquote(urlsplit(url).path) if url.partition("://")[0].lower() in WEB else url
    return path.rstrip("/").rpartition("/")[2]


def fetch_file(url: str, path: Path) -> None:
    """Writes what is at a URL to a file.

    Raises:
        InputError: There is nothing, or it cannot be fetched whole.
        OutputError: The file cannot be written.
    """
    try:
        path.touch()
    except OSError as error:
        raise unwritable(path, error) from error
    with _reported(url, "fetched"):
        system, place = _opened(url)
        system.get_file(place, str(path))


def upload_file(path: Path, url: str) -> None:
    """Writes a file to a URL, where it replaces what is there.

    Raises:
        InputError: It cannot be written there, or not whole.
    """
    with _reported(url, "written"):
        system, place = _opened(url)
        system.put_file(str(path), place)
    if remote_size_bytes(url) != path.stat().st_size:
        raise InputError(f"{url} has another size than was written; check what else writes there, and retry")


def remote_size_bytes(url: str) -> int | None:
    """Returns the size of a file at a URL; None if there is none.

    Raises:
        InputError: It cannot be asked for.
    """
    with _reported(url, "read"):
        system, place = _opened(url)
        try:
            return int(system.info(place)["size"])
        except FileNotFoundError:
            return None


def _opened(url: str) -> tuple[Any, str]:
    """Returns the file system of a URL and the place there."""
    # Imported only for URLs: what it imports for some of them is optional.
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0].lower()
    options: dict[str, Any] = {"auto_mkdir": True} if protocol in ("file", "local") else {}
    if protocol in WEB:
        from aiohttp import ClientTimeout

        # The default ends every transfer after five minutes.
        timeout = ClientTimeout(total=None, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS)
        options = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    return url_to_fs(url, **options)


@contextlib.contextmanager
def _reported(url: str, done: str) -> Iterator[None]:
    """Raises the errors of the block as sentences."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{url} does not exist; check the address") from error
    except ImportError as error:
        protocol = url.partition("://")[0].lower()
        package = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}.get(protocol, '"bsmamba2[remote]"')
        raise InputError(f"{url} needs a package that is not installed; run pip install {package}") from error
    # Each file system has errors of its own.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InputError(
            f"{url} cannot be {done} ({reason}); check the address, the permissions and the connection"
        ) from error
