"""Tables of text for terminals."""

import unicodedata
from collections.abc import Collection, Sequence

from bsmamba2.printable import printable

LONGEST_NAME = 40


def text_table(rows: Sequence[Sequence[str]], left: Collection[int] = (0,), longest_name: int = LONGEST_NAME) -> str:
    """Returns lines of aligned columns, two spaces apart; headings are simply the first row.

    Characters that would break a line or move the cursor are escaped. Each column is as wide as its widest cell.

    Args:
        rows: Cells by row; all rows have the same length.
        left: Numbers of the columns that are aligned to the left, from 0; the rest is aligned to the right.
        longest_name: Width at which cells of the first column are cut, with an ellipsis.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    cells = [[_cut(name, longest_name), *rest] for name, *rest in cells]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell + padding if place in left else padding + cell
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            for padding in [" " * (width - _width(cell))]
        ).rstrip()
        for row in cells
    )


def _cut(text: str, longest: int) -> str:
    if _width(text) <= longest:
        return text
    while _width(text) > longest - 1:
        text = text[:-1]
    return f"{text}…"


def _width(text: str) -> int:
    """Returns the number of columns that text takes in a terminal."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
