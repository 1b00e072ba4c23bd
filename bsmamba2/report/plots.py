"""Figures of the report, as SVG that takes its colours and its font from the page around it."""

import contextlib
import hashlib
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from bsmamba2.evaluation.statistics import Summary
from bsmamba2.text_table import printable

# Colours that stand for the page's own, which are others in the dark.
INK, MUTED, GRID = "#010101", "#010102", "#010103"
SERIES = tuple(f"#0102{number:02x}" for number in range(6))
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)
}
LINE_STYLES = ("solid", "dashed", "dotted")
MARKERS = ("o", "s", "^", "D", "v", "P")
# Pixels where the page has room for the whole figure.
PANEL_WIDTH, TIMELINE_WIDTH = 470, 940
LONGEST_LABEL = 26
SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bsmamba2",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.size": 11,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Series:
    """What is drawn in one colour.

    Args:
        label: Its name.
        number: Which of the colours it has; None for what only gives a scale.
    """

    label: str
    number: int | None = None

    @property
    def colour(self) -> str:
        """Its colour."""
        return MUTED if self.number is None else SERIES[self.number % len(SERIES)]

    @property
    def line_style(self) -> str:
        """How its line is drawn, so that colours need not be told apart."""
        return "dotted" if self.number is None else LINE_STYLES[self.number % len(LINE_STYLES)]


@dataclass(frozen=True)
class Plot:
    """A figure and what it cannot show.

    Args:
        svg: The figure.
        note: What was left out or drawn elsewhere; empty where there is nothing to say.
    """

    svg: Markup
    note: str = ""


@contextlib.contextmanager
def _style() -> Iterator[None]:
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        # The browser draws the text, with all the fonts it has.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


@_style()
def box_plot(title: str, axis: str, values: Mapping[Series, Sequence[float]]) -> Plot | None:
    """Returns a row of single tracks and their quartiles for each series, None where nothing is defined.

    Args:
        title: What the figure shows, for those who cannot see it.
        axis: Name of the axis with its unit.
        values: A score of every track by series.
    """
    infinite = sum(math.isinf(value) for scores in values.values() for value in scores)
    shown = {series: [value for value in scores if math.isfinite(value)] for series, scores in values.items()}
    if not any(shown.values()):
        return None
    labels = [_short(series.label) for series in shown]
    figure, axes = _panel(PANEL_WIDTH, 54 + 26 * len(shown), left=14 + 6.4 * max(map(len, labels)), bottom=42)
    for row, (series, scores) in enumerate(shown.items()):
        if not scores:
            beside = axes.get_yaxis_transform()
            axes.text(0.01, row, "undefined", transform=beside, color=MUTED, fontsize=10, va="center")
            continue
        axes.boxplot(
            [scores],
            positions=[row],
            orientation="horizontal",
            widths=0.62,
            showfliers=False,
            manage_ticks=False,
            boxprops={"color": series.colour},
            whiskerprops={"color": series.colour},
            capprops={"color": series.colour},
            medianprops={"color": series.colour, "linewidth": 2.6},
        )
        # Beside each other, and always alike.
        rows = [row + 0.44 * (number * 0.618 % 1 - 0.5) for number in range(len(scores))]
        axes.plot(scores, rows, "o", color=series.colour, alpha=0.45, markersize=3.6, markeredgewidth=0)
    axes.set_yticks(range(len(shown)), labels)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis)
    note = f"{infinite} infinite values are left out." if infinite else ""
    return Plot(_svg(figure, title), note)


@_style()
def interval_plot(
    title: str, axes_names: tuple[str, str], places: Sequence[str], values: Mapping[Series, Sequence[Summary | None]]
) -> Plot | None:
    """Returns medians with their intervals from place to place, a line for each series; None where there is none.

    Args:
        title: What the figure shows, for those who cannot see it.
        axes_names: What the places are, and the name of the score with its unit.
        places: Names of the places.
        values: A summary for every place, or None, by series.
    """
    figure, axes = _panel(PANEL_WIDTH, 260, left=52, bottom=46)
    infinite = drawn = 0
    for order, (series, summaries) in enumerate(values.items()):
        at = [place + 0.05 * (order - (len(values) - 1) / 2) for place in range(len(places))]
        medians = [math.nan if summary is None else summary.median for summary in summaries]
        infinite += sum(math.isinf(median) for median in medians)
        medians = [median if math.isfinite(median) else math.nan for median in medians]
        drawn += sum(math.isfinite(median) for median in medians)
        axes.plot(
            at,
            medians,
            color=series.colour,
            linestyle=series.line_style,
            linewidth=1.2 if series.number is None else 1.8,
            marker=MARKERS[order % len(MARKERS)],
            markersize=5,
        )
        for place, summary in zip(at, summaries, strict=True):
            if summary is not None and math.isfinite(summary.low) and math.isfinite(summary.high):
                axes.plot([place, place], [summary.low, summary.high], color=series.colour, linewidth=1, alpha=0.8)
    if not drawn:
        return None
    axes.set_xticks(range(len(places)), places)
    axes.set_xlim(-0.4, len(places) - 0.6)
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.set_xlabel(axes_names[0])
    axes.set_ylabel(axes_names[1])
    return Plot(_svg(figure, title), f"{infinite} infinite medians are left out." if infinite else "")


@_style()
def difference_plot(title: str, axis: str, differences: Mapping[str, float], series: Series) -> Plot | None:
    """Returns a bar for the difference of each track, the largest at the top; None where there is none.

    Args:
        title: What the figure shows, for those who cannot see it.
        axis: Name of the axis with its unit.
        differences: By track.
        series: Of which colour.
    """
    ordered = sorted(differences.items(), key=lambda item: (-item[1], item[0]))
    shown = [(name, value) for name, value in ordered if math.isfinite(value)]
    if not shown:
        return None
    labels = [_short(name) for name, _ in shown]
    figure, axes = _panel(PANEL_WIDTH, 52 + 16 * len(shown), left=14 + 5.9 * max(map(len, labels)), bottom=42)
    axes.barh(range(len(shown)), [value for _, value in shown], height=0.7, color=series.colour)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(shown)), labels, fontsize=10)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(axis)
    left_out = len(ordered) - len(shown)
    return Plot(_svg(figure, title), f"{left_out} infinite differences are left out." if left_out else "")


@_style()
def timeline(
    title: str, axis: str, windows: Mapping[Series, Sequence[float]], limits: tuple[float, float], active: Sequence[int]
) -> Plot | None:
    """Returns one score after the other over the time of a track, and beneath when the stem is active.

    Args:
        title: What the figure shows, for those who cannot see it.
        axis: Name of the score with its unit.
        windows: A score for every second by series; undefined ones are gaps.
        limits: Lowest and highest score on the axis; those beyond are drawn at its edge.
        active: 1 for every 100 ms in which the stem is active, 0 for the others.
    """
    if not any(math.isfinite(value) or math.isinf(value) for scores in windows.values() for value in scores):
        return None
    seconds = max(len(active) / 10, *(len(scores) for scores in windows.values()))
    figure, axes = _panel(TIMELINE_WIDTH, 190, left=52, bottom=58)
    beyond = infinite = undefined = 0
    low, high = limits
    for series, scores in windows.items():
        values = np.asarray(scores, dtype=float)
        infinite += int(np.isinf(values).sum())
        beyond += int((np.isfinite(values) & ((values < low) | (values > high))).sum())
        undefined += int(np.isnan(values).sum())
        axes.stairs(
            np.clip(values, low, high),
            np.arange(len(values) + 1),
            baseline=None,
            color=series.colour,
            linestyle=series.line_style,
            linewidth=1.5,
        )
    axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.set_xlim(0, seconds)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(MultipleLocator(_step(seconds)))
    axes.tick_params(axis="x", labelbottom=False, length=0)
    axes.set_ylabel(axis)
    left, bottom, width, _ = axes.get_position().bounds
    strip = figure.add_axes((left, bottom - 14 / 190, width, 9 / 190), sharex=axes)
    strip.broken_barh(_spans(active), (0, 1), facecolor=INK, linewidth=0)
    strip.set_ylim(0, 1)
    strip.set_yticks([0.5], ["active"], fontsize=10)
    strip.tick_params(axis="y", length=0)
    strip.tick_params(axis="x", labelbottom=True, length=3)
    strip.grid(visible=False)
    strip.spines["left"].set_visible(False)
    strip.xaxis.set_major_formatter(FuncFormatter(lambda second, _: _clock(second)))
    strip.set_xlabel("time, minutes:seconds")
    parts = {
        "infinite, drawn at the edge": infinite,
        "beyond the axis, drawn at its edge": beyond,
        "undefined, a gap": undefined,
    }
    said = [f"{count} {'windows' if count > 1 else 'window'} {what}" for what, count in parts.items() if count]
    return Plot(_svg(figure, title), "; ".join(said) + "." if said else "")


def shared_limits(scores: Sequence[float]) -> tuple[float, float]:
    """Returns limits in steps of 5 that hold all of the scores but the outermost 1 % at either end."""
    finite = [score for score in scores if math.isfinite(score)]
    if not finite:
        return -5.0, 20.0
    low, high = np.percentile(finite, [1, 99])
    return 5.0 * math.floor(low / 5), max(5.0 * math.ceil(high / 5), 5.0 * math.floor(low / 5) + 5)


def _panel(width: float, height: float, left: float, bottom: float) -> tuple[Figure, Axes]:
    """Returns a figure of so many pixels, and axes in it that leave so many for names."""
    figure = Figure(figsize=(width / 72, height / 72))
    frame = (left / width, bottom / height, 1 - (left + 12) / width, 1 - (bottom + 10) / height)
    return figure, figure.add_axes(frame)


def _svg(figure: Figure, title: str) -> Markup:
    """Returns a figure to stand in a page: coloured by its variables, without names that another figure has too."""
    title, written = printable(title), io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(written.getvalue())
    content = written.getvalue() + title
    prefix = f"f{hashlib.sha256(content.encode()).hexdigest()[:10]}-"
    linked = set(re.findall(r"#(\w+)", " ".join(value for part in root.iter() for value in part.attrib.values())))
    for part in root.iter():
        for child in [child for child in part if child.tag == f"{SVG}style"]:
            part.remove(child)
        part.tag = part.tag.removeprefix(SVG)
        name = part.attrib.pop("id", None)
        if name is not None and name in linked:
            part.set("id", prefix + name)
        if LINK in part.attrib:
            part.set("href", "#" + prefix + part.attrib.pop(LINK).removeprefix("#"))
        if "clip-path" in part.attrib:
            part.set("clip-path", part.attrib["clip-path"].replace("#", "#" + prefix))
        if "d" in part.attrib:
            part.set("d", re.sub(r"\s+", " ", _rounded(part.attrib["d"])).strip())
        for name in ("x", "y"):
            if name in part.attrib:
                part.set(name, _rounded(part.attrib[name]))
        if "style" in part.attrib:
            style = re.sub(r"font-family:[^;]*;?", "", part.attrib["style"])
            part.set("style", re.sub(r"#0[0-9a-f]{5}", lambda found: VARIABLES.get(found[0], found[0]), style))
    width, height = (round(float(size)) for size in root.attrib["viewBox"].split()[2:])
    root.attrib.clear()
    root.attrib.update({"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": title})
    root.set("style", f"max-width: {width}px; aspect-ratio: {width} / {height}")
    # Nothing here is the user's but text and title, which are escaped.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _rounded(numbers: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), numbers)


def _short(label: str, longest: int = LONGEST_LABEL) -> str:
    label = printable(label)
    return label if len(label) <= longest else label[: longest - 1].rstrip() + "…"


def _spans(active: Sequence[int]) -> list[tuple[float, float]]:
    """Returns start and length in seconds of what is active."""
    spans, block = [], 0
    for value, group in groupby(active):
        count = len(list(group))
        if value:
            spans.append((block / 10, count / 10))
        block += count
    return spans


def _step(seconds: float) -> float:
    """Returns the seconds between ticks: some ten of them."""
    return next((step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300) if seconds / step <= 14), 600)


def _clock(second: float) -> str:
    return f"{int(second) // 60}:{int(second) % 60:02}"
