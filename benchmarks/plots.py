"""Speed and memory against the length of audio, the batch and the threads, from the results of the benchmark.

python -m benchmarks.plots results.json results.png
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.command import Row, run
from bsmamba2.errors import InputError
from bsmamba2.report.plots import MARKERS
from bsmamba2.system.files import complete_file

# What varies from left to right, and at which of its values the other columns are.
PANEL_COLUMNS = {
    "audio_seconds": ("length of audio in s", max),
    "batch": ("pieces of audio in a batch", min),
    "threads": ("threads", max),
}
LINES = {
    "times_bound": "time / bound",
    "audio_per_second": "seconds of audio per second",
    "peak_memory_mib": "peak memory in MiB",
}
CURVES = {"network": "one pass", "files": "file"}


@dataclass(frozen=True)
class Options:
    """What to draw.

    Args:
        results: File that `benchmark_mamba_ssm.py --json` wrote.
        figure: File of the figure as PNG; an existing one is replaced.
    """

    results: Path
    figure: Path


def draw_results(results: dict[str, Any], path: Path) -> None:
    """Writes a figure of the tables of the network and of whole files, as PNG.

    Args:
        results: What `benchmark_mamba_ssm.py` writes as JSON.
        path: File of the figure; an existing one is replaced.

    Raises:
        InputError: The results have nothing to draw, or the file cannot be written.
    """
    figure = Figure(figsize=(12, 9), layout="constrained")
    panels = figure.subplots(len(LINES), len(PANEL_COLUMNS), squeeze=False)
    try:
        curves = [(name, rows) for table, name in CURVES.items() if (rows := results.get(table))]
        if not curves:
            raise InputError("the results have no times of the network or of files; measure some with --seconds")
        for row, (value, label) in enumerate(LINES.items()):
            for column, (axis, (axis_label, _)) in enumerate(PANEL_COLUMNS.items()):
                axes = panels[row][column]
                lines = [line for name, rows in curves for line in curves_of(name, rows, axis, value)]
                for (name, xs, ys), marker in zip(lines, MARKERS * len(lines), strict=False):
                    axes.plot(xs, ys, marker=marker, label=name)
                axes.set_xlabel(axis_label)
                axes.set_ylabel(label)
                axes.set_ylim(0, 1.1 * max((y for _, _, ys in lines for y in ys), default=1))
                axes.grid(alpha=0.4)
                if axis == "audio_seconds":
                    axes.set_xscale("log")
                ticks = sorted({x for _, xs, _ in lines for x in xs})
                axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
                axes.minorticks_off()
        environment = results["environment"]
        figure.suptitle(f"{environment['device']}, {environment['processor']}, torch {environment['torch']}", wrap=True)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"these are not results of benchmark_mamba_ssm.py ({error!r}); give its JSON file") from error
    panels[0][0].legend()
    with complete_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def curves_of(name: str, rows: list[Row], axis: str, value: str) -> list[tuple[str, list[float], list[float]]]:
    """Returns the curves of a value along an axis, (label, x, y), one for each precision, eager and compiled.

    The other axes are held at the longest audio, the smallest batch and the most threads.
    """
    held = {other: choose(row[other] for row in rows) for other, (_, choose) in PANEL_COLUMNS.items() if other != axis}
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row[value] is not None and all(row[other] == setting for other, setting in held.items()):
            label = f"{name}, {row['precision']}, {'compiled' if row['compiled'] else 'eager'}"
            curves.setdefault(label, []).append((row[axis], row[value]))
    return [(label, [x for x, _ in sorted(points)], [y for _, y in sorted(points)]) for label, points in curves.items()]


def benchmark(options: Options) -> None:
    """Draws a file of results.

    Raises:
        InputError: The file cannot be read, contains something else, or the figure cannot be written.
    """
    try:
        results = json.loads(options.results.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{options.results} cannot be read as JSON ({error}); give a file of the benchmark") from error
    draw_results(results, options.figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws a file of results and returns the exit status."""
    return run("plots.py", __doc__, Options, benchmark, arguments)


if __name__ == "__main__":
    sys.exit(main())
