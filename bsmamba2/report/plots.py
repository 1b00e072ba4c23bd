"""Plots of the report: SVG images, each drawn for light and for dark pages."""

import base64
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from bsmamba2.evaluation.statistics import Summary
from bsmamba2.player.palette import DARK, FONTS, LIGHT
from bsmamba2.printable import printable
from bsmamba2.report.style import SERIES_COLOURS, drawing

LINE_STYLES = ("solid", "dashed", "dotted")
MARKERS = ("o", "s", "^", "D", "v", "P")
# In pixels of the page.
PANEL_WIDTH, TIMELINE_WIDTH = 470, 940
LONGEST_LABEL = 26
# Above these, a plot shows only the outliers, or the largest differences: a thousand tracks would take megabytes.
MOST_POINTS, MOST_BARS = 200, 60


@dataclass(frozen=True)
class Series:
    """What is drawn in one colour.

    Args:
        label: Its name.
        number: Number of its colour; None for rows that others are only judged against.
    """

    label: str
    number: int | None = None

    @property
    def colour(self) -> str:
        """Its colour on a light page."""
        return LIGHT["muted" if self.number is None else f"series-{self.number % SERIES_COLOURS}"]

    @property
    def css_class(self) -> str:
        """Its class in the page, which sets the same colour."""
        return "scale" if self.number is None else f"s{self.number % SERIES_COLOURS}"

    @property
    def line_style(self) -> str:
        """The style of its line, which distinguishes it without colour."""
        return "dotted" if self.number is None else LINE_STYLES[self.number % len(LINE_STYLES)]


@dataclass(frozen=True)
class Plot:
    """A plot for light and dark pages.

    Args:
        title: What it shows, as a text alternative.
        light: SVG with dark ink.
        dark: SVG with light ink.
        note: What is left out or drawn elsewhere; may be empty.
    """

    title: str
    light: str
    dark: str
    note: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the page."""
        width, height = self.light.partition('viewBox="0 0 ')[2].partition('"')[0].split()
        return round(float(width)), round(float(height))

    @property
    def addresses(self) -> tuple[str, str]:
        """The images as data URLs, light and dark."""
        light, dark = (base64.b64encode(svg.encode()).decode("ascii") for svg in (self.light, self.dark))
        return f"data:image/svg+xml;base64,{light}", f"data:image/svg+xml;base64,{dark}"


@dataclass(frozen=True)
class CaptionedPlot:
    """A plot as it appears in the page.

    Args:
        plot: The plot.
        caption: Text below it.
        legend: Series to explain below it.
    """

    plot: Plot
    caption: str
    legend: tuple[Series, ...] = ()


def box_plot(title: str, axis: str, values: Mapping[Series, Sequence[float]]) -> Plot | None:
    """Returns a row of points for each series, one per track, with their quartiles; None if nothing is defined.

    Only the outliers have a point if there are many tracks.

    Args:
        title: What the plot shows, for those who cannot see it.
        axis: Name of the axis with its unit.
        values: Scores of the tracks by series.
    """
    infinite = sum(math.isinf(value) for scores in values.values() for value in scores)
    shown = {series: [value for value in scores if math.isfinite(value)] for series, scores in values.items()}
    if not any(shown.values()):
        return None
    labels = [_short(series.label) for series in shown]

    def draw() -> Figure:
        figure, axes = _panel(PANEL_WIDTH, 54 + 26 * len(shown), left=14 + 6.4 * max(map(len, labels)), bottom=42)
        for row, (series, scores) in enumerate(shown.items()):
            if not scores:
                at_left = axes.get_yaxis_transform()
                axes.text(0.01, row, "undefined", transform=at_left, color=LIGHT["muted"], fontsize=10, va="center")
                continue
            _box(axes, row, scores, series.colour)
        axes.set_yticks(range(len(shown)), labels)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.tick_params(axis="y", labelcolor=LIGHT["ink"], length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(axis)
        return figure

    return _plot(title, draw, f"{infinite} infinite values are left out." if infinite else "")


def interval_plot(
    title: str, axes_names: tuple[str, str], places: Sequence[str], values: Mapping[Series, Sequence[Summary | None]]
) -> Plot | None:
    """Returns a line of medians with their intervals for each series; None if there is no median.

    Args:
        title: What the plot shows, for those who cannot see it.
        axes_names: Name of the horizontal axis; name of the score with its unit.
        places: Labels along the horizontal axis.
        values: A summary or None for each place, by series.
    """
    medians = {
        series: [math.nan if summary is None else summary.median for summary in summaries]
        for series, summaries in values.items()
    }
    every = [median for row in medians.values() for median in row]
    if not any(map(math.isfinite, every)):
        return None

    def draw() -> Figure:
        figure, axes = _panel(PANEL_WIDTH, 260, left=52, bottom=46)
        for order, (series, summaries) in enumerate(values.items()):
            colour = series.colour
            at = [place + 0.05 * (order - (len(values) - 1) / 2) for place in range(len(places))]
            axes.plot(
                at,
                [median if math.isfinite(median) else math.nan for median in medians[series]],
                color=colour,
                linestyle=series.line_style,
                linewidth=1.2 if series.number is None else 1.8,
                marker=MARKERS[order % len(MARKERS)],
                markersize=5,
            )
            for place, summary in zip(at, summaries, strict=True):
                if summary is not None and math.isfinite(summary.low) and math.isfinite(summary.high):
                    axes.plot([place, place], [summary.low, summary.high], color=colour, linewidth=1, alpha=0.8)
        axes.set_xticks(range(len(places)), places)
        axes.set_xlim(-0.4, len(places) - 0.6)
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        axes.set_xlabel(axes_names[0])
        axes.set_ylabel(axes_names[1])
        return figure

    infinite = sum(map(math.isinf, every))
    return _plot(title, draw, f"{infinite} infinite medians are left out." if infinite else "")


def difference_plot(title: str, axis: str, differences: Mapping[str, float], series: Series) -> Plot | None:
    """Returns a bar for the difference of each track, the largest at the top; None if there is none.

    Only the largest and the smallest differences have a bar if there are many tracks.

    Args:
        title: What the plot shows, for those who cannot see it.
        axis: Name of the axis with its unit.
        differences: Differences by track.
        series: Series whose colour the bars have.
    """
    ordered = sorted(differences.items(), key=lambda item: (-item[1], item[0]))
    finite = [(name, value) for name, value in ordered if math.isfinite(value)]
    if not finite:
        return None
    shown = finite if len(finite) <= MOST_BARS else finite[: MOST_BARS // 2] + finite[-MOST_BARS // 2 :]
    labels = [_short(name) for name, _ in shown]

    def draw() -> Figure:
        figure, axes = _panel(PANEL_WIDTH, 52 + 16 * len(shown), left=14 + 5.9 * max(map(len, labels)), bottom=42)
        axes.barh(range(len(shown)), [value for _, value in shown], height=0.7, color=series.colour)
        axes.axvline(0, color=LIGHT["ink"], linewidth=1)
        axes.set_yticks(range(len(shown)), labels, fontsize=10)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.tick_params(axis="y", labelcolor=LIGHT["ink"], length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(axis)
        return figure

    infinite, between = len(ordered) - len(finite), len(finite) - len(shown)
    notes = [f"{infinite} infinite differences are left out."] if infinite else []
    notes += [f"{between} differences between the largest and the smallest are left out."] if between else []
    return _plot(title, draw, " ".join(notes))


def timeline(
    title: str, axis: str, windows: Mapping[Series, Sequence[float]], limits: tuple[float, float], active: Sequence[int]
) -> Plot | None:
    """Returns the score of every second over the time of a track, above a strip that marks where the stem is active.

    Args:
        title: What the plot shows, for those who cannot see it.
        axis: Name of the score with its unit.
        windows: Scores of the seconds by series; undefined ones are gaps.
        limits: Lowest and highest score of the axis; scores beyond are drawn at its edge.
        active: 1 for every 100 ms in which the stem is active, else 0.

    Returns:
        None if all scores are undefined.
    """
    every = np.asarray([value for scores in windows.values() for value in scores], dtype=float)
    if np.isnan(every).all():
        return None
    seconds = max(len(active) / 10, *(len(scores) for scores in windows.values()))
    low, high = limits

    def draw() -> Figure:
        figure, axes = _panel(TIMELINE_WIDTH, 190, left=52, bottom=58)
        for series, scores in windows.items():
            axes.stairs(
                np.clip(np.asarray(scores, dtype=float), low, high),
                np.arange(len(scores) + 1),
                baseline=None,
                color=series.colour,
                linestyle=series.line_style,
                linewidth=1.5,
            )
        axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        axes.set_xlim(0, seconds)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_locator(MultipleLocator(_tick_seconds(seconds)))
        axes.tick_params(axis="x", labelbottom=False, length=0)
        axes.set_ylabel(axis)
        _activity_strip(axes, active)
        return figure

    counts = {
        "infinite, drawn at the edge": np.isinf(every).sum(),
        "beyond the axis, drawn at its edge": (np.isfinite(every) & ((every < low) | (every > high))).sum(),
        "undefined, a gap": np.isnan(every).sum(),
    }
    notes = [f"{count} {'windows' if count > 1 else 'window'} {what}" for what, count in counts.items() if count]
    return _plot(title, draw, "; ".join(notes) + "." if notes else "")


def shared_limits(scores: Sequence[float]) -> tuple[float, float]:
    """Returns limits in steps of 5 that contain all scores but the outermost 1 % at either end."""
    finite = [score for score in scores if math.isfinite(score)]
    if not finite:
        return -5.0, 20.0
    low, high = np.percentile(finite, [1, 99])
    return 5.0 * math.floor(low / 5), max(5.0 * math.ceil(high / 5), 5.0 * math.floor(low / 5) + 5)


# Text stays text, which the browser draws in the fonts of the page; ids are the same every time.
DRAWING_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bsmamba2",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["grid"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": LIGHT["grid"],
    "ytick.color": LIGHT["grid"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
}
# The colours of plots, by those for light pages; no two of them are alike.
DARK_COLOURS = {
    LIGHT[name]: DARK[name] for name in ("ink", "muted", "grid", *(f"series-{n}" for n in range(SERIES_COLOURS)))
}


def _plot(title: str, draw: Callable[[], Figure], note: str) -> Plot:
    light = _svg(draw)
    return Plot(printable(title), light, _for_dark_pages(light), note)


def _svg(draw: Callable[[], Figure]) -> str:
    written = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with drawing(DRAWING_SETTINGS):
        draw().savefig(written, format="svg", transparent=True, metadata=no_metadata)
    # The first of these elements is that of matplotlib's own style.
    start, definitions, rest = written.getvalue().partition("<defs>")
    return f"{start}{definitions}<style>text {{ font-family: {FONTS} !important }}</style>{rest}"


def _for_dark_pages(svg: str) -> str:
    """Returns the same drawing in the colours of dark pages: drawing it again would take as long as the first time.

    Only the tags are changed: a song may have the name of a colour.
    """

    def recoloured(tag: re.Match[str]) -> str:
        return re.sub("#[0-9a-f]{6}", lambda colour: DARK_COLOURS.get(colour[0], colour[0]), tag[0])

    return re.sub("<[^>]*>", recoloured, svg)


def _panel(width: float, height: float, left: float, bottom: float) -> tuple[Figure, Axes]:
    """Returns a figure of a size in pixels, and axes with margins of so many pixels for labels."""
    figure = Figure(figsize=(width / 72, height / 72))
    frame = (left / width, bottom / height, 1 - (left + 12) / width, 1 - (bottom + 10) / height)
    return figure, figure.add_axes(frame)


def _box(axes: Axes, row: int, scores: Sequence[float], colour: str) -> None:
    """Draws the quartiles of scores, and a point for each."""
    axes.boxplot(
        [scores],
        positions=[row],
        orientation="horizontal",
        widths=0.62,
        showfliers=len(scores) > MOST_POINTS,
        flierprops={"marker": "o", "markerfacecolor": colour, "markersize": 3.6, "markeredgewidth": 0, "alpha": 0.45},
        manage_ticks=False,
        boxprops={"color": colour},
        whiskerprops={"color": colour},
        capprops={"color": colour},
        medianprops={"color": colour, "linewidth": 2.6},
    )
    if len(scores) > MOST_POINTS:
        return
    # Spread vertically, in the same way every time.
    rows = [row + 0.44 * (number * 0.618 % 1 - 0.5) for number in range(len(scores))]
    axes.plot(scores, rows, "o", color=colour, alpha=0.45, markersize=3.6, markeredgewidth=0)


def _activity_strip(axes: Axes, active: Sequence[int]) -> None:
    """Draws when a stem is active below axes, with the labels of their time."""
    left, bottom, width, _ = axes.get_position().bounds
    strip = axes.figure.add_axes((left, bottom - 14 / 190, width, 9 / 190), sharex=axes)
    strip.broken_barh(_spans(active), (0, 1), facecolor=LIGHT["ink"], linewidth=0)
    strip.set_ylim(0, 1)
    strip.set_yticks([0.5], ["active"], fontsize=10)
    strip.tick_params(axis="y", length=0)
    strip.tick_params(axis="x", labelbottom=True, length=3)
    strip.grid(visible=False)
    strip.spines["left"].set_visible(False)
    strip.xaxis.set_major_formatter(FuncFormatter(lambda second, _: f"{int(second) // 60}:{int(second) % 60:02}"))
    strip.set_xlabel("time, minutes:seconds")


def _short(label: str) -> str:
    label = printable(label)
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1].rstrip() + "…"


def _spans(active: Sequence[int]) -> list[tuple[float, float]]:
    """Returns start and length in seconds of the active stretches."""
    spans, block = [], 0
    for value, group in groupby(active):
        count = len(list(group))
        if value:
            spans.append((block / 10, count / 10))
        block += count
    return spans


def _tick_seconds(seconds: float) -> float:
    """Returns the seconds between about ten ticks."""
    return next((step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300) if seconds / step <= 14), 600)
