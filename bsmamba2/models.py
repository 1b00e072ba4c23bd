"""The registry of published models: the one in the package, and those that are downloaded."""

import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http.client import HTTPException, HTTPResponse
from json import dumps
from pathlib import Path
from typing import Any, cast
from urllib import request
from urllib.error import HTTPError, URLError

from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from tqdm import tqdm

from bsmamba2.errors import InputError
from bsmamba2.files import make_folder

TIMEOUT_SECONDS = 30.0
ATTEMPTS = 4
PAUSE_SECONDS = 1.0
READ_BYTES = 2**18
NOT_DOWNLOADED, OK = "not downloaded", "ok"
# Where the weights in the package lie.
PACKAGED = Path(__file__).parent / "weights"
DEFAULT_MODEL, FULL_SIZE_MODEL = "mini-vocals", "msst-vocals"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedModel:
    """Weights that someone published.

    Args:
        name: What the model is called here.
        file_name: What its file is called there, and in the cache.
        stems: What it estimates.
        parameters: How many parameters it has.
        size_bytes: Size of the file.
        sha256: Hash of the file, in hexadecimal.
        source: Where it comes from: a web page, or this package.
        url: Where the file is fetched from; None where it cannot be fetched.
        licence: Licence of the weights.
        scores: Published scores by what they measure.
        note: What one should know, as a clause.
        packaged: Whether the file is part of this package.
    """

    name: str
    file_name: str
    stems: tuple[str, ...]
    parameters: int
    size_bytes: int
    sha256: str
    source: str
    url: str | None
    licence: str
    scores: dict[str, float]
    note: str
    packaged: bool = False


PUBLISHED: dict[str, PublishedModel] = {
    model.name: model
    for model in (
        PublishedModel(
            name=DEFAULT_MODEL,
            file_name="mini-vocals.safetensors",
            stems=("vocals",),
            parameters=5_408_724,
            size_bytes=10_853_216,
            sha256="f5e6f55efb026697e938307f909b6c5a147394cdc73342c7890449a0c3351cac",
            source="this package; its model card mini-vocals.md lies beside it",
            url=None,
            licence="CC BY-NC-SA 4.0, non-commercial use only",
            scores={"cSDR, median of 7 MUSDB18 previews (dB)": 2.73, "uSDR, median of 7 MUSDB18 previews (dB)": 3.34},
            note="a small network in this package, trained on thirteen minutes of music",
            packaged=True,
        ),
        PublishedModel(
            name=FULL_SIZE_MODEL,
            file_name="bs_mamba2_vocals.ckpt",
            stems=("vocals",),
            parameters=48_098_188,
            size_bytes=192_610_602,
            sha256="fceb733b41742abb8df563092f4cb5bbc9243c6c03e7f34dc44c14e60732c72f",
            source="https://github.com/ZFTurbo/Music-Source-Separation-Training/releases/tag/v1.0.19",
            url="https://github.com/ZFTurbo/Music-Source-Separation-Training/releases/download/v1.0.19/"
            "bs_mamba2_vocals.ckpt",
            licence="unstated",
            scores={"SDR on its own benchmark (dB)": 8.82},
            note="the community release, trained on the 100 songs of MUSDB18 with another recipe than the paper's",
        ),
        PublishedModel(
            name="official-vocals",
            file_name="sota_model.ckpt",
            stems=("vocals",),
            parameters=48_098_188,
            size_bytes=770_628_060,
            sha256="b1fcf93fdd6f7bc79e5410b1330b3d0fd5a6ca6ea23a94730c684629c71cd5ca",
            source="https://github.com/EuiYeonKim/BSMamba2",
            url=None,
            licence="unstated",
            scores={"cSDR, MUSDB18-HQ test, vocals (dB)": 11.03, "uSDR, MUSDB18-HQ test, vocals (dB)": 10.70},
            note="the authors' checkpoint, whose link has served an empty file since July 2026",
        ),
    )
}


class _BrokenTransferError(Exception):
    """A transfer broke off and can be resumed; says why."""


def list_models(json: bool = False) -> str:
    """Returns all that is known of the published models, and where this machine has them, as a table.

    Args:
        json: Whether it is JSON for programs instead.
    """
    paths = {model.name: _place(model, None) for model in PUBLISHED.values()}
    places = {name: str(path) if path.is_file() else None for name, path in paths.items()}
    if json:
        return _to_json([asdict(model) | {"path": places[model.name]} for model in PUBLISHED.values()])
    return "\n\n".join(_description(model, places[model.name]) for model in PUBLISHED.values())


def download_model(name: str, json: bool = False) -> str:
    """Downloads a published model to the user's cache and returns where it lies; a damaged file there is replaced.

    The one in the package is there already, and only checked.

    Args:
        name: Name of the model.
        json: Whether the answer is JSON for programs.

    Raises:
        InputError: There is no such model, or it could not be fetched.
    """
    model = _published(name)
    path = download(model)
    if json:
        return _to_json({"name": name, "path": str(path), "size_bytes": model.size_bytes, "sha256": model.sha256})
    return f"{name} is complete in {path} ({model.size_bytes:,} bytes, sha256 {model.sha256})"


def verify_models(json: bool = False) -> str:
    """Returns the state of each published model in the package and the user's cache: not downloaded, or ok.

    Args:
        json: Whether the answer is JSON for programs.

    Raises:
        InputError: A file is damaged.
    """
    states = verify()
    damaged = [
        str(_damaged(PUBLISHED[name], _place(PUBLISHED[name], None), state))
        for name, state in states.items()
        if not (state == OK or (state == NOT_DOWNLOADED and not PUBLISHED[name].packaged))
    ]
    if damaged:
        raise InputError("; ".join(damaged))
    return _to_json(states) if json else "\n".join(f"{name}: {state}" for name, state in states.items())


def model_file(name: str, folder: Path | None = None) -> Path:
    """Returns the file of a published model, which is downloaded if it is not there and checked before every use.

    Args:
        name: Name of the model.
        folder: Where downloaded files lie, by default in the user's cache.

    Raises:
        InputError: There is no such model, its file is damaged or could not be fetched.
    """
    model = _published(name)
    path = _place(model, folder)
    state = _state(model, path) if model.url or model.packaged else NOT_DOWNLOADED
    if state == NOT_DOWNLOADED and not model.packaged:
        return download(model, folder)
    if state != OK:
        raise _damaged(model, path, state)
    return path


def download(model: PublishedModel, folder: Path | None = None) -> Path:
    """Returns the file of a published model once it lies in the folder, complete and with its hash.

    A file that already is so is not fetched again, a damaged one is replaced, and a broken transfer goes on where it
    broke off. A second process that wants the same file waits for the first.

    Args:
        model: What to fetch.
        folder: Where to put it, by default in the user's cache.

    Raises:
        InputError: It cannot be fetched or written, or what came is not the published file.
    """
    if model.packaged:
        return model_file(model.name)
    if model.url is None:
        raise InputError(
            f"{model.name} cannot be downloaded: it is {model.note}; if you have {model.file_name}, run "
            f"`bsmamba2 convert {model.file_name} vocals.safetensors` and give --model vocals.safetensors"
        )
    path = _place(model, folder)
    try:
        make_folder(path.parent)
    except InputError as error:
        raise InputError(f"{error}, or {_by_hand(model)}") from error
    try:
        with _locked(path):
            if _state(model, path) != OK:
                _fetch(model, model.url, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free some space or allow writing there, "
            f"or {_by_hand(model)}"
        ) from error
    return path


def find_model(model: str | Path) -> Path:
    """Returns the file that is meant by the name of a published model or by a path, and says which model it is.

    Raises:
        InputError: There is neither, or the published model cannot be had.
    """
    if str(model) in PUBLISHED:
        published = PUBLISHED[str(model)]
        full_size = f"; --model {FULL_SIZE_MODEL} is the full-size published one" if published.packaged else ""
        log.info("model %s, licence of its weights: %s%s", published.name, published.licence, full_size)
        return model_file(published.name)
    path = Path(model)
    if not path.exists():
        raise InputError(
            f"the model {model} is neither a file nor a published model; check the path, or give one of "
            f"{', '.join(PUBLISHED)}"
        )
    known = recognised(path) if path.is_file() else None
    log.info("model %s%s", path, f", which is {known.name}, licence of its weights: {known.licence}" if known else "")
    return path


def recognised(path: Path) -> PublishedModel | None:
    """Returns the published model whose bytes a file has, under whatever name, or None.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise InputError(f"the file {path} cannot be read ({error.strerror}); check the path") from error
    candidates = {model.sha256: model for model in PUBLISHED.values() if model.size_bytes == size_bytes}
    return candidates.get(sha256_of(path)) if candidates else None


def verify(folder: Path | None = None) -> dict[str, str]:
    """Returns the state of each published model in a folder, by default the user's cache, or in the package.

    A state is `not downloaded`, `ok`, or `damaged: ` and what is wrong.
    """
    return {model.name: _state(model, _place(model, folder)) for model in PUBLISHED.values()}


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"the file {path} cannot be read ({error.strerror}); check the path") from error


def _published(name: str) -> PublishedModel:
    if name not in PUBLISHED:
        raise InputError(f"there is no published model {name!r}; choose one of {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def _place(model: PublishedModel, folder: Path | None) -> Path:
    if model.packaged:
        return PACKAGED / model.file_name
    return (folder or user_cache_path("bsmamba2", appauthor=False) / "models") / model.file_name


def _state(model: PublishedModel, path: Path) -> str:
    try:
        size_bytes = path.stat().st_size
        if size_bytes != model.size_bytes:
            return f"damaged: it has {size_bytes} bytes instead of {model.size_bytes}"
        sha256 = sha256_of(path)
    except (FileNotFoundError, NotADirectoryError):
        return NOT_DOWNLOADED
    except (OSError, InputError) as error:
        return f"damaged: {error}"
    return OK if sha256 == model.sha256 else f"damaged: it has the sha256 {sha256} instead of {model.sha256}"


def _damaged(model: PublishedModel, path: Path, state: str) -> InputError:
    if model.packaged:
        state = "missing" if state == NOT_DOWNLOADED else state
        return InputError(f"the model file {path} of this package is {state}; install bsmamba2 again")
    anew = f"run `bsmamba2 models download {model.name}`, which fetches it anew"
    remedy = anew if model.url else "remove it or replace it by a good copy"
    return InputError(f"the cached model file {path} is {state}; {remedy}")


def _by_hand(model: PublishedModel) -> str:
    return f"fetch {model.file_name} by hand from {model.source} and give its path with --model"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is fetching %s; waiting for it", path.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(model: PublishedModel, url: str, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    attempts_left = ATTEMPTS
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
                        f"{done}; run the same command again and it goes on from there, or {_by_hand(model)}"
                    ) from error
                log.warning("%s; trying again", done)
                time.sleep(PAUSE_SECONDS)
    sha256 = sha256_of(part)
    if sha256 != model.sha256:
        part.unlink()
        raise InputError(
            f"what came from {url} has the sha256 {sha256} instead of {model.sha256} and was removed; run the same "
            f"command again to fetch it anew, or {_by_hand(model)}"
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
                f"{_by_hand(model)}"
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
            f"{url} has more than {model.size_bytes} bytes, so it is not the published file; {_by_hand(model)}"
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
        raise InputError(f"{url} cannot be fetched, the server answered {status}; {_by_hand(model)}") from error
    except URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise InputError(f"{url} cannot be reached ({reason}); check the connection, or {_by_hand(model)}") from error
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


def _to_json(content: object) -> str:
    return dumps(content, indent=2, ensure_ascii=False)


def _description(model: PublishedModel, place: str | None) -> str:
    rows = {
        "what": model.note,
        "stems": ", ".join(model.stems),
        "parameters": f"{model.parameters:,}",
        "file": f"{model.file_name}, {model.size_bytes:,} bytes",
        "sha256": model.sha256,
        "source": model.source,
        "licence": model.licence,
        **{what: f"{score:.2f}" for what, score in model.scores.items()},
        "here": place or "no",
    }
    return "\n".join([model.name, *(f"  {name:36} {value}" for name, value in rows.items())])
