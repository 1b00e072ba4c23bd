import math

import pytest
import torch

from bsmamba2.audio.spectrograms import ROWS, spectrograms
from bsmamba2.evaluation.statistics import summarise
from bsmamba2.report.plots import (
    Series,
    box_plot,
    difference_plot,
    interval_plot,
    shared_limits,
    timeline,
)
from bsmamba2.report.sounds import frequency_ticks

FIRST, SCALE = Series("first", 0), Series("mixture")


def test_figures_take_their_colours_from_the_page() -> None:
    plot = box_plot("a < b", "cSDR, dB", {FIRST: [1.0, 2.0, math.inf], SCALE: [math.nan]})
    assert plot is not None
    assert "#01" not in plot.svg
    assert {"var(--series-0)", "var(--grid)", "var(--ink)", "var(--muted)"} <= {
        part.strip(";\"' ") for part in plot.svg.replace(": ", ":").replace(":", " ").split() if "var" in part
    }
    assert 'aria-label="a &lt; b"' in plot.svg
    assert "undefined" in plot.svg
    assert plot.note == "1 infinite values are left out."


def test_text_is_not_mathematics() -> None:
    plot = difference_plot("title", "dB", {"$x^ < $": 1.0, "lost": math.inf}, FIRST)
    assert plot is not None
    assert "$x^ &lt; $" in plot.svg
    assert plot.note == "1 infinite differences are left out."


def test_nothing_to_draw_gives_no_figure() -> None:
    undefined = {FIRST: [math.nan, math.inf]}
    assert box_plot("title", "dB", undefined) is None
    assert timeline("title", "dB", {FIRST: [math.nan]}, (0, 10), [1]) is None
    assert difference_plot("title", "dB", {}, FIRST) is None
    nothing = summarise([math.nan])
    assert interval_plot("title", ("x", "y"), ["1 s", "2 s"], {FIRST: [None, nothing]}) is None
    assert interval_plot("title", ("x", "y"), ["1 s", "2 s"], {FIRST: [None, summarise([1.0, 2.0])]}) is not None


def test_windows_that_cannot_be_drawn_are_counted() -> None:
    windows = {FIRST: [1.0, math.nan, 30.0, math.inf, -20.0, math.nan, math.nan]}
    plot = timeline("title", "dB", windows, (0, 10), [1] * 35 + [0] * 35)
    assert plot is not None
    said = "1 window infinite, drawn at the edge; 2 windows beyond the axis, drawn at its edge; 3 windows undefined"
    assert plot.note.startswith(said)


def test_the_axis_of_all_tracks_leaves_out_what_is_far_away() -> None:
    assert shared_limits([float(number) for number in range(10)] * 100 + [-90.0, math.nan, math.inf]) == (0, 10)
    assert shared_limits([math.nan])[0] < shared_limits([math.nan])[1]
    assert shared_limits([5.0, 5.0]) == (5, 10)


@pytest.mark.parametrize("hertz", [300, 1000, 10000])
def test_frequencies_are_where_the_picture_has_them(hertz: int) -> None:
    tone = torch.sin(2 * math.pi * hertz * torch.arange(44100) / 44100)
    brightest = int(spectrograms(tone[None], 44100).sum((0, 2)).argmax())
    name = str(hertz) if hertz < 1000 else f"{hertz // 1000}k"
    assert frequency_ticks(44100)[name] == pytest.approx((brightest + 0.5) / ROWS, abs=1.5 / ROWS)
    assert "10k" not in frequency_ticks(16000)
