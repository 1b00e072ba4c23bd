"""Colours and fonts of the report, and how matplotlib draws with them."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib

Palette = Mapping[str, str]

LIGHT: Palette = {
    "page": "#ffffff",
    "surface": "#f5f7f9",
    "ink": "#1a2027",
    "muted": "#57626d",
    "grid": "#d5dbe1",
    "accent": "#0a5ea8",
    "bad": "#b3261e",
    "warn": "#fdf3d8",
    "warn-edge": "#b98900",
    "shade": "#1a202738",
    "series-0": "#0a5ea8",
    "series-1": "#c2440c",
    "series-2": "#00786a",
    "series-3": "#8e3a9d",
    "series-4": "#7d6200",
    "series-5": "#51606f",
}
DARK: Palette = {
    "page": "#13171b",
    "surface": "#1c2126",
    "ink": "#e7ebef",
    "muted": "#9fabb6",
    "grid": "#353e47",
    "accent": "#78b9f7",
    "bad": "#ff8f86",
    "warn": "#352b10",
    "warn-edge": "#d9ab34",
    "shade": "#00000080",
    "series-0": "#6db3f5",
    "series-1": "#ff9c66",
    "series-2": "#45cdb3",
    "series-3": "#d99be6",
    "series-4": "#e2c04d",
    "series-5": "#aab6c2",
}
SERIES_COLOURS = 6
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', sans-serif"


def css_variables(palette: Palette) -> str:
    """Returns the declarations of a palette as variables of CSS: `--ink: #1a2027; …`."""
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())


@contextlib.contextmanager
def drawing(settings: Mapping[str, Any]) -> Iterator[None]:
    """Draws with matplotlib's own defaults and these settings, even if the user has set a different style.

    Names of songs are never read as mathematics, and characters that matplotlib's font lacks are no warning.
    """
    complete: dict[Any, Any] = {**matplotlib.rcParamsDefault, "text.parse_math": False, **settings}
    with matplotlib.rc_context(complete), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
