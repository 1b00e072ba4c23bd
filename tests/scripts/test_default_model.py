"""The recipe of the packaged model: what it composes and renders, and which songs are used for what."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import mido
import pytest
import torch
import yaml
from safetensors.torch import load_file

from bsmamba2 import load_model
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Split, Track, find_tracks
from bsmamba2.demo import example_song
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.stem_names import MUSDB_STEMS
from bsmamba2.weights.checkpoint import WeightsFile
from bsmamba2.weights.registry import DEFAULT_MODEL
from default_model import laying_out
from default_model.composing import DRUM_CHANNEL, compose, midi
from default_model.laying_out import SELECTION, faded, lay_out, lay_out_songs, rendered_song, reported_artists
from default_model.rendering import SOUND_FONT
from default_model.trainings import CONFIG, PROJECT, export, train, training_folder
from tests.conftest import TINY

VOICES = (52, 53, 54, 85, 91)
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
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


@pytest.mark.parametrize("seed", range(8))
def test_midi_holds_every_note_and_ends_each_before_the_next(tmp_path: Path, seed: int) -> None:
    piece = compose(seed, 6)
    midi(piece, "other").save(tmp_path / "other.mid")
    file = mido.MidiFile(tmp_path / "other.mid")
    notes = [note for part in piece.stems["other"] for note in part.notes]
    sounding: list[tuple[int, int]] = []
    started = 0
    for message in file:
        if message.type == "note_on":
            assert (message.channel, message.note) not in sounding, "its end would end the note before it"
            sounding.append((message.channel, message.note))
            started += 1
        elif message.type == "note_off":
            sounding.remove((message.channel, message.note))
    assert 0.9 * len(notes) < started <= len(notes), "only the loudest of simultaneous notes of one pitch is kept"
    assert not sounding
    assert file.length == pytest.approx(midi(piece, "other").length)


def test_a_rendered_song_has_every_stem_and_pauses_in_the_voice(sound_font: Path) -> None:
    voice = 0.1 * torch.randn(2, 3 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    song = rendered_song(3, [voice], sound_font)
    assert sorted(song) == sorted(MUSDB_STEMS)
    assert {audio.shape for audio in song.values()} == {(2, 12 * SAMPLE_RATE)}
    assert all(audio.square().mean().sqrt() > 10 ** (-40 / 20) for audio in song.values())
    assert torch.stack(list(song.values())).sum(0).abs().max() <= 1
    silent = (song["vocals"] == 0).all(0).double().mean()
    assert 0.05 < silent < 0.6
    again = rendered_song(3, [voice], sound_font)
    assert all(torch.equal(song[stem], again[stem]) for stem in MUSDB_STEMS)


def test_a_phrase_begins_and_ends_in_silence_and_is_itself_between() -> None:
    phrase = faded(torch.ones(2, SAMPLE_RATE))
    assert phrase[:, [0, -1]].abs().max() == 0
    assert phrase.diff().abs().max() < 0.01
    assert (phrase[:, 1000:-1000] == 1).all()
    assert faded(torch.ones(2, 10)).shape == (2, 10)


@pytest.fixture(scope="module")
def laid_out(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the dataset without the rendered songs."""
    root = tmp_path_factory.mktemp("data")
    voices = lay_out_songs(test_data / "data", root)
    assert len(voices) == 18 + 2, "all singers that are trained on, and two who sing alone"
    return root


def test_the_artists_of_training_selection_and_report_are_apart(test_data: Path, laid_out: Path) -> None:
    tracks = {split: find_tracks(laid_out, split) for split in SPLITS}
    artists = {split: {track.artist for track in found} for split, found in tracks.items()}
    assert artists["valid"] == set(SELECTION)
    assert len(artists["test"]) == laying_out.REPORTED
    assert not artists["train"] & artists["valid"]
    assert not (artists["train"] | artists["valid"]) & artists["test"]
    assert [len(tracks[split]) for split in SPLITS] == [19, 7, 7]
    for track in (found[0] for found in tracks.values()):
        preview = Track(test_data / "data" / "musdb18-7-cc" / "train" / f"{track.name}.stem.mp4", track.length)
        torch.testing.assert_close(track.read("vocals"), preview.read("vocals"), rtol=0, atol=2**-15)


def test_without_their_vocals_the_reported_songs_are_what_accompanies_them(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    song = {stem: torch.randn(2, 1000, generator=generator).clamp(-3, 3) / 16 for stem in MUSDB_STEMS}
    for stem, audio in song.items():
        write_audio(tmp_path / "data" / "test" / "A - B" / f"{stem}.wav", audio, SAMPLE_RATE)
    laying_out.lay_out_muted(tmp_path / "data", tmp_path / "muted")
    (track,) = find_tracks(tmp_path / "muted", "test")
    assert not track.read("vocals").any()
    torch.testing.assert_close(track.read("mixture"), song["drums"] + song["bass"] + song["other"], rtol=0, atol=2**-13)


def test_existing_files_are_kept_and_missing_ones_are_written_again(test_data: Path, laid_out: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in laid_out.rglob("*.wav")}
    lost = laid_out / "train" / "MDN - Multitrack" / "bass.wav"
    lost.unlink()
    lay_out_songs(test_data / "data", laid_out)
    assert lost.stat().st_mtime_ns > files.pop(lost)
    assert {path: path.stat().st_mtime_ns for path in laid_out.rglob("*.wav") if path != lost} == files


def test_the_song_of_the_demo_is_refused(tmp_path: Path) -> None:
    for name in laying_out.SOURCES:
        (tmp_path / name).mkdir()
    song = example_song()
    assert song.artist == laying_out.DEMO_ARTIST
    (tmp_path / "musdb18-7-cc" / "train").mkdir()
    shutil.copy(song.path, tmp_path / "musdb18-7-cc" / "train")
    with pytest.raises(InputError, match=r"a song of The Easton Ellises is in .*, so remove it"):
        lay_out_songs(tmp_path, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_missing_source_is_reported_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "musdb18-7-cc").mkdir()
    with pytest.raises(InputError, match=r"no folder .*everything-is-free-cc0; the sources are musdb18-7-cc, "):
        lay_out_songs(tmp_path, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_reported_artists_have_one_song_and_do_not_depend_on_the_order() -> None:
    artists = [f"Artist {number}" for number in range(20)] + ["Twice", "Twice", *SELECTION]
    reported = reported_artists(artists)
    assert len(set(reported)) == laying_out.REPORTED
    assert not {"Twice", *SELECTION} & set(reported)
    assert reported_artists(artists[::-1]) == reported


def test_a_missing_sound_font_is_reported_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fluidsynth .* is missing; run `apt install"):
        lay_out(tmp_path, tmp_path / "data", tmp_path / "none.sf2")
    (tmp_path / "text.sf2").write_text("no instruments")
    with pytest.raises(InputError, match=r"fluidsynth .* is missing|text\.sf2 is not a SoundFont"):
        lay_out(tmp_path, tmp_path / "data", tmp_path / "text.sf2")
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


def test_the_model_in_the_package_has_the_architecture_of_the_config() -> None:
    options = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    assert load_model(DEFAULT_MODEL).config == ModelConfig.from_dict(options["model"]["network"])


def test_a_training_run_that_was_stopped_resumes_and_its_last_weights_are_exported(tmp_path: Path) -> None:
    _write_songs(tmp_path / "data" / "train", ["One - Song", "Two - Song"])
    _write_songs(tmp_path / "data" / "valid", ["Three - Song"])
    network = asdict(TINY) | {"bands": list(TINY.bands), "stems": list(TINY.stems)}
    options = [f"--model.network={json.dumps(network)}", "--model.compile=false", "--trainer.devices=1"]
    options += ["--data.epoch_excerpts=2", "--model.warmup_steps=0", "--trainer.limit_val_batches=0"]
    options += ["--data.augmentation.pitch=0", "--data.augmentation.tempo=0"]
    started = train(tmp_path / "data", tmp_path / "run", *options, "--trainer.max_epochs=1")
    assert WeightsFile.read(started).content["global_step"] == 2
    resumed = train(tmp_path / "data", tmp_path / "run", *options, "--trainer.max_epochs=2")
    assert resumed == started
    assert WeightsFile.read(resumed).content["global_step"] == 4
    export(resumed, tmp_path / "weights.safetensors")
    assert {tensor.dtype for tensor in load_file(tmp_path / "weights.safetensors").values()} == {torch.float16}
    averaged = load_model(resumed).state_dict()
    for name, value in load_model(tmp_path / "weights.safetensors").state_dict().items():
        torch.testing.assert_close(value, averaged[name], rtol=1e-3, atol=1e-6)
    with pytest.raises(InputError, match=r"ended with status [12]; its last output is above"):
        train(tmp_path / "none", tmp_path / "run", *options)


def test_a_wrong_option_of_the_recipe_is_one_sentence(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "scripts/train_default_model.py",
        str(tmp_path),
        str(tmp_path / "work"),
        "--size",
        "huge",
    ]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith("size='huge' is not allowed; choose small, medium, large")
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "work").exists()


def _write_songs(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        noise = 0.1 * torch.randn(2, SAMPLE_RATE // 2, generator=torch.Generator().manual_seed(0))
        write_audio(folder / name / "vocals.wav", noise, SAMPLE_RATE)
