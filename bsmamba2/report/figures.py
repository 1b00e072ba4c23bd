"""The figures of a stem: spread over tracks, sparse regions, length of the input and timelines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bsmamba2.evaluation.results import COMPLEX_MASK_ROW, ESTIMATE, MIXTURE_ROW, RATIO_MASK_ROW, chunk_row
from bsmamba2.evaluation.scores import ACTIVITY_SCORES, SCORES
from bsmamba2.evaluation.statistics import windows_by_track
from bsmamba2.report.facts import ReportedRun
from bsmamba2.report.plots import MOST_POINTS, CaptionedPlot, box_plot, interval_plot, shared_limits, timeline
from bsmamba2.report.tables import MAIN_SCORES, Line, track_anchor, tracks_by_name, tracks_drawn
from bsmamba2.report.texts import score_axis, score_title

ACTIVITY_BINS = ("0-25 %", "25-50 %", "50-75 %", "75-100 %")
# The floors and oracles that have a score in every bin.
ACTIVITY_SCALE = (MIXTURE_ROW, RATIO_MASK_ROW, COMPLEX_MASK_ROW)
# With fewer tracks, a box shows no more than the table.
FEWEST_IN_BOX = 4
BOXES_OF_SPARSE_REGIONS = ("leakage_dbfs", "leakage_db", "false_mute", "onset_sdr")


@dataclass(frozen=True)
class Timeline:
    """The scores of a track over time.

    Args:
        name: Artist and title.
        anchor: Its address in the page.
        scores: Runs with their cSDR in dB.
        figure: Its plot; None if no window is defined.
    """

    name: str
    anchor: str
    scores: tuple[tuple[ReportedRun, float], ...]
    figure: CaptionedPlot | None


def spread_figures(lines: Sequence[Line], stem: str) -> list[CaptionedPlot]:
    """Returns box plots of cSDR and uSDR over tracks."""
    points = "of every track (points)" if _count(lines) <= MOST_POINTS else "of tracks, outliers (points)"
    parts = f"{points}, middle half (box), median (thick line) and range without outliers (whiskers)"
    return _boxes(lines, stem, {score: f"{SCORES[score].label} {parts}." for score in MAIN_SCORES})


def sparse_figures(lines: Sequence[Line], stem: str) -> list[CaptionedPlot]:
    """Returns box plots of the scores of sparse regions, and the cSDR by activity."""
    captions = {
        score: f"{SCORES[score].label} of the tracks, {SCORES[score].better} is better."
        for score in BOXES_OF_SPARSE_REGIONS
    }
    shown = {
        line.series: [line.summaries.get(score) for score in ACTIVITY_SCORES]
        for line in lines
        if line.kind == "estimate" or line.row in ACTIVITY_SCALE
    }
    plot = interval_plot(
        score_title(stem, "csdr", "by activity, median over tracks"),
        ("share of ±4 s in which the stem is active", score_axis("csdr")),
        ACTIVITY_BINS,
        shown,
    )
    boxes = _boxes(lines, stem, captions)
    if plot is None:
        return boxes
    return [*boxes, CaptionedPlot(plot, "cSDR by activity: medians over tracks with 95 % intervals.", tuple(shown))]


def chunk_figures(runs: Sequence[ReportedRun], stem: str) -> list[CaptionedPlot]:
    """Returns plots of cSDR and uSDR against the length of the chunks that the model was given."""
    seconds = sorted({length for run in runs for row in run.results.rows(stem) if (length := _chunk_seconds(row))})
    if not seconds:
        return []
    rows = [*map(chunk_row, seconds), ESTIMATE]
    figures = []
    for score in MAIN_SCORES:
        values = {run.series(): [run.summaries[stem].get(row, {}).get(score) for row in rows] for run in runs}
        plot = interval_plot(
            score_title(stem, score, "by length of the input, median over tracks"),
            ("length of the input", score_axis(score)),
            [*(f"{length:g} s" for length in seconds), "as evaluated"],
            values,
        )
        if plot is not None:
            caption = f"{SCORES[score].label} by length of the input: medians over tracks with 95 % intervals."
            figures.append(CaptionedPlot(plot, caption, tuple(values)))
    return figures


def timelines(runs: Sequence[ReportedRun], stem: str, stem_anchor: str) -> list[Timeline]:
    """Returns the scores of the tracks that are drawn over time; `stem_anchor` is the stem's address in the page."""
    windows = [(run, windows_by_track(run.results, stem)) for run in runs]
    limits = shared_limits([value for _, by_track in windows for values in by_track.values() for value in values])
    drawn = tracks_drawn(runs, stem)
    found = []
    for place, (name, track) in enumerate(tracks_by_name(runs).items()):
        if name not in drawn:
            continue
        plot = timeline(
            f"{stem}: SDR of one-second windows over the time of {name}",
            "SDR, dB",
            {run.series(): by_track.get(name, ()) for run, by_track in windows},
            limits,
            track.activity.get(stem, ()),
        )
        scores = tuple((run, run.estimates(stem, "csdr").get(name, math.nan)) for run in runs)
        figure = None if plot is None else CaptionedPlot(plot, name)
        found.append(Timeline(name, track_anchor(stem_anchor, place), scores, figure))
    return found


def _boxes(lines: Sequence[Line], stem: str, captions: dict[str, str]) -> list[CaptionedPlot]:
    """Returns a box plot of each score that is defined somewhere; none for so few tracks that they are no quartiles."""
    if _count(lines) < FEWEST_IN_BOX:
        return []
    figures = []
    for score, caption in captions.items():
        values = {line.series: list(line.run.results.values(stem, line.row, score).values()) for line in lines}
        plot = box_plot(score_title(stem, score, "over tracks"), score_axis(score), values)
        if plot is not None:
            figures.append(CaptionedPlot(plot, caption))
    return figures


def _count(lines: Sequence[Line]) -> int:
    return max((line.tracks for line in lines), default=0)


def _chunk_seconds(row: str) -> float | None:
    """Returns the length of chunks from the name of a row; None for other rows."""
    prefix, _, suffix = chunk_row(1).partition("1")
    number = row.removeprefix(prefix).removesuffix(suffix)
    try:
        return float(number) if row == chunk_row(float(number)) else None
    except ValueError:
        return None
