"""The files of published models on this machine: in the package, or in the user's cache."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from bsmamba2.errors import InputError
from bsmamba2.system.files import make_folder, sha256_of
from bsmamba2.weights.download import by_hand, fetch
from bsmamba2.weights.registry import FULL_SIZE_MODEL, PUBLISHED_MODELS, PublishedModel, published_model

log = logging.getLogger(__name__)


NOT_DOWNLOADED, OK = "not downloaded", "ok"

# Where the weights in the package lie.
PACKAGED = Path(__file__).parent


def model_file(name: str, folder: Path | None = None) -> Path:
    """Returns the file of a published model, which is downloaded if it is not there and checked before every use.

    Args:
        name: Name of the model.
        folder: Where downloaded files lie, by default in the user's cache.

    Raises:
        InputError: There is no such model, its file is damaged or could not be fetched.
    """
    model = published_model(name)
    path = place_of(model, folder)
    state = state_of(model, path) if model.url or model.packaged else NOT_DOWNLOADED
    if state == NOT_DOWNLOADED and not model.packaged:
        return download(model, folder)
    if state != OK:
        raise damaged_file(model, path, state)
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
    path = place_of(model, folder)
    try:
        make_folder(path.parent)
    except InputError as error:
        raise InputError(f"{error}, or {by_hand(model)}") from error
    try:
        with _locked(path):
            if state_of(model, path) != OK:
                fetch(model, model.url, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free some space or allow writing there, "
            f"or {by_hand(model)}"
        ) from error
    return path


def find_model(model: str | Path) -> Path:
    """Returns the file that is meant by the name of a published model or by a path, and says which model it is.

    Raises:
        InputError: There is neither, or the published model cannot be had.
    """
    if str(model) in PUBLISHED_MODELS:
        published = PUBLISHED_MODELS[str(model)]
        full_size = f"; --model {FULL_SIZE_MODEL} is the full-size published one" if published.packaged else ""
        log.info("model %s, licence of its weights: %s%s", published.name, published.licence, full_size)
        return model_file(published.name)
    path = Path(model)
    if not path.exists():
        raise InputError(
            f"the model {model} is neither a file nor a published model; check the path, or give one of "
            f"{', '.join(PUBLISHED_MODELS)}"
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
    candidates = {model.sha256: model for model in PUBLISHED_MODELS.values() if model.size_bytes == size_bytes}
    return candidates.get(sha256_of(path)) if candidates else None


def verify(folder: Path | None = None) -> dict[str, str]:
    """Returns the state of each published model in a folder, by default the user's cache, or in the package.

    A state is `not downloaded`, `ok`, or `damaged: ` and what is wrong.
    """
    return {model.name: state_of(model, place_of(model, folder)) for model in PUBLISHED_MODELS.values()}


def place_of(model: PublishedModel, folder: Path | None) -> Path:
    if model.packaged:
        return PACKAGED / model.file_name
    return (folder or user_cache_path("bsmamba2", appauthor=False) / "models") / model.file_name


def state_of(model: PublishedModel, path: Path) -> str:
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


def damaged_file(model: PublishedModel, path: Path, state: str) -> InputError:
    if model.packaged:
        state = "missing" if state == NOT_DOWNLOADED else state
        return InputError(f"the model file {path} of this package is {state}; install bsmamba2 again")
    anew = f"run `bsmamba2 models download {model.name}`, which fetches it anew"
    remedy = anew if model.url else "remove it or replace it by a good copy"
    return InputError(f"the cached model file {path} is {state}; {remedy}")


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
