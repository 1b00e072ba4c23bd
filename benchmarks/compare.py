"""Compares two runs of `benchmark_mamba_ssm.py`, for instance before and after a change.

    make benchmark-quick RESULT=before.json
    make benchmark-quick RESULT=after.json
    python -m benchmarks.compare before.json after.json

A ratio is the new time over the old one. In `ratio_of_bounds`, each time is first divided by what its matrix products
would take at the rate that was measured with it, so that a machine that became slower does not matter. The noise is
that of both runs together; a smaller change is none. Exit status: 0 done, 1 a file cannot be read, or they have no row
in common, 2 wrong usage.
"""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import Row, print_table, run
from bsmamba2.errors import InputError

TABLES = ("scans", "mixers", "network", "files")
# These identify a row of a table; everything else in it is measured.
SETTINGS = ("scan", "over", "rows", "length", "audio_seconds", "batch", "threads", "precision", "compiled")


@dataclass(frozen=True)
class Options:
    """What to compare.

    Args:
        old: Results to compare with.
        new: Results to compare.
    """

    old: Path
    new: Path


def benchmark(options: Options) -> None:
    """Prints the ratios.

    Raises:
        InputError: A file cannot be read, or they have no row in common.
    """
    ratios = list(compared(read(options.old), read(options.new)))
    if not ratios:
        raise InputError(
            f"{options.old} and {options.new} have measured nothing in common; give results of the same options"
        )
    print_table(f"Times of {options.new} over those of {options.old}", ratios)


def read(path: Path) -> dict[str, Any]:
    """Returns the results in a file.

    Raises:
        InputError: It cannot be read, or has other contents.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a file of benchmark_mamba_ssm.py --json") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(table), list) for table in TABLES):
        raise InputError(f"{path} has other contents; give a file of benchmark_mamba_ssm.py --json")
    return content


def compared(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Row]:
    """Yields the ratio of each row that two results have in common."""
    for table in TABLES:
        before = {_setting(row): row for row in old[table]}
        for row in new[table]:
            if (was := before.get(_setting(row))) is None:
                continue
            ratio = row["seconds"] / was["seconds"]
            of_bounds = row["times_bound"] / was["times_bound"]
            noise = math.hypot(row.get("spread", math.nan), was.get("spread", math.nan))
            change = "" if not abs(of_bounds - 1) > noise else "slower" if of_bounds > 1 else "faster"
            yield {
                "what": " ".join([table, *(f"{name}={value}" for name, value in _setting(row))]),
                "old_seconds": was["seconds"],
                "new_seconds": row["seconds"],
                "ratio": ratio,
                "ratio_of_bounds": of_bounds,
                "noise": noise,
                "change": change,
            }


def _setting(row: Row) -> tuple[tuple[str, Any], ...]:
    return tuple((name, row[name]) for name in SETTINGS if name in row)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    return run("compare.py", __doc__, Options, benchmark, arguments)


if __name__ == "__main__":
    sys.exit(main())
