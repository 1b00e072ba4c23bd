"""Downloading the file of a published model over HTTP: broken transfers are resumed, size and hash are checked."""

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
from bsmamba2.system.console import progress_bar
from bsmamba2.system.files import flush_and_rename, git_blob_of, sha256_of
from bsmamba2.weights.registry import PublishedModel

# Without a byte from the server for so long, the transfer counts as broken.
TIMEOUT_SECONDS = 30.0
REQUEST_ATTEMPTS = 4
PAUSE_SECONDS = 1.0
READ_BYTES = 2**18
LARGEST_OVER_ROUNDED = 2

log = logging.getLogger(__name__)


class _BrokenTransferError(Exception):
    """A transfer broke off and can be resumed; the message is the reason."""


class _FailedAddressError(Exception):
    """An address does not give the file, and asking it again would not help now; the message is the reason."""

    remedy = ""


class _UnreachableError(_FailedAddressError):
    remedy = "check the connection, or "


class _OftenBrokenError(_FailedAddressError):
    remedy = "run the same command again to resume, or "


def fetch(model: PublishedModel, path: Path) -> None:
    """Downloads a file that has the size and the hash of a model, from the first of its addresses that has it.

    What was received before is in `*.part` next to it; a file whose size is only known rounded is received from its
    beginning. Only one process may do this at a time.

    Raises:
        InputError: No address can be reached, or each breaks off too often or has a different file.
        OSError: The file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    failures: list[_FailedAddressError] = []
    options: dict[str, Any] = {"total": model.size_bytes, "unit": "B", "unit_scale": True, "unit_divisor": 1024}
    bar: tqdm[Any]
    with progress_bar(None, model.file_name, **options) as bar:
        for place, url in enumerate(model.urls, 1):
            try:
                _fetch_from(url, model, part, bar)
            except _FailedAddressError as failure:
                failures.append(failure)
                if place < len(model.urls):
                    log.warning("%s; trying %s", failure, model.urls[place])
            else:
                flush_and_rename(part, path)
                return
    remedy = next((failure.remedy for failure in failures if failure.remedy), "")
    raise InputError(f"{'; '.join(map(str, failures))}; {remedy}{by_hand(model, path.parent)}") from failures[-1]


def wrong_hash(model: PublishedModel, path: Path) -> str:
    """Returns which hash a file has instead of that of a model, as a noun phrase; empty if it has that.

    Raises:
        InputError: The file cannot be read.
    """
    kind, stated = model.stated_hash
    found = sha256_of(path) if model.sha256 else git_blob_of(path)
    return "" if found == stated else f"the {kind} {found} instead of {stated}"


def by_hand(model: PublishedModel, folder: Path | None = None) -> str:
    """Returns what to do if the file of a model cannot be downloaded, as a clause.

    Args:
        model: The model.
        folder: Where its file is looked for, if it can be put there.
    """
    put = f"put it into {folder}, or " if folder else ""
    return f"fetch {model.file_name} by hand from {model.source} and {put}give its path with --model"


def _fetch_from(url: str, model: PublishedModel, part: Path, bar: "tqdm[Any]") -> None:
    """Completes the part file from one address."""
    resumed = _size_bytes(part) > 0
    for attempt in range(1, REQUEST_ATTEMPTS + 1):
        try:
            _receive(model, url, part, bar)
            break
        except _BrokenTransferError as error:
            done = f"{url} broke off after {_size_bytes(part)} of {model.size_bytes} bytes: {error}"
            if attempt == REQUEST_ATTEMPTS:
                raise _OftenBrokenError(done) from error
            log.warning("%s; trying again", done)
            time.sleep(PAUSE_SECONDS)
    wrong = wrong_hash(model, part)
    if not wrong:
        return
    part.unlink()
    wrong = f"the file from {url} has {wrong} and was removed"
    if not resumed:
        raise _FailedAddressError(wrong)
    # The wrong bytes may be those of an earlier transfer, perhaps from a different address.
    log.warning("%s; downloading all of it", wrong)
    _fetch_from(url, model, part, bar)


def _receive(model: PublishedModel, url: str, part: Path, bar: "tqdm[Any]") -> None:
    """Appends to the part file what is missing, in one request."""
    exact = model.exact_bytes
    if exact is None or _size_bytes(part) > exact:
        part.unlink(missing_ok=True)
    offset = _size_bytes(part)
    if offset == exact:
        return
    with _answer(url, part, offset) as answer:
        start, total = _range_of(answer)
        if start not in (0, offset):
            part.unlink(missing_ok=True)
            raise _BrokenTransferError(f"the server did not resume from byte {offset}")
        if exact is not None and total not in (None, exact):
            raise _FailedAddressError(
                f"{url} has {total} bytes instead of {model.size_bytes}, so it is not the published file"
            )
        received = start
        # A file whose size is only known rounded may have any size near it.
        largest = exact or LARGEST_OVER_ROUNDED * model.size_bytes
        with part.open("ab" if start else "wb") as file:
            while received <= largest:
                bar.update(received - bar.n)
                try:
                    # Returns what has arrived, so that little is lost if the connection breaks.
                    piece = answer.read1(READ_BYTES)
                except (OSError, HTTPException) as error:
                    raise _BrokenTransferError(_reason(error)) from error
                if not piece:
                    break
                file.write(piece)
                received += len(piece)
    if received > largest:
        part.unlink()
        raise _FailedAddressError(
            f"{url} has more than {largest} bytes, so it is not the published file; what was downloaded was removed"
        )
    if received < (exact or total or 0):
        raise _BrokenTransferError("the server closed the connection")


def _answer(url: str, part: Path, offset: int) -> HTTPResponse:
    """Returns the answer to a request for a file from an offset on."""
    headers = {"User-Agent": "bsmamba2"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        answer = _opener().open(request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        status = f"{error.code} {error.reason}"
        if error.code == 416:
            part.unlink(missing_ok=True)
            raise _BrokenTransferError("the server cannot resume from there") from error
        if error.code >= 500:
            raise _BrokenTransferError(f"the server answered {status}") from error
        raise _FailedAddressError(f"{url} cannot be downloaded, the server answered {status}") from error
    except URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise _UnreachableError(f"{url} cannot be reached ({reason})") from error
    # urllib does not wrap the errors that occur while it waits for the answer.
    except (OSError, HTTPException) as error:
        raise _BrokenTransferError(_reason(error)) from error
    return cast(HTTPResponse, answer)


def _opener() -> request.OpenerDirector:
    """Returns an opener for http and https alone, also after redirects: no ftp, file and data."""
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


def _range_of(answer: HTTPResponse) -> tuple[int, int | None]:
    """Returns where an answer starts in the file, -1 if this cannot be read, and the size of the file if known."""
    if answer.status != 206:
        return 0, answer.length
    match = re.match(r"bytes (\d+)-\d+/(\d+)?", answer.headers.get("Content-Range", ""))
    if not match:
        return -1, None
    return int(match[1]), int(match[2]) if match[2] else None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing arrived for {TIMEOUT_SECONDS:g} s"
    return str(error) or type(error).__name__


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
