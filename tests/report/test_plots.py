import math
import re

import matplotlib
import pytest
import torch

from bsmamba2.audio.spectrograms import ROWS, frequency_ticks, spectrograms
from bsmamba2.evaluation.statistics import summarise
from bsmamba2.player.palette import DARK, LIGHT
from bsmamba2.report.plots import (
    Series,
    box_plot,
    difference_plot,
    interval_plot,
    shared_limits,
    timeline,
)

FIRST, SCALE = Series("first", 0), Series("mixture")


def test_plots_are_drawn_in_the_colours_of_light_and_of_dark_pages() -> None:
    plot = box_plot("a < b\n", "cSDR, dB", {FIRST: [1.0, 2.0, math.inf], SCALE: [math.nan]})
    assert plot is not None
    for svg, palette in ((plot.light, LIGHT), (plot.dark, DARK)):
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) == {
            palette[name] for name in ("series-0", "grid", "ink", "muted")
        }
        assert "undefined" in svg
    assert plot.title == r"a < b\n"
    assert plot.note == "1 infinite values are left out."


def test_plots_ignore_the_users_style_and_draw_the_same_every_time() -> None:
    first = box_plot("title", "dB", {FIRST: [1.0, 2.0]})
    with matplotlib.rc_context({"axes.linewidth": 9, "font.size": 30, "xtick.minor.visible": True}):
        again = box_plot("title", "dB", {FIRST: [1.0, 2.0]})
    assert first == again


def test_text_is_not_mathematics() -> None:
    plot = difference_plot("title", "dB", {"$x^ < $": 1.0, "lost": math.inf}, FIRST)
    assert plot is not None
    assert "$x^ &lt; $" in plot.light
    assert plot.note == "1 infinite differences are left out."


def test_a_song_may_have_the_name_of_a_colour() -> None:
    plot = difference_plot("title", "dB", {LIGHT["ink"]: 1.0}, FIRST)
    assert plot is not None
    assert f">{LIGHT['ink']}<" in plot.dark
    assert LIGHT["ink"] not in plot.dark.replace(f">{LIGHT['ink']}<", "")


def test_nothing_to_draw_gives_no_plot() -> None:
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
    expected = "1 window infinite, drawn at the edge; 2 windows beyond the axis, drawn at its edge; 3 windows undefined"
    assert plot.note.startswith(expected)


def test_the_axis_of_all_tracks_leaves_out_outliers() -> None:
    assert shared_limits([float(number) for number in range(10)] * 100 + [-90.0, math.nan, math.inf]) == (0, 10)
    assert shared_limits([math.nan])[0] < shared_limits([math.nan])[1]
    assert shared_limits([5.0, 5.0]) == (5, 10)


@pytest.mark.parametrize("hertz", [300, 1000, 10000])
def test_frequency_ticks_match_the_spectrogram(hertz: int) -> None:
    tone = torch.sin(2 * math.pi * hertz * torch.arange(44100) / 44100)
    brightest = int(spectrograms(tone[None], 44100).sum((0, 2)).argmax())
    name = str(hertz) if hertz < 1000 else f"{hertz // 1000}k"
    assert frequency_ticks(44100)[name] == pytest.approx((brightest + 0.5) / ROWS, abs=1.5 / ROWS)
    assert "10k" not in frequency_ticks(16000)
