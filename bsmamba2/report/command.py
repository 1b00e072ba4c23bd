"""The command `bsmamba2 report`."""

from collections.abc import Sequence
from pathlib import Path

from bsmamba2.errors import InputError
from bsmamba2.evaluation.runs import REPORT


def report(
    runs: Sequence[Path], output: Path = Path(REPORT), no_audio: bool = False, overwrite: bool = False
) -> list[Path]:
    """Shows one evaluation, or several side by side, on a page that opens anywhere; returns it and its data in JSON.

    Args:
        runs: Folders that `bsmamba2 evaluate` wrote; the others are compared with the first.
        output: The page, a name that ends in .html; the data lie beside it.
        no_audio: Pictures of the excerpts alone, nothing to listen to.
        overwrite: Replace a page that is already there.

    Raises:
        InputError: A folder holds no results, or the page is already there or cannot be written.
    """
    there = next((path for path in (output, output.with_suffix(".json")) if path.exists()), None)
    if there and not overwrite:
        raise InputError(f"{there} is already there; give another --output, or --overwrite")
    return _write_page(runs, output, audio=not no_audio)


def _write_page(runs: Sequence[Path], output: Path, audio: bool = True) -> list[Path]:
    """Returns the paths of a report and its data, both replaced if they are there; drawing is loaded only here."""
    from bsmamba2.report import write_report

    return write_report(runs, output, audio)
