"""Documents and the texts in the code are plain English: patterns to avoid, each with its reason and an example."""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[1]
PLACES = ("*.md", "docs/*.md", "bsmamba2/**/*.md", ".github/**/*.md", ".github/**/*.yml")
DOCUMENTS = sorted(path for place in PLACES for path in REPOSITORY.glob(place))
PROGRAMS = ("bsmamba2/**/*.py", "benchmarks/*.py", "scripts/**/*.py", "*.py")
MODULES = sorted(path for place in PROGRAMS for path in REPOSITORY.glob(place))
# Nouns before which "training" is an adjective.
OF_TRAINING = "run|step|loop|set|song|excerpt|segment|command|config|module|checkpoint|process|program"


class Pattern(NamedTuple):
    """What to avoid, a sentence that contains it, what to write instead, and whether this applies to code as well."""

    expression: str
    example: str
    reason: str
    in_code: bool = True


PATTERNS = (
    Pattern(r"\bgo(es)? on\b|\bgone on\b|\bgoing on\b", "a killed run goes on", "write resumes or continues"),
    Pattern(r"\bmend(s|ed|ing)?\b", "how to mend it", "write fix"),
    Pattern(r"\b(says?|said|tells?|told)\b", "the file tells its length", "write print, report, list or declare"),
    Pattern(r"\bheard?\b|\bhears\b", "artists it never heard", "write given, played or trained on"),
    Pattern(
        r"\b(lie|lies|lying|stands?|stood)\b", "the page stands beside it", "things simply are somewhere", in_code=False
    ),
    Pattern(r"\bholds?\b", "the folder holds the songs", "write contains, has or stores", in_code=False),
    Pattern(r"\btrainings\b", "18 trainings", "training has no plural: write training runs"),
    Pattern(rf"\ba training\b(?! ({OF_TRAINING})s?\b)", "before a training", "write a training run, or training"),
    # An option of training has this name.
    Pattern(r"\bpictures?\b(?!:)", "pictures and sound", "write figure, image or spectrogram"),
    Pattern(
        r"\b(an)?others?\b[^.;:|]*\bthan\b", "another rate than the song", "write a different … from", in_code=False
    ),
    Pattern(r"\bbeside\b", "its scores beside theirs", "write next to, compared with, in addition to"),
    Pattern(
        r"\bof itself\b|\bby itself\b(?! (as|for))",
        "chosen by itself",
        "write automatically or by default",
        in_code=False,
    ),
    Pattern(r"\banew\b|\bafresh\b", "computed anew", "write again, or from the beginning", in_code=False),
    Pattern(r"\bstops no\b|\bno other\b", "one bad file stops no other", "an aphorism: write what happens"),
    Pattern(
        r"(^|[.!?]\s+|\|\s*|- )(Of|What of|Whose)\b",
        "Of an even count it is the mean.",
        "begin the sentence with its subject",
    ),
    Pattern(r"\b(where|what|who)ever\b", "whatever stopped it", "write any, if, or name the case"),
    Pattern(r"\bthere twice\b", "a track that is there twice", "write duplicated"),
)


# The others also match good code, such as a title with "Lies", "a rate other than" or "instead of itself".
CODE_PATTERNS = tuple(pattern for pattern in PATTERNS if pattern.in_code)


def prose(text: str) -> str:
    """Returns a document without what is not prose: code, commands, addresses; lines keep their numbers."""
    for code in (r"```.*?```", r"`[^`]*`", r"\]\([^)]*\)", r"<!--|-->"):
        text = re.sub(code, lambda match: re.sub(r"[^\n]", "_", match[0]), text, flags=re.DOTALL)
    return text


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yields first line and text of what a module has to read: strings of several words, and blocks of comments."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
    # The lines of a block follow one another.
    for _, block in groupby(enumerate(comments), lambda numbered: numbered[1][0] - numbered[0]):
        (first, _), *_ = lines = [comment for _, comment in block]
        yield first, "\n".join(text.lstrip("#").strip() for _, text in lines)


def findings(text: str, patterns: Iterable[Pattern] = PATTERNS) -> Iterator[tuple[int, str, str]]:
    """Yields line number, words and reason of each pattern in a text, also where a line ends between two words."""
    searched = prose(text)
    for pattern in patterns:
        # "Whose" begins a sentence, "whose" does not.
        flags = re.MULTILINE if pattern.expression.startswith("(^") else re.IGNORECASE
        for match in re.finditer(pattern.expression.replace(" ", r"\s"), searched, flags):
            yield searched.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), pattern.reason


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_documents_are_plain_english(path: Path) -> None:
    name = path.relative_to(REPOSITORY)
    found = sorted(findings(path.read_text(encoding="utf-8")))
    assert not found, "\n" + "\n".join(f"{name}:{line}: {words!r}: {reason}" for line, words, reason in found)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_strings_and_comments_in_the_code_are_plain_english(path: Path) -> None:
    name = path.relative_to(REPOSITORY)
    found = sorted(
        (start + line - 1, words, reason)
        for start, text in texts(path.read_text(encoding="utf-8"))
        for line, words, reason in findings(text, CODE_PATTERNS)
    )
    assert not found, "\n" + "\n".join(f"{name}:{line}: {words!r}: {reason}" for line, words, reason in found)


def test_the_texts_of_code_are_docstrings_messages_and_comments() -> None:
    source = 'def f(x):\n    """How to mend\n    it."""\n    raise ValueError(f"{x} is mended by itself")\n'
    comments = "    # How it\n    # told\nx = 1  # One\n"
    strings = [(2, "How to mend\n    it."), (4, " is mended by itself")]
    assert list(texts(source + comments)) == [*strings, (5, "How it\ntold\nOne")]


def test_the_documents_are_found() -> None:
    names = {str(path.relative_to(REPOSITORY)) for path in [*DOCUMENTS, *MODULES]}
    assert {"README.md", "CONTRIBUTING.md", "docs/training.md", "bsmamba2/weights/small-vocals.md"} <= names
    assert {"bsmamba2/cli.py", "benchmarks/gpu.py", "scripts/default_model/bank.py"} <= names


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.example)
def test_each_pattern_finds_its_example(pattern: Pattern) -> None:
    wrapped = pattern.example.replace(" ", "\n")
    for text in (pattern.example, f"A first line.\n\n{wrapped}"):
        assert pattern.reason in [reason for _, _, reason in findings(text)]
    assert not list(findings(f"```\n{pattern.example}\n```\n`{pattern.example}`"))
