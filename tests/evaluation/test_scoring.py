import math
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import ESTIMATE, SCALE_ROWS, SILENCE_ROW
from bsmamba2.evaluation.scores import SCORES
from bsmamba2.evaluation.scoring import (
    ACCOMPANIMENT,
    REST,
    check_protocol,
    check_references,
    museval_sources,
    museval_target,
    needed_stems,
    score_song,
    source_estimate,
    source_references,
)
from bsmamba2.evaluation.songs import Song
from bsmamba2.metrics import csdr, usdr
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS


@pytest.fixture
def real_song(song_stems: dict[str, Tensor]) -> Song:
    stems = {stem: song_stems[stem] for stem in MUSDB_STEMS}
    return Song("A - B", song_stems[MIXTURE], stems, SAMPLE_RATE)


def damped(real_song: Song) -> dict[str, Tensor]:
    """Returns estimates of all stems, each with a little of the mixture."""
    return {stem: 0.8 * audio + 0.1 * real_song.mixture for stem, audio in real_song.stems.items()}


def test_every_protocol_has_its_sources(real_song: Song) -> None:
    assert list(source_references(real_song, "bass", "single")) == ["bass"]
    pair = source_references(real_song, "bass", "pair")
    assert list(pair) == ["bass", REST]
    rest = real_song.stems["drums"] + real_song.stems["other"] + real_song.stems["vocals"]
    assert pair[REST] == pytest.approx(rest, abs=1e-6)
    assert list(source_references(real_song, "bass", "four")) == ["bass", "drums", "other", "vocals"]
    assert needed_stems(["bass"], "pair") == ("bass",)
    assert needed_stems(["bass"], "four") == MUSDB_STEMS


def test_a_song_gets_every_score_for_every_row(real_song: Song) -> None:
    estimates = damped(real_song)
    scores = score_song(
        real_song, [(ESTIMATE, estimates), ("worse", {"vocals": real_song.mixture})], ["vocals"], "single"
    )["vocals"]
    assert list(scores) == [ESTIMATE, "worse", *SCALE_ROWS]
    estimate, reference = estimates["vocals"], real_song.stems["vocals"]
    assert scores[ESTIMATE]["usdr"] == usdr(estimate=estimate, reference=reference)
    assert scores[ESTIMATE]["csdr"] == pytest.approx(
        csdr(estimate=estimate, reference=reference, sample_rate=SAMPLE_RATE), abs=1e-9
    )
    # No block of this song is silent, it has no stem called speech, and no museval was asked for.
    undefined = {name for name in SCORES if math.isnan(scores[ESTIMATE][name])}
    assert {name.partition("_")[0] for name in undefined} == {"leakage", "onset", "csdr", "museval", "stoi", "pesq"}
    assert not math.isnan(scores[ESTIMATE]["csdr_activity_75"])
    assert scores[SILENCE_ROW]["false_mute"] == 100
    assert all(math.isnan(window) for window in scores[SILENCE_ROW].windows)


def test_no_row_is_held_while_the_next_is_computed(real_song: Song) -> None:
    made: list[weakref.ref[Tensor]] = []
    held: list[bool] = []

    def rows() -> Iterator[tuple[str, dict[str, Tensor]]]:
        for row in (ESTIMATE, "second", "third"):
            held.extend(earlier() is not None for earlier in made)
            estimates = damped(real_song)
            made.extend(map(weakref.ref, estimates.values()))
            yield row, estimates
            del estimates

    scores = score_song(real_song, rows(), ["vocals", "bass"], "pair")
    assert list(scores["bass"]) == [ESTIMATE, "second", "third", *SCALE_ROWS]
    assert scores["bass"]["third"]["usdr"] == scores["bass"][ESTIMATE]["usdr"]
    assert held
    assert not any(held)


@pytest.mark.parametrize("dither", [0, 2**-15])
def test_only_leakage_scores_the_estimate_of_a_silent_stem(real_song: Song, dither: float) -> None:
    silent = replace(real_song, stems={**real_song.stems, "vocals": torch.full_like(real_song.mixture, dither)})
    scores = score_song(silent, [(ESTIMATE, damped(real_song))], ["vocals", "bass"], "single")
    for row in (ESTIMATE, SILENCE_ROW):
        defined = {name for name in SCORES if not math.isnan(scores["vocals"][row][name])}
        assert {name.partition("_")[0] for name in defined} == {"leakage"}
        assert all(math.isnan(window) for window in scores["vocals"][row].windows)
    assert scores["vocals"][ESTIMATE]["leakage_dbfs"] > scores["vocals"][SILENCE_ROW]["leakage_dbfs"]
    assert not math.isnan(scores["bass"][ESTIMATE]["usdr"])


def test_a_silent_estimate_makes_windows_undefined_for_the_four(real_song: Song) -> None:
    estimates = damped(real_song)
    estimates["drums"] = estimates["drums"].clone()
    estimates["drums"][:, :SAMPLE_RATE] = 0
    single = score_song(real_song, [(ESTIMATE, estimates)], ["vocals"], "single")["vocals"]
    four = score_song(real_song, [(ESTIMATE, estimates)], ["vocals"], "four")["vocals"]
    assert [math.isnan(window) for window in single[ESTIMATE].windows] == [False, False]
    assert [math.isnan(window) for window in four[ESTIMATE].windows] == [True, False]
    assert [math.isnan(window) for window in four["mixture"].windows] == [False, False]


@pytest.mark.parametrize(
    ("stems", "sources"),
    [
        (["vocals"], ["vocals", ACCOMPANIMENT]),
        (["instrumental"], [ACCOMPANIMENT, "vocals"]),
        (["vocals", "instrumental"], ["vocals", ACCOMPANIMENT]),
        (["vocals", "bass"], ["vocals", "bass", ACCOMPANIMENT]),
        (MUSDB_STEMS, list(MUSDB_STEMS)),
    ],
)
def test_the_sources_of_museval_are_the_whole_song(real_song: Song, stems: list[str], sources: list[str]) -> None:
    named = damped(real_song)
    named["instrumental"] = real_song.mixture - named["vocals"]
    estimates, references = museval_sources(real_song, named, stems)
    assert list(estimates) == list(references) == sources
    assert [museval_target(stem) for stem in stems] == sources[: len(stems)]
    assert sum(references.values()) == pytest.approx(sum(real_song.stems.values()), abs=1e-6)
    if ACCOMPANIMENT in sources:
        assert sum(estimates.values()) == pytest.approx(real_song.mixture, abs=1e-6)


def test_an_estimate_of_the_instrumental_is_the_rest_of_the_vocals(real_song: Song) -> None:
    estimates = damped(real_song)
    instrumental = real_song.stems["drums"]
    both = estimates | {"instrumental": instrumental}
    assert source_estimate(real_song, both, "vocals", REST).equal(instrumental)
    assert source_estimate(real_song, both, "instrumental", REST).equal(estimates["vocals"])
    assert source_estimate(real_song, both, "bass", REST).equal(real_song.mixture - estimates["bass"])
    assert source_estimate(real_song, estimates, "vocals", REST).equal(real_song.mixture - estimates["vocals"])
    for stems in (["vocals"], ["instrumental"], ["instrumental", "bass"]):
        named, _ = museval_sources(real_song, both, stems)
        assert named[ACCOMPANIMENT].equal(instrumental)
        assert named["vocals"].equal(estimates["vocals"])


def test_a_missing_stem_is_an_error_that_lists_what_can_be_scored(real_song: Song) -> None:
    with pytest.raises(
        InputError,
        match="has no stem 'click', only drums, bass, other, vocals; add it, or score those it has with "
        "--stems drums,vocals",
    ):
        check_references(real_song, ["drums", "click", "vocals"])
    with pytest.raises(InputError, match=r"has no stem 'click', .*; add it, or score another"):
        check_references(real_song, ["click"])


@pytest.mark.parametrize(
    ("protocol", "stems", "estimated", "message"),
    [
        ("two", ["vocals"], ["vocals"], "protocol='two' does not exist; choose single, pair, four"),
        ("four", ["vocals"], ["vocals"], "needs estimates of drums, bass, other, vocals; these are of vocals"),
        (
            "four",
            ["instrumental"],
            [*MUSDB_STEMS, "instrumental"],
            "scores drums, bass, other, vocals; .* has a different one",
        ),
    ],
)
def test_unusable_protocols_are_errors(protocol: str, stems: list[str], estimated: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_protocol(protocol, stems, estimated)  # type: ignore[arg-type]
