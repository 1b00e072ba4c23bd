import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import av
import pytest
import torch
from torch import Tensor

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.activity import ActivityIndex, StemActivity, StemScan, data_hash, index_tracks
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Track, find_tracks
from bsmamba2.errors import InputError
from bsmamba2.stem_names import MUSDB_STEMS

WINDOW = 1000
STEP = WINDOW // 2
BLOCK = WINDOW // 10


def active_windows(audio: Tensor, window: int) -> list[int]:
    """Returns the first samples of the active windows of audio (c, n)."""
    scan = StemScan(audio.shape[-1], window)
    scan.add(audio)
    return scan.starts


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
        # The 15 % quantile of ten values is between the second and the third.
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
    """The first ten blocks are not active on their own, and the silence after them does not change that."""
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


def test_blocks_of_any_size_give_the_same_windows_and_hash(song: Track) -> None:
    audio = torch.randn(2, 20_000, generator=torch.Generator().manual_seed(0)) / 4
    audio[:, 3000:9000] = 0
    whole = StemScan(15_000, WINDOW)
    whole.add(audio)
    assert whole.starts == active_windows(audio[:, :15_000], WINDOW)
    assert 0 in whole.starts
    assert 5000 not in whole.starts
    for size in (1, 499, 1001, 7000):
        scan = StemScan(15_000, WINDOW)
        for block in audio.split(size, dim=-1):
            scan.add(block)
        assert (scan.samples, scan.peak) == (15_000, whole.peak)
        assert scan.activity((song.path, None)) == whole.activity((song.path, None))


def expected_windows(tracks: list[Track], stem: str, window: int) -> list[tuple[int, int]]:
    return [
        (number, start)
        for number, track in enumerate(tracks)
        for start in active_windows(track.read(stem, 0, track.length), window)
    ]


def test_the_index_holds_the_windows_of_every_stem_and_track(tracks: list[Track], tmp_path: Path) -> None:
    quiet = tracks[0].path / "vocals.wav"
    write_audio(quiet, torch.zeros(2, tracks[0].length), SAMPLE_RATE)
    windows = index_tracks(tracks, 20000, tmp_path).windows
    assert list(windows) == list(MUSDB_STEMS)
    for stem in MUSDB_STEMS:
        assert windows[stem] == expected_windows(tracks, stem, 20000)
        assert {number for number, _ in windows[stem]} == ({1} if stem == "vocals" else {0, 1})


def marked(path: Path) -> list[tuple[int, int]]:
    """Gives all stems in an index file one window that no audio has, and returns the windows of two tracks."""
    document = json.loads(path.read_text(encoding="utf-8"))
    for stems in document["tracks"].values():
        for stem in stems.values():
            stem["starts"] = [77]
    path.write_text(json.dumps(document), encoding="utf-8")
    return [(0, 77), (1, 77)]


def mark_cache(folder: Path) -> None:
    """Gives all stems in the cache one window that no audio has."""
    (cache,) = folder.iterdir()
    entries = [json.loads(line) for line in cache.read_text(encoding="utf-8").splitlines()]
    for entry in entries:
        entry["activity"]["starts"] = [77]
    cache.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def scanned(index: ActivityIndex, stem: str) -> list[bool]:
    """Returns for each of two tracks whether a stem was scanned after the cache was marked."""
    return [(number, 77) not in index.windows[stem] for number in range(2)]


def test_files_are_scanned_once(tracks: list[Track], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = index_tracks(tracks, 20000, cache)
    mark_cache(cache)
    assert index_tracks(tracks, 20000, cache).windows == {key: [(0, 77), (1, 77)] for key in MUSDB_STEMS}
    # Other songs to validate on.
    assert index_tracks(tracks[1:], 20000, cache).windows == {key: [(0, 77)] for key in MUSDB_STEMS}
    assert index_tracks(tracks[::-1], 20000, cache).data_hash == first.data_hash
    assert index_tracks(tracks, 10000, cache).windows["drums"][1][1] % 5000 == 0


def test_only_files_that_changed_are_scanned_again(tracks: list[Track], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = index_tracks(tracks, 20000, cache)
    mark_cache(cache)
    file = tracks[0].path / "drums.wav"
    before = file.stat().st_mtime_ns
    write_audio(file, 0 * read_audio(file), SAMPLE_RATE)
    os.utime(file, ns=(before + 1000, before + 1000))
    second = index_tracks(tracks, 20000, cache)
    assert scanned(second, "drums") == [True, False]
    assert scanned(second, "bass") == [False, False]
    assert second.data_hash != first.data_hash
    # A song that was added, and one that was removed.
    added = Path(shutil.copytree(tracks[1].path, tracks[1].path.with_name("Three - Added")))
    third = index_tracks([tracks[1], Track(added, tracks[1].length)], 20000, cache)
    assert scanned(third, "vocals") == [False, True]


def test_a_scan_that_was_interrupted_resumes(tracks: list[Track], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    damaged = tracks[1].path / "vocals.wav"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-10])
    with pytest.raises(InputError, match=r"vocals\.wav is truncated"):
        index_tracks(tracks, 20000, cache)
    (file,) = cache.iterdir()
    done = {json.loads(line)["state"]["file"] for line in file.read_text(encoding="utf-8").splitlines()}
    assert done
    assert "train/Two - Second/vocals.wav" not in done
    mark_cache(cache)
    damaged.write_bytes(whole)
    index = index_tracks(tracks, 20000, cache)
    for number, track in enumerate(tracks):
        for stem in MUSDB_STEMS:
            assert scanned(index, stem)[number] == (f"train/{track.name}/{stem}.wav" not in done)


@pytest.mark.parametrize("damage", [b"", b"{", b"null\n[]\n", b'{"state": {}, "activity": {}}\n', b"\x00\xff\n"])
def test_what_is_damaged_in_the_cache_is_scanned_again(tracks: list[Track], tmp_path: Path, damage: bytes) -> None:
    cache = tmp_path / "cache"
    first = index_tracks(tracks, 20000, cache)
    (file,) = cache.iterdir()
    # As after a kill while the last line was written.
    file.write_bytes(damage + file.read_bytes()[:-20])
    assert index_tracks(tracks, 20000, cache) == first
    mark_lines = file.read_bytes()
    assert index_tracks(tracks, 20000, cache) == first
    assert file.read_bytes() == mark_lines


def test_the_cache_does_not_grow_without_end(tracks: list[Track], tmp_path: Path) -> None:
    cache, file = tmp_path / "cache", tracks[0].path / "bass.wav"
    for number in range(1, 40):
        os.utime(file, ns=(0, 10**9 * number))
        index_tracks(tracks, 20000, cache)
    (path,) = cache.iterdir()
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 3 * 8 + 1


def test_two_processes_fill_one_cache(tracks: list[Track], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = index_tracks(tracks[:1], 20000, cache)
    (path,) = cache.iterdir()
    half = path.read_bytes()
    path.unlink()
    index_tracks(tracks[1:], 20000, cache)
    with path.open("ab") as file:
        file.write(half)
    mark_cache(cache)
    both = index_tracks(tracks, 20000, cache)
    assert both.windows == {key: [(0, 77), (1, 77)] for key in MUSDB_STEMS}
    assert index_tracks(tracks[:1], 20000, cache).data_hash == first.data_hash


def test_a_given_index_is_made_and_then_used(tracks: list[Track], tmp_path: Path) -> None:
    """It may contain more tracks, and does not depend on their folder."""
    index, cache = tmp_path / "made" / "index.json", tmp_path / "cache"
    first = index_tracks(tracks, 20000, cache, index)
    assert str(tmp_path) not in index.read_text(encoding="utf-8")
    mark = marked(index)
    shutil.copytree(tmp_path / "root", tmp_path / "copy")
    moved = find_tracks(tmp_path / "copy", "train")
    assert index_tracks(moved, 20000, cache, index) == ActivityIndex(dict.fromkeys(MUSDB_STEMS, mark), first.data_hash)
    assert index_tracks(moved[1:], 20000, cache, index).windows == dict.fromkeys(MUSDB_STEMS, mark[:1])
    assert index_tracks(moved[1:], 20000, cache, index).data_hash not in ("", first.data_hash)


def drop_a_track(document: Any) -> None:
    del document["tracks"]["Two - Second"]


def drop_a_stem(document: Any) -> None:
    del document["tracks"]["One - First"]["bass"]


def change_a_size(document: Any) -> None:
    document["tracks"]["One - First"]["bass"]["bytes"] += 1


def change_a_time(document: Any) -> None:
    document["tracks"]["One - First"]["bass"]["modified_seconds"] += 1


def change_a_length(document: Any) -> None:
    document["tracks"]["One - First"]["bass"]["samples"] -= 1


def change_a_rule(document: Any) -> None:
    document["settings"]["quantile"] = 0.2


def change_the_version(document: Any) -> None:
    document["version"] = 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (drop_a_track, "it lacks the track 'Two - Second'"),
        (drop_a_stem, "it lacks the stem 'bass' of the track 'One - First'"),
        (change_a_size, r"One - First/bass\.wav is not the file that it was made from"),
        (change_a_time, r"One - First/bass\.wav is not the file that it was made from"),
        (change_a_length, r"One - First/bass\.wav is not the file that it was made from"),
        (change_a_rule, "it was made with quantile=0.2 and not 0.15"),
        (change_the_version, "it has the format 0 and not 1"),
    ],
)
def test_a_given_index_of_other_data_is_an_error(
    tracks: list[Track], tmp_path: Path, change: Callable[[Any], None], reason: str
) -> None:
    index = tmp_path / "index.json"
    index_tracks(tracks, 20000, tmp_path, index)
    document = json.loads(index.read_text(encoding="utf-8"))
    change(document)
    found = {
        track: {stem: StemActivity(**activity) for stem, activity in stems.items()}
        for track, stems in document["tracks"].items()
    }
    document["data"] = data_hash(found)
    index.write_text(json.dumps(document), encoding="utf-8")
    before = index.read_bytes()
    with pytest.raises(InputError, match=rf"{reason}; `bsmamba2 check-data \S+root --index \S+index\.json`"):
        index_tracks(tracks, 20000, tmp_path, index)
    assert index.read_bytes() == before


def test_a_given_index_with_other_windows_or_hashes_is_an_error(tracks: list[Track], tmp_path: Path) -> None:
    index = tmp_path / "index.json"
    index_tracks(tracks, 20000, tmp_path, index)
    with pytest.raises(InputError, match="it was made with window=20000 and not 10000"):
        index_tracks(tracks, 10000, tmp_path, index)
    text = index.read_text(encoding="utf-8")
    index.write_text(text.replace('"hash": "', '"hash": "0'), encoding="utf-8")
    with pytest.raises(InputError, match="because it is damaged"):
        index_tracks(tracks, 20000, tmp_path, index)


def hash_of(tracks: list[Track], folder: Path) -> str:
    return index_tracks(tracks, 20000, folder / uuid4().hex).data_hash


def test_the_hash_depends_on_names_and_samples_only(tracks: list[Track], tmp_path: Path) -> None:
    first = hash_of(tracks, tmp_path)
    assert hash_of(tracks[::-1], tmp_path) == first
    file = tracks[0].path / "drums.wav"
    audio = read_audio(file)
    # The same samples in a different file and format.
    file.unlink()
    write_audio(file.with_suffix(".flac"), audio, SAMPLE_RATE, "flac", "16")
    assert hash_of([Track(track.path, track.length) for track in tracks], tmp_path) == first
    file.with_suffix(".flac").unlink()
    for changed in (audio * torch.tensor([[1.0], [0.9]]), audio.roll(1, dims=1), audio.flip(0)):
        write_audio(file, changed, SAMPLE_RATE)
        assert hash_of([Track(track.path, track.length) for track in tracks], tmp_path) != first
    write_audio(file, audio, SAMPLE_RATE)
    assert hash_of([Track(track.path, track.length - 1) for track in tracks], tmp_path) != first
    renamed = tracks[0].path.rename(tracks[0].path.with_name("One - Other"))
    assert hash_of([Track(renamed, tracks[0].length), *tracks[1:]], tmp_path) != first


FEWEST_INSTRUCTIONS = """
import ctypes, sys
from pathlib import Path
import av
(library,) = (Path(av.__file__).parents[1] / "av.libs").glob("libavutil*")
ctypes.CDLL(str(library)).av_force_cpu_flags(0)
from bsmamba2.data.activity import index_tracks
from bsmamba2.data.tracks import Track
folder = Path(sys.argv[2])
print(index_tracks([Track(Path(sys.argv[1]), int(sys.argv[3]))], 44100, folder).data_hash)
"""


@pytest.mark.skipif(
    not list((Path(av.__file__).parents[1] / "av.libs").glob("libavutil*.so*")), reason="FFmpeg is not beside PyAV"
)
def test_the_hash_of_a_stem_file_is_the_same_on_every_processor(song: Track, tmp_path: Path) -> None:
    """Decoded without vector instructions, AAC differs in its last bits."""
    here = index_tracks([song], 44100, tmp_path / "here").data_hash
    command = [sys.executable, "-c", FEWEST_INSTRUCTIONS, str(song.path), str(tmp_path / "there"), str(song.length)]
    there = subprocess.run(command, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_a_stem_that_is_nowhere_active_is_an_error(tracks: list[Track], tmp_path: Path) -> None:
    for track in tracks:
        write_audio(track.path / "bass.wav", torch.zeros(2, track.length), SAMPLE_RATE)
    with pytest.raises(
        InputError, match="the stem bass is not active for a whole segment of 20000 samples in any track"
    ):
        index_tracks(tracks, 20000, tmp_path / "cache", tmp_path / "index.json")
    assert not (tmp_path / "index.json").exists()


def test_a_segment_longer_than_every_track_is_an_error(tracks: list[Track], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"the longest track has {2 * SAMPLE_RATE}.*use a shorter segment"):
        index_tracks(tracks, 2 * SAMPLE_RATE + 1, tmp_path)
