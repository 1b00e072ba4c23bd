"""Text that is safe to print."""

import pytest

from bsmamba2.errors import InputError
from bsmamba2.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\r\tc\x07\x00\x7f", r"a\nb\r\tc\x07\x00\x7f"),
        ("\x9b2J\x85", r"\x9b2J\x85"),
        ("\u202egpj.\u2066mp3\u2028\u200f\ufeff", r"\u202egpj.\u2066mp3\u2028\u200f\ufeff"),
        ("\udcff\ud800", r"\udcff\ud800"),
    ],
)
def test_unsafe_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "text", ["", "Änne – 夜 (Live)", "می\u200cخواهم", "👩\u200d🎤", "a\u00a0b", "e\u0301", r"C:\new"]
)
def test_printable_text_is_unchanged(text: str) -> None:
    assert printable(text) == text


def test_characters_can_be_kept() -> None:
    assert printable("a\nb\x1b", kept="\n") == "a\nb\\x1b"


def test_errors_are_printable() -> None:
    assert str(InputError("song\x1b]0;title\x07.wav is empty")) == r"song\x1b]0;title\x07.wav is empty"
