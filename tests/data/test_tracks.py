import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import quantise, write_audio
from bsmamba2.data.musdb import SAMPLE_RATE, STREAMS
from bsmamba2.data.tracks import Track, find_tracks, mixture_of
from bsmamba2.errors import InputError
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="musdb cannot be imported without an ffmpeg program"
)
quiet_import = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Lay = Callable[..., Path]


def names(tracks: list[Track]) -> list[str]:
    return [track.name for track in tracks]


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    """Returns a function that lays out folders of very short tracks."""

    def lay_out(*places: str) -> Path:
        for place in places:
            for stem in STREAMS:
                write_audio(tmp_path / place / f"{stem}.wav", torch.zeros(2, 100), SAMPLE_RATE)
        return tmp_path

    return lay_out


@pytest.fixture(scope="module")
def stem_root(song: Track, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a MUSDB18 folder of stem files with an official validation track, and files that are not tracks."""
    root = tmp_path_factory.mktemp("musdb18")
    places = ["train/b - 1.stem.mp4", "train/B - 2.stem.mp4", "train/Meaxic - Take A Step.stem.mp4"]
    for place in [*places, "train/Meaxic - You Listen.stem.mp4", "test/Zed - 1.5.stem.mp4", "test/A - Mix.stem.mp4"]:
        (root / place).parent.mkdir(exist_ok=True)
        shutil.copyfile(song.path, root / place)
    (root / "train" / "notes.txt").write_text("no track")
    return root


@needs_ffmpeg
@quiet_import
@pytest.mark.parametrize("kind", ["musdb_root", "stem_root"])
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_tracks_are_the_same_as_in_the_package_musdb(request: pytest.FixtureRequest, kind: str, split: Any) -> None:
    import musdb

    root = request.getfixturevalue(kind)
    choice = {"subsets": "test"} if split == "test" else {"subsets": "train", "split": split}
    reference = musdb.DB(root=str(root), is_wav=kind == "musdb_root", **choice)
    tracks = find_tracks(root, split, shared_artists=True)
    assert names(tracks) == [track.name for track in reference]
    assert [track.artist for track in tracks] == [track.artist for track in reference]
    assert tracks


@needs_ffmpeg
@quiet_import
@pytest.mark.parametrize("kind", ["musdb_root", "stem_root"])
def test_audio_is_the_same_as_in_the_package_musdb(request: pytest.FixtureRequest, kind: str) -> None:
    """The package reads 16 bits, so both are rounded; two AAC decoders may differ in the last bit."""
    import musdb

    root = request.getfixturevalue(kind)
    reference = musdb.DB(root=str(root), is_wav=kind == "musdb_root", subsets="test")[0]
    track = find_tracks(root, "test")[0]
    for stem, audio in zip((MIXTURE, *MUSDB_STEMS), reference.stems, strict=True):
        ours = quantise(track.read(stem), "16").double()
        torch.testing.assert_close(ours, torch.from_numpy(audio.T), rtol=0, atol=1.01 / 2**15)
        assert track.length == len(audio)


def test_a_track_reads_its_own_stems(tmp_path: Path) -> None:
    for level, stem in enumerate(STREAMS):
        write_audio(tmp_path / "A - B - C" / f"{stem}.wav", torch.full((2, 9), level / 8), SAMPLE_RATE)
    track = Track(tmp_path / "A - B - C", 9)
    assert (track.name, track.artist) == ("A - B - C", "A")
    assert [track.read(stem, 2, 3).mean().item() * 8 for stem in STREAMS] == [0, 1, 2, 3, 4]
    assert track.read(MIXTURE, 2, 3).shape == (2, 3)


def test_a_mixture_is_the_sum_of_its_stems() -> None:
    stems = {stem: torch.full((2, 3), 10.0**power) for power, stem in enumerate(MUSDB_STEMS)}
    assert mixture_of(stems).equal(torch.full((2, 3), 1111.0))


def test_artists_are_in_one_split_only(stem_root: Path) -> None:
    assert names(find_tracks(stem_root, "train")) == ["B - 2", "b - 1"]
    assert "Meaxic - You Listen" in names(find_tracks(stem_root, "train", shared_artists=True))
    assert names(find_tracks(stem_root, "valid")) == ["Meaxic - Take A Step"]


@pytest.mark.parametrize(
    ("settings", "train", "valid"),
    [
        ({"validation_tracks": ["A - 1"]}, ["B - 1", "Meaxic - Take A Step"], ["A - 1"]),
        ({"validation_tracks": ["A - 1"], "shared_artists": True}, ["A - 2", "B - 1", "Meaxic - Take A Step"],
         ["A - 1"]),
        ({"validation_artists": ["A"]}, ["B - 1", "Meaxic - Take A Step"], ["A - 1", "A - 2"]),
        ({"validation_tracks": ["B - 1"], "validation_artists": ["Meaxic"]}, ["A - 1", "A - 2"],
         ["B - 1", "Meaxic - Take A Step"]),
        ({}, ["A - 1", "A - 2", "B - 1"], ["Meaxic - Take A Step"]),
        ({"validation_tracks": []}, ["A - 1", "A - 2", "B - 1"], ["Meaxic - Take A Step"]),
    ],
)  # fmt: skip
def test_validation_songs_can_be_chosen(lay: Lay, settings: dict[str, Any], train: list[str], valid: list[str]) -> None:
    root = lay("train/B - 1", "train/A - 2", "train/A - 1", "train/Meaxic - Take A Step")
    assert names(find_tracks(root, "train", **settings)) == train
    assert names(find_tracks(root, "valid", **settings)) == valid


def test_a_valid_folder_takes_the_place_of_the_official_list(lay: Lay) -> None:
    root = lay("train/A - 1", "train/B - 1", "train/Meaxic - Take A Step", "valid/A - 2", "valid/.hidden")
    assert names(find_tracks(root, "valid")) == ["A - 2"]
    assert names(find_tracks(root, "train")) == ["B - 1", "Meaxic - Take A Step"]
    assert names(find_tracks(root, "train", shared_artists=True)) == ["A - 1", "B - 1", "Meaxic - Take A Step"]
    with pytest.raises(InputError, match="has a folder valid/ and validation tracks are given too"):
        find_tracks(root, "valid", validation_artists=["B"])


@pytest.mark.parametrize("named", [{"validation_tracks": ["A - 3"]}, {"validation_artists": ["A - 3"]}])
def test_unknown_validation_names_are_errors(lay: Lay, named: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="'A - 3' is not in the folder train/"):
        find_tracks(lay("train/A - 1"), "train", **named)


def test_a_folder_without_validation_tracks_is_an_error(lay: Lay) -> None:
    root = lay("train/A - 1")
    with pytest.raises(InputError, match=r"none of the official validation tracks is in .*train"):
        find_tracks(root, "valid")
    assert names(find_tracks(root, "train")) == ["A - 1"]


def test_no_track_left_to_train_on_is_an_error(lay: Lay) -> None:
    with pytest.raises(InputError, match=r"so none is left for training; .* or set shared_artists"):
        find_tracks(lay("train/A - 1", "train/A - 2"), "train", validation_tracks=["A - 1"])


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_folders_without_tracks_are_errors(tmp_path: Path, split: Any) -> None:
    folder = "test" if split == "test" else "train"
    with pytest.raises(InputError, match=f"there is no folder .*{folder}"):
        find_tracks(tmp_path, split)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "song.wav").write_text("a file of its own")
    with pytest.raises(InputError, match=f"there is no track in .*{folder}"):
        find_tracks(tmp_path, split)


@pytest.mark.parametrize("stem", MUSDB_STEMS)
def test_a_missing_stem_is_an_error(lay: Lay, stem: str) -> None:
    root = lay("test/A - 1", "test/B - 1")
    (root / "test" / "A - 1" / f"{stem}.wav").unlink()
    with pytest.raises(InputError, match=rf"the track .*A - 1 lacks the stem {stem}, which others have"):
        find_tracks(root, "test")


@pytest.mark.parametrize(
    ("length", "rate", "channels", "message"),
    [
        (99, SAMPLE_RATE, 2, "the stem bass of .* has 99 samples but its mixture 100"),
        (100, 48000, 2, "the stem bass of .* has 48000 Hz and 2 channels"),
        (100, SAMPLE_RATE, 1, f"the stem bass of .* has {SAMPLE_RATE} Hz and 1 channels"),
        (0, SAMPLE_RATE, 2, r"bass\.wav has no samples"),
    ],
)
def test_a_stem_of_a_different_format_is_an_error(
    lay: Lay, length: int, rate: int, channels: int, message: str
) -> None:
    root = lay("test/A - 1")
    write_audio(root / "test" / "A - 1" / "bass.wav", torch.zeros(channels, length), rate)
    with pytest.raises(InputError, match=message):
        find_tracks(root, "test")


def test_a_longer_stem_is_not_an_error(lay: Lay) -> None:
    root = lay("test/A - 1")
    write_audio(root / "test" / "A - 1" / "bass.wav", torch.zeros(2, 101), SAMPLE_RATE)
    (track,) = find_tracks(root, "test")
    assert track.length == read_audio(track.path / "mixture.wav").shape[-1] == 100


def test_a_track_as_file_and_as_folder_is_an_error(lay: Lay, song: Track) -> None:
    root = lay("test/A - 1")
    shutil.copyfile(song.path, root / "test" / "A - 1.stem.mp4")
    with pytest.raises(InputError, match=r"the track 'A - 1' is in .* twice"):
        find_tracks(root, "test")


def test_a_stem_file_with_too_few_streams_is_an_error(tmp_path: Path, song_stems: dict[str, torch.Tensor]) -> None:
    """A WAV file has one stream, even if it is called a stem file."""
    write_audio(tmp_path / "mixture.wav", song_stems[MIXTURE], SAMPLE_RATE)
    (tmp_path / "test").mkdir()
    (tmp_path / "mixture.wav").rename(tmp_path / "test" / "A - 1.stem.mp4")
    with pytest.raises(InputError, match="has 1 audio streams; a MUSDB18 stem file has 5"):
        find_tracks(tmp_path, "test")


def test_without_a_file_of_the_mixture_it_is_the_sum_of_the_stems(lay: Lay, tmp_path: Path) -> None:
    folder = tmp_path / "test" / "A - 1"
    for name, audio in {"guitar": torch.full((2, 100), 0.25), "voice": torch.full((2, 120), 0.5)}.items():
        write_audio(folder / f"{name}.flac", audio, SAMPLE_RATE, "flac")
    (track,) = find_tracks(tmp_path, "test")
    assert (track.stems, track.length) == (("guitar", "voice"), 100)
    assert track.read(MIXTURE).equal(torch.full((2, 100), 0.75))
    assert track.read(MIXTURE, 90).shape == track.read(MIXTURE, 3, 10).shape == (2, 10)


def test_a_stem_in_two_formats_is_an_error(lay: Lay) -> None:
    root = lay("test/A - 1")
    write_audio(root / "test" / "A - 1" / "bass.flac", torch.zeros(2, 100), SAMPLE_RATE, "flac")
    with pytest.raises(InputError, match=r"the stem 'bass' is in .* twice, as bass.flac and bass.wav; keep one"):
        find_tracks(root, "test")


def test_a_folder_without_stems_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "test" / "A - 1").mkdir(parents=True)
    with pytest.raises(InputError, match="A - 1 has no stem; a track has one audio file per stem"):
        find_tracks(tmp_path, "test")
