"""How the report writes values."""

import math
from collections.abc import Mapping
from typing import Any

from bsmamba2.evaluation.scores import SCORES


def number(value: float, digits: int = 2) -> str:
    """Returns a number with a true minus sign, "∞" for infinity and a dash for NaN."""
    if math.isnan(value):
        return "–"
    text = "∞" if math.isinf(value) else f"{abs(value):.{digits}f}"
    return f"−{text}" if value < 0 and text.strip("0.") else text


def sort_key(value: float) -> str:
    """Returns a number as the page's program reads it to sort a table; empty for NaN."""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return "" if math.isnan(value) else str(value)


def capital(text: str) -> str:
    """Returns text with a capital first letter and the rest unchanged."""
    return text[:1].upper() + text[1:]


def clock(seconds: float) -> str:
    """Returns a time as minutes:seconds, with tenths of a second if they are not 0; a dash for NaN."""
    if math.isnan(seconds):
        return "–"
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}".removesuffix(".0")


def p_value(value: float) -> str:
    """Returns a probability with three decimals."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plain(value: Any) -> str:
    """Returns a value of a description as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {plain(item)}" for name, item in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "–" if value is None else str(value)


def score_title(stem: str, score: str, what: str) -> str:
    """Returns the title of a plot of a score."""
    return f"{stem}: {SCORES[score].label} {what}"


def score_axis(score: str) -> str:
    """Returns the label of an axis of a score: its name and unit."""
    return f"{SCORES[score].label}, {SCORES[score].unit}" if SCORES[score].unit else SCORES[score].label
