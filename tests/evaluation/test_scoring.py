import math

import pytest
from torch import Tensor

from bsmamba2.data.musdb import MIXTURE, SAMPLE_RATE, STEMS
from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import ESTIMATE, SCALE_ROWS, SILENCE_ROW
from bsmamba2.evaluation.scores import SCORES
from bsmamba2.evaluation.scoring import (
    ACCOMPANIMENT,
    REST,
    check_protocol,
    museval_sources,
    needed_stems,
    score_song,
    source_references,
)
from bsmamba2.evaluation.songs import Song
from bsmamba2.metrics import csdr, usdr


@pytest.fixture
def real_song(song_stems: dict[str, Tensor]) -> Song:
    stems = {stem: song_stems[stem] for stem in STEMS}
    return Song("A - B", song_stems[MIXTURE], stems, SAMPLE_RATE)


def damped(real_song: Song) -> dict[str, Tensor]:
    """Returns estimates of all stems that leak a little of everything."""
    return {stem: 0.8 * audio + 0.1 * real_song.mixture for stem, audio in real_song.stems.items()}


def test_every_protocol_has_its_sources(real_song: Song) -> None:
    assert list(source_references(real_song, "bass", "single")) == ["bass"]
    pair = source_references(real_song, "bass", "pair")
    assert list(pair) == ["bass", REST]
    rest = real_song.stems["drums"] + real_song.stems["other"] + real_song.stems["vocals"]
    assert pair[REST] == pytest.approx(rest, abs=1e-6)
    assert list(source_references(real_song, "bass", "four")) == ["bass", "drums", "other", "vocals"]
    assert needed_stems(["bass"], "pair") == ("bass",)
    assert needed_stems(["bass"], "four") == STEMS


def test_a_song_gets_every_score_beside_its_scale(real_song: Song) -> None:
    estimates = damped(real_song)
    scores = score_song(real_song, {ESTIMATE: estimates, "worse": {"vocals": real_song.mixture}}, ["vocals"], "single")[
        "vocals"
    ]
    assert list(scores) == [ESTIMATE, "worse", *SCALE_ROWS]
    estimate, reference = estimates["vocals"], real_song.stems["vocals"]
    assert scores[ESTIMATE].usdr == usdr(estimate=estimate, reference=reference)
    assert scores[ESTIMATE].csdr == pytest.approx(csdr(estimate=estimate, reference=reference), abs=1e-9)
    # No block of this song is silent, and no museval was asked for.
    undefined = {name for name in SCORES if math.isnan(getattr(scores[ESTIMATE], name))}
    assert {name.partition("_")[0] for name in undefined} == {"leakage", "onset", "csdr", "museval"}
    assert not math.isnan(scores[ESTIMATE].csdr_activity_75)
    assert scores[SILENCE_ROW].false_mute == 100
    assert all(math.isnan(window) for window in scores[SILENCE_ROW].windows)


def test_an_estimate_that_is_silent_voids_the_windows_of_the_four(real_song: Song) -> None:
    estimates = damped(real_song)
    estimates["drums"] = estimates["drums"].clone()
    estimates["drums"][:, :SAMPLE_RATE] = 0
    single = score_song(real_song, {ESTIMATE: estimates}, ["vocals"], "single")["vocals"]
    four = score_song(real_song, {ESTIMATE: estimates}, ["vocals"], "four")["vocals"]
    assert [math.isnan(window) for window in single[ESTIMATE].windows] == [False, False]
    assert [math.isnan(window) for window in four[ESTIMATE].windows] == [True, False]
    assert [math.isnan(window) for window in four["mixture"].windows] == [False, False]


@pytest.mark.parametrize(
    ("stems", "sources"),
    [
        (["vocals"], ["vocals", ACCOMPANIMENT]),
        (["instrumental"], ["instrumental", ACCOMPANIMENT]),
        (["vocals", "instrumental"], ["vocals", "instrumental"]),
        (["vocals", "bass"], ["vocals", "bass", ACCOMPANIMENT]),
        (STEMS, list(STEMS)),
    ],
)
def test_the_sources_of_museval_are_the_whole_song(real_song: Song, stems: list[str], sources: list[str]) -> None:
    named = damped(real_song)
    named["instrumental"] = real_song.mixture - named["vocals"]
    estimates, references = museval_sources(real_song, named, stems)
    assert list(estimates) == list(references) == sources
    assert sum(references.values()) == pytest.approx(sum(real_song.stems.values()), abs=1e-6)
    if ACCOMPANIMENT in sources:
        assert sum(estimates.values()) == pytest.approx(real_song.mixture, abs=1e-6)


@pytest.mark.parametrize(
    ("protocol", "stems", "estimated", "message"),
    [
        ("two", ["vocals"], ["vocals"], "protocol='two' does not exist; choose single, pair, four"),
        ("four", ["vocals"], ["vocals"], "needs estimates of drums, bass, other, vocals; these are of vocals"),
        ("four", ["instrumental"], [*STEMS, "instrumental"], "scores drums, bass, other, vocals; .* holds another"),
    ],
)
def test_protocols_that_cannot_be_scored(protocol: str, stems: list[str], estimated: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_protocol(protocol, stems, estimated)  # type: ignore[arg-type]
