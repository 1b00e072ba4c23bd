"""Tables of text for terminals."""

import pytest

from bsmamba2.text_table import text_table


def test_columns_are_aligned() -> None:
    rows = [["name", "score", "note"], ["a", "-1.50", "short"], ["long name", "", ""]]
    assert text_table(rows, left=(0, 2)).split("\n") == [
        "name       score  note",
        "a          -1.50  short",
        "long name",
    ]
    assert text_table([["a", "1"], ["b", "10"]]) == "a   1\nb  10"


def test_wide_and_combining_characters_are_aligned() -> None:
    """A terminal shows 夜 in two columns and a combining accent in none."""
    assert text_table([["夜", "1"], ["e\u0301", "2"], ["abc", "3"]]) == "夜   1\ne\u0301    2\nabc  3"


@pytest.mark.parametrize(
    ("name", "shown"), [("abcdef", "abcdef"), ("abcdefg", "abcde…"), ("夜夜夜", "夜夜夜"), ("夜夜夜夜", "夜夜…")]
)
def test_long_names_are_cut(name: str, shown: str) -> None:
    assert text_table([[name, "a long cell is kept"]], longest_name=6) == f"{shown}  a long cell is kept"


def test_every_row_is_one_printable_line() -> None:
    table = text_table([["new\nline", "\x1b[2J"], ["tab\t", "\udcff"]])
    assert table.split("\n") == [r"new\nline  \x1b[2J", r"tab\t       \udcff"]


def test_rows_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        text_table([["a", "b"], ["a"]])


def test_no_rows_give_no_text() -> None:
    assert text_table([]) == ""
