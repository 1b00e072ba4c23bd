import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bsmamba2.data.tracks import Track
from bsmamba2.evaluation.oracles import ideal_complex_mask, ideal_ratio_mask, scale_estimates
from bsmamba2.evaluation.results import (
    COMPLEX_MASK_ROW,
    HALF_ROW,
    MIXTURE_ROW,
    RATIO_MASK_ROW,
    SCALE_ROWS,
    SILENCE_ROW,
)
from bsmamba2.evaluation.songs import Song, read_song
from bsmamba2.metrics import usdr
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS


@pytest.fixture(scope="module")
def whole_song(song: Track) -> Song:
    """Returns the whole real song excerpt, 6 s."""
    return read_song(song)


def rows_of(song: Song, stem: str) -> dict[str, Tensor]:
    return dict(scale_estimates(mixture=song.mixture, reference=song.reference(stem), others=song.others(stem)))


def test_rows_have_the_names_and_order_of_the_tables(whole_song: Song) -> None:
    rows = rows_of(whole_song, "vocals")
    assert tuple(rows) == SCALE_ROWS
    assert rows[MIXTURE_ROW].equal(whole_song.mixture)
    assert rows[HALF_ROW].equal(whole_song.mixture / 2)
    assert not rows[SILENCE_ROW].any()
    assert {estimate.shape for estimate in rows.values()} == {whole_song.mixture.shape}


def test_ratio_masks_and_mixtures_have_the_scores_of_an_independent_table(test_data: Path) -> None:
    """Its figures have two decimals; every third track is compared, to save time."""
    folder = test_data / "data" / "musdb18-7-cc"
    with (folder / "tracks.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 30
    for row in table[::3]:
        song = read_song(Track(folder / "train" / f"{row['track']}.stem.mp4", 0))
        for stem in MUSDB_STEMS:
            reference = song.stems[stem]
            estimate = ideal_ratio_mask(mixture=song.mixture, reference=reference, others=song.others(stem))
            for column, scored in (("IRM_oracle", estimate), ("mix_as_est", song.mixture)):
                expected = pytest.approx(float(row[f"uSDR_{column}_{stem}"]), abs=0.0051)
                assert usdr(estimate=scored, reference=reference) == expected, (row["track"], stem, column)


@pytest.mark.parametrize("stem", ["vocals", "instrumental"])
def test_floors_and_oracles_are_in_order(whole_song: Song, stem: str) -> None:
    reference = whole_song.reference(stem)
    rows = {row: usdr(estimate=estimate, reference=reference) for row, estimate in rows_of(whole_song, stem).items()}
    assert rows[SILENCE_ROW] == 0
    floor = max(rows[MIXTURE_ROW], rows[HALF_ROW], rows[SILENCE_ROW])
    assert rows[COMPLEX_MASK_ROW] > rows[RATIO_MASK_ROW] + 3 > floor + 6


def test_ratio_masks_of_all_sources_share_the_mixture(whole_song: Song) -> None:
    two = Song(
        "two", whole_song.mixture, {stem: whole_song.reference(stem) for stem in ("vocals", "instrumental")}, 44100
    )
    for song in (two, whole_song):
        estimates = torch.stack([rows_of(song, stem)[RATIO_MASK_ROW] for stem in song.stems])
        torch.testing.assert_close(estimates.sum(0), song.mixture, rtol=0, atol=1e-5)


def test_complex_masks_are_exact_unless_the_stem_is_louder_than_the_mixture() -> None:
    generator = torch.Generator().manual_seed(0)
    stem = torch.randn(2, 20000, generator=generator)
    for mixture in (2 * stem, -2 * stem):
        torch.testing.assert_close(ideal_complex_mask(mixture=mixture, reference=stem), stem, rtol=0, atol=1e-5)
    torch.testing.assert_close(ideal_complex_mask(mixture=stem / 4, reference=stem), stem / 4, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 1023, 4095, 4096, 4097])
@pytest.mark.parametrize("channels", [1, 2])
def test_lengths_are_kept(song_stems: dict[str, Tensor], length: int, channels: int) -> None:
    """If all other sources are silent, the stem is the whole mixture."""
    mixture = song_stems[MIXTURE][:channels, 30000 : 30000 + length]
    others = [torch.zeros_like(mixture)]
    for _, estimate in scale_estimates(mixture=mixture, reference=mixture, others=others):
        assert estimate.shape == (channels, length)
    torch.testing.assert_close(estimate, mixture, rtol=0, atol=1e-6)
    estimate = ideal_ratio_mask(mixture=mixture, reference=mixture, others=others)
    torch.testing.assert_close(estimate, mixture, rtol=0, atol=1e-6)


def test_silence_does_not_divide_by_zero() -> None:
    silence = torch.zeros(2, 5000)
    for _, estimate in scale_estimates(mixture=silence, reference=silence, others=[silence]):
        assert estimate.equal(silence)


def test_channels_have_separate_masks(whole_song: Song) -> None:
    left = {stem: audio[:1] for stem, audio in whole_song.stems.items()}
    mono = Song("left", whole_song.mixture[:1], left, whole_song.sample_rate)
    for row, estimate in rows_of(mono, "vocals").items():
        assert estimate.equal(rows_of(whole_song, "vocals")[row][:1])
