"""What to choose instead of a name that does not exist."""

from collections.abc import Sequence
from difflib import get_close_matches


def nearest(given: str, names: Sequence[str], likeness: float = 0.6) -> str | None:
    """Returns the name that is most similar to a given one, in capitals or not; None if none is.

    Args:
        given: What was typed.
        names: The names that exist.
        likeness: Least share of characters in common, from 0 to 1.
    """
    lower = {name.lower(): name for name in names}
    near = get_close_matches(given.lower(), lower, 1, likeness)
    return lower[near[0]] if near else None


def meant(given: str, names: Sequence[str]) -> str:
    """Returns what to choose instead of a name that does not exist: the most similar one, or any of them."""
    near = nearest(given, names)
    return f"did you mean {near}?" if near else f"choose {', '.join(names)}"
