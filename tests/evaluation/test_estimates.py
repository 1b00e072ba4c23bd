import unicodedata
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from bsmamba2.audio.formats import Depth, Format
from bsmamba2.audio.writing import quantise, write_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.errors import InputError
from bsmamba2.evaluation.estimates import estimates_sha256, read_estimates, stems_in
from bsmamba2.evaluation.songs import Song, find_scored_tracks, read_song
from bsmamba2.metrics import usdr
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS


@pytest.fixture
def short_song(song_stems: dict[str, Tensor]) -> Song:
    """Returns half a second of the song as 16-bit files store it."""
    audio = {name: quantise(samples[:, 20000:42050], "16") for name, samples in song_stems.items()}
    return Song("A - 1", audio.pop(MIXTURE), audio, SAMPLE_RATE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns the folder of the song's estimates, which is empty."""
    (tmp_path / "A - 1").mkdir()
    return tmp_path / "A - 1"


def test_estimates_are_read_from_their_files(short_song: Song, folder: Path) -> None:
    for stem in MUSDB_STEMS:
        write_audio(folder / f"{stem}.WAV", short_song.stems[stem], SAMPLE_RATE)
    (folder / "notes.txt").write_text("no audio")
    estimates, notes = read_estimates(folder.parent, short_song, ["vocals", "bass"])
    assert list(estimates) == ["vocals", "bass"]
    for stem, estimate in estimates.items():
        assert estimate.equal(short_song.stems[stem])
    assert notes == ()


@pytest.mark.parametrize(("format", "least_db"), [("flac", 90), ("mp3", 15), ("m4a", 15), ("ogg", 15)])
def test_other_formats_are_read(short_song: Song, folder: Path, format: Format, least_db: float) -> None:
    depth: Depth | None = "16" if format == "flac" else None
    write_audio(folder / f"vocals.{format}", short_song.stems["vocals"], SAMPLE_RATE, format, depth)
    estimates, _ = read_estimates(folder.parent, short_song, ["vocals"])
    assert usdr(estimate=estimates["vocals"], reference=short_song.stems["vocals"]) > least_db


@pytest.mark.parametrize(("length", "fitted"), [(22051, "cut"), (22049, "padded with zeros"), (100, "padded")])
def test_a_different_length_is_fitted_and_noted(short_song: Song, folder: Path, length: int, fitted: str) -> None:
    vocals = short_song.stems["vocals"].repeat(1, 2)[:, :length]
    write_audio(folder / "vocals.wav", vocals, SAMPLE_RATE)
    estimates, (note,) = read_estimates(folder.parent, short_song, ["vocals"])
    assert estimates["vocals"].shape == short_song.mixture.shape
    assert estimates["vocals"][:, :length].equal(vocals[:, :22050])
    assert not estimates["vocals"][:, length:].any()
    assert note.startswith(f"the estimate of vocals has {length} samples, the song 22050: {fitted}")


def test_mono_is_copied_to_both_channels_and_noted(short_song: Song, folder: Path) -> None:
    write_audio(folder / "vocals.wav", short_song.stems["vocals"][:1], SAMPLE_RATE)
    estimates, notes = read_estimates(folder.parent, short_song, ["vocals"])
    assert estimates["vocals"].equal(short_song.stems["vocals"][[0, 0]])
    assert notes == ("the estimate of vocals is mono, copied to both channels",)


def test_stereo_of_a_mono_song_is_an_error(short_song: Song, folder: Path) -> None:
    write_audio(folder / "vocals.wav", short_song.stems["vocals"], SAMPLE_RATE)
    mono = Song(short_song.name, short_song.mixture[:1], {"vocals": short_song.stems["vocals"][:1]}, SAMPLE_RATE)
    with pytest.raises(InputError, match=r"vocals\.wav has 2 channels and the song 1; mix the estimate down to 1"):
        read_estimates(folder.parent, mono, ["vocals"])


def test_a_different_sampling_rate_is_an_error(short_song: Song, folder: Path) -> None:
    write_audio(folder / "vocals.wav", short_song.stems["vocals"], 48000)
    with pytest.raises(InputError, match=r"vocals\.wav has 48000 Hz and the song 44100; resample the estimate"):
        read_estimates(folder.parent, short_song, ["vocals"])


def test_samples_that_are_not_finite_are_an_error(short_song: Song, folder: Path) -> None:
    vocals = short_song.stems["vocals"].clone()
    vocals[1, 77] = torch.nan
    write_audio(folder / "vocals.wav", vocals, SAMPLE_RATE, depth="float")
    with pytest.raises(InputError, match=r"vocals\.wav has samples that are not finite"):
        read_estimates(folder.parent, short_song, ["vocals"])


def test_a_missing_estimate_is_an_error(short_song: Song, folder: Path) -> None:
    for stems in (["vocals"], ["instrumental"]):
        with pytest.raises(InputError, match=f"no estimate of {stems[0]} in .*A - 1, only of nothing; add it as"):
            read_estimates(folder.parent, short_song, stems)
    for stem in ("bass", "drums"):
        write_audio(folder / f"{stem}.wav", short_song.stems[stem], SAMPLE_RATE)
    with pytest.raises(
        InputError, match=r"no estimate of vocals in .*A - 1, only of bass, drums; add it as vocals\.wav"
    ):
        read_estimates(folder.parent, short_song, ["bass", "vocals"])
    folder.rename(folder.parent / "B")
    with pytest.raises(
        InputError, match=r"there is no folder .*A - 1; put a track's estimates in a folder of its name"
    ):
        read_estimates(folder.parent, short_song, ["bass"])


@pytest.mark.parametrize("names", [("vocals.wav", "vocals.flac"), ("accompaniment.wav", "instrumental.wav")])
def test_two_estimates_of_one_stem_are_an_error(short_song: Song, folder: Path, names: tuple[str, str]) -> None:
    for name in names:
        write_audio(folder / name, short_song.stems["vocals"], SAMPLE_RATE)
    for use in (
        lambda: read_estimates(folder.parent, short_song, ["vocals"]),
        lambda: estimates_sha256(folder.parent, short_song.name),
        lambda: stems_in(folder.parent),
    ):
        with pytest.raises(InputError, match=r"are both estimates of .*; keep one"):
            use()


@pytest.mark.parametrize("name", ["instrumental", "accompaniment", "no_vocals"])
def test_the_instrumental_is_its_file(short_song: Song, folder: Path, name: str) -> None:
    write_audio(folder / "vocals.wav", short_song.stems["vocals"], SAMPLE_RATE)
    write_audio(folder / f"{name}.wav", short_song.stems["drums"], SAMPLE_RATE)
    write_audio(folder / "bass.wav", short_song.stems["bass"], SAMPLE_RATE)
    for stems in (["instrumental"], ["vocals"], ["bass"]):
        estimates, notes = read_estimates(folder.parent, short_song, stems)
        assert notes == ()
        # Each of the two is the estimate of everything but the other.
        assert set(estimates) == ({"bass"} if stems == ["bass"] else {"instrumental", "vocals"})
        assert next(iter(estimates)) == stems[0]
        if stems != ["bass"]:
            assert estimates["instrumental"].equal(short_song.stems["drums"])
            assert estimates["vocals"].equal(short_song.stems["vocals"])
    (folder / "bass.wav").unlink()
    assert stems_in(folder.parent) == ("vocals", "instrumental")


@pytest.mark.parametrize("stems", [["instrumental"], ["instrumental", "vocals"]])
def test_without_a_file_the_instrumental_is_the_mixture_without_the_vocals(
    short_song: Song, folder: Path, stems: list[str]
) -> None:
    vocals = short_song.stems["vocals"][:, :-1]
    write_audio(folder / "vocals.wav", vocals, SAMPLE_RATE)
    estimates, notes = read_estimates(folder.parent, short_song, stems)
    assert list(estimates) == ["instrumental", "vocals"]
    assert estimates["instrumental"][:, :-1].equal(short_song.mixture[:, :-1] - vocals)
    assert notes == (
        "the estimate of vocals has 22049 samples, the song 22050: padded with zeros",
        "the estimate of instrumental is the mixture without that of vocals",
    )


def test_the_hash_depends_on_names_and_audio_only(short_song: Song, tmp_path: Path) -> None:
    def hash_of(place: str, **stems: str) -> str:
        for name, stem in stems.items():
            write_audio(tmp_path / place / short_song.name / f"{name}.wav", short_song.stems[stem], SAMPLE_RATE)
        return estimates_sha256(tmp_path / place, short_song.name)

    expected = hash_of("one", vocals="vocals", bass="bass")
    (tmp_path / "one" / short_song.name / "notes.txt").write_text("no audio")
    assert hash_of("one") == hash_of("two", bass="bass", vocals="vocals") == expected
    assert len({expected, hash_of("three", vocals="bass", bass="vocals"), hash_of("four", vocals="vocals")}) == 3
    instrumental, accompaniment = (
        hash_of(name, bass="bass", **{name: "drums"}) for name in ("instrumental", "accompaniment")
    )
    assert instrumental == accompaniment
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        estimates_sha256(tmp_path / "nowhere", short_song.name)


def test_stems_are_listed_in_musdbs_order(short_song: Song, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(
            InputError, match=r"there are no estimates in .*; put them there as \{track\}/\{stem\}\.wav"
        ):
            stems_in(path)
    (tmp_path / "A").mkdir()
    (tmp_path / "A.txt").write_text("no track")
    for name in ("vocals", "tuba", "mixture", "Mix", "drums", "accompaniment", "residual", ".bass"):
        write_audio(tmp_path / "B" / f"{name}.wav", short_song.mixture, SAMPLE_RATE)
    write_audio(tmp_path / ".cache" / "bass.wav", short_song.mixture, SAMPLE_RATE)
    assert stems_in(tmp_path) == ("drums", "vocals", "instrumental", "tuba")


def test_only_stems_that_every_track_has_are_listed(
    short_song: Song, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracks = {"A": ("vocals", "bass", "no_vocals"), "B": ("bass", "vocals", "click"), "C": ("mixture",)}
    for track, names in tracks.items():
        for name in names:
            write_audio(tmp_path / track / f"{name}.wav", short_song.mixture, SAMPLE_RATE)
    assert stems_in(tmp_path) == ("bass", "vocals")
    assert caplog.messages == [f"stems left out, because some tracks in {tmp_path} lack them: click (not of 'A')"]
    write_audio(tmp_path / "C" / "click.wav", short_song.mixture, SAMPLE_RATE)
    with pytest.raises(
        InputError, match=r"no stem in common \(bass \(not of 'C'\), click \(not of 'A'\), instrumental"
    ):
        stems_in(tmp_path)


@pytest.mark.parametrize(("of_song", "of_estimates"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_may_be_composed_or_decomposed(
    tmp_path: Path, song_stems: dict[str, Tensor], of_song: Literal["NFC", "NFD"], of_estimates: Literal["NFC", "NFD"]
) -> None:
    """A Mac writes e followed by an accent, other systems one letter."""
    name = "Caf\u00e9 - \u00e9t\u00e9"
    for root, form in (("songs", of_song), ("estimates", of_estimates)):
        folder = tmp_path / root / unicodedata.normalize(form, name)
        stem = unicodedata.normalize(form, "r\u00eave")
        write_audio(folder / f"{stem}.wav", song_stems["vocals"], 44100)
        write_audio(folder / "drums.wav", song_stems["drums"], 44100)
    (track,) = find_scored_tracks(tmp_path / "songs", "test")
    assert track.name == name
    found, _ = read_estimates(tmp_path / "estimates", read_song(track), ["r\u00eave"])
    assert found["r\u00eave"].shape == song_stems["vocals"].shape
    assert estimates_sha256(tmp_path / "estimates", track.name)
