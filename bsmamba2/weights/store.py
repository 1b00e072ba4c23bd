"""Where the files of the published models are on this machine: in the package, or in the user's cache."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from bsmamba2.errors import InputError
from bsmamba2.system.files import git_blob_of, make_folder, sha256_of
from bsmamba2.weights.download import by_hand, fetch, wrong_hash
from bsmamba2.weights.registry import PUBLISHED_MODELS, PublishedModel, check_models_exist, published_model

log = logging.getLogger(__name__)

PACKAGED = Path(__file__).parent
NOT_DOWNLOADED, OK = "not downloaded", "ok"
# How far a rounded size may be from that of the file, as a share.
ROUNDED = 0.1


def place_of(model: PublishedModel, folder: Path | None = None) -> Path:
    """Returns the path of a model's file, whether it exists or not.

    Args:
        model: The model.
        folder: Folder of downloaded files, by default in the user's cache.
    """
    if model.packaged:
        return PACKAGED / model.file_name
    return (folder or user_cache_path("bsmamba2", appauthor=False) / "models") / model.file_name


def state_of(model: PublishedModel, path: Path) -> str:
    """Returns the state of a model's file: `not downloaded`, `ok`, or `damaged: ` and what is wrong."""
    try:
        size_bytes = path.stat().st_size
        if model.exact_bytes not in (None, size_bytes):
            return f"damaged: it has {size_bytes} bytes instead of {model.size_bytes}"
        wrong = wrong_hash(model, path)
    except (FileNotFoundError, NotADirectoryError):
        return NOT_DOWNLOADED
    except (OSError, InputError) as error:
        return f"damaged: {error}"
    return f"damaged: it has {wrong}" if wrong else OK


def verify(folder: Path | None = None) -> dict[str, str]:
    """Returns the state of the file of each published model by name, see `state_of` and `place_of`."""
    return {model.name: state_of(model, place_of(model, folder)) for model in PUBLISHED_MODELS.values()}


def damaged_file(model: PublishedModel, path: Path, state: str) -> InputError:
    """Returns the error for a file in a state that is not ok."""
    if model.packaged:
        state = "missing" if state == NOT_DOWNLOADED else state
        return InputError(f"the model file {path} of this package is {state}; install bsmamba2 again")
    again = f"run `bsmamba2 models download {model.name}` to download it again"
    remedy = again if model.urls else "remove it or replace it with a good copy"
    return InputError(f"the cached model file {path} is {state}; {remedy}")


def model_file(name: str, folder: Path | None = None) -> Path:
    """Returns the file of a published model, which is downloaded if it is missing and checked before every use.

    Args:
        name: Name of the model.
        folder: Folder of downloaded files, by default in the user's cache.

    Raises:
        InputError: The model does not exist, its file is damaged or could not be downloaded.
    """
    model = published_model(name)
    path = place_of(model, folder)
    state = state_of(model, path)
    if state == NOT_DOWNLOADED and not model.packaged:
        return download(model, folder)
    if state != OK:
        raise damaged_file(model, path, state)
    return path


def download(model: PublishedModel, folder: Path | None = None) -> Path:
    """Returns the file of a published model once it is complete and has its hash.

    A good file is not downloaded again, a damaged one is replaced, and a broken transfer is resumed. A second process
    that wants the same file waits for the first.

    Args:
        model: What to download.
        folder: Where to put it, by default in the user's cache.

    Raises:
        InputError: It cannot be downloaded or written, or the server has a different file.
    """
    if model.packaged:
        return model_file(model.name)
    if not model.urls:
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
                fetch(model, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free some space or allow writing there, "
            f"or {by_hand(model)}"
        ) from error
    return path


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is downloading %s; waiting for it", path.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def find_model(model: str | Path) -> tuple[Path, PublishedModel | None]:
    """Returns the file for the name of a published model or a path, and the published model that it is; logs which.

    Raises:
        InputError: The model or file does not exist, or the published model cannot be downloaded.
    """
    if str(model) in PUBLISHED_MODELS:
        published = PUBLISHED_MODELS[str(model)]
        larger = "; `bsmamba2 models` lists larger ones" if published.packaged else ""
        log.info("model %s, licence of its weights: %s%s", published.name, published.licence, larger)
        return model_file(published.name), published
    check_models_exist([model])
    path = Path(model)
    known = recognised(path) if path.is_file() else None
    log.info("model %s%s", path, f", which is {known.name}, licence of its weights: {known.licence}" if known else "")
    return path, known


def recognised(path: Path) -> PublishedModel | None:
    """Returns the published model that a file of any name has the bytes of, or None.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise InputError(f"the file {path} cannot be read ({error.strerror}); check the path") from error
    exact: dict[str, PublishedModel] = {}
    rounded: dict[str, PublishedModel] = {}
    for model in PUBLISHED_MODELS.values():
        if model.exact_bytes == size_bytes:
            exact[model.sha256] = model
        elif model.exact_bytes is None and abs(size_bytes / model.size_bytes - 1) < ROUNDED:
            rounded[model.git_blob] = model
    found = exact.get(sha256_of(path)) if exact else None
    return found or (rounded.get(git_blob_of(path)) if rounded else None)
