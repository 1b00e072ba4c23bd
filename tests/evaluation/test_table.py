"""The tables for a terminal."""

import math
from typing import Any

from bsmamba2.evaluation.results import ESTIMATE, Results, TrackResult
from bsmamba2.evaluation.scores import StemScores
from bsmamba2.evaluation.table import results_table

NAN = math.nan


def table(count: int) -> list[str]:
    """Returns the lines of a table of this many tracks; the name of the first contains a line break."""
    names = ["new\nline \x1b[2J", *map(str, range(1, count))]
    scores = StemScores({"csdr": 1.0, "usdr": 2.0, "museval_sir": 3.0}, windows=(NAN, 1.0, math.inf))
    tracks = {
        name: TrackResult(name, "", "", 3.0, 1.0, ("a\rnote",), scores={"vocals": {ESTIMATE: scores}}) for name in names
    }
    description: dict[str, dict[str, Any]] = {
        "settings": {"protocol": "single"},
        "time": {"seconds_per_second_of_audio": None},
    }
    return results_table(Results(description, tracks, {"Bad\n": "it is\ndamaged"})).split("\n")


def test_every_name_takes_one_line() -> None:
    lines = table(2)
    assert all(line.isprintable() for line in lines)
    [track] = [line for line in lines if line.startswith("new")]
    assert track.startswith("new\ufffdline \ufffd[2J ")
    assert "failed: Bad\ufffd: it is\ufffddamaged" in lines


def test_windows_are_counted_by_track_and_over_tracks() -> None:
    [track] = [line for line in table(2) if line.startswith("1 ")]
    assert track.endswith(" 2 of 3")
    over_tracks = next(line for line in table(2) if line.startswith("estimate"))
    assert over_tracks.endswith(" 4 of 6")


def test_intervals_need_six_tracks() -> None:
    few, enough = (next(line for line in table(count) if line.startswith("estimate")) for count in (5, 6))
    assert "[" not in few
    assert "[1.00, 1.00]" in enough


def test_the_sources_of_museval_are_listed() -> None:
    assert "museval, scored stems and everything else as sources, median over tracks" in table(2)
