import json
from pathlib import Path

import pytest

from bsmamba2.audio.reading import AudioInfo
from bsmamba2.data.findings import LOWEST_DB, CheckedTrack, DataReport, Problem
from bsmamba2.data.musdb import STREAMS
from bsmamba2.stem_names import MIXTURE

ROOT = Path("data")


def folder_track(name: str, **found: object) -> CheckedTrack:
    path = ROOT / "train" / name
    sources = {stem: (path / f"{stem}.wav", None) for stem in (MIXTURE, "bass")}
    return CheckedTrack(path, sources, **found)  # type: ignore[arg-type]


FOUND = folder_track(
    "A - 1",
    infos={"bass": AudioInfo(90 * 48000, 48000, 2, "16")},
    samples=90 * 48000,
    active_shares={"bass": 0.256},
    mixture_minus_sum_db=LOWEST_DB,
)


def test_a_problem_is_of_the_track_a_stem_or_a_file() -> None:
    path = FOUND.path
    assert FOUND.problem("error", "is odd") == Problem("error", "train/A - 1", "is odd")
    assert FOUND.problem("note", "is odd", "bass") == Problem("note", "train/A - 1/bass.wav", "is odd")
    assert FOUND.problem("note", "is odd", file=path / "x.mp3") == Problem("note", "train/A - 1/x.mp3", "is odd")


def test_the_path_at_the_start_of_a_sentence_is_left_out() -> None:
    text = f"{FOUND.path / 'bass.wav'} is an empty file"
    assert FOUND.problem("error", text, "bass").text == "is an empty file"


def test_problems_of_a_stem_file_name_the_stem() -> None:
    path = ROOT / "test" / "B - 2.stem.mp4"
    track = CheckedTrack(path, {name: (path, stream) for name, stream in STREAMS.items()})
    assert (track.name, track.split, track.place) == ("B - 2", "test", "test/B - 2.stem.mp4")
    assert track.problem("error", "is odd", "bass") == Problem("error", track.place, "its stem bass is odd")
    assert track.problem("error", "is odd", MIXTURE).text == "its mixture is odd"


def test_problems_of_a_track_are_those_of_its_folder() -> None:
    """The name of one track can be the start of another one's."""
    longer = folder_track("A - 10")
    problems = [track.problem("error", "is odd", stem) for track in (FOUND, longer) for stem in (None, "bass")]
    report = DataReport(ROOT, "folders of stems", [FOUND, longer], problems)
    assert report.problems_of(FOUND) == problems[:2]
    assert report.problems_of(longer) == problems[2:]


@pytest.mark.parametrize(("severity", "healthy"), [("error", False), ("note", True)])
def test_only_errors_prevent_training(severity: str, healthy: bool) -> None:
    problem = FOUND.problem(severity, "is odd")  # type: ignore[arg-type]
    report = DataReport(ROOT, "folders of stems", [FOUND], [problem], ["index: none"])
    assert report.healthy is healthy
    counts = "0 errors, 1 notes" if healthy else "1 errors, 0 notes; fix the errors before training"
    assert report.summary() == ["train: 1 tracks, 1.5 minutes (folders of stems)", "index: none", counts]


def test_the_table_and_json() -> None:
    unknown = CheckedTrack(ROOT / "train" / "B - 2")
    problems = [FOUND.problem("error", "is odd"), FOUND.problem("note", "is odd"), FOUND.problem("note", "is long")]
    report = DataReport(ROOT, "MUSDB18-HQ", [FOUND, unknown], problems)
    header, first, second, *rest = report.text().splitlines()
    names = ["split", "active", "windows", "in", "%", "s", "stems", "bass", "mix-sum", "dB", "problems"]
    assert header.split() == names
    assert first.split() == ["train", "A", "-", "1", "90.0", "1", "26", "exact", "1", "error,", "2", "notes"]
    assert second.split() == ["train", "B", "-", "2", "-", "0", "-", "-", "-"]
    assert rest[1] == "error: train/A - 1: is odd"
    content = json.loads(report.to_json())
    assert (content["healthy"], content["kind"], content["summary"]) == (False, "MUSDB18-HQ", report.summary())
    assert content["tracks"][0] == {
        "split": "train", "name": "A - 1", "seconds": 90, "stems": ["bass"], "active_shares": {"bass": 0.256},
        "mixture_minus_sum_db": LOWEST_DB, "problems": content["problems"],
    }  # fmt: skip
    assert content["tracks"][1]["seconds"] is None
