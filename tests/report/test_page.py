import base64
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soxr
import torch
from torch import Tensor

from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import ESTIMATE, EXCERPTS_FOLDER, Results, TrainedOn
from bsmamba2.evaluation.scores import StemScores
from bsmamba2.evaluation.statistics import compare, summarise
from bsmamba2.metrics import usdr
from bsmamba2.player.opus import OPUS_RATE
from bsmamba2.report import write_report
from bsmamba2.stem_names import MIXTURE
from tests.report.example_runs import NAMES, SECONDS, Example, Page, estimate_of, excerpts, write_run


def shown(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, song: Track) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    return write_run(folder, song, Example(failures={"Bad <one>": "it is damaged"}))


@pytest.fixture(scope="module")
def single(run: Path) -> Page:
    return Page(write_report([run], run.parent / "single.html")[0])


@pytest.fixture(scope="module")
def several(run: Path, song: Track) -> Page:
    others = [
        write_run(run.parent / "other" / "first", song, Example(share=0.1)),
        write_run(run.parent / "protocol", song, Example(protocol="pair", start=None)),
        write_run(run.parent / "data", song, Example(data="other", start=None)),
        write_run(run.parent / "bass", song, Example(stem="bass", start=None, names={NAMES[3]: NAMES[3]})),
    ]
    return Page(write_report([run, *others], run.parent / "several.html", audio=False)[0])


def test_a_page_needs_nothing_else(single: Page, several: Page) -> None:
    for page in (single, several):
        addresses = [
            value
            for _, attributes in page.elements
            for name, value in attributes.items()
            if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset")
        ]
        assert len(addresses) > 20
        assert len(page.drawings) > 20
        # Addresses in them are names of formats, or of parts of the image itself.
        links = {
            link for drawing in page.drawings for link in re.findall(r'(?:href=|url\()"?([^")]+)|://([^"]+)', drawing)
        }
        assert {own or foreign for own, foreign in links if not own.startswith("#")} <= {
            "www.w3.org/2000/svg",
            "www.w3.org/1999/xlink",
            "www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd",
        }
        assert [address[:40] for address in addresses if not address.startswith(("#", "data:"))] == []
        assert "@import" not in page.source
        assert not re.search(r"url\((?!#f)", page.source)
        [policy] = [each["content"] for each in page.all("meta") if "http-equiv" in each]
        assert policy.startswith("default-src 'none'")


def test_every_name_in_a_page_is_there_once(several: Page) -> None:
    ids = [attributes["id"] for _, attributes in several.elements if "id" in attributes]
    assert len(ids) > 10
    assert len(ids) == len(set(ids))
    linked = set(re.findall(r'(?:href="|aria-labelledby="|aria-controls="|url\()#?([\w-]+)[")]', several.source))
    assert {name for name in linked if name != "data"} <= set(ids)


def test_the_same_results_give_the_same_bytes(song: Track, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", song, Example(names={NAMES[0]: NAMES[0]}))
    first, again = (write_report([folder], tmp_path / name) for name in ("first.html", "elsewhere/again.html"))
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_the_main_table_has_the_medians_with_their_intervals(run: Path, single: Page) -> None:
    results = Results.read(run)
    cells = single.cells("estimate")[0]
    for score, (median, mean) in (("csdr", cells[0:2]), ("usdr", cells[2:4])):
        summary = summarise(results.values("vocals", ESTIMATE, score).values())
        assert (median, mean) == (shown(summary.median), shown(summary.mean))
    # The vocals pause in one window of eight.
    assert cells[-2:] == ["4 of 4", "7 of 8"]
    assert single.cells("silence")[0] == ["–", "–", "0.00", "0.00", "0 of 4", "0 of 8"]
    assert [row[-1] for name in NAMES for row in single.cells(name)] == ["2 of 2", "1 of 2", "2 of 2", "2 of 2"]
    assert " ".join(single.text.split()).count("95 % interval: needs six tracks") == 2
    assert "protocol single, split test, 4 tracks, 1 failed" in " ".join(single.text.split())


def test_six_tracks_have_intervals(song: Track, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", song, Example(start=None))
    results = Results.read(folder)
    tracks = {f"{name} {copy}": track for copy in range(3) for name, track in results.tracks.items()}
    results = replace(results, tracks=dict(list(tracks.items())[:6]))
    results.write(folder, {})
    page = Page(write_report([folder], tmp_path / "page.html")[0])
    summary = summarise(results.values("vocals", ESTIMATE, "csdr").values())
    interval = f"[{shown(summary.low)}, {shown(summary.high)}]"
    assert page.cells("estimate")[0][0] == f"{shown(summary.median)} {interval}"
    assert f"95 % {interval}" in " ".join(page.text.split())
    assert "needs six tracks" not in page.text


def test_the_data_file_has_the_same_numbers(run: Path, several: Page) -> None:
    data = json.loads((run.parent / "several.json").read_text(encoding="utf-8"))
    assert list(data["runs"]) == ["first", "first (2)", "protocol", "data", "bass"]
    values = Results.read(run).values("vocals", ESTIMATE, "csdr")
    figures = data["runs"]["first"]["summaries"]["vocals"][ESTIMATE]["csdr"]
    assert figures["median"] == summarise(values.values()).median
    assert data["runs"]["first"]["failures"] == {"Bad <one>": "it is damaged"}
    others = Results.read(run.parent / "other" / "first").values("vocals", ESTIMATE, "csdr")
    [compared] = [each for each in data["comparisons"] if each["score"] == "csdr"]
    assert compared["second"] == "first (2)"
    assert compared["differences"] == compare(values, others).differences
    assert set(data["not_comparable"]) == {"protocol", "data", "bass"}


def test_tracks_that_a_model_was_trained_on_are_marked_for_its_run(run: Path, song: Track, tmp_path: Path) -> None:
    trained_on: dict[str, TrainedOn] = {NAMES[1]: "song", NAMES[3]: "artist"}
    other = write_run(tmp_path / "other", song, Example(share=0.1, trained_on=trained_on))
    page = Page(write_report([run, other], tmp_path / "page.html", audio=False)[0])
    text = " ".join(page.text.split())
    [warning] = re.findall(r"Training data: (.*?) without these songs\.", text)
    assert warning.startswith("B 1 of 4 songs was in the model's training data, so its scores do not show how ")
    assert f" new music: {NAMES[1]}. 1 of 4 songs is by an artist" in warning
    assert "<script>alert" not in page.source
    heads = [" ".join(row[0].split()) for row in page.rows if row]
    for name, mark in zip(NAMES, ("", " B trained on", "", " B artist trained on"), strict=True):
        assert " ".join(name.split()) + mark in heads
    results = Results.read(other)
    new = [results.tracks[name].scores["vocals"][ESTIMATE]["csdr"] for name in (NAMES[0], NAMES[2])]
    [main, _] = page.cells("B new artists only")
    assert (main[0], main[4], main[5]) == (shown(sum(new) / 2), "2 of 2", "4 of 4")
    data = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))
    assert {name: found["trained_on"] for name, found in data["runs"].items()} == {"first": {}, "other": trained_on}


def test_names_are_text(single: Page) -> None:
    assert len(single.all("script")) == 1
    assert "<script>alert" not in single.source
    for name in NAMES:
        [cells] = single.cells(name)
        assert cells[0] == f"0:{SECONDS:02}"
    assert "Bad <one> : it is damaged" in " ".join(single.text.split()).replace("<one>:", "<one> :")
    assert "the estimate was cut by 3 samples" in single.text


def test_runs_are_compared_with_the_first(run: Path, several: Page) -> None:
    first, second = (
        Results.read(folder).values("vocals", ESTIMATE, "csdr") for folder in (run, run.parent / "other" / "first")
    )
    comparison = compare(first, second)
    [cells] = [cells for cells in several.cells("cSDR dB") if len(cells) == 7]
    summary = comparison.summary
    assert cells[0] == shown(summary.median)
    assert cells[2:] == ["4", "0", "0", "0", f"{comparison.p_value:.3f}"]
    # Less leakage would be better; it is equal here.
    [leakage] = [cells for cells in several.cells("leakage dBFS (lower is better)") if len(cells) == 7]
    assert leakage[2:5] == ["0", "0", "4"]


def test_runs_that_cannot_be_compared_are_shown_with_the_reason(several: Page) -> None:
    text = " ".join(several.text.split())
    assert "protocol with A first : protocol pair is not single." in text.replace("first:", "first :")
    assert "the audio of 4 of the 4 tracks that both have is not the same" in text
    assert "they have no stem in common" in text
    assert text.count("Not compared:") == 2
    # Incomparable runs have a line of their own for the mixture; the second run shares that of the first.
    assert [len(several.cells(f"mixture ({run})")) for run in ("A, B", "C", "D", "A", "B")] == [2, 2, 2, 0, 0]
    # One run scored the bass.
    assert len(several.cells("mixture")) == 2


def heard(song: dict[str, Any], place: int, path: Path) -> Tensor:
    """Returns the audio (c, n) of a sound in a player, decoded by way of a file."""
    path.write_bytes(base64.b64decode(song["sounds"][place]["sound"]))
    assert audio_info(path).sample_rate == OPUS_RATE
    return read_audio(path)


def test_excerpts_of_the_worst_median_and_best_track_can_be_played(run: Path, single: Page, song: Track) -> None:
    scores = Results.read(run).values("vocals", ESTIMATE, "csdr")
    ranked = sorted(scores, key=lambda name: scores[name])
    assert [player["name"] for player in single.players] == [ranked[0], ranked[1], ranked[3]]
    for player in single.players:
        assert [sound["name"] for sound in player["sounds"]] == [
            "mixture", "reference", "estimate", "reference − estimate",
        ]  # fmt: skip
        assert (player["mode"], player["start"], player["seconds"]) == ("one", 10, SECONDS)
    residual = heard(single.players[0], 3, run.parent / "residual.webm")
    expected = excerpts(song)[ranked[0]]["vocals"] - estimate_of(song, ranked[0], 0.3)
    assert usdr(estimate=residual, reference=at_opus_rate(expected, SAMPLE_RATE, residual)) > 15
    assert f"seconds 10.0 to {10 + SECONDS}.0" in single.text


def at_opus_rate(audio: Tensor, sample_rate: int, like: Tensor) -> Tensor:
    resampled = torch.from_numpy(soxr.resample(audio.mT.numpy(), sample_rate, OPUS_RATE)).mT
    assert like.shape[1] == pytest.approx(resampled.shape[1], abs=1)
    return torch.nn.functional.pad(resampled, (0, like.shape[1] - resampled.shape[1]))


def test_without_audio_there_are_spectrograms(run: Path, single: Page) -> None:
    page = Page(write_report([run], run.parent / "silent.html", audio=False)[0])
    for silent, player in zip(page.players, single.players, strict=True):
        assert not any("sound" in sound for sound in silent["sounds"])
        assert [sound["images"] for sound in silent["sounds"]] == [sound["images"] for sound in player["sounds"]]
        assert all(sound["images"] for sound in silent["sounds"])


def test_excerpts_of_other_seconds_are_not_put_side_by_side(song: Track, tmp_path: Path) -> None:
    names = {NAMES[3]: NAMES[3]}
    first = write_run(tmp_path / "first", song, Example(names=names))
    same = write_run(tmp_path / "same", song, Example(names=names, share=0.1))
    later = write_run(tmp_path / "later", song, Example(names=names, share=0.1, start=11.0))
    page = Page(write_report([first, same, later], tmp_path / "page.html", audio=False)[0])
    (player,) = page.players
    badges = [sound["badge"] and sound["badge"][0] for sound in player["sounds"]]
    assert badges == [None, None, "A", "A", "B", "B"], "mixture, reference, and estimate and residual of two runs"
    assert "later kept no excerpt of the same seconds" in page.text
    assert "same kept no excerpt" not in page.text


def test_undefined_scores_are_left_out_and_listed(tmp_path: Path, song: Track) -> None:
    folder = write_run(tmp_path / "run", song, Example(scores=StemScores(windows=(math.nan, math.nan))))
    page = Page(write_report([folder], tmp_path / "page.html", audio=False)[0])
    assert page.cells("estimate")[0] == ["–", "–", "–", "–", "0 of 4", "0 of 8"]
    assert "cSDR is undefined for 4 tracks, which are left out: " in page.text
    assert "There is no defined one-second window." in page.text
    assert "No score of sparse regions is defined" in page.text


def test_infinite_scores_are_shown(tmp_path: Path, song: Track) -> None:
    scores = StemScores({"csdr": math.inf, "usdr": -3.0}, windows=(math.inf, 1.0, math.nan, -math.inf))
    names = {NAMES[3]: NAMES[3]}
    folder = write_run(tmp_path / "run", song, Example(scores=scores, names=names))
    page = Page(write_report([folder], tmp_path / "page.html", audio=False)[0])
    assert page.cells("estimate")[0] == ["∞", "∞", "−3.00", "−3.00", "1 of 1", "3 of 4"]
    [row] = [attributes for tag, attributes in page.elements if attributes.get("data-value") == "Infinity"]
    assert row
    assert "2 windows infinite, drawn at the edge; 1 window undefined, a gap." in page.text
    assert "The only track" in page.text


def test_runs_without_windows_or_tracks_have_a_page(tmp_path: Path, song: Track) -> None:
    folder = write_run(tmp_path / "run", song, Example(scores=StemScores({"csdr": 1.0, "usdr": 2.0}), start=None))
    assert "There is no defined one-second window." in Page(write_report([folder], tmp_path / "page.html")[0]).text
    results = replace(Results.read(folder), tracks={}, failures={"One": "lost"})
    results.write(folder, {})
    page = Page(write_report([folder], tmp_path / "page.html")[0])
    assert "No track was scored." in page.text
    assert "One: lost" in page.text


def test_published_scores_are_compared_with_runs_of_the_test_tracks_only(
    single: Page, several: Page, tmp_path: Path, song: Track
) -> None:
    assert "Published by their authors, not measured here." in single.text
    assert "Not comparable with the runs above" in single.text
    assert single.cells("BSMamba2") == [["11.03", "10.70", "its authors"]]
    assert len(several.cells("BSMamba2")) == 1
    folder = write_run(tmp_path / "mine", song, Example(scores=StemScores({"csdr": 9.9, "usdr": 9.7}), start=None))
    results = Results.read(folder)
    tracks = {f"{number}": next(iter(results.tracks.values())) for number in range(50)}
    replace(results, tracks=tracks).write(folder, {})
    page = Page(write_report([folder], tmp_path / "page.html")[0])
    assert page.cells("mine") == [["9.90", "9.70", "measured here, protocol single"]]
    assert "Not comparable with the runs above" not in page.text


def test_the_description_is_shown(single: Page) -> None:
    text = " ".join(single.text.split())
    assert "ab12ab12ab12…" in text
    assert "ab12" * 16 in text
    assert "several 1, 2.5" in text
    assert "museval no" in text


def test_characters_that_a_page_cannot_contain_are_replaced(tmp_path: Path, song: Track) -> None:
    names = dict(zip(NAMES[:2], ("bell \x07", "byte \udcff"), strict=True))
    folder = write_run(tmp_path / "run", song, Example(names=names, start=None))
    again = write_run(tmp_path / "again", song, Example(names=names, start=None, share=0.1))
    page = Page(write_report([folder, again], tmp_path / "page.html")[0])
    assert page.cells("byte ?")


def test_chunks_are_drawn_against_their_length(single: Page) -> None:
    assert "Length of the input" in single.text
    drawings = [drawing for drawing in single.drawings if "length of the input" in drawing]
    assert len(drawings) == 4
    assert all("2.5 s" in drawing and "as evaluated" in drawing for drawing in drawings)


def test_unusable_input_is_an_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run was given"):
        write_report([], tmp_path / "page.html")
    with pytest.raises(InputError, match=r"ends in \.html"):
        write_report([run], tmp_path / "page.json")
    with pytest.raises(InputError, match=r"no results.json"):
        write_report([tmp_path], tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_only_damaged_excerpts_are_left_out(song: Track, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", song, Example(names={NAMES[3]: NAMES[3]}))
    mixture = folder / EXCERPTS_FOLDER / NAMES[3] / "mixture.flac"
    write_audio(mixture, torch.zeros(2, 1000), 44100, "flac")
    damaged = "run has an excerpt that is damaged and cannot be shown"
    page = Page(write_report([folder], tmp_path / "page.html")[0])
    assert (page.players, damaged in page.text) == ([], True)
    mixture.write_bytes(b"no sound")
    page = Page(write_report([folder], tmp_path / "page.html")[0])
    assert (page.players, damaged in page.text) == ([], True)
    # With a second run that is intact.
    whole = write_run(tmp_path / "whole", song, Example(names={NAMES[3]: NAMES[3]}))
    page = Page(write_report([whole, folder], tmp_path / "page.html")[0])
    assert ([len(player["sounds"]) for player in page.players], damaged in page.text) == ([4], True)
    mixture.unlink()
    page = Page(write_report([folder], tmp_path / "page.html")[0])
    assert page.players == []
    assert "Excerpts were kept, but their files are missing: Zed - Last" in page.text


@pytest.mark.parametrize("rate", [96000, 88200, 30000])
def test_sounds_of_any_rate_can_be_played(song: Track, tmp_path: Path, rate: int) -> None:
    folder = write_run(tmp_path / "run", song, Example(names={NAMES[3]: NAMES[3]}, sample_rate=rate))
    page = Page(write_report([folder], tmp_path / "page.html")[0])
    mixture = heard(page.players[0], 0, tmp_path / "mixture.webm")
    given = excerpts(song)[NAMES[3]][MIXTURE]
    assert usdr(estimate=mixture, reference=at_opus_rate(given, rate, mixture)) > 15


def test_excerpts_that_were_turned_down_have_a_note(song: Track, tmp_path: Path, single: Page) -> None:
    folder = write_run(tmp_path / "run", song, Example(names={NAMES[3]: NAMES[3]}, gain=0.5))
    page = Page(write_report([folder], tmp_path / "page.html", audio=False)[0])
    assert "run has its excerpt turned down by 6.0 dB" in page.text
    assert "turned down" not in single.text


@pytest.mark.parametrize("name", ["results.html", "run.htm", "RESULTS.html"])
def test_a_page_that_could_replace_results_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be written to .*; give .*report\.html"):
        write_report([run], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", ["results.json", "run.json"])
def test_the_folder_of_an_evaluation_takes_only_its_own_page(run: Path, tmp_path: Path, kept: str) -> None:
    (tmp_path / kept).write_text("kept")
    with pytest.raises(InputError, match="a file of an evaluation"):
        write_report([run], tmp_path / "page.html", audio=False)
    write_report([run], tmp_path / "report.html", audio=False)
    assert (tmp_path / kept).read_text() == "kept"


def test_a_damaged_description_is_an_error(song: Track, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", song, Example(start=None))
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    content["description"]["data"] = 7
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"the description in .*results\.json is damaged"):
        write_report([folder], tmp_path / "page.html")


def test_windows_of_only_one_run_are_not_compared(song: Track, tmp_path: Path) -> None:
    """The second is silent in the harder of two windows: its own cSDR is higher, but it is not better."""
    names = {NAMES[3]: NAMES[3]}
    both, easy = StemScores({"csdr": 4.0}, windows=(2.0, 6.0)), StemScores({"csdr": 6.0}, windows=(math.nan, 6.0))
    folders = [
        write_run(tmp_path / name, song, Example(names=names, start=None, scores=scores))
        for name, scores in (("both", both), ("easy", easy))
    ]
    page, data = write_report(folders, tmp_path / "page.html")
    [cells] = [cells for cells in Page(page).cells("cSDR dB") if len(cells) == 7]
    assert cells == ["0.00", "0.00", "0", "0", "1", "0", "1.000"]
    assert "1 window that is defined in only one of the two is left out" in Page(page).text
    assert json.loads(data.read_text(encoding="utf-8"))["runs"]["easy"]["windows"] == {
        "vocals": {ESTIMATE: {"defined": 1, "all": 2}}
    }


def test_no_path_of_the_machine_is_published(song: Track, tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run", song, Example(failures={"Bad": "/home/someone/MUSDB18-HQ/test/Bad is damaged"})
    )
    for path in write_report([folder], tmp_path / "page.html", audio=False):
        text = path.read_text(encoding="utf-8")
        assert "someone" not in text
        assert "MUSDB18-HQ/test/Bad is damaged" in text
        assert "tiny.ckpt" in text


def test_stems_have_unique_addresses_and_keep_their_names(song: Track, tmp_path: Path) -> None:
    stems = ("鼓", "笛", "BGV", "runs")
    folders = [
        write_run(
            tmp_path / stem,
            song,
            Example(stem=stem, start=None, names={NAMES[3]: NAMES[3]}, scores=StemScores({"csdr": 1.0})),
        )
        for stem in stems
    ]
    page = Page(write_report(folders, tmp_path / "page.html")[0])
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"stem", "stem-2", "bgv", "runs", "runs-2"} <= set(ids)
    assert ">BGV</h2>" in page.source


def test_the_sources_of_museval_are_explained(song: Track, tmp_path: Path, single: Page) -> None:
    folder = write_run(
        tmp_path / "run", song, Example(start=None, scores=StemScores({"csdr": 1.0, "museval_sir": 3.0}))
    )
    assert "together with everything else" in Page(write_report([folder], tmp_path / "page.html")[0]).text
    assert "together with everything else" not in single.text


def test_the_device_is_shown_once(single: Page) -> None:
    [facts] = re.findall(r'<dl class="facts">(.*?)</dl>', single.source, re.DOTALL)[:1]
    assert facts.count("<dt>device</dt>") == 1
