import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bsmamba2.audio.writing import quantise, write_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import RUN
from bsmamba2.evaluation.songs import data_sha256, files_sha256, find_scored_tracks, read_song
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS


def names(tracks: list[Track]) -> list[str]:
    return [track.name for track in tracks]


@pytest.fixture
def audio(song_stems: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns a tenth of a second of the song as 16-bit files store it."""
    return {name: quantise(samples[:, 20000:24410], "16") for name, samples in song_stems.items()}


@pytest.fixture
def summed(audio: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the same with the sum of the stems as the mixture, which this song's own mixture is not."""
    return audio | {MIXTURE: torch.stack([audio[stem] for stem in MUSDB_STEMS]).sum(0)}


def write_track(folder: Path, audio: dict[str, Tensor], sample_rate: int = SAMPLE_RATE) -> Track:
    for name, samples in audio.items():
        write_audio(folder / f"{name}.wav", samples, sample_rate)
    return Track(folder, 0)


def test_songs_of_a_split(musdb_root: Path) -> None:
    assert names(find_scored_tracks(musdb_root, "test")) == ["Three - Third"]
    assert names(find_scored_tracks(musdb_root, "valid")) == ["Leaf - Summerghost"]
    assert names(find_scored_tracks(musdb_root, "valid", validation_artists=["Two"])) == ["Two - Second"]
    assert names(find_scored_tracks(musdb_root, "train", ["One - First"])) == ["Leaf - Summerghost", "Two - Second"]


def test_songs_of_validation_artists_are_kept(tmp_path: Path, audio: dict[str, Tensor]) -> None:
    for name in ("A - 1", "A - 2"):
        write_track(tmp_path / "train" / name, audio)
    assert names(find_scored_tracks(tmp_path, "train", validation_tracks=["A - 1"])) == ["A - 2"]


def test_a_folder_of_stems_is_a_test_set_in_the_order_of_names(
    tmp_path: Path, song: Track, audio: dict[str, Tensor]
) -> None:
    """Sorted as file names they would be in the opposite order, since a space is before a full stop."""
    write_track(tmp_path / "B", {"voice": audio["vocals"][:1]}, 22050)
    for name in ("A", "A b"):
        shutil.copyfile(song.path, tmp_path / f"{name}.stem.mp4")
    (tmp_path / "readme.txt").write_text("no track")
    tracks = find_scored_tracks(tmp_path, "test")
    assert names(tracks) == ["A", "A b", "B"]
    assert [read_song(track).sample_rate for track in tracks[1:]] == [SAMPLE_RATE, 22050]
    with pytest.raises(InputError, match=r"there is no folder .*train"):
        find_scored_tracks(tmp_path, "valid")


def test_a_dataset_without_test_is_not_a_folder_of_songs(tmp_path: Path, audio: dict[str, Tensor]) -> None:
    write_track(tmp_path / "train" / "A - 1", audio)
    with pytest.raises(InputError, match=r"there is no folder .*test"):
        find_scored_tracks(tmp_path, "test")


def test_folders_without_songs_are_errors(tmp_path: Path, song: Track, audio: dict[str, Tensor]) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; give one that contains test/, or tracks"):
        find_scored_tracks(tmp_path / "nowhere", "test")
    with pytest.raises(InputError, match=r"there is no track in "):
        find_scored_tracks(tmp_path, "test")
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match=r"there is no track in .*test"):
        find_scored_tracks(tmp_path, "test")
    write_track(tmp_path / "test" / "A", audio)
    shutil.copyfile(song.path, tmp_path / "test" / "A.stem.mp4")
    for root in (tmp_path, tmp_path / "test"):
        with pytest.raises(InputError, match=r"the track 'A' is in .* twice"):
            find_scored_tracks(root, "test")


def test_results_of_an_evaluation_are_not_songs(tmp_path: Path, audio: dict[str, Tensor]) -> None:
    for root in (tmp_path / "songs", tmp_path / "data" / "test"):
        (root / "run").mkdir(parents=True)
        (root / "run" / RUN).write_text("{}")
    with pytest.raises(InputError, match=r"there is no track in .*data, only the results of an evaluation"):
        find_scored_tracks(tmp_path / "data", "test")
    for root in (tmp_path / "songs", tmp_path / "data"):
        write_track((root / "test" if root.name == "data" else root) / "A", audio)
        assert names(find_scored_tracks(root, "test")) == ["A"]


def test_a_stem_file_is_read_stream_by_stream(song: Track) -> None:
    read = read_song(Track(song.path, 0))
    assert (read.name, read.sample_rate) == ("The Easton Ellises - Falcon 69", SAMPLE_RATE)
    assert list(read.stems) == list(MUSDB_STEMS)
    assert read.mixture.equal(song.read(MIXTURE))
    for stem in MUSDB_STEMS:
        assert read.reference(stem).equal(song.read(stem))


def test_references_and_the_other_sources(tmp_path: Path, audio: dict[str, Tensor]) -> None:
    song = read_song(write_track(tmp_path / "A", audio))
    drums, bass, other, vocals = (audio[stem] for stem in MUSDB_STEMS)
    torch.testing.assert_close(song.reference("instrumental"), drums + bass + other, rtol=0, atol=1e-6)
    torch.testing.assert_close(song.rest("vocals"), drums + bass + other, rtol=0, atol=1e-6)
    torch.testing.assert_close(song.rest("bass"), drums + other + vocals, rtol=0, atol=1e-6)
    assert song.rest("instrumental").equal(vocals)
    assert len(song.others("bass")) == 3
    assert len(song.others("instrumental")) == 1


@pytest.mark.parametrize("name", ["instrumental", "accompaniment", "no_vocals"])
def test_a_file_of_the_instrumental_is_its_reference(tmp_path: Path, audio: dict[str, Tensor], name: str) -> None:
    """It can differ from the mixture without the vocals: here it lacks the bass."""
    accompaniment = audio["drums"]
    track = write_track(tmp_path / "A", {MIXTURE: audio[MIXTURE], "vocals": audio["vocals"], name: accompaniment})
    song = read_song(track)
    assert song.reference("instrumental").equal(accompaniment)
    assert song.rest("vocals").equal(accompaniment)
    assert song.rest("instrumental").equal(audio["vocals"])
    assert sorted(song.references) == ["instrumental", "vocals"]


def test_a_single_stem_leaves_the_mixture_without_it(tmp_path: Path, audio: dict[str, Tensor]) -> None:
    song = read_song(write_track(tmp_path / "A", {name: audio[name] for name in (MIXTURE, "vocals")}))
    for rest in (song.rest("vocals"), song.reference("instrumental")):
        assert rest.equal(audio[MIXTURE] - audio["vocals"])
    assert song.notes == ("vocals is the only stem: everything else is the mixture without it",)


@pytest.mark.parametrize("name", ["instrumental", "accompaniment"])
def test_a_single_instrumental_leaves_the_mixture_without_it(
    tmp_path: Path, audio: dict[str, Tensor], name: str
) -> None:
    song = read_song(write_track(tmp_path / "A", {MIXTURE: audio[MIXTURE], name: audio["drums"]}))
    assert song.references == ("instrumental",)
    assert song.reference("instrumental").equal(audio["drums"])
    assert song.rest("instrumental").equal(audio[MIXTURE] - audio["drums"])
    assert song.notes == ("instrumental is the only stem: everything else is the mixture without it",)


@pytest.mark.parametrize(("share", "noted"), [(0.095, False), (0.105, True)])
def test_stems_that_do_not_sum_to_the_mixture_are_noted(
    tmp_path: Path, summed: dict[str, Tensor], share: float, noted: bool
) -> None:
    """A tenth of the amplitude is -20 dB."""
    track = write_track(tmp_path / "A", summed | {"vocals_dry": share * summed[MIXTURE]})
    assert bool(read_song(track).notes) == noted
    write_audio(tmp_path / "A" / "vocals_dry.wav", summed[MIXTURE], SAMPLE_RATE)
    assert read_song(track).notes == (
        "the stems drums, bass, other, vocals, vocals_dry do not sum to the mixture: the difference is at 0.0 dB of "
        "its level",
    )


@pytest.mark.parametrize("name", ["mix", "Master", "residual", "instrumental", "ACCOMPANIMENT", "no_vocals"])
def test_a_file_that_is_not_a_stem_by_its_name_is_not_used(
    tmp_path: Path, summed: dict[str, Tensor], name: str
) -> None:
    song = read_song(write_track(tmp_path / "A", summed | {name: summed[MIXTURE]}))
    assert tuple(song.stems) == MUSDB_STEMS
    (note,) = song.notes
    assert note.startswith(f"{name}.wav is not used, because ")
    assert song.reference("instrumental").equal(summed["drums"] + summed["bass"] + summed["other"])


def test_capital_letters_do_not_matter(tmp_path: Path, summed: dict[str, Tensor]) -> None:
    song = read_song(write_track(tmp_path / "A", {name.title(): samples for name, samples in summed.items()}))
    assert song.mixture.equal(summed[MIXTURE])
    assert (tuple(song.stems), song.notes) == (MUSDB_STEMS, ())


@pytest.mark.parametrize("name", ["mix", "residual"])
def test_a_single_stem_needs_a_mixture(tmp_path: Path, audio: dict[str, Tensor], name: str) -> None:
    track = write_track(tmp_path / "A", {"vocals": audio["vocals"], name: audio[MIXTURE]})
    with pytest.raises(InputError, match=rf"A has only the stem vocals and no mixture, and {name}\.wav is not used"):
        read_song(track)


def test_silent_references_are_noted(tmp_path: Path, audio: dict[str, Tensor]) -> None:
    """A single 16-bit step is dither."""
    del audio[MIXTURE]
    quiet = {"bass": torch.zeros(2, 4410), "drums": torch.full((2, 4410), 2.0**-15)}
    quiet["vocals"] = quiet["bass"].index_fill(1, torch.tensor([7]), 0.001)
    assert read_song(write_track(tmp_path / "A", audio | quiet)).notes == tuple(
        f"the reference of {name} is silent, so only leakage measures its estimate" for name in ("drums", "bass")
    )


def test_a_missing_stem_is_an_error(tmp_path: Path, audio: dict[str, Tensor]) -> None:
    song = read_song(write_track(tmp_path / "A - 1", {name: audio[name] for name in ("drums", "bass")}))
    message = "the track 'A - 1' has no stem 'vocals', only drums, bass; add it, or score another"
    for stem in ("vocals", "instrumental"):
        for ask in (song.reference, song.others, song.rest):
            with pytest.raises(InputError, match=message):
                ask(stem)


def test_mono_beside_stereo_is_copied_to_both_channels(tmp_path: Path, audio: dict[str, Tensor]) -> None:
    del audio[MIXTURE]
    track = write_track(tmp_path / "A", audio | {"bass": audio["bass"][:1]})
    song = read_song(track)
    assert song.stems["bass"].equal(audio["bass"][[0, 0]])
    assert song.stems["drums"].equal(audio["drums"])
    assert song.notes == ("mono, copied to both channels: bass",)


def test_a_mono_song_stays_mono(tmp_path: Path, summed: dict[str, Tensor]) -> None:
    song = read_song(write_track(tmp_path / "A", {name: samples[:1] for name, samples in summed.items()}))
    assert (song.mixture.shape, song.notes) == ((1, 4410), ())


def test_stems_are_as_long_as_the_mixture(tmp_path: Path, audio: dict[str, Tensor]) -> None:
    mixture = audio[MIXTURE][:, :2000]
    lengths = {"drums": 3025, "bass": 3024, "other": 976, "vocals": 975}
    stems = {stem: audio[stem][:, :length] for stem, length in lengths.items()}
    song = read_song(write_track(tmp_path / "A", {MIXTURE: mixture} | stems))
    for stem, length in lengths.items():
        expected = torch.zeros(2, 2000)
        expected[:, :length] = audio[stem][:, : min(length, 2000)]
        assert song.stems[stem].equal(expected)
    assert song.notes[:2] == (
        "drums has 3025 samples, mixture 2000: cut",
        "vocals has 975 samples, mixture 2000: padded with zeros",
    )


def test_without_a_mixture_it_is_the_sum_of_the_stems(tmp_path: Path, audio: dict[str, Tensor]) -> None:
    song = read_song(write_track(tmp_path / "A", {"tuba": audio["bass"], "voice": audio["vocals"][:, :3000]}))
    assert song.mixture.equal(audio["bass"][:, :3000] + audio["vocals"][:, :3000])
    assert list(song.stems) == ["tuba", "voice"]
    assert song.notes == ("tuba has 4410 samples, voice 3000: cut",)


@pytest.mark.parametrize(
    ("name", "channels", "rate", "message"),
    [
        ("vocals", 2, 48000, "different sampling rates .*mixture 44100 Hz, .*vocals 48000 Hz.*resample it to one"),
        ("mixture", 2, 48000, "different sampling rates .*mixture 48000 Hz"),
        ("vocals", 6, SAMPLE_RATE, "has audio of 6 channels; mix it down"),
    ],
)
def test_audio_that_cannot_be_scored_is_an_error(
    tmp_path: Path, audio: dict[str, Tensor], name: str, channels: int, rate: int, message: str
) -> None:
    track = write_track(tmp_path / "A", audio)
    write_audio(tmp_path / "A" / f"{name}.wav", audio[MIXTURE].repeat(channels // 2, 1), rate)
    with pytest.raises(InputError, match=message):
        read_song(track)


@pytest.mark.parametrize("stems", [(), (MIXTURE,)])
def test_a_track_without_stems_is_an_error(tmp_path: Path, audio: dict[str, Tensor], stems: Any) -> None:
    (tmp_path / "A").mkdir()
    track = write_track(tmp_path / "A", {name: audio[name] for name in stems})
    with pytest.raises(InputError, match="A has no stem; a track has one audio file per stem"):
        read_song(track)


def test_the_hash_depends_on_names_and_audio_only(tmp_path: Path, audio: dict[str, Tensor]) -> None:
    track = write_track(tmp_path / "one" / "A - 1", audio)
    (tmp_path / "one" / "A - 1" / "notes.txt").write_text("no audio")
    expected = data_sha256(track)
    assert len(expected) == 64
    moved = {name: audio[name] for name in reversed(list(audio))}
    assert data_sha256(write_track(tmp_path / "two" / "A - 1", moved)) == expected
    renamed = {"bassoon" if name == "bass" else name: samples for name, samples in audio.items()}
    for number, other in enumerate(
        (
            audio | {"bass": audio["bass"].roll(1, -1)},
            audio | {"bass": audio["drums"], "drums": audio["bass"]},
            audio | {"tuba": audio["bass"]},
            renamed,
        )
    ):
        assert data_sha256(write_track(tmp_path / str(number) / "A - 1", other)) != expected


def test_names_that_are_not_utf8_have_a_hash(tmp_path: Path) -> None:
    path = tmp_path / "audio"
    path.write_bytes(b"audio")
    # What Python makes of the Latin-1 names "Gef\xfchl" and "Gef\xfdhl".
    assert len({files_sha256({name: path}) for name in ("Gef\udcfchl", "Gef\udcfdhl")}) == 2


def test_the_hash_of_a_stem_file_is_that_of_its_bytes(tmp_path: Path, song: Track) -> None:
    copy = tmp_path / "A.stem.mp4"
    shutil.copyfile(song.path, copy)
    assert data_sha256(Track(copy, 0)) == data_sha256(song)
    with copy.open("ab") as file:
        file.write(b"\0")
    assert data_sha256(Track(copy, 0)) != data_sha256(song)
