"""Models that are downloaded because somebody agreed to it on the page."""

import threading
from typing import Any

from bsmamba2.errors import InputError
from bsmamba2.server.offers import is_here
from bsmamba2.weights.registry import published_model
from bsmamba2.weights.store import download, place_of


class Downloads:
    """The downloads of a session, each in a thread of its own; one that is interrupted is resumed the next time."""

    def __init__(self) -> None:
        self._running: set[str] = set()
        self._problems: dict[str, str] = {}

    def begin(self, name: str) -> None:
        """Begins to download a published model, if it is not there and not on its way.

        Raises:
            InputError: There is no such model.
        """
        model = published_model(name)
        if name in self._running or is_here(model):
            return
        self._running.add(name)
        self._problems.pop(name, None)

        def run() -> None:
            try:
                download(model)
            except InputError as error:
                self._problems[name] = str(error)
            finally:
                self._running.discard(name)

        # It does not keep the program from ending.
        threading.Thread(target=run, daemon=True).start()

    def state(self, name: str) -> dict[str, Any]:
        """Returns whether a model is here or on its way, the share of it that is, and why it could not be downloaded.

        Raises:
            InputError: There is no such model.
        """
        model = published_model(name)
        part = place_of(model).with_name(f"{model.file_name}.part")
        try:
            received = part.stat().st_size
        except OSError:
            received = 0
        here = is_here(model)
        return {
            "name": name,
            "here": here and name not in self._running,
            "running": name in self._running,
            "share": 1.0 if here else min(1.0, received / model.size_bytes),
            "problem": self._problems.get(name, ""),
        }
