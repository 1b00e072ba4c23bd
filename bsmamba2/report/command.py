"""The command `bsmamba2 report`."""

from collections.abc import Sequence
from pathlib import Path

from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import Results
from bsmamba2.evaluation.runs import REPORT
from bsmamba2.report.page_names import check_page_name
from bsmamba2.system.files import check_can_be_made


def report(
    runs: Sequence[Path], output: Path = Path(REPORT), no_audio: bool = False, overwrite: bool = False
) -> list[Path]:
    """Writes one HTML page about one or several evaluations, and its data as JSON.

    Returns the paths of both.

    Args:
        runs: Folders that `bsmamba2 evaluate` wrote; all are compared with the first.
        output: The page, a name that ends in .html; its data is written next to it as .json.
        no_audio: Show the excerpts as spectrograms only, without audio.
        overwrite: Replace an existing page.

    Raises:
        InputError: A folder has no results, or the page already exists or cannot be written.
    """
    check_page_name(output)
    for run in runs:
        Results.read(run)
    existing = next((path for path in (output, output.with_suffix(".json")) if path.exists()), None)
    if existing and not overwrite:
        raise InputError(f"{existing} already exists; give another --output, or --overwrite")
    check_can_be_made(output.parent)
    # Drawing is imported only when it is needed.
    from bsmamba2.report.page import write_report

    return write_report(runs, output, audio=not no_audio)
