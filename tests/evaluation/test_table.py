"""The tables for a terminal."""

import math
from collections.abc import Mapping
from typing import Any

from bsmamba2.evaluation.results import ESTIMATE, Results, TrackResult, TrainedOn
from bsmamba2.evaluation.scores import StemScores
from bsmamba2.evaluation.table import results_table

NAN = math.nan


FIRST = "new\nline \x1b[2J"


def table(count: int, trained_on: Mapping[str, TrainedOn] | None = None) -> list[str]:
    """Returns the lines of a table of this many tracks; the name of the first contains a line break.

    Scores of tracks that the model was trained on are higher.
    """
    names, trained_on = [FIRST, *map(str, range(1, count))], trained_on or {}
    tracks = {}
    for name in names:
        csdr = 9.0 if name in trained_on else 1.0
        scores = StemScores({"csdr": csdr, "usdr": 2.0, "museval_sir": 3.0}, windows=(NAN, 1.0, math.inf))
        rows = {"vocals": {ESTIMATE: scores}}
        kind = trained_on.get(name)
        tracks[name] = TrackResult(name, "", "", 3.0, 1.0, ("a\rnote",), scores=rows, trained_on=kind)
    description: dict[str, dict[str, Any]] = {
        "settings": {"protocol": "single"},
        "time": {"seconds_per_second_of_audio": None},
    }
    return results_table(Results(description, tracks, {"Bad\n": "it is\ndamaged"})).split("\n")


def test_every_name_takes_one_line() -> None:
    lines = table(2)
    assert all(line.isprintable() for line in lines)
    [track] = [line for line in lines if line.startswith("new")]
    assert track.startswith("new\\nline \\x1b[2J ")
    assert r"failed: Bad\n: it is\ndamaged" in lines


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


def test_tracks_that_the_model_was_trained_on_are_marked_and_listed() -> None:
    lines = table(4, {FIRST: "song", "1": "song", "2": "artist"})
    heads = ("track ", "new", "1 ", "2 ", "3 ")
    marks = [next(line for line in lines if line.startswith(head)).rpartition("of 3  ")[2] for head in heads[1:]]
    assert [mark.strip() for mark in marks[:3]] == ["song", "song", "artist"]
    assert next(line for line in lines if line.startswith("3 ")).endswith("2 of 3")
    assert next(line for line in lines if line.startswith("track ")).endswith("  trained on")
    [songs, artists, row] = [line for line in lines if line.startswith("warning: ")]
    assert songs == (
        "warning: 2 of 4 songs were in the model's training data, so their scores do not show how the model separates "
        "new music: new\\nline \\x1b[2J; 1."
    )
    assert artists.startswith("warning: 1 of 4 songs is by an artist with other songs in the model's training data")
    assert artists.endswith(": 2.")
    assert row == 'warning: The row "new artists only" is without these songs.'
    estimate, new = (next(line for line in lines if line.startswith(head)) for head in ("estimate", "new artists only"))
    assert estimate.split()[1:3] == ["9.00", "7.00"], "median and mean of all"
    assert new.split()[3:5] == ["1.00", "1.00"]
    assert new.endswith(" 2 of 3")


def test_nothing_is_reported_if_no_track_is_known_to_be_trained_on() -> None:
    assert not [line for line in table(3) if "train" in line or "artist" in line]


def test_there_is_no_row_without_the_tracks_if_these_are_all() -> None:
    lines = table(2, {FIRST: "artist", "1": "song"})
    assert len([line for line in lines if line.startswith("warning: 1 of 2 songs")]) == 2
    assert not [line for line in lines if "new artists only" in line]
