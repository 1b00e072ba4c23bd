"""Text that is safe to print: the names of files, and tags, can contain characters that control a terminal."""

import unicodedata

# Controls, invisible formats such as the direction of text, lone surrogates, and separators of lines.
UNSAFE_CATEGORIES = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])
# They only join letters, or the parts of an emoji.
JOINERS = "\u200c\u200d"


def printable(text: str, kept: str = "") -> str:
    r"""Returns text in one line, with unsafe characters as Python writes them: `\x1b`, `\n`, `\u202e`.

    Printable text is returned unchanged.

    Args:
        text: The text.
        kept: Unsafe characters to keep, such as the ends of lines.
    """
    return "".join(
        character
        if character in kept or unicodedata.category(character) not in UNSAFE_CATEGORIES or character in JOINERS
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
