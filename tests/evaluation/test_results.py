import json
import math
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import (
    ESTIMATE,
    MIXTURE_ROW,
    RESULTS,
    Results,
    TrackResult,
    chunk_row,
    to_json,
)
from bsmamba2.evaluation.scores import SCORES, Score, StemScores
from bsmamba2.report import write_report

INF, NAN = float("inf"), float("nan")
TRACK = TrackResult(
    name="A - B",
    key="k",
    data_sha256="d",
    seconds=2.0,
    computing_seconds=NAN,
    notes=("one sample was cut",),
    activity={"vocals": (0, 1)},
    scores={
        "vocals": {
            ESTIMATE: StemScores({"csdr": 1.5, "usdr": INF}, windows=(NAN, 1.5, -INF)),
            MIXTURE_ROW: StemScores({"csdr": -5.0}),
        }
    },
    excerpt=(0.5, 1.5),
)
DESCRIPTION = {"settings": {"overlap": 0.25, "stems": ["vocals"], "device": None}}
RESULTS_OF_ONE = Results(DESCRIPTION, {"A - B": TRACK}, {"C - D": "broken"})

stem_scores = st.builds(
    StemScores,
    values=st.fixed_dictionaries({}, optional={name: st.floats() for name in SCORES}),
    windows=st.lists(st.floats(), max_size=3).map(tuple),
)
OLDER = Path(__file__).parent / "older"
# Fields that files of the first versions do not have.
ADDED_LATER = ("trained_on", "excerpt_gain", "computed")
names = st.text(st.characters(blacklist_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
track_results = st.builds(
    TrackResult,
    name=names,
    key=names,
    data_sha256=names,
    seconds=st.floats(),
    computing_seconds=st.floats(),
    notes=st.lists(names, max_size=2).map(tuple),
    activity=st.dictionaries(names, st.lists(st.integers(0, 1), max_size=3).map(tuple), max_size=2),
    scores=st.dictionaries(names, st.dictionaries(names, stem_scores, max_size=1), max_size=2),
    excerpt=st.none() | st.tuples(st.floats(0, 9), st.floats(0, 9)),
    trained_on=st.sampled_from([None, "song", "artist"]),
)
once_per_example = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def strict(text: str) -> Any:
    """Returns the content of strict JSON; Python alone would accept NaN and the infinities."""

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    return json.loads(text, parse_constant=refuse)


def same(first: object, second: object) -> bool:
    """Returns whether two results are bit-identical, NaN included."""
    return repr(first) == repr(second)


@once_per_example
@given(track_results)
def test_a_written_track_is_read_unchanged(tmp_path: Path, track: TrackResult) -> None:
    track.write(tmp_path / "track.json")
    strict((tmp_path / "track.json").read_text(encoding="utf-8"))
    assert same(TrackResult.read(tmp_path / "track.json"), track)


@once_per_example
@given(st.dictionaries(names, track_results, max_size=2), st.dictionaries(names, names, max_size=2))
def test_written_results_are_read_unchanged(
    tmp_path: Path, tracks: dict[str, TrackResult], failures: dict[str, str]
) -> None:
    results = Results(DESCRIPTION, tracks, failures)
    results.write(tmp_path, {"median": NAN})
    strict((tmp_path / RESULTS).read_text(encoding="utf-8"))
    assert same(Results.read(tmp_path), results)


def test_json_has_no_nan_or_infinities() -> None:
    content = {"a": (NAN, INF, -INF, 1.0), "b": {"c": [NAN, True, None, 3]}}
    expected = {"a": [None, "Infinity", "-Infinity", 1.0], "b": {"c": [None, True, None, 3]}}
    assert strict(to_json(content)) == expected


def test_names_that_are_not_unicode_are_kept(tmp_path: Path) -> None:
    """A file name in a different encoding contains lone surrogates in Python; Unicode names stay legible."""
    track = replace(TRACK, name="Beyonc\udce9 - Señorita")
    track.write(tmp_path / "track.json")
    assert same(TrackResult.read(tmp_path / "track.json"), track)
    assert "Señorita" in (tmp_path / "track.json").read_text(encoding="utf-8")


def test_the_summary_is_written_with_the_results(tmp_path: Path) -> None:
    RESULTS_OF_ONE.write(tmp_path, {"csdr": 1.5})
    content = strict((tmp_path / RESULTS).read_text(encoding="utf-8"))
    assert content["summary"] == {"csdr": 1.5}
    assert content["failures"] == {"C - D": "broken"}
    assert content["tracks"]["A - B"]["scores"]["vocals"][MIXTURE_ROW]["csdr"] == -5


def test_stems_rows_and_values() -> None:
    other = replace(TRACK, name="E", scores={"drums": {}, "vocals": {chunk_row(1.5): StemScores({"csdr": 2.0})}})
    results = Results({}, {"A - B": TRACK, "E": other}, {})
    assert results.stems == ("vocals", "drums")
    assert results.rows("vocals") == (ESTIMATE, MIXTURE_ROW, "chunks of 1.5 s")
    assert results.rows("drums") == results.rows("bass") == ()
    assert results.values("vocals", MIXTURE_ROW, "csdr") == {"A - B": -5}
    assert results.values("vocals", ESTIMATE, "usdr") == {"A - B": INF}
    assert math.isnan(results.values("vocals", MIXTURE_ROW, "usdr")["A - B"])
    assert results.values("bass", ESTIMATE, "csdr") == {}


def test_scores_have_the_names_of_the_table() -> None:
    scores = StemScores({"usdr": 2.0})
    assert list(scores.values) == list(SCORES)
    assert (scores["usdr"], math.isnan(scores["csdr"])) == (2, True)
    with pytest.raises(ValueError, match="the score 'beauty' is not in SCORES"):
        StemScores({"beauty": 1.0})


# A file of version 0.1, with the scores of that version.
RESULTS_OF_VERSION_0_1 = """{
 "format": 1,
 "summary": {"vocals": {"estimate": {"csdr": {"count": 1, "median": 4.25}}}},
 "description": {
  "model": {"name": "small-vocals", "sha256": "ab12", "parameters": 1234},
  "settings": {"protocol": "single", "stems": ["vocals"], "museval": false, "save_estimates": false},
  "time": {"finished": "2026-11-26T19:00:00+00:00", "seconds_per_second_of_audio": null}
 },
 "tracks": {
  "Änne - Ça": {
   "name": "Änne - Ça",
   "key": "0f",
   "data_sha256": "1e",
   "seconds": 2.5,
   "computing_seconds": null,
   "notes": ["the estimate was cut by 3 samples"],
   "activity": {"vocals": [0, 1]},
   "scores": {
    "vocals": {
     "estimate": {
      "csdr": 4.25, "usdr": "Infinity", "si_sdr": "-Infinity", "bleedless": 31.5, "fullness": 17.25,
      "leakage_dbfs": -30.0, "leakage_dbfs_95": -20.0, "leakage_db": -10.0, "leakage_db_95": -5.0,
      "false_mute": 0.0, "onset_sdr": 3.5,
      "csdr_activity_0": null, "csdr_activity_25": 1.0, "csdr_activity_50": 2.0, "csdr_activity_75": 3.0,
      "museval_sdr": 4.0, "museval_isr": 5.0, "museval_sir": 6.0, "museval_sar": 7.0,
      "windows": [5.5, null, "Infinity"]
     }
    }
   },
   "excerpt": [0.5, 1.5],
   "excerpt_gain": 0.5,
   "computed": {"revision": "4d765db", "device": "cpu", "finished": "2026-11-26T19:00:00+00:00"}
  }
 },
 "failures": {"C - D": "broken"}
}
"""


def test_results_of_version_0_1_are_read_unchanged(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text(RESULTS_OF_VERSION_0_1, encoding="utf-8")
    results = Results.read(tmp_path)
    values = {
        "csdr": 4.25,
        "usdr": INF,
        "si_sdr": -INF,
        "bleedless": 31.5,
        "fullness": 17.25,
        "leakage_dbfs": -30.0,
        "leakage_dbfs_95": -20.0,
        "leakage_db": -10.0,
        "leakage_db_95": -5.0,
        "false_mute": 0.0,
        "onset_sdr": 3.5,
        "csdr_activity_25": 1.0,
        "csdr_activity_50": 2.0,
        "csdr_activity_75": 3.0,
        "museval_sdr": 4.0,
        "museval_isr": 5.0,
        "museval_sir": 6.0,
        "museval_sar": 7.0,
    }
    track = TrackResult(
        name="Änne - Ça",
        key="0f",
        data_sha256="1e",
        seconds=2.5,
        computing_seconds=NAN,
        notes=("the estimate was cut by 3 samples",),
        activity={"vocals": (0, 1)},
        scores={"vocals": {ESTIMATE: StemScores(values, windows=(5.5, NAN, INF))}},
        excerpt=(0.5, 1.5),
        excerpt_gain=0.5,
        computed={"revision": "4d765db", "device": "cpu", "finished": "2026-11-26T19:00:00+00:00"},
    )
    description = json.loads(RESULTS_OF_VERSION_0_1)["description"]
    assert same(results, Results(description, {track.name: track}, {"C - D": "broken"}))
    # Written again, the file differs in its summary and layout, and in the fields that it did not have.
    expected = json.loads(RESULTS_OF_VERSION_0_1)
    expected["tracks"][track.name]["trained_on"] = None
    expected["tracks"][track.name]["scores"]["vocals"][ESTIMATE] |= {"stoi": None, "pesq": None}
    results.write(tmp_path, expected["summary"])
    assert strict((tmp_path / RESULTS).read_text(encoding="utf-8")) == expected


def test_results_of_versions_with_fewer_or_more_scores_are_read(tmp_path: Path) -> None:
    TRACK.write(tmp_path / "track.json")
    RESULTS_OF_ONE.write(tmp_path, {})
    for path in (tmp_path / "track.json", tmp_path / RESULTS):
        content = strict(path.read_text(encoding="utf-8"))
        track = content if path.name == "track.json" else content["tracks"]["A - B"]
        scores = track["scores"]["vocals"][ESTIMATE]
        del scores["csdr"]
        scores["beauty"] = 1.0
        path.write_text(json.dumps(content), encoding="utf-8")
    for read in (TrackResult.read(tmp_path / "track.json"), Results.read(tmp_path).tracks["A - B"]):
        expected = StemScores({"usdr": INF}, windows=(NAN, 1.5, -INF))
        assert same(read.scores["vocals"][ESTIMATE], expected)


@pytest.mark.parametrize("version", sorted(OLDER.glob("*.json")), ids=lambda path: path.stem)
def test_results_that_older_versions_wrote_are_read(tmp_path: Path, version: Path) -> None:
    shutil.copy(version, tmp_path / RESULTS)
    results = Results.read(tmp_path)
    assert list(results.tracks) == ["artist 0 - song"]
    estimates = results.tracks["artist 0 - song"].scores["vocals"][ESTIMATE]
    assert estimates["csdr"] == pytest.approx(-3.0023083)
    assert math.isnan(estimates["museval_sdr"])
    pages = write_report([tmp_path], tmp_path / "report.html", audio=False)
    assert "artist 0 - song" in pages[0].read_text(encoding="utf-8")


def test_a_score_that_is_added_is_empty_for_older_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(OLDER / "mapping.json", tmp_path / RESULTS)
    monkeypatch.setitem(SCORES, "beauty", Score("beauty", "dB", "higher", "How beautiful it is."))
    assert math.isnan(Results.read(tmp_path).tracks["artist 0 - song"].scores["vocals"][ESTIMATE]["beauty"])
    shutil.copytree(tmp_path, tmp_path / "other")
    page = write_report([tmp_path, tmp_path / "other"], tmp_path / "report.html", audio=False)[0]
    assert "How beautiful" not in page.read_text(encoding="utf-8")


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    RESULTS_OF_ONE.write(tmp_path, {})
    TRACK.write(tmp_path / "track.json")
    for path, read, place in (
        (tmp_path / RESULTS, Results.read, tmp_path),
        (tmp_path / "track.json", TrackResult.read, tmp_path / "track.json"),
    ):
        whole = path.read_bytes()
        for length in (0, 1, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:length])
            with pytest.raises(
                InputError, match=rf"{path.name} cannot be read \(.*\); evaluate again with --overwrite"
            ):
                read(place)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b'"text"', b"null", b"{}", b"7"])
def test_files_of_different_content_are_errors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RESULTS).write_bytes(content)
    for read, path in ((Results.read, tmp_path), (TrackResult.read, tmp_path / RESULTS)):
        with pytest.raises(InputError, match=r"results\.json .*; evaluate again with --overwrite"):
            read(path)


def test_missing_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no results\.json in .*; give a folder that"):
        Results.read(tmp_path)
    with pytest.raises(InputError, match=r"track\.json cannot be read .*No such file"):
        TrackResult.read(tmp_path / "track.json")


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.pop(key)


def with_value(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update({key: value})


def of_scores(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    return lambda content: change(content["scores"]["vocals"][ESTIMATE])


@pytest.mark.parametrize(
    "change",
    [
        *[without(field.name) for field in fields(TrackResult) if field.name not in ADDED_LATER],
        with_value("trained_on", "album"),
        with_value("trained_on", ["song"]),
        with_value("seconds", "long"),
        with_value("seconds", []),
        with_value("notes", 3),
        with_value("activity", []),
        with_value("scores", [1]),
        with_value("scores", {"vocals": 1}),
        with_value("scores", {"vocals": {ESTIMATE: 1}}),
        *[with_value("name", name) for name in ("", "..", "../../secret", "/etc", "a\0b", 7, None)],
        *[with_value("scores", {name: {}}) for name in ("", "..", "../secret", "/etc/passwd")],
        of_scores(without("windows")),
        of_scores(with_value("windows", None)),
        of_scores(with_value("csdr", "good")),
    ],
)
def test_a_track_with_wrong_values_is_an_error(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    TRACK.write(tmp_path / "track.json")
    content = strict((tmp_path / "track.json").read_text(encoding="utf-8"))
    change(content)
    (tmp_path / "track.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"track\.json has no results of this version; evaluate again"):
        TrackResult.read(tmp_path / "track.json")


@pytest.mark.parametrize(
    "change",
    [
        *[without(key) for key in ("format", "description", "tracks", "failures")],
        with_value("format", 0),
        *[with_value(key, []) for key in ("description", "tracks", "failures")],
        with_value("tracks", {"A - B": None}),
        with_value("tracks", {"A - B": "text"}),
    ],
)
def test_results_with_wrong_values_are_errors(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    RESULTS_OF_ONE.write(tmp_path, {})
    content = strict((tmp_path / RESULTS).read_text(encoding="utf-8"))
    change(content)
    (tmp_path / RESULTS).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"results\.json has no results of this version; evaluate again"):
        Results.read(tmp_path)


def test_values_that_json_cannot_hold_leave_the_old_file(tmp_path: Path) -> None:
    RESULTS_OF_ONE.write(tmp_path, {})
    TRACK.write(tmp_path / "track.json")
    with pytest.raises(TypeError):
        Results({"data": {"root": tmp_path}}, {}, {}).write(tmp_path, {})
    with pytest.raises(TypeError):
        replace(TRACK, notes=(b"bytes",)).write(tmp_path / "track.json")  # type: ignore[arg-type]
    assert same(Results.read(tmp_path), RESULTS_OF_ONE)
    assert same(TrackResult.read(tmp_path / "track.json"), TRACK)
    assert sorted(path.name for path in tmp_path.iterdir()) == [RESULTS, "track.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")
    RESULTS_OF_ONE.write(tmp_path, {})
    TRACK.write(tmp_path / "track.json")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(InputError, match=r"results\.json cannot be written .*; free some space"):
            RESULTS_OF_ONE.write(tmp_path, {})
        with pytest.raises(InputError, match=r"track\.json cannot be written .*; free some space"):
            TRACK.write(tmp_path / "track.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(Results.read(tmp_path), RESULTS_OF_ONE)
    assert same(TrackResult.read(tmp_path / "track.json"), TRACK)
    assert sorted(path.name for path in tmp_path.iterdir()) == [RESULTS, "track.json"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        RESULTS_OF_ONE.write(tmp_path / "file", {})
    with pytest.raises(InputError, match="cannot be made"):
        TRACK.write(tmp_path / "file" / "track.json")
