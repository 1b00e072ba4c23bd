import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.activity import active_windows, index_windows
from bsmamba2.data.musdb import SAMPLE_RATE, STEMS
from bsmamba2.data.tracks import Track, find_tracks
from bsmamba2.errors import InputError

WINDOW = 1000
STEP = WINDOW // 2
BLOCK = WINDOW // 10


def blocks(*levels: float) -> Tensor:
    """Returns stereo whose blocks of a tenth of a window have these RMS values."""
    signs = 1 - 2 * (torch.arange(BLOCK) % 2)
    return torch.cat([level * signs for level in levels])[None].expand(2, -1).clone()


@pytest.mark.parametrize(
    ("levels", "active"),
    [
        ([0.0] * 10, False),
        ([0.0] * 4 + [0.5] * 6, True),
        ([0.0] * 5 + [0.5] * 5, False),
        ([0.5, 0.0] * 5, False),
        ([0.0] * 4 + [0.00101] * 6, True),
        ([0.0] * 4 + [0.00099] * 6, False),
        # The 15 % quantile of ten values lies between the second and the third.
        ([0.1, 0.1] + [0.2] * 8, True),
        ([0.1] + [0.2] * 9, False),
        ([0.1] * 4 + [0.2] * 6, True),
        ([0.1] * 5 + [0.2] * 5, False),
        # Evenly loud: no block exceeds the quantile strictly.
        ([0.2] * 10, False),
    ],
)
def test_more_than_half_of_the_blocks_must_exceed_the_threshold(levels: list[float], active: bool) -> None:
    assert active_windows(blocks(*levels), WINDOW) == ([0] if active else [])


def test_the_quantile_is_that_of_its_own_window() -> None:
    """Alone, the first ten blocks are not active; the silence after them changes nothing."""
    audio = blocks(0.1, *[0.2] * 9, *[0.0] * 4, *[0.5] * 6)
    assert active_windows(audio, WINDOW) == [500, 1000]


def test_blocks_are_tenths_of_a_window_and_judged_by_their_rms() -> None:
    audio = blocks(*[0.0] * 4, *[0.5] * 6)
    audio[:, ::BLOCK] = 0.5
    audio.unflatten(-1, (10, BLOCK))[..., BLOCK // 2 :] = 0
    assert active_windows(audio, WINDOW) == [0]
    clicks = torch.zeros(2, WINDOW)
    clicks[:, BLOCK * 4 :: BLOCK] = 0.009
    assert active_windows(clicks, WINDOW) == []
    assert active_windows(clicks * 1.2, WINDOW) == [0]


def test_every_channel_must_be_active() -> None:
    audio = blocks(*[0.0] * 4, *[0.5] * 6)
    for channel in (0, 1):
        one_sided = audio.clone()
        one_sided[channel] = 0
        assert active_windows(one_sided, WINDOW) == []
    quieter = audio * torch.tensor([[1.0], [0.01]])
    assert active_windows(quieter, WINDOW) == [0]


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (0, []),
        (999, []),
        (1000, [0]),
        (1499, [0]),
        (1500, [0, 500]),
        (2499, [0, 500, 1000]),
        (2500, [0, 500, 1000, 1500]),
    ],
)
def test_noise_is_active_in_every_complete_window(length: int, starts: list[int]) -> None:
    audio = torch.randn(2, length, generator=torch.Generator().manual_seed(0)) / 4
    assert active_windows(audio, WINDOW) == starts


def test_a_burst_is_found_where_it_is() -> None:
    noise = torch.randn(2, 6000, generator=torch.Generator().manual_seed(0)) / 4
    noise[:, :2000] = 0
    noise[:, 3000:] = 0
    assert active_windows(noise, WINDOW) == [2000]


@pytest.fixture
def tracks(tmp_path: Path, musdb_root: Path) -> list[Track]:
    """Returns tracks in files that the test may change."""
    root = shutil.copytree(musdb_root, tmp_path / "root")
    return find_tracks(root, "train")


def test_the_index_holds_the_windows_of_every_stem_and_track(tracks: list[Track], tmp_path: Path) -> None:
    quiet = tracks[0].path / "vocals.wav"
    write_audio(quiet, torch.zeros(2, tracks[0].length), SAMPLE_RATE)
    windows = index_windows(tracks, 20000, tmp_path)
    assert list(windows) == list(STEMS)
    for stem in STEMS:
        expected = [
            (number, start)
            for number, track in enumerate(tracks)
            for start in active_windows(track.read(stem, 0, track.length), 20000)
        ]
        assert windows[stem] == expected
        assert {number for number, _ in windows[stem]} == ({1} if stem == "vocals" else {0, 1})


def test_the_index_is_kept_until_a_file_or_the_window_changes(tracks: list[Track], tmp_path: Path) -> None:
    first = index_windows(tracks, 20000, tmp_path / "cache")
    (cache,) = (tmp_path / "cache").iterdir()
    mark = {stem: [[0, 77]] for stem in STEMS}
    cache.write_text(json.dumps(mark), encoding="utf-8")
    assert index_windows(tracks, 20000, tmp_path / "cache") == {stem: [(0, 77)] for stem in STEMS}
    assert index_windows(tracks, 10000, tmp_path / "cache")["drums"][1][1] % 5000 == 0
    assert index_windows(tracks[::-1], 20000, tmp_path / "cache")["drums"] != [(0, 77)]
    file = tracks[0].path / "bass.wav"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))
    assert index_windows(tracks, 20000, tmp_path / "cache") == first


def test_a_changed_file_of_the_same_length_is_indexed_again(tracks: list[Track], tmp_path: Path) -> None:
    first = index_windows(tracks, 20000, tmp_path / "cache")
    file = tracks[0].path / "drums.wav"
    before = file.stat().st_mtime_ns
    write_audio(file, 0 * read_audio(file), SAMPLE_RATE)
    os.utime(file, ns=(before + 1000, before + 1000))
    assert len(index_windows(tracks, 20000, tmp_path / "cache")["drums"]) < len(first["drums"])


def test_a_stem_that_is_nowhere_active_is_an_error(tracks: list[Track], tmp_path: Path) -> None:
    for track in tracks:
        write_audio(track.path / "bass.wav", torch.zeros(2, track.length), SAMPLE_RATE)
    with pytest.raises(InputError, match="the stem bass is in no track active for a whole segment of 20000 samples"):
        index_windows(tracks, 20000, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_segment_longer_than_every_track_is_an_error(tracks: list[Track], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"the longest track has {2 * SAMPLE_RATE}.*use a shorter segment"):
        index_windows(tracks, 2 * SAMPLE_RATE + 1, tmp_path)
