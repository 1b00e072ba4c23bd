"""Songs that a model was trained on are found by name and reported in the table, the page and both files of data."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bsmamba2.cli import main
from bsmamba2.evaluation.results import Results, TrackResult, TrainedOn
from bsmamba2.evaluation.training_songs import MOST_NAMED, TrainingSongs, of_new_artists, training_warnings
from bsmamba2.model import BSMamba2
from bsmamba2.weights.checkpoint import save_model
from tests.report.example_runs import Page

NAME = "Three - Third"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Beyoncé - Déjà vu", "song"),
        ("Beyonce\u0301 - De\u0301ja\u0300 vu", "song"),
        ("BEYONCÉ  -  déjà VU ", "song"),
        ("AC\uff0fDC - T.N.T.", "song"),
        ("strasse - eins", "song"),
        ("instrumental", "song"),
        ("beyoncé - Halo", "artist"),
        ("AC\uff0fDC - Thunder", "artist"),
        ("BC\uff0fDC - Thunder", None),
        ("Beyonce - Déjà vu", None),
        ("Déjà vu", None),
        ("Beyoncé and - Halo", None),
        (" - Déjà vu", None),
        ("", None),
        ("Beyonc\udce9 - B", None),
    ],
)
def test_names_are_compared_without_case_and_form(name: str, found: TrainedOn | None) -> None:
    names = ["Beyoncé - Déjà vu", "AC\uff0fDC - T.N.T.", "Straße - Eins", "instrumental", " - No artist"]
    assert TrainingSongs.named(names).match(name) == found
    assert TrainingSongs.named([]).match(name) is None


def tracks(*trained_on: TrainedOn | None) -> dict[str, TrackResult]:
    return {
        f"song {number}": TrackResult(f"song {number}", "", "", 1.0, 1.0, trained_on=value)
        for number, value in enumerate(trained_on)
    }


def test_sentences_agree_with_their_number() -> None:
    one, several = training_warnings(tracks("song", None)), training_warnings(tracks("song", "song", None))
    assert one[0].startswith("1 of 2 songs was in the model's training data, so its scores do not show")
    assert one[1].endswith("is without this song.")
    assert several[0].startswith("2 of 3 songs were in the model's training data, so their scores do not show")
    assert several[0].endswith(": song 0; song 1.")
    assert several[1].endswith("is without these songs.")
    assert training_warnings(tracks("artist"))[0].startswith("1 of 1 song is by an artist with other songs")
    [sentence] = training_warnings(tracks("artist", "artist"))
    assert sentence.startswith("2 of 2 songs are by artists with other songs")
    assert sentence.endswith("than for new artists."), "all songs need no list"
    assert training_warnings(tracks(None, None)) == training_warnings({}) == []


def test_long_lists_end_with_a_number() -> None:
    song: TrainedOn = "song"
    [sentence, _] = training_warnings(tracks(*[song] * (MOST_NAMED + 5), None))
    assert sentence.endswith(f"song {MOST_NAMED - 1} and 5 more.")


def test_results_of_new_artists() -> None:
    left = of_new_artists(Results({}, tracks("song", None, "artist"), {}))
    assert left is not None
    assert list(left.tracks) == ["song 1"]
    for without_any in (tracks(None, None), tracks("song", "artist"), {}):
        assert of_new_artists(Results({}, without_any, {})) is None


@pytest.fixture
def songs(tmp_path: Path, musdb_root: Path) -> Path:
    for name in (NAME, "Three - Fourth", "Five - Fifth"):
        shutil.copytree(musdb_root / "test" / NAME, tmp_path / "songs" / name)
    return tmp_path / "songs"


def evaluated(folder: Path, *arguments: str) -> tuple[dict[str, Any], dict[str, Any], Page]:
    """Returns the results, the data of the report and the page of an evaluation by the command line."""
    assert main(["evaluate", *arguments, f"--output={folder}"]) == 0
    results, data = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("results.json", "report.json")
    )
    return results, data, Page(folder / "report.html")


def test_songs_and_artists_that_the_model_was_trained_on_are_reported(
    tmp_path: Path, tiny_network: BSMamba2, songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tiny_network, tmp_path / "m.safetensors", ["three - third", "Else - Where"])
    given = (f"--model={tmp_path / 'm.safetensors'}", f"--root={songs}", "--device=cpu")
    results, data, page = evaluated(tmp_path / "run", *given)
    expected = {NAME: "song", "Three - Fourth": "artist"}
    assert {name: track["trained_on"] for name, track in results["tracks"].items()} == {
        **expected,
        "Five - Fifth": None,
    }
    assert results["description"]["model"]["training_songs"] == 2
    assert data["runs"]["run"]["trained_on"] == expected
    shown, text = capsys.readouterr().out, " ".join(page.text.split())
    for sentence in (
        "1 of 3 songs was in the model's training data, so its scores do not show how the model separates "
        "new music: Three - Third.",
        "1 of 3 songs is by an artist with other songs in the model's training data, so its scores may be higher "
        "than for new artists: Three - Fourth.",
        'The row "new artists only" is without these songs.',
    ):
        assert f"warning: {sentence}" in shown
        assert sentence in text
    # In the table by track, over time, and among the excerpts.
    assert text.count("Three - Third trained on") == 3
    assert text.count("Three - Fourth artist trained on") == 3
    assert len(page.cells("new artists only")) == 2
    assert page.cells("new artists only")[0][-1] == "2 of 2"
    # An evaluation that is resumed reports the same.
    main(["evaluate", *given, f"--output={tmp_path / 'run'}"])
    assert "warning: 1 of 3 songs was in the model's training data" in capsys.readouterr().out


@pytest.mark.parametrize("names", [(), ("Else - Where",)])
def test_nothing_is_reported_of_other_songs(
    tmp_path: Path, tiny_network: BSMamba2, songs: Path, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tiny_network, tmp_path / "m.safetensors", names)
    given = (f"--model={tmp_path / 'm.safetensors'}", f"--root={songs}", "--device=cpu")
    check_nothing_is_reported(*evaluated(tmp_path / "run", *given), capsys.readouterr().out)


def test_nothing_is_reported_of_estimates_from_files(
    tmp_path: Path, songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(songs, tmp_path / "estimates")
    given = (f"--estimates={tmp_path / 'estimates'}", f"--root={songs}", "--stems=vocals")
    check_nothing_is_reported(*evaluated(tmp_path / "run", *given), capsys.readouterr().out)


def check_nothing_is_reported(results: dict[str, Any], data: dict[str, Any], page: Page, shown: str) -> None:
    assert {track["trained_on"] for track in results["tracks"].values()} == {None}
    assert data["runs"]["run"]["trained_on"] == {}
    for text in (shown, page.text):
        for words in ("training data", "trained on", "new artists only"):
            assert words not in text
