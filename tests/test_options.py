from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from bsmamba2.errors import InputError, UsageError
from bsmamba2.options import command_parser, grouped


@dataclass(frozen=True)
class Frame:
    """How a print is framed.

    Args:
        wood: Kind of wood.
        width_mm: Width of the frame in
            millimetres.
        glass: Put glass in front.
    """

    wood: Literal["oak", "ash"] = "oak"
    width_mm: float | None = None
    glass: bool = False

    def __post_init__(self) -> None:
        if self.width_mm is not None and self.width_mm <= 0:
            raise InputError(f"width_mm={self.width_mm} is not allowed")


def hang(prints: Sequence[str], room: Path = Path("hall"), frame: Frame = Frame(), lit: bool = False) -> None:
    """Hangs prints on a wall.

    Args:
        prints: What to hang.
        room: Where to hang it.
        frame: How it is framed.
        lit: Light it.
    """


PRINTS = {"positional": True, "nargs": "+", "metavar": "PRINT", "type": str}


def parsed(*arguments: str, **special: Any) -> dict[str, Any]:
    parser = command_parser("hang", hang, {"prints": PRINTS, **special}, ["hang a"], {"--nail": "glue"})
    return parser.options(arguments)


def test_fields_of_a_dataclass_are_options_in_addition_to_the_parameters() -> None:
    options = parsed("a", "b", "--wood", "ash", "--width_mm=3", "--lit", "--glass", "--room", "attic")
    assert options == {"prints": ["a", "b"], "room": Path("attic"), "frame": Frame("ash", 3.0, True), "lit": True}


def test_defaults_are_those_of_the_signature_and_the_dataclass() -> None:
    assert parsed("a") == {"prints": ["a"], "room": Path("hall"), "frame": Frame(), "lit": False}


def test_special_options_are_returned_too() -> None:
    special = {"no_nails": {"action": "store_true", "help": "Glue it."}, "wood": {"type": str.lower}}
    assert parsed("a", "--no_nails", "--wood", "ASH", **special)["no_nails"]
    assert parsed("a", "--wood", "ASH", **special)["frame"] == Frame("ash")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["a", "--wood", "iron"], UsageError, "^--wood: there is no 'iron'; choose oak, ash"),
        (["a", "--wood", "Oak"], UsageError, r"there is no 'Oak'; did you mean oak\?$"),
        (["a", "--frame.wood", "ash"], UsageError, r"there is no option --frame\.wood; see bsmamba2 hang --help"),
        (["a", "--width_m=3"], UsageError, r"there is no option --width_m; did you mean --width-mm\?$"),
        (["a", "--nail", "3"], UsageError, "there is no option --nail; use glue$"),
        (["a", "--width-mm", "wide"], UsageError, "^--width-mm: 'wide' is not a number; see bsmamba2 hang --help$"),
        (["a", "-b"], UsageError, "there is no option -b; write -- before a name that begins with -$"),
        ([], UsageError, "^PRINT is missing; see"),
        (["a", "--width_mm", "-1"], UsageError, r"^--width-mm -1\.0 is not allowed$"),
        (["a", "--room"], UsageError, "^--room needs a value; see"),
        (["a", "--lit=no"], UsageError, "^--lit takes no value, but 'no' was given; see"),
    ],
)
def test_values_that_are_not_allowed(arguments: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parsed(*arguments)


def test_the_help_has_the_texts_of_both_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("Hangs prints on a wall.", "Where to hang it.", "Kind of wood.", "Width of the frame in millimetres."):
        assert text in shown
    assert "usage: bsmamba2 hang PRINT... [options]" in shown
    assert "--width-mm NUMBER" in shown
    assert "Kind of wood. (default: oak)" in shown
    assert "hang a" in shown
    assert "How a print is framed:" in shown
    assert "How it is framed." not in shown


def test_names_and_options_may_be_given_in_any_order() -> None:
    options = parsed("a", "--lit", "b", "--", "--c")
    assert options["prints"] == ["a", "b", "--c"]
    assert options["lit"]


def test_options_that_are_left_out_take_the_default_of_their_dataclass() -> None:
    assert grouped(hang, {"prints": ["a"], "glass": True}) == {"prints": ["a"], "frame": Frame(glass=True)}
