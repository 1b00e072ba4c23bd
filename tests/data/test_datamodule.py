import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from bsmamba2.audio.formats import Format
from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.augment import Augmentation
from bsmamba2.data.datamodule import MusdbDataModule
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.errors import InputError
from bsmamba2.stem_names import MUSDB_STEMS


def module(root: Path, cache: Path, **settings: Any) -> MusdbDataModule:
    defaults: dict[str, Any] = {"segment_seconds": 0.1, "seed": 42, "batch_size": 2, "epoch_excerpts": 5, "workers": 0}
    network: dict[str, Any] = {"sample_rate": SAMPLE_RATE, "channels": 2, "targets": ("vocals",)}
    return MusdbDataModule(root, cache=cache, **(network | defaults | settings))


def ready(root: Path, cache: Path, **settings: Any) -> MusdbDataModule:
    data = module(root, cache, **settings)
    data.prepare_data()
    data.setup("fit")
    return data


def test_training_batches(musdb_root: Path, tmp_path: Path) -> None:
    data = ready(musdb_root, tmp_path)
    batches = list(data.train_dataloader())
    assert len(batches) == 2  # The last batch would be incomplete.
    for batch in batches:
        assert {stem: tuple(audio.shape) for stem, audio in batch.stems.items()} == dict.fromkeys(
            MUSDB_STEMS, (2, 2, 4410)
        )
    for number in range(4):
        for stem, audio in data.mixes[number].stems.items():
            assert torch.equal(batches[number // 2].stems[stem][number % 2], audio)
    assert {track.name for track in data.mixes.tracks} == {"One - First", "Two - Second"}


def test_numbers_continue_in_the_next_epoch(musdb_root: Path, tmp_path: Path) -> None:
    data = ready(musdb_root, tmp_path)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(3)  # type: ignore[attr-defined]
    assert torch.equal(next(iter(loader)).stems["bass"][1], data.mixes[16].stems["bass"])


@pytest.mark.parametrize(
    ("seconds", "length"), [(None, 2 * SAMPLE_RATE), (0.5, SAMPLE_RATE // 2), (99.0, 2 * SAMPLE_RATE)]
)
def test_validation_gives_one_song_at_a_time(
    musdb_root: Path, tmp_path: Path, seconds: float | None, length: int
) -> None:
    songs = list(ready(musdb_root, tmp_path, validation_seconds=seconds).val_dataloader())
    assert [name for name, _ in songs] == ["Leaf - Summerghost"]
    assert {stem: tuple(audio.shape) for stem, audio in songs[0][1].items()} == dict.fromkeys(MUSDB_STEMS, (2, length))


def test_settings_reach_the_excerpts(musdb_root: Path, tmp_path: Path) -> None:
    augmentation = Augmentation(silence=0.25, gains=(0.1, 0.2))
    data = ready(musdb_root, tmp_path, augmentation=augmentation, seed=7, validation_artists=["One"])
    mixes = data.mixes
    assert (mixes.augmentation, mixes.seed, mixes.segment) == (augmentation, 7, 4410)
    assert (mixes.sample_rate, mixes.channels) == (SAMPLE_RATE, 2)
    assert [track.name for track in data.songs.tracks] == ["One - First"]
    assert [track.name for track in mixes.tracks] == ["Leaf - Summerghost", "Two - Second"]


@pytest.mark.parametrize(
    ("shared_artists", "training"), [(False, ["Two - Second"]), (True, ["One - More", "Two - Second"])]
)
def test_validation_songs_can_be_chosen(
    musdb_root: Path, tmp_path: Path, shared_artists: bool, training: list[str]
) -> None:
    root = shutil.copytree(musdb_root, tmp_path / "root")
    (root / "train" / "Leaf - Summerghost").rename(root / "train" / "One - More")
    data = ready(root, tmp_path, validation_tracks=["One - First"], shared_artists=shared_artists)
    assert [track.name for track in data.songs.tracks] == ["One - First"]
    assert [track.name for track in data.mixes.tracks] == training


def test_preparing_fills_the_cache_once(musdb_root: Path, tmp_path: Path) -> None:
    data = module(musdb_root, tmp_path / "cache")
    data.prepare_data()
    (index,) = (tmp_path / "cache").iterdir()
    before = index.stat().st_mtime_ns
    data.setup("fit")
    assert [file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()] == [before]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
def test_batches_do_not_depend_on_the_workers(musdb_root: Path, tmp_path: Path) -> None:
    """Every worker is a process. Here there are more of them than tracks or batches.

    The windows of a file that breaks after it was indexed are replaced by the same ones.
    """
    root = shutil.copytree(musdb_root, tmp_path / "root")
    settings: dict[str, Any] = {"batch_size": 5, "validation_artists": ["One", "Leaf"]}
    alone, parallel = ready(root, tmp_path, **settings), ready(root, tmp_path, workers=2, **settings)
    broken = root / "train" / "Two - Second" / "bass.wav"
    samples, _ = soundfile.read(broken)
    samples[SAMPLE_RATE:] = np.nan
    soundfile.write(broken, samples, SAMPLE_RATE, subtype="FLOAT")
    (expected,), (batch,) = alone.train_dataloader(), parallel.train_dataloader()
    for stem in MUSDB_STEMS:
        assert torch.equal(batch.stems[stem], expected.stems[stem])
    assert batch.faults == expected.faults
    assert {fault.split(" has samples that are not finite")[0] for fault in batch.faults} == {str(broken)}


def test_a_given_index_is_used(musdb_root: Path, tmp_path: Path) -> None:
    """The index is made if it does not exist, and the hash is that of the training songs."""
    data = ready(musdb_root, tmp_path / "cache", index=tmp_path / "index.json")
    assert (tmp_path / "index.json").is_file()
    again = ready(musdb_root, tmp_path / "cache", index=tmp_path / "index.json")
    cached = ready(musdb_root, tmp_path / "cache")
    others = ready(musdb_root, tmp_path / "cache", validation_artists=["One"])
    assert data.data_hash == again.data_hash == cached.data_hash != others.data_hash
    assert data.mixes.windows == cached.mixes.windows


def test_silent_vocals_need_vocals(musdb_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(musdb_root, tmp_path / "root", ignore=shutil.ignore_patterns("vocals.wav"))
    data = module(root, tmp_path, augmentation=Augmentation(silent_vocals=0.1), targets=("bass",))
    with pytest.raises(InputError, match=r"silent_vocals=0\.1 needs a stem 'vocals'"):
        data.prepare_data()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0 is not allowed; give at least 1"),
        ({"batch_size": 6}, "epoch_excerpts=5 is not allowed; give at least batch_size"),
        ({"workers": -1}, "workers=-1 is not allowed; give at least 0"),
        ({"validation_seconds": 0.0}, r"validation_seconds=0\.0 is not allowed; give at least the length of a sample"),
        ({"validation_seconds": float("nan")}, "validation_seconds=nan is not allowed"),
        ({"validation_seconds": float("inf")}, "validation_seconds=inf is not allowed"),
    ],
)
def test_bad_values_are_errors(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        module(tmp_path, tmp_path, **settings)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"sample_rate": 48000}, "has 44100 Hz and 2 channels; the network takes 48000 Hz and 2"),
        ({"channels": 1}, "has 44100 Hz and 2 channels; the network takes 44100 Hz and 1"),
        ({"targets": ("piano",)}, "has no stem 'piano'; choose among drums, bass, other, vocals"),
    ],
)
def test_data_that_does_not_fit_the_network_is_an_error(
    musdb_root: Path, tmp_path: Path, network: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        module(musdb_root, tmp_path, **network).prepare_data()


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*train"):
        module(tmp_path / "nowhere", tmp_path).prepare_data()


@pytest.mark.parametrize("format", ["mp3", "m4a", "ogg"])
def test_stems_in_any_format_are_trained_on(
    tmp_path: Path, song_stems: dict[str, torch.Tensor], format: Format
) -> None:
    """They are decoded once; excerpts are those of the whole decoded file."""
    root, cache = tmp_path / "root", tmp_path / "cache"
    for place in ("train/One - First", "valid/Two - Second"):
        for name in ("vocals", "drums"):
            write_audio(root / place / f"{name}.{format}", song_stems[name], SAMPLE_RATE, format, None)
    for _ in range(2):
        data = ready(root, cache)
        (track,) = data.mixes.tracks
        assert track.name == "One - First"
        whole = read_audio(root / "train" / "One - First" / f"vocals.{format}")
        assert track.length == whole.shape[-1] == 2 * SAMPLE_RATE
        assert track.read("vocals", 30_000, 5000).equal(whole[:, 30_000:35_000])
        assert data.songs[0][1]["drums"].shape == (2, 2 * SAMPLE_RATE)
    written = {path: path.stat().st_ino for path in cache.rglob("*.wav")}
    assert len(written) == 4
    write_audio(root / "train" / "One - First" / f"vocals.{format}", song_stems["bass"], SAMPLE_RATE, format, None)
    ready(root, cache)
    changed = [path.name for path, inode in written.items() if path.stat().st_ino != inode]
    assert changed == ["vocals.wav"]


def test_files_that_are_not_used_are_reported_once(
    musdb_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shutil.copytree(musdb_root, tmp_path / "root")
    for track in (root / "train").iterdir():
        shutil.copyfile(track / "mixture.wav", track / "mix.wav")
    data = ready(root, tmp_path)
    assert set(data.mixes[0].stems) == set(MUSDB_STEMS)
    (line,) = [record.getMessage() for record in caplog.records if "is not used" in record.getMessage()]
    assert "Leaf - Summerghost/mix.wav is not used" in line.replace("\\", "/")
    assert line.endswith("(nor are 2 more of that name)")


def test_a_single_stem_cannot_be_trained_on(musdb_root: Path, tmp_path: Path) -> None:
    for track in ("One - First", "Leaf - Summerghost"):
        for stem in ("vocals", "mixture"):
            target = tmp_path / "train" / track / f"{stem}.wav"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(musdb_root / "train" / track / f"{stem}.wav", target)
    with pytest.raises(InputError, match="has only the stem vocals, which would be the whole mixture"):
        ready(tmp_path, tmp_path)
