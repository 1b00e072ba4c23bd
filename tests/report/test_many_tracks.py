"""The report of very many tracks, and of very few."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bsmamba2.evaluation.results import ESTIMATE, MIXTURE_ROW, Results, TrackResult
from bsmamba2.evaluation.scores import StemScores
from bsmamba2.report import write_report
from tests.browser import opened

TRACKS = 250


def write_results(folder: Path, tracks: int, shift: float = 0.0) -> Path:
    """Writes results of tracks of three minutes without excerpts."""
    random = np.random.default_rng(0)
    scored = {}
    for number in range(tracks):
        name = f"artist {number:04} - title"
        windows = tuple((random.normal(8, 4, 180) + shift).tolist())
        median = float(np.median(windows))
        values = {"csdr": median, "usdr": median + 0.5, "leakage_dbfs": -60 - median, "false_mute": abs(median)}
        rows = {ESTIMATE: StemScores(values, windows), MIXTURE_ROW: StemScores({"csdr": -5.0, "usdr": -5.0}, windows)}
        activity = {"vocals": tuple(np.repeat(random.integers(0, 2, 90), 20).tolist())}
        scored[name] = TrackResult(name, "k", "d", 180.0, math.nan, activity=activity, scores={"vocals": rows})
    folder.mkdir()
    description = {"data": {"root": "songs", "split": "test"}, "settings": {"protocol": "single"}}
    Results(description, scored, {}).write(folder, {})
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    runs = [write_results(folder / "first", TRACKS), write_results(folder / "second", TRACKS, 1.0)]
    return write_report(runs, folder / "page.html")[0]


def test_a_page_of_many_tracks_is_small(many: Path) -> None:
    text = many.read_text(encoding="utf-8")
    assert len(text) < 8_000_000
    assert len(re.findall(r'<details class="track"', text)) == 40
    assert f"Of {TRACKS} tracks, the 40 with the lowest cSDR" in text
    assert len(re.findall(r'<tr hidden><th scope="row" data-value="artist', text)) == TRACKS - 100
    assert "190 differences between the largest and the smallest are left out." in text
    assert set(re.findall(r'href="#(vocals-track-\d+)"', text)) == set(re.findall(r'id="(vocals-track-\d+)"', text))


def test_the_table_has_pages(browser: Any, many: Path) -> None:
    page, _ = opened(browser, many)
    rows = "[...document.querySelectorAll('#vocals-table tbody tr')].filter((row) => !row.hidden)"
    shown = f"{rows}.map((row) => row.cells[0].dataset.value)"
    assert page.evaluate(shown)[::99] == ["artist 0000 - title", "artist 0099 - title"]
    page.click("text=Next")
    page.click("text=Next")
    assert page.evaluate(shown)[::49] == ["artist 0200 - title", "artist 0249 - title"]
    assert page.inner_text(".pages output") == f"201 to {TRACKS} of {TRACKS}"
    assert page.is_disabled("text=Next")
    page.fill("input[type=search]", "artist 00")
    assert len(page.evaluate(shown)) == 100
    page.fill("input[type=search]", "0123")
    assert page.evaluate(shown) == ["artist 0123 - title"]
    page.fill("input[type=search]", "")
    page.click("#vocals-table thead button:has-text('track')")
    assert page.evaluate(shown)[0] == "artist 0249 - title"


def test_results_come_before_what_was_run(many: Path) -> None:
    text = many.read_text(encoding="utf-8")
    places = [text.index(f'id="{anchor}"') for anchor in ("vocals", "vocals-tracks", "runs", "reading")]
    assert places == sorted(places)
    contents = re.findall(r'<a href="#([\w-]+)">', text.partition("<nav")[2].partition("</nav>")[0])
    assert [name for name in contents if name in ("vocals", "runs", "reading")] == ["vocals", "runs", "reading"]


@pytest.mark.parametrize(("tracks", "drawn"), [(1, False), (3, False), (4, True)])
def test_few_tracks_have_no_box_plots(tmp_path: Path, tracks: int, drawn: bool) -> None:
    page = write_report([write_results(tmp_path / "run", tracks)], tmp_path / "page.html")[0]
    text = page.read_text(encoding="utf-8")
    assert ("Spread over tracks" in text) == drawn
    assert ("middle half (box)" in text) == drawn
