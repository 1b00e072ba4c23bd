import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from benchmarks.command import Problems, check_positive, exit_status, print_table, run, write_json
from bsmamba2.errors import InputError


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        file: A file.
        seconds: Lengths.
        batches: Sizes, by default as many as fit.
        kinds: Kinds.
        batch_size: A number.
        quick: Whether it is short.
    """

    file: Path
    seconds: Sequence[float] = (1.0, 2.0)
    batches: Sequence[int] | None = None
    kinds: Sequence[Literal["forward", "training"]] = ("forward",)
    batch_size: int = 3
    quick: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "seconds", "batches", "batch_size")


def options_of(*arguments: str) -> Options:
    given: list[Options] = []
    assert run("program.py", "A program.", Options, given.append, arguments) == 0
    return given[0]


def test_options_are_the_fields_of_a_dataclass() -> None:
    assert options_of("a.json") == Options(Path("a.json"), seconds=[1.0, 2.0], kinds=["forward"])
    given = options_of("a.json", "--seconds", "3", "0.5", "--kinds", "training", "--batch-size", "7", "--quick")
    assert given == Options(Path("a.json"), seconds=[3.0, 0.5], kinds=["training"], batch_size=7, quick=True)
    assert options_of("a.json", "--seconds", "--batches", "1", "2") == Options(
        Path("a.json"), seconds=[], batches=[1, 2], kinds=["forward"]
    )


@pytest.mark.parametrize("wrong", [["--nothing"], ["--kinds", "other"], ["--batch_size", "many"]])
def test_wrong_usage_has_status_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options_of("a.json", *wrong)
    assert ended.value.code == 2
    assert wrong[-1].strip("-") in capsys.readouterr().err


def test_the_help_describes_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options_of("--help")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("A program.", "A file.", "Lengths.", "Whether it is short."))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch_size", "0"], "batch_size=0 is not allowed; give values above 0"),
        (["--seconds", "1", "0"], "seconds=[1.0, 0.0] is not allowed; give values above 0"),
        (["--batches", "-1"], "batches=[-1] is not allowed; give values above 0"),
        (["--seconds", ".inf"], "seconds=[inf] is not allowed; give values above 0"),
    ],
)
def test_a_value_out_of_range_is_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Options] = []
    assert run("program.py", "", Options, started.append, ["a.json", *arguments]) == 1
    assert capsys.readouterr().err == f"program.py: error: {message}\n"
    assert not started


def test_a_stop_has_its_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    assert exit_status("program.py", stopped) == 130
    assert capsys.readouterr().err == "program.py: stopped\n"


def test_a_problem_is_printed_and_kept_and_the_rest_continues(capsys: pytest.CaptureFixture[str]) -> None:
    problems = Problems("program.py")
    with problems.skipping("one"):
        raise InputError("a file is missing")
    with problems.skipping("two", Exception):
        raise ValueError("line one\nline two")
    with pytest.raises(ValueError, match="a bug"), problems.skipping("three"):
        raise ValueError("a bug")
    assert problems.messages == ["a file is missing", "two failed with ValueError (line one)"]
    assert capsys.readouterr().err == "".join(f"program.py: error: {message}\n" for message in problems.messages)


def test_a_table_has_a_line_per_row_and_dashes_for_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "one", "long_value": 123456, "times": [1]}, {"name": "two", "share": 0.12345}]
    assert print_table("Title", iter(rows), ["name", "long_value", "share"]) == rows
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        [],
        ["Title"],
        ["name", "long", "value", "share"],
        ["one", "123456", "-"],
        ["two", "-", "0.123"],
    ]


def test_results_replace_a_file(tmp_path: Path) -> None:
    write_json(None, {})
    for number in range(2):
        write_json(tmp_path / "new" / "results.json", {"number": number})
    assert json.loads((tmp_path / "new" / "results.json").read_text(encoding="utf-8")) == {"number": 1}
