"""Fetching the file of a published model over HTTP: resumed, verified, one process at a time."""

import logging
import re
import time
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, cast
from urllib import request
from urllib.error import HTTPError, URLError

from tqdm import tqdm

from bsmamba2.errors import InputError
from bsmamba2.system.files import sha256_of
from bsmamba2.weights.registry import PublishedModel

TIMEOUT_SECONDS = 30.0

REQUEST_ATTEMPTS = 4

PAUSE_SECONDS = 1.0

READ_BYTES = 2**18

log = logging.getLogger(__name__)


class _BrokenTransferError(Exception):
    """A transfer broke off and can be resumed; says why."""


def fetch(model: PublishedModel, url: str, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    attempts_left = REQUEST_ATTEMPTS
    with tqdm(
        desc=model.file_name, total=model.size_bytes, unit="B", unit_scale=True, unit_divisor=1024, disable=None
    ) as bar:
        while attempts_left:
            attempts_left -= 1
            try:
                _receive(model, url, part, bar)
                break
            except _BrokenTransferError as error:
                done = f"{url} broke off after {_size_bytes(part)} of {model.size_bytes} bytes: {error}"
                if not attempts_left:
                    raise InputError(
                        f"{done}; run the same command again and it goes on from there, or {by_hand(model)}"
                    ) from error
                log.warning("%s; trying again", done)
                time.sleep(PAUSE_SECONDS)
    sha256 = sha256_of(part)
    if sha256 != model.sha256:
        part.unlink()
        raise InputError(
            f"what came from {url} has the sha256 {sha256} instead of {model.sha256} and was removed; run the same "
            f"command again to fetch it anew, or {by_hand(model)}"
        )
    part.replace(path)


def _receive(model: PublishedModel, url: str, part: Path, bar: "tqdm[Any]") -> None:
    """Appends to the part file what it lacks, in one request."""
    if _size_bytes(part) > model.size_bytes:
        part.unlink()
    offset = _size_bytes(part)
    if offset == model.size_bytes:
        return
    with _answer(model, url, part, offset) as answer:
        start, total = _announced(answer)
        if start is None or start not in (0, offset):
            part.unlink(missing_ok=True)
            raise _BrokenTransferError(f"the server did not go on from byte {offset}")
        if total not in (None, model.size_bytes):
            raise InputError(
                f"{url} has {total} bytes instead of {model.size_bytes}, so it is not the published file; "
                f"{by_hand(model)}"
            )
        received = start
        with part.open("ab" if start else "wb") as file:
            while received <= model.size_bytes:
                bar.update(received - bar.n)
                try:
                    # Returns what is there, so that little is lost when the connection breaks.
                    piece = answer.read1(READ_BYTES)
                except (OSError, HTTPException) as error:
                    raise _BrokenTransferError(_reason(error)) from error
                if not piece:
                    break
                file.write(piece)
                received += len(piece)
    if received > model.size_bytes:
        part.unlink()
        raise InputError(
            f"{url} has more than {model.size_bytes} bytes, so it is not the published file; {by_hand(model)}"
        )
    if received < model.size_bytes:
        raise _BrokenTransferError("the server closed the connection")


def _answer(model: PublishedModel, url: str, part: Path, offset: int) -> HTTPResponse:
    headers = {"User-Agent": "bsmamba2"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        answer = _opener().open(request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        status = f"{error.code} {error.reason}"
        if error.code == 416:
            part.unlink(missing_ok=True)
            raise _BrokenTransferError("the server cannot go on from there") from error
        if error.code >= 500:
            raise _BrokenTransferError(f"the server answered {status}") from error
        raise InputError(f"{url} cannot be fetched, the server answered {status}; {by_hand(model)}") from error
    except URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise InputError(f"{url} cannot be reached ({reason}); check the connection, or {by_hand(model)}") from error
    # While the answer is waited for, urllib lets these through as they are.
    except (OSError, HTTPException) as error:
        raise _BrokenTransferError(_reason(error)) from error
    return cast(HTTPResponse, answer)


def _opener() -> request.OpenerDirector:
    """Returns what urllib has for http and https, and nothing of ftp, file and data, for redirects too."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPRedirectHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _announced(answer: HTTPResponse) -> tuple[int | None, int | None]:
    """Returns where an answer starts in the file and how long the file is; None where the server does not say."""
    if answer.status != 206:
        return 0, answer.length
    match = re.match(r"bytes (\d+)-\d+/(\d+)?", answer.headers.get("Content-Range", ""))
    if not match:
        return None, None
    return int(match[1]), int(match[2]) if match[2] else None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {TIMEOUT_SECONDS:g} s"
    return str(error) or type(error).__name__


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def by_hand(model: PublishedModel) -> str:
    return f"fetch {model.file_name} by hand from {model.source} and give its path with --model"
