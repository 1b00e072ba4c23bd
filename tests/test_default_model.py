"""The recipe of the model in the package: what it composes and renders, and who hears which song."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import mido
import pytest
import torch

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE, STEMS
from bsmamba2.data.tracks import Track, find_tracks, track_paths
from bsmamba2.errors import InputError
from default_model import laying_out
from default_model.composing import DRUM_CHANNEL, compose, midi
from default_model.laying_out import SELECTION, lay_out, rendered_song, reported_artists
from default_model.rendering import SOUND_FONT
from default_model.trainings import training_folder

VOICES = (52, 53, 54, 85, 91)
INSTRUMENTS = ("drums", "bass", "other")


@pytest.fixture
def sound_font() -> Path:
    if shutil.which("fluidsynth") is None or not SOUND_FONT.is_file():
        pytest.skip("no fluidsynth with fluid-soundfont-gm here")
    return SOUND_FONT


def test_a_piece_depends_on_its_seed_alone() -> None:
    assert compose(5, 8) == compose(5, 8)
    assert len({str(compose(seed, 8)) for seed in range(20)}) == 20


def test_pieces_last_as_long_as_asked_and_hold_no_voices() -> None:
    for seed in range(40):
        piece = compose(seed, 10)
        for stem in INSTRUMENTS:
            parts = piece.stems[stem]
            assert midi(piece, stem).length > 8, "the last bar may end with a pause"
            assert all((part.channel == DRUM_CHANNEL) == (stem == "drums") for part in parts)
            assert stem == "drums" or not {part.program for part in parts} & set(VOICES)
            assert len({part.channel for part in parts}) == len(parts)
        assert {note.pitch < 60 for part in piece.stems["bass"] for note in part.notes} == {True}


def test_midi_holds_every_note_and_ends_each(tmp_path: Path) -> None:
    piece = compose(1, 6)
    midi(piece, "other").save(tmp_path / "other.mid")
    file = mido.MidiFile(tmp_path / "other.mid")
    sounding: list[tuple[int, int]] = []
    started = 0
    for message in file:
        if message.type == "note_on":
            sounding.append((message.channel, message.note))
            started += 1
        elif message.type == "note_off":
            sounding.remove((message.channel, message.note))
    assert started == sum(len(part.notes) for part in piece.stems["other"])
    assert not sounding
    assert file.length == pytest.approx(midi(piece, "other").length)


def test_a_rendered_song_has_every_stem_and_pauses_in_the_voice(sound_font: Path) -> None:
    voice = 0.1 * torch.randn(2, 3 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    song = rendered_song(3, [voice], sound_font)
    assert sorted(song) == sorted(STEMS)
    assert {audio.shape for audio in song.values()} == {(2, 12 * SAMPLE_RATE)}
    assert all(audio.square().mean().sqrt() > 10 ** (-40 / 20) for audio in song.values())
    assert torch.stack(list(song.values())).sum(0).abs().max() <= 1
    silent = (song["vocals"] == 0).all(0).double().mean()
    assert 0.05 < silent < 0.6
    again = rendered_song(3, [voice], sound_font)
    assert all(torch.equal(song[stem], again[stem]) for stem in STEMS)


def test_the_artists_of_training_selection_and_report_are_apart(
    test_data: Path, tmp_path: Path, sound_font: Path
) -> None:
    data = test_data / "data"
    lay_out(data, tmp_path, sound_font, rendered_songs=1)
    artists = {split: {track.artist for track in find_tracks(tmp_path, split)} for split in ("train", "valid", "test")}
    assert artists["valid"] == set(SELECTION)
    assert len(artists["test"]) == laying_out.REPORTED
    assert not artists["train"] & artists["valid"]
    assert not (artists["train"] | artists["valid"]) & artists["test"]
    assert not any("Easton Ellises" in artist for found in artists.values() for artist in found)
    tracks = {track.name: track for split in ("train", "valid", "test") for track in find_tracks(tmp_path, split)}
    assert sum(" - " in name and not name.startswith(("Rendered", "MDN", "Software")) for name in tracks) == 30
    for preview in track_paths(data / "musdb18-7-cc" / "train")[:3]:
        track = Track(preview, tracks[preview.name.removesuffix(".stem.mp4")].length)
        laid_out = read_audio(tmp_path / _split(tmp_path, track.name) / track.name / "vocals.wav")
        torch.testing.assert_close(laid_out, track.read("vocals"), rtol=0, atol=2**-15)
    kept = (tmp_path / "test").stat().st_mtime_ns
    lay_out(data, tmp_path, sound_font, rendered_songs=1)
    assert (tmp_path / "test").stat().st_mtime_ns == kept


def _split(root: Path, name: str) -> str:
    return next(split for split in ("train", "valid", "test") if (root / split / name).is_dir())


def test_the_reported_artists_have_one_song_and_do_not_depend_on_the_order() -> None:
    artists = [f"Artist {number}" for number in range(20)] + ["Twice", "Twice", *SELECTION]
    reported = reported_artists(artists)
    assert len(set(reported)) == laying_out.REPORTED
    assert not {"Twice", *SELECTION} & set(reported)
    assert reported_artists(artists[::-1]) == reported


def test_a_missing_sound_font_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fluidsynth .* is missing; run `apt install"):
        lay_out(tmp_path, tmp_path / "data", tmp_path / "none.sf2")
    assert not (tmp_path / "data").exists()


def test_shares_of_the_songs_are_nested_and_hold_both_kinds(tmp_path: Path) -> None:
    names = [f"Artist {number} - Song" for number in range(8)] + [f"Rendered {number} - Seed" for number in range(4)]
    _write_songs(tmp_path / "data" / "train", names)
    _write_songs(tmp_path / "data" / "valid", ["Chosen - By"])
    found = {}
    for share in (0.25, 0.5, 1.0):
        target = training_folder(tmp_path / "data", tmp_path / str(share), share)
        assert target == tmp_path / str(share)
        found[share] = {track.name for track in find_tracks(target, "train")}
        assert {track.name for track in find_tracks(target, "valid")} == {"Chosen - By"}
    assert found[0.25] < found[0.5] < found[1.0] == set(names)
    assert [sum(name.startswith("Rendered") for name in songs) for songs in found.values()] == [1, 2, 4]
    everything = training_folder(tmp_path / "data", tmp_path / "all", with_selection=True)
    assert "Chosen - By" in {track.name for track in find_tracks(everything, "train", shared_artists=True)}


def _write_songs(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        write_audio(folder / name / "vocals.wav", torch.zeros(2, 100), SAMPLE_RATE)
