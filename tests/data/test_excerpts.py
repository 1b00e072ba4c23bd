from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bsmamba2.audio.writing import write_audio
from bsmamba2.data.activity import index_windows
from bsmamba2.data.excerpts import EpochNumbers, RandomMixes, SongExcerpts, Stems
from bsmamba2.data.musdb import SAMPLE_RATE, STEMS
from bsmamba2.data.tracks import Track, find_tracks

SEGMENT = 2000


def same(left: Stems, right: Stems) -> bool:
    return list(left) == list(right) and all(torch.equal(left[stem], right[stem]) for stem in left)


@pytest.fixture(scope="module")
def mixes(musdb_root: Path, tmp_path_factory: pytest.TempPathFactory) -> RandomMixes:
    """Returns mixes of two tracks with all windows of them."""
    tracks = find_tracks(musdb_root, "train")
    windows = index_windows(tracks, SEGMENT, tmp_path_factory.mktemp("cache"))
    return RandomMixes(tracks, windows, SEGMENT, silence_probability=0.1, gains=(0.5, 1.5), seed=42)


@pytest.fixture(scope="module")
def level_mixes(tmp_path_factory: pytest.TempPathFactory) -> RandomMixes:
    """Returns mixes of one window in each of 64 tracks; every stem of a track has the track's number as its level."""
    root = tmp_path_factory.mktemp("levels")
    for number in range(64):
        for stem in STEMS:
            write_audio(
                root / str(number) / f"{stem}.wav", torch.full((2, 16), number + 1.0), SAMPLE_RATE, depth="float"
            )
    tracks = [Track(root / str(number), 16) for number in range(64)]
    windows = {stem: [(number, 0) for number in range(64)] for stem in STEMS}
    return RandomMixes(tracks, windows, 16, silence_probability=0, gains=(1, 1), seed=0)


def test_an_excerpt_depends_on_seed_and_number_only(mixes: RandomMixes) -> None:
    first = mixes[3].stems
    assert list(first) == list(STEMS)
    assert {tuple(audio.shape) for audio in first.values()} == {(2, SEGMENT)}
    torch.manual_seed(1)
    mixes[4], torch.rand(9)
    assert same(replace(mixes)[3].stems, first)
    assert not same(mixes[4].stems, first)
    assert not same(replace(mixes, seed=43)[3].stems, first)


def test_neighbouring_seeds_share_no_excerpts(level_mixes: RandomMixes) -> None:
    """Neither does a seed repeat itself: four draws of 64 tracks are 24 bits."""

    def levels(seed: int) -> list[tuple[float, ...]]:
        mixes = replace(level_mixes, seed=seed)
        return [tuple(audio[0, 0].item() for audio in mixes[number].stems.values()) for number in range(20)]

    drawn = levels(0) + levels(1) + levels(2)
    assert len(set(drawn)) == len(drawn)


def test_every_stem_is_drawn_on_its_own_and_from_all_windows(level_mixes: RandomMixes) -> None:
    levels = torch.tensor([[audio[0, 0] for audio in level_mixes[number].stems.values()] for number in range(300)])
    correlation = torch.corrcoef(levels.T) - torch.eye(4)
    assert correlation.abs().max() < 0.25
    for stem in levels.T:
        assert len(stem.unique()) > 55
        assert stem.mean().item() == pytest.approx(32.5, abs=5)


def test_gains_are_uniform_between_their_bounds(level_mixes: RandomMixes) -> None:
    loud = replace(level_mixes, gains=(0.5, 1.5))
    gains = torch.stack([loud[n].stems[stem] / level_mixes[n].stems[stem] for n in range(100) for stem in STEMS])
    assert gains.std((1, 2)).max() < 1e-6
    assert 0.5 <= gains.min() < 0.52
    assert 1.48 < gains.max() <= 1.5 + 1e-6
    assert gains.mean().item() == pytest.approx(1, abs=0.06)


def test_an_excerpt_is_an_active_window_times_a_gain(mixes: RandomMixes) -> None:
    loud = replace(mixes, silence_probability=0)
    for number in range(4):
        for stem, audio in loud[number].stems.items():
            sources = [loud.tracks[track].read(stem, start, SEGMENT) for track, start in loud.windows[stem]]
            gains = [((audio * source).sum() / source.square().sum()).item() for source in sources]
            fits = [
                gain
                for gain, source in zip(gains, sources, strict=True)
                if torch.allclose(gain * source, audio, rtol=0, atol=1e-5)
            ]
            assert fits
            assert 0.5 <= fits[0] <= 1.5


@pytest.mark.parametrize(("probability", "lowest", "highest"), [(0, 0, 0), (0.1, 0.05, 0.15), (0.999, 0.98, 1)])
def test_stems_are_silenced_as_often_as_told(
    level_mixes: RandomMixes, probability: float, lowest: float, highest: float
) -> None:
    mixes = replace(level_mixes, silence_probability=probability)
    excerpts = [mixes[number] for number in range(100)]
    silent = [not audio.any() for excerpt in excerpts for audio in excerpt.stems.values()]
    assert lowest <= sum(silent) / len(silent) <= highest
    assert {audio.shape for audio in excerpts[0].stems.values()} == {(2, 16)}


def test_silence_leaves_the_other_stems_as_they_were(level_mixes: RandomMixes) -> None:
    quieter = replace(level_mixes, silence_probability=0.5)
    for number in range(10):
        for stem, audio in quieter[number].stems.items():
            assert not audio.any() or torch.equal(audio, level_mixes[number].stems[stem])


def test_songs_give_the_middle_and_always_the_same(musdb_root: Path) -> None:
    (track,) = find_tracks(musdb_root, "valid")
    songs = SongExcerpts([track], 1001)
    name, stems = songs[0]
    assert (len(songs), name, list(stems)) == (1, "Leaf - Summerghost", list(STEMS))
    start = (track.length - 1001) // 2
    for stem, audio in stems.items():
        assert torch.equal(audio, track.read(stem)[:, start : start + 1001])
    assert same(songs[0][1], stems)


@pytest.mark.parametrize("length", [None, 10**9])
def test_songs_as_a_whole(musdb_root: Path, length: int | None) -> None:
    (track,) = find_tracks(musdb_root, "valid")
    _, stems = SongExcerpts([track], length)[0]
    for stem, audio in stems.items():
        assert torch.equal(audio, track.read(stem))


def test_numbers_count_through_the_epochs() -> None:
    numbers = EpochNumbers(3, batch_size=1)
    seen = []
    for epoch in (0, 1, 2):
        numbers.set_epoch(epoch)
        assert len(numbers) == 3
        seen += list(numbers)
    assert seen == list(range(9))


def test_processes_share_an_epoch_without_overlap() -> None:
    """Each batch of all processes together is the one that a single process would have; the last is left out."""
    heard = []
    for process in range(2):
        numbers = EpochNumbers(11, batch_size=2, processes=2, process=process)
        numbers.set_epoch(1)
        assert len(numbers) == 4
        heard.append(list(numbers))
    assert heard == [[11, 13, 15, 17], [12, 14, 16, 18]]


@pytest.mark.parametrize("process", [0, 1])
def test_numbers_go_on_where_they_stopped(process: int) -> None:
    whole = EpochNumbers(8, batch_size=2, processes=2, process=process)
    rest = EpochNumbers(8, batch_size=2, processes=2, process=process, start=12)
    for epoch, missing in ((1, 2), (2, 0)):
        whole.set_epoch(epoch)
        rest.set_epoch(epoch)
        assert list(rest) == list(whole)[missing:]
        assert len(rest) == len(whole) == 4
