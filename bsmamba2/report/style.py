"""How matplotlib draws the figures of the report."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib

SERIES_COLOURS = 6


@contextlib.contextmanager
def drawing(settings: Mapping[str, Any]) -> Iterator[None]:
    """Draws with matplotlib's own defaults and these settings, even if the user has set a different style.

    Names of songs are never read as mathematics, and characters that matplotlib's font lacks are no warning.
    """
    complete: dict[Any, Any] = {**matplotlib.rcParamsDefault, "text.parse_math": False, **settings}
    with matplotlib.rc_context(complete), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
