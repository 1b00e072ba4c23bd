"""What the benchmarks have in common as commands: their tables, and how they end."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from bsmamba2.errors import InputError

Row = dict[str, Any]


def exit_status(program: str, run: Callable[[], int | None]) -> int:
    """Returns the status of a run: its own, 1 after an error and 130 after a stop, each with one sentence."""
    try:
        return run() or 0
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return 130


def print_table(title: str, rows: Iterable[Row]) -> list[Row]:
    """Prints rows with the same keys as soon as each is there, and returns them."""
    done: list[Row] = []
    for row in rows:
        widths = [max(12, len(name) + 2, len(cell(value)) + 2) for name, value in row.items()]
        if not done:
            print(f"\n{title}")
            print("".join(f"{name.replace('_', ' '):>{width}}" for name, width in zip(row, widths, strict=True)))
        print("".join(f"{cell(v):>{w}}" for v, w in zip(row.values(), widths, strict=True)), flush=True)
        done.append(row)
    return done


def cell(value: Any) -> str:
    """Returns a value as text, numbers with three digits."""
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    return f"{value:#.3g}".rstrip(".") if isinstance(value, float) else str(value)
