import base64
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from example_runs import NAMES, SECONDS, Page, estimate_of, excerpts, write_run

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import ESTIMATE, EXCERPTS, Results
from bsmamba2.evaluation.scores import StemScores
from bsmamba2.evaluation.statistics import compare, summarise
from bsmamba2.metrics import usdr
from bsmamba2.report import write_report


def shown(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, song: Track) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    return write_run(folder, song, failures={"Bad <one>": "it is damaged"})


@pytest.fixture(scope="module")
def single(run: Path) -> Page:
    return Page(write_report([run], run.parent / "single.html")[0])


@pytest.fixture(scope="module")
def several(run: Path, song: Track) -> Page:
    others = [
        write_run(run.parent / "other" / "first", song, share=0.1),
        write_run(run.parent / "protocol", song, protocol="pair", start=None),
        write_run(run.parent / "data", song, data="other", start=None),
        write_run(run.parent / "bass", song, stem="bass", start=None, names={NAMES[3]: NAMES[3]}),
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
        assert [address[:40] for address in addresses if not address.startswith(("#", "data:"))] == []
        assert "@import" not in page.source
        assert not re.search(r"url\((?!#f)", page.source)
        [policy] = [each["content"] for each in page.all("meta") if "http-equiv" in each]
        assert policy.startswith("default-src 'none'")


def test_every_name_in_a_page_is_there_once(several: Page) -> None:
    ids = [attributes["id"] for _, attributes in several.elements if "id" in attributes]
    assert len(ids) > 20
    assert len(ids) == len(set(ids))
    linked = set(re.findall(r'(?:href="|aria-labelledby="|aria-controls="|url\()#?([\w-]+)[")]', several.source))
    assert {name for name in linked if name != "data"} <= set(ids)


def test_the_same_results_give_the_same_bytes(song: Track, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", song, names={NAMES[0]: NAMES[0]})
    first, again = (write_report([folder], tmp_path / name) for name in ("first.html", "elsewhere/again.html"))
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_the_main_table_has_the_medians_with_their_intervals(run: Path, single: Page) -> None:
    results = Results.read(run)
    cells = single.cells("estimate")[0]
    for score, (median, mean) in (("csdr", cells[0:2]), ("usdr", cells[2:4])):
        summary = summarise(results.values("vocals", ESTIMATE, score).values())
        assert median == f"{shown(summary.median)} [{shown(summary.low)}, {shown(summary.high)}]"
        assert mean == shown(summary.mean)
    assert cells[-1] == "4 of 4"
    assert single.cells("silence")[0] == ["–", "–", "0.00", "0.00", "0 of 4"]
    assert "protocol single, split test, 4 tracks, 1 failed" in " ".join(single.text.split())


def test_programs_find_the_same_figures(run: Path, several: Page) -> None:
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
    assert cells[0] == f"{shown(summary.median)}[{shown(summary.low)}, {shown(summary.high)}]".replace("[", " [")
    assert cells[2:] == ["4", "0", "0", "0", f"{comparison.p_value:.3f}"]
    # Less of the other sources: less leakage would be better, and it is the same here.
    [leakage] = [cells for cells in several.cells("leakage dBFS (lower is better)") if len(cells) == 7]
    assert leakage[2:5] == ["0", "0", "4"]


def test_runs_that_cannot_be_compared_are_shown_and_said_to_be(several: Page) -> None:
    text = " ".join(several.text.split())
    assert "protocol with A first : protocol pair is not single." in text.replace("first:", "first :")
    assert "the audio of 4 of the 4 tracks that both have is not the same" in text
    assert "they have no stem in common" in text
    assert text.count("Not compared:") == 2
    # Their mixture is another, so it is there again; that of the second run is that of the first.
    assert len(several.cells("mixture")) == 4
    assert len(several.cells("mixture (C)")) == len(several.cells("mixture (D)")) == 2
    assert several.cells("mixture (B)") == []


def test_excerpts_of_the_worst_the_median_and_the_best_can_be_heard(run: Path, single: Page, song: Track) -> None:
    scores = Results.read(run).values("vocals", ESTIMATE, "csdr")
    ranked = sorted(scores, key=lambda name: scores[name])
    labels = [each["aria-label"] for each in single.all("audio")]
    kinds = ("Mixture", "Reference", "Estimate", "Reference − estimate")
    assert labels == [f"{kind}, {name}" for name in (ranked[0], ranked[1], ranked[3]) for kind in kinds]
    residual = single.all("audio")[3]["src"].removeprefix("data:audio/mpeg;base64,")
    path = run.parent / "residual.mp3"
    path.write_bytes(base64.b64decode(residual))
    expected = excerpts(song)[ranked[0]]["vocals"] - estimate_of(song, ranked[0], 0.3)
    heard = read_audio(path)
    assert heard.shape == expected.shape
    assert usdr(estimate=heard, reference=expected) > 15
    assert f"seconds 10.0 to {10 + SECONDS}.0" in single.text


def test_without_audio_there_are_pictures(run: Path, single: Page) -> None:
    page = Page(write_report([run], run.parent / "silent.html", audio=False)[0])
    assert page.all("audio") == []
    assert page.all("image") == single.all("image")
    assert len(page.all("image")) == 12


def test_excerpts_of_other_seconds_are_not_put_side_by_side(song: Track, tmp_path: Path) -> None:
    names = {NAMES[3]: NAMES[3]}
    first = write_run(tmp_path / "first", song, names=names)
    same = write_run(tmp_path / "same", song, names=names, share=0.1)
    later = write_run(tmp_path / "later", song, names=names, share=0.1, start=11.0)
    page = Page(write_report([first, same, later], tmp_path / "page.html", audio=False)[0])
    # Mixture, reference, and estimate and residual of two runs.
    assert len(page.all("image")) == 6
    assert "later kept no excerpt of the same seconds" in page.text
    assert "same kept no excerpt" not in page.text


def test_undefined_scores_are_named_and_left_out(tmp_path: Path, song: Track) -> None:
    folder = write_run(tmp_path / "run", song, scores=StemScores(windows=(math.nan, math.nan)))
    page = Page(write_report([folder], tmp_path / "page.html", audio=False)[0])
    assert page.cells("estimate")[0] == ["–", "–", "–", "–", "0 of 4"]
    assert "cSDR is undefined for 4 tracks and leaves them out: " in page.text
    assert "There is no defined one-second window." in page.text
    assert "No score of sparse regions is defined" in page.text


def test_infinite_scores_are_shown(tmp_path: Path, song: Track) -> None:
    scores = StemScores(csdr=math.inf, usdr=-3.0, windows=(math.inf, 1.0, math.nan, -math.inf))
    names = {NAMES[3]: NAMES[3]}
    folder = write_run(tmp_path / "run", song, scores=scores, names=names)
    page = Page(write_report([folder], tmp_path / "page.html", audio=False)[0])
    assert page.cells("estimate")[0] == ["∞", "∞", "−3.00", "−3.00", "1 of 1"]
    [row] = [attributes for tag, attributes in page.elements if attributes.get("data-value") == "Infinity"]
    assert row
    assert "2 windows infinite, drawn at the edge; 1 window undefined, a gap." in page.text
    assert "The only track" in page.text


def test_runs_without_windows_or_tracks_have_a_page(tmp_path: Path, song: Track) -> None:
    folder = write_run(tmp_path / "run", song, scores=StemScores(csdr=1.0, usdr=2.0), start=None)
    assert "There is no defined one-second window." in Page(write_report([folder], tmp_path / "page.html")[0]).text
    results = replace(Results.read(folder), tracks={}, failures={"One": "lost"})
    results.write(folder, {})
    page = Page(write_report([folder], tmp_path / "page.html")[0])
    assert "No track was scored." in page.text
    assert "One: lost" in page.text


def test_published_figures_stand_beside_runs_of_the_test_tracks_only(
    single: Page, several: Page, tmp_path: Path, song: Track
) -> None:
    assert "Published by their authors, not measured here." in single.text
    assert "Not comparable with the runs above" in single.text
    assert single.cells("BSMamba2") == [["11.03", "10.70", "its authors"]]
    assert len(several.cells("BSMamba2")) == 1
    folder = write_run(tmp_path / "mine", song, scores=StemScores(csdr=9.9, usdr=9.7), start=None)
    results = Results.read(folder)
    tracks = {f"{number}": next(iter(results.tracks.values())) for number in range(50)}
    replace(results, tracks=tracks).write(folder, {})
    page = Page(write_report([folder], tmp_path / "page.html")[0])
    assert page.cells("mine") == [["9.90", "9.70", "measured here, protocol single"]]
    assert "Not comparable with the runs above" not in page.text


def test_the_description_is_told(single: Page) -> None:
    text = " ".join(single.text.split())
    assert "ab12ab12ab12…" in text
    assert "ab12" * 16 in text
    assert "several 1, 2.5" in text
    assert "museval no" in text


def test_names_that_no_page_can_hold_are_replaced(tmp_path: Path, song: Track) -> None:
    names = dict(zip(NAMES[:2], ("bell \x07", "byte \udcff"), strict=True))
    folder = write_run(tmp_path / "run", song, names=names, start=None)
    again = write_run(tmp_path / "again", song, names=names, start=None, share=0.1)
    page = Page(write_report([folder, again], tmp_path / "page.html")[0])
    assert page.cells("byte ?")


def test_chunks_are_drawn_against_their_length(single: Page) -> None:
    assert "Length of the input" in single.text
    assert "2.5 s" in single.text
    assert "as evaluated" in single.text


def test_what_cannot_be_used_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run was given"):
        write_report([], tmp_path / "page.html")
    with pytest.raises(InputError, match=r"ends in \.html"):
        write_report([run], tmp_path / "page.json")
    with pytest.raises(InputError, match=r"no results.json"):
        write_report([tmp_path], tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_excerpts_that_do_not_fit_together_are_named(song: Track, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", song, names={NAMES[3]: NAMES[3]})
    mixture = folder / EXCERPTS / NAMES[3] / "mixture.flac"
    write_audio(mixture, torch.zeros(2, 1000), 44100, "flac")
    with pytest.raises(InputError, match=r"do not fit together; evaluate again"):
        write_report([folder], tmp_path / "page.html")
    mixture.write_bytes(b"no sound")
    with pytest.raises(InputError, match=r"mixture.flac"):
        write_report([folder], tmp_path / "page.html")
    mixture.unlink()
    assert Page(write_report([folder], tmp_path / "page.html")[0]).all("image") == []
