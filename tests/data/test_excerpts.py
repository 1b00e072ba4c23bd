from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from bsmamba2.audio.writing import write_audio
from bsmamba2.data.activity import index_tracks
from bsmamba2.data.augment import Augmentation
from bsmamba2.data.excerpts import DRAW_ATTEMPTS, EpochNumbers, RandomMixes, SongExcerpts, Stems
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Track, find_tracks
from bsmamba2.errors import InputError
from bsmamba2.stem_names import MUSDB_STEMS

SEGMENT = 2000
# With nothing that happens.
NONE = Augmentation(gains=(1, 1), silence=0)

needs_stretch = pytest.mark.skipif(find_spec("python_stretch") is None, reason="python-stretch is not installed")


def same(left: Stems, right: Stems) -> bool:
    return list(left) == list(right) and all(torch.equal(left[stem], right[stem]) for stem in left)


def with_settings(mixes: RandomMixes, **settings: Any) -> RandomMixes:
    return replace(mixes, augmentation=replace(mixes.augmentation, **settings))


def drawn_levels(mixes: RandomMixes, count: int) -> Tensor:
    """Returns the level of every stem (excerpts, stems)."""
    return torch.tensor([[audio[0, 0] for audio in mixes[number].stems.values()] for number in range(count)])


@pytest.fixture(scope="module")
def mixes(musdb_root: Path, tmp_path_factory: pytest.TempPathFactory) -> RandomMixes:
    """Returns mixes of two tracks with all their windows."""
    tracks = find_tracks(musdb_root, "train")
    windows = index_tracks(tracks, SEGMENT, tmp_path_factory.mktemp("cache")).windows
    return RandomMixes(tracks, windows, SEGMENT, SAMPLE_RATE, 2, Augmentation(), seed=42)


def write_levels(root: Path, count: int, stems: tuple[str, ...] = MUSDB_STEMS) -> RandomMixes:
    """Returns mixes of one window in each of some tracks; every stem of a track has the track's number as its level."""
    for number in range(count):
        for stem in stems:
            audio = torch.full((2, 16), number + 1.0)
            write_audio(root / str(number) / f"{stem}.wav", audio, SAMPLE_RATE, depth="float")
    tracks = [Track(root / str(number), 16) for number in range(count)]
    # As after indexing, so that a file removed later is noticed.
    assert all(track.sources for track in tracks)
    windows = {stem: [(number, 0) for number in range(count)] for stem in stems}
    return RandomMixes(tracks, windows, 16, SAMPLE_RATE, 2, NONE, seed=0)


@pytest.fixture(scope="module")
def level_mixes(tmp_path_factory: pytest.TempPathFactory) -> RandomMixes:
    """Returns such mixes of 64 tracks; tests must not change their files."""
    return write_levels(tmp_path_factory.mktemp("levels"), 64)


def test_an_excerpt_depends_on_seed_and_number_only(mixes: RandomMixes) -> None:
    first = mixes[3].stems
    assert list(first) == list(MUSDB_STEMS)
    assert {tuple(audio.shape) for audio in first.values()} == {(2, SEGMENT)}
    torch.manual_seed(1)
    mixes[4], torch.rand(9)
    assert same(replace(mixes)[3].stems, first)
    assert not same(mixes[4].stems, first)
    assert not same(replace(mixes, seed=43)[3].stems, first)


def test_neighbouring_seeds_share_no_excerpts(level_mixes: RandomMixes) -> None:
    """Nor does a seed repeat itself: four draws of 64 tracks are 24 bits."""
    drawn = torch.cat([drawn_levels(replace(level_mixes, seed=seed), 20) for seed in range(3)])
    assert len(drawn.unique(dim=0)) == len(drawn)


def test_every_stem_is_drawn_independently_and_from_all_windows(level_mixes: RandomMixes) -> None:
    levels = drawn_levels(level_mixes, 300)
    correlation = torch.corrcoef(levels.T) - torch.eye(4)
    assert correlation.abs().max() < 0.25
    for stem in levels.T:
        assert len(stem.unique()) > 55
        assert stem.mean().item() == pytest.approx(32.5, abs=5)


def test_gains_are_uniform_between_their_bounds(level_mixes: RandomMixes) -> None:
    loud = with_settings(level_mixes, gains=(0.5, 1.5))
    gains = torch.stack([loud[n].stems[stem] / level_mixes[n].stems[stem] for n in range(100) for stem in MUSDB_STEMS])
    assert gains.std((1, 2)).max() < 1e-6
    assert 0.5 <= gains.min() < 0.52
    assert 1.48 < gains.max() <= 1.5 + 1e-6
    assert gains.mean().item() == pytest.approx(1, abs=0.06)


def test_an_excerpt_is_an_active_window_times_a_gain(mixes: RandomMixes) -> None:
    loud = with_settings(mixes, silence=0)
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


@pytest.mark.parametrize(("share", "lowest", "highest"), [(0, 0, 0), (0.1, 0.05, 0.15), (0.999, 0.98, 1)])
def test_stems_are_silenced_with_the_given_probability(
    level_mixes: RandomMixes, share: float, lowest: float, highest: float
) -> None:
    silent = drawn_levels(with_settings(level_mixes, silence=share), 100) == 0
    assert lowest <= silent.float().mean().item() <= highest


@pytest.mark.parametrize("channels", [1, 2])
def test_silence_has_the_shape_of_the_rest(level_mixes: RandomMixes, channels: int) -> None:
    stems = with_settings(replace(level_mixes, channels=channels), silence=0.999)[0].stems
    assert {audio.shape for audio in stems.values() if not audio.any()} == {(channels, 16)}


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"silence": 0.5}, torch.clone),
        ({"silent_vocals": 0.8}, torch.clone),
        ({"polarity": 0.7}, torch.abs),
        ({"gains": (2, 2)}, torch.sign),
        ({"remix": 0.5}, torch.sign),
    ],
)
def test_switching_one_on_leaves_everything_else_unchanged(
    level_mixes: RandomMixes, settings: dict[str, Any], kept: Callable[[Tensor], Tensor]
) -> None:
    mixes = with_settings(level_mixes, polarity=0.3, silence=0.2, gains=(0.5, 1.5), silent_vocals=0.2)
    before, after = drawn_levels(mixes, 40), drawn_levels(with_settings(mixes, **settings), 40)
    assert not torch.equal(before, after)
    both = (before != 0) & (after != 0)
    assert both.float().mean() > 0.3
    assert torch.equal(kept(before)[both], kept(after)[both])


def test_vocals_are_silent_in_the_given_share_of_excerpts(level_mixes: RandomMixes) -> None:
    levels = drawn_levels(with_settings(level_mixes, silent_vocals=0.3), 150)
    vocals = MUSDB_STEMS.index("vocals")
    assert (levels[:, vocals] == 0).float().mean().item() == pytest.approx(0.3, abs=0.1)
    levels[:, vocals] = drawn_levels(level_mixes, 150)[:, vocals]
    assert torch.equal(levels, drawn_levels(level_mixes, 150))


def test_vocals_are_silent_whether_stems_come_from_one_song_or_not(level_mixes: RandomMixes) -> None:
    levels = drawn_levels(with_settings(level_mixes, silent_vocals=0.5, remix=0.5), 100)
    silent, together = levels[:, MUSDB_STEMS.index("vocals")] == 0, levels[:, 0] == levels[:, 1]
    for part in (silent[together], silent[~together]):
        assert part.float().mean().item() == pytest.approx(0.5, abs=0.2)


def test_silent_vocals_need_vocals(level_mixes: RandomMixes) -> None:
    with pytest.raises(InputError, match="needs a stem 'vocals', and the data has only drums"):
        replace(with_settings(level_mixes, silent_vocals=0.3), windows={"drums": level_mixes.windows["drums"]})


def test_a_ratio_of_speech_to_noise_is_drawn_in_each_excerpt(tmp_path: Path) -> None:
    mixes = with_settings(write_levels(tmp_path, 4, ("speech", "noise")), snr_db=(-5.0, 5.0))
    drawn = [mixes[number].stems for number in range(200)]
    ratios = torch.tensor([20 * torch.log10(stems["speech"][0, 0] / stems["noise"][0, 0]) for stems in drawn])
    assert -5 <= ratios.min() < -4
    assert 4 < ratios.max() <= 5 + 1e-4
    before = [replace(mixes, augmentation=NONE)[number].stems["speech"] for number in range(200)]
    assert all(torch.equal(stems["speech"], speech) for stems, speech in zip(drawn, before, strict=True))


@pytest.mark.parametrize("remix", [0, 0.4, 1])
def test_stems_come_from_one_song_in_the_given_share_of_excerpts(level_mixes: RandomMixes, remix: float) -> None:
    levels = drawn_levels(with_settings(level_mixes, remix=remix), 150)
    together = (levels == levels[:, :1]).all(1)
    assert together.float().mean().item() == pytest.approx(1 - remix, abs=0.1 * (0 < remix < 1))
    assert torch.equal(levels[~together], drawn_levels(level_mixes, 150)[~together])
    assert remix == 1 or len(levels[together, 0].unique()) > 35


def test_stems_of_one_song_are_aligned(mixes: RandomMixes) -> None:
    """The window can be that of any of its stems."""
    aligned = replace(mixes, augmentation=replace(NONE, remix=0))
    places = {place for windows in mixes.windows.values() for place in windows}
    starts: set[tuple[int, int]] = set()
    for number in range(8):
        stems = aligned[number].stems
        found = [
            (track, start)
            for track, start in places
            if all(torch.equal(mixes.tracks[track].read(stem, start, SEGMENT), stems[stem]) for stem in MUSDB_STEMS)
        ]
        # The two songs are the same, under different names.
        assert found
        starts.add(min(found))
    assert len(starts) > 3


def test_the_window_of_one_song_can_be_that_of_any_stem(level_mixes: RandomMixes) -> None:
    windows = {stem: [(number, 0)] for number, stem in enumerate(MUSDB_STEMS)}
    levels = drawn_levels(with_settings(replace(level_mixes, windows=windows), remix=0), 100)
    assert levels[:, 0].unique(return_counts=True)[1].min() > 12
    assert set(levels[:, 0].tolist()) == {1, 2, 3, 4}


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Track:
    """Returns a second with a tone in the first half of all stems."""
    folder = tmp_path_factory.mktemp("tone")
    audio = torch.sin(2 * torch.pi * 1000 * torch.arange(SAMPLE_RATE) / SAMPLE_RATE).expand(2, -1).clone()
    audio[:, SAMPLE_RATE // 2 :] = 0
    for stem in MUSDB_STEMS:
        write_audio(folder / f"{stem}.wav", audio, SAMPLE_RATE)
    return Track(folder, SAMPLE_RATE)


def tone_lengths(mixes: RandomMixes, count: int) -> Tensor:
    """Returns the length of the tone in samples (excerpts, stems)."""
    excerpts = [mixes[number] for number in range(count)]
    assert not any(excerpt.faults for excerpt in excerpts)
    assert {audio.shape for excerpt in excerpts for audio in excerpt.stems.values()} == {(2, mixes.segment)}
    return torch.tensor(
        [[(audio[0].abs() > 0.1).nonzero()[-1] for audio in excerpt.stems.values()] for excerpt in excerpts]
    )


@needs_stretch
def test_the_tempo_changes_how_much_of_the_song_is_read(tone: Track) -> None:
    windows = {stem: [(0, 0)] for stem in MUSDB_STEMS}
    tempo = replace(NONE, tempo=1, tempo_change=0.3)
    lengths = tone_lengths(RandomMixes([tone], windows, 33000, SAMPLE_RATE, 2, tempo, seed=0), 15)
    assert lengths.min().item() == pytest.approx(22050 / 1.3, abs=900)
    assert lengths.max().item() == pytest.approx(22050 / 0.7, abs=900)
    assert (lengths.amax(1) - lengths.amin(1)).float().mean() > 3000


@needs_stretch
def test_stems_of_one_song_stay_together_at_any_tempo(tone: Track) -> None:
    windows = {stem: [(0, 0)] for stem in MUSDB_STEMS}
    tempo = replace(NONE, tempo=1, tempo_change=0.3, remix=0)
    lengths = tone_lengths(RandomMixes([tone], windows, 33000, SAMPLE_RATE, 2, tempo, seed=0), 5)
    assert torch.equal(lengths, lengths[:, :1].expand(-1, 4))
    assert lengths.max() - lengths.min() > 4000


@needs_stretch
@pytest.mark.parametrize("segment", [9000, 40000, SAMPLE_RATE])
def test_nothing_is_read_beyond_the_end(tone: Track, segment: int) -> None:
    """The last window of a song at a higher speed, down to a song of one window."""
    windows = {stem: [(0, tone.length - segment)] for stem in MUSDB_STEMS}
    fast = replace(NONE, tempo=1, tempo_change=0.5)
    mixes = RandomMixes([tone], windows, segment, SAMPLE_RATE, 2, fast, seed=0)
    excerpts = [mixes[number] for number in range(8)]
    assert not any(excerpt.faults for excerpt in excerpts)
    assert {audio.shape for excerpt in excerpts for audio in excerpt.stems.values()} == {(2, segment)}


def damage(root: Path) -> list[Path]:
    """Makes four files unreadable in different ways and returns them."""
    missing, empty, cut, not_finite = files = [root / f"{number}/bass.wav" for number in range(4)]
    missing.unlink()
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:-40])
    soundfile.write(not_finite, np.full((16, 2), np.nan), SAMPLE_RATE, subtype="FLOAT")
    return files


@pytest.mark.parametrize("remix", [0, 1])
def test_faults_are_reported_and_replaced(tmp_path: Path, remix: float) -> None:
    mixes = with_settings(write_levels(tmp_path, 16), remix=remix)
    before = [mixes[number] for number in range(40)]
    assert not any(excerpt.faults for excerpt in before)
    files = damage(tmp_path)
    after = [mixes[number] for number in range(40)]
    faults = [fault for excerpt in after for fault in excerpt.faults]
    assert all(any(str(file) in fault for fault in faults) for file in files)
    for old, new in zip(before, after, strict=True):
        level = old.stems["bass"][0, 0]
        assert bool(new.faults) == (level <= 4)
        if new.faults:
            assert str(tmp_path / f"{int(level) - 1}/bass.wav") in new.faults[0]
            assert new.stems["bass"][0, 0] > 4
        kept = [stem for stem in MUSDB_STEMS if not new.faults or (remix and stem != "bass")]
        assert all(torch.equal(old.stems[stem], new.stems[stem]) for stem in kept)
    assert same(mixes[0].stems, after[0].stems)


def test_too_many_faults_are_an_error(tmp_path: Path) -> None:
    """At most nine windows of an excerpt are replaced."""
    mixes = write_levels(tmp_path, 16)
    for number in range(12):
        for stem in MUSDB_STEMS:
            (tmp_path / str(number) / f"{stem}.wav").write_bytes(b"")
    counts = []
    for number in range(60):
        try:
            counts.append(len(mixes[number].faults))
        except InputError as error:
            assert "is an empty file" in str(error)  # noqa: PT017
    assert 10 < len(counts) < 50
    assert max(counts) == DRAW_ATTEMPTS - 1 == 9


def test_the_excerpt_of_a_song_is_its_middle_in_every_epoch(musdb_root: Path) -> None:
    (track,) = find_tracks(musdb_root, "valid")
    songs = SongExcerpts([track], 1001)
    name, stems = songs[0]
    assert (len(songs), name, list(stems)) == (1, "Leaf - Summerghost", list(MUSDB_STEMS))
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


def test_numbers_continue_through_the_epochs() -> None:
    numbers = EpochNumbers(3, batch_size=1)
    seen = []
    for epoch in (0, 1, 2):
        numbers.set_epoch(epoch)
        assert len(numbers) == 3
        seen += list(numbers)
    assert seen == list(range(9))


def test_processes_share_an_epoch_without_overlap() -> None:
    """Their joint batches are those of a single process; the incomplete last one is left out."""
    drawn = []
    for process in range(2):
        numbers = EpochNumbers(11, batch_size=2, processes=2, process=process)
        numbers.set_epoch(1)
        assert len(numbers) == 4
        drawn.append(list(numbers))
    assert drawn == [[11, 13, 15, 17], [12, 14, 16, 18]]


@pytest.mark.parametrize("process", [0, 1])
def test_numbers_resume_where_they_stopped(process: int) -> None:
    whole = EpochNumbers(8, batch_size=2, processes=2, process=process)
    rest = EpochNumbers(8, batch_size=2, processes=2, process=process, start=12)
    for epoch, missing in ((1, 2), (0, 2), (2, 0)):
        whole.set_epoch(max(1, epoch))
        rest.set_epoch(epoch)
        assert list(rest) == list(whole)[missing:]
        assert len(rest) == len(whole) == 4
