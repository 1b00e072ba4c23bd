"""The recipe of the packaged model: its data, how excerpts are drawn from them, and a small training run."""

import dataclasses
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file

import train_default_model
from bsmamba2 import load_model
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.augment import BANDS_HZ
from bsmamba2.data.musdb import OFFICIAL_VALIDATION_TRACKS, SAMPLE_RATE
from bsmamba2.demo import example_song
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.stem_names import MUSDB_STEMS, VOCALS
from bsmamba2.weights.checkpoint import WeightsFile
from default_model import sources
from default_model.bank import FULL_SCALE, Bank
from default_model.laying_out import HASHES, check_pack, lay_out, lay_out_muted, pack
from default_model.mixing import Balance, Part, RecordingMixer, Sampling, compressed, equaliser, rooms
from default_model.sources import ACCOMPANIMENT, INSTRUMENTS, Recording, recordings
from tests import programs
from tests.conftest import TINY
from tests.scripts.conftest import noise

CPU = torch.device("cpu")
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def laid_out(made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    lay_out(made_up, root)
    return root


@pytest.fixture(scope="module")
def bank(laid_out: Path) -> Bank:
    return Bank(laid_out)


def mixer(bank: Bank, samples: int = 8000, **sampling: object) -> RecordingMixer:
    return RecordingMixer(bank, dataclasses.replace(Sampling(), **sampling), samples, seed=1)  # type: ignore[arg-type]


def test_recordings_are_laid_out_by_kind_and_existing_files_are_kept(made_up: Path, laid_out: Path) -> None:
    found = {(path.parents[1].name, path.parent.name, path.stem) for path in laid_out.glob("*/*/*.wav")}
    expected = {("train", name, stem) for name in ("One - A", "Two - B", "Two - C") for stem in MUSDB_STEMS}
    expected |= {("valid", OFFICIAL_VALIDATION_TRACKS[0], stem) for stem in MUSDB_STEMS}
    expected |= {("songs", "Four - E", stem) for stem in (VOCALS, ACCOMPANIMENT)}
    expected |= {("singing", name, VOCALS) for name in ("Singer - phrase", "solo - solo")}
    expected |= {("instrumentals", name, ACCOMPANIMENT) for name in ("Five - F", "MDN - Multitrack")}
    assert found == expected
    times = {path: path.stat().st_mtime_ns for path in laid_out.rglob("*.wav")}
    lost = laid_out / "songs" / "Four - E" / f"{VOCALS}.wav"
    lost.unlink()
    lay_out(made_up, laid_out)
    assert lost.stat().st_mtime_ns > times.pop(lost)
    assert {path: path.stat().st_mtime_ns for path in laid_out.rglob("*.wav") if path != lost} == times


def test_what_accompanies_a_whole_song_is_the_sum_of_its_instruments(made_up: Path) -> None:
    (song,) = (recording for recording in recordings(made_up) if recording.kind == "songs")
    vocals = soundfile.read(made_up / sources.SONGS / song.name / f"{VOCALS}.ogg")[0]
    np.testing.assert_allclose(song.stems[VOCALS]().T, vocals, atol=1e-6)
    instruments = [soundfile.read(made_up / sources.SONGS / song.name / f"{stem}.ogg")[0] for stem in INSTRUMENTS]
    np.testing.assert_allclose(song.stems[ACCOMPANIMENT]().T, sum(instruments), atol=1e-6)


def test_missing_and_forbidden_recordings_are_refused_before_anything_is_written(made_up: Path, tmp_path: Path) -> None:
    root = tmp_path / "sources"
    shutil.copytree(made_up, root)
    target = tmp_path / "data"
    song = example_song()
    assert song.artist == sources.DEMO_ARTIST
    (root / "musdb18-7" / "train" / f"{song.artist} - Other").mkdir()
    for stem in MUSDB_STEMS:
        write_audio(root / "musdb18-7" / "train" / f"{song.artist} - Other" / f"{stem}.wav", noise(1), SAMPLE_RATE)
    with pytest.raises(InputError, match=r"The Easton Ellises - Other is a song of the artist that the demo separates"):
        lay_out(root, target)
    (root / "musdb18-7" / "train" / f"{song.artist} - Other").rename(root / "musdb18-7" / "train" / "Three - D")
    with pytest.raises(InputError, match=r"Three - D is one of the test songs of musdb18-7/test; remove it"):
        lay_out(root, target)
    (root / "musdb18-7" / "train" / "Three - D" / "bass.wav").unlink()
    with pytest.raises(InputError, match=r"Three - D has no stem 'bass'; give a song with drums, bass, other, vocals"):
        lay_out(root, target)
    shutil.rmtree(root / "musdb18-7" / "train" / "Three - D")
    shutil.rmtree(root / sources.SINGING)
    with pytest.raises(InputError, match=r"there is no folder .*singing-2; SOURCES contains musdb18-7-cc/train, "):
        lay_out(root, target)
    assert not target.exists()


def test_another_sampling_rate_and_files_that_are_not_audio_are_refused_by_name(made_up: Path, tmp_path: Path) -> None:
    root = tmp_path / "sources"
    shutil.copytree(made_up, root)
    write_audio(root / sources.SOLO_SINGING / "slow.wav", noise(1), 22050)
    with pytest.raises(InputError, match=r"slow\.wav has 22050 Hz; the recipe takes 44100 Hz"):
        lay_out(root, tmp_path / "data")
    (root / sources.SOLO_SINGING / "slow.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"slow\.wav"):
        lay_out(root, tmp_path / "data")


def test_a_pack_is_small_sounds_alike_and_a_damaged_one_is_refused(laid_out: Path, tmp_path: Path) -> None:
    packed = tmp_path / "pack"
    pack(laid_out, packed)
    check_pack(packed)
    whole, small = Bank(laid_out), Bank(packed)
    assert [(e.kind, e.name, e.stem) for e in small.entries] == [(e.kind, e.name, e.stem) for e in whole.entries]
    for before, after in zip(whole.entries, small.entries, strict=True):
        assert before.length == after.length
        ratio = small.read(after).square().mean() / whole.read(before).square().mean()
        assert 0.5 < ratio < 1.5
    sizes = [sum(path.stat().st_size for path in root.rglob("*/*/*")) for root in (laid_out, packed)]
    assert sizes[1] < sizes[0] / 4
    damaged = next(packed.rglob("*.opus"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{damaged.name} is not the file that .*{HASHES} lists; pack the data again"):
        check_pack(packed)


def test_without_their_vocals_the_test_songs_are_what_accompanies_them(made_up: Path, tmp_path: Path) -> None:
    lay_out_muted(made_up / "musdb18-7", tmp_path)
    folder = tmp_path / "test" / "Three - D"
    assert not soundfile.read(folder / f"{VOCALS}.wav")[0].any()
    for stem in INSTRUMENTS:
        np.testing.assert_array_equal(
            soundfile.read(folder / f"{stem}.wav")[0],
            soundfile.read(made_up / "musdb18-7" / "test" / "Three - D" / f"{stem}.wav")[0],
        )


def test_a_missing_kind_is_an_error(laid_out: Path, tmp_path: Path) -> None:
    shutil.copytree(laid_out, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "singing")
    with pytest.raises(InputError, match=r"there is no audio in .*singing; lay out or pack the data again"):
        Bank(tmp_path / "data")


def test_stems_of_different_lengths_are_an_error(laid_out: Path, tmp_path: Path) -> None:
    shutil.copytree(laid_out, tmp_path / "data")
    write_audio(tmp_path / "data" / "train" / "One - A" / "bass.wav", noise(1, 0.5), SAMPLE_RATE)
    with pytest.raises(InputError, match=r"the stems of One - A in .* are not equally long"):
        Bank(tmp_path / "data")


def test_excerpts_start_where_something_sounds(tmp_path: Path, laid_out: Path) -> None:
    shutil.copytree(laid_out, tmp_path / "data")
    half = torch.cat([torch.zeros(2, 3 * SAMPLE_RATE), noise(1, 1.0)], dim=1)
    for stem in MUSDB_STEMS:
        write_audio(tmp_path / "data" / "train" / "One - A" / f"{stem}.wav", half, SAMPLE_RATE)
    (entry,) = (e for e in Bank(tmp_path / "data").entries if (e.name, e.stem) == ("One - A", VOCALS))
    assert min(entry.starts) >= 2 * SAMPLE_RATE
    assert max(entry.starts) > 3 * SAMPLE_RATE


def test_an_excerpt_depends_on_seed_and_number_alone(bank: Bank) -> None:
    drawn = mixer(bank).draw(range(20))
    assert mixer(bank).draw(range(20)) == drawn
    alone = mixer(bank).draw([7])
    assert [part._replace(excerpt=0) for part in drawn[0] if part.excerpt == 7] == alone[0]
    mixed, single = mixer(bank).mix(*drawn, CPU), mixer(bank).mix(*alone, CPU)
    for stem in (VOCALS, ACCOMPANIMENT):
        torch.testing.assert_close(mixed[stem][7], single[stem][0], rtol=1e-4, atol=1e-6)
    other = RecordingMixer(bank, Sampling(), 8000, seed=2)
    assert other.draw(range(20)) != drawn


def kinds_of(bank: Bank, parts: list[Part], voice: bool) -> Counter[str]:
    at = {range(e.start, e.start + e.length): e for e in bank.entries}
    return Counter(next(e.kind for places, e in at.items() if p.start in places) for p in parts if p.voice == voice)


def test_voices_and_accompaniments_are_drawn_in_the_given_shares(bank: Bank) -> None:
    plain: dict[str, Any] = {"own": 0.0, "second_voice": 0.0}
    count = 1500
    voices = kinds_of(bank, mixer(bank, singing=0.5, songs=0.2, **plain).draw(range(count))[0], True)
    for kind, share in {"singing": 0.5, "songs": 0.2, "train": 0.3}.items():
        assert voices[kind] / count == pytest.approx(share, abs=0.05)
    parts, _ = mixer(bank, instrumental=0.5, whole=0.0, **plain).draw(range(count))
    accompaniments = kinds_of(bank, parts, False)
    assert accompaniments["instrumentals"] / count == pytest.approx(0.5, abs=0.05)
    assert accompaniments["train"] / count == pytest.approx(3 * 0.5, abs=0.15)
    assert not accompaniments["valid"] + accompaniments["singing"]
    two, _ = mixer(bank, second_voice=0.4, own=0.0).draw(range(count))
    assert sum(part.voice for part in two) / count == pytest.approx(1.4, abs=0.05)


def test_no_excerpt_is_made_of_songs_to_choose_on(bank: Bank) -> None:
    parts, _ = mixer(bank).draw(range(1000))
    assert "valid" not in kinds_of(bank, parts, True) | kinds_of(bank, parts, False)


def test_a_voice_with_its_own_accompaniment_is_the_song_itself(bank: Bank) -> None:
    alone = {"singing": 0.0, "songs": 0.0, "own": 1.0, "silent_voice": 0.0, "own_level_db": 0.0}
    unchanged = {"equaliser": 0.0, "voice_speed": 0.0}
    made = mixer(bank, samples=20000, **alone, **unchanged)
    parts, balances = made.draw([3])
    mixed = made.mix(parts, balances, CPU)
    (voice,) = (part for part in parts if part.voice)
    (entry,) = (e for e in bank.entries if e.start <= voice.start < e.start + e.length)
    place = voice.start - entry.start
    stems = {e.stem: bank.read(e)[:, place : place + 20000] for e in bank.entries if e.name == entry.name}
    song = {VOCALS: stems[VOCALS], ACCOMPANIMENT: torch.stack([stems[stem] for stem in INSTRUMENTS]).sum(0)}
    gain = None
    for stem, audio in song.items():
        original = (audio.flip(0) if voice.swapped else audio) * voice.gain
        ratio = (mixed[stem][0] * original).sum() / original.square().sum()
        assert gain is None or ratio == pytest.approx(gain, rel=1e-3)
        gain = float(ratio)
        torch.testing.assert_close(mixed[stem][0], gain * original, rtol=1e-3, atol=1e-5)


def test_levels_are_as_drawn(bank: Bank) -> None:
    made = mixer(bank, own=0.0, silent_voice=0.3, mixture_db=(-20.0, 0.0), level_db=(-6.0, 2.0))
    parts, balances = made.draw(range(40))
    mixed = made.mix(parts, balances, CPU)
    voice, rest = ((audio.square().mean((1, 2)) + 1e-20).log10() * 10 for audio in mixed.values())
    total = (mixed[VOCALS] + mixed[ACCOMPANIMENT]).square().mean((1, 2)).log10() * 10
    assert total.tolist() == pytest.approx([-20.0] * 40, abs=0.05)
    for number, balance in enumerate(balances):
        if balance.silent:
            assert not mixed[VOCALS][number].any()
        else:
            assert float(voice[number] - rest[number]) == pytest.approx(balance.level_db, abs=0.05)
    assert {balance.silent for balance in balances} == {True, False}


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_speed_changes_the_pitch_and_adds_nothing(bank: Bank, speed: float) -> None:
    seconds = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    hertz = 1000.0
    tone = 0.5 * torch.sin(2 * torch.pi * hertz * seconds)
    made = mixer(bank, samples=16384)
    made.bank = Bank.__new__(Bank)
    made.bank.audio = (tone * FULL_SCALE).round().to(torch.int16)[:, None].expand(-1, 2).contiguous()
    part = Part(0, True, 0, SAMPLE_RATE, speed, 1.0, False, False, -1, (0.0,) * len(BANDS_HZ))
    played = made.mix([part], [Balance(float("nan"), 0.0, -9.03, False)], CPU)[VOCALS][0, 0]
    # Away from the start, before which there is nothing to interpolate with.
    expected = 0.5 * torch.sin(2 * torch.pi * hertz * speed * seconds[:16384])
    error = (played - expected)[64:-64].square().mean() / expected.square().mean()
    assert 10 * torch.log10(error) < -50


def test_the_equaliser_has_its_gains_at_the_octaves() -> None:
    decibels = torch.tensor([[6.0, -6.0, 0.0, 3.0, -3.0, 6.0, 0.0, -6.0]])
    gains = 20 * torch.log10(equaliser(decibels, SAMPLE_RATE))[0]
    for hertz, expected in zip(BANDS_HZ, decibels[0].tolist(), strict=True):
        assert float(gains[round(hertz)]) == pytest.approx(expected, abs=0.1)
    assert float(gains[20]) == pytest.approx(6.0, abs=0.1)
    assert float(gains[20000]) == pytest.approx(-6.0, abs=0.1)


def test_compression_halves_differences_of_level() -> None:
    audio = torch.cat([noise(1, 1.0, 0.1), noise(2, 1.0, 0.02)], dim=1)
    loud, quiet = compressed(audio[None])[0].split(SAMPLE_RATE, dim=1)
    ratio = 20 * torch.log10(loud[:, 5000:-5000].std() / quiet[:, 5000:-5000].std())
    assert float(ratio) == pytest.approx(7.0, abs=1.0)


def test_rooms_begin_with_the_sound_itself_and_differ_left_and_right() -> None:
    responses = rooms(1)
    assert (responses[..., 0] == 1).all()
    tails = responses[..., 1:]
    assert (tails.square().sum(-1) < 0.5).all()
    assert (tails[:, 0] != tails[:, 1]).any(-1).all()
    assert torch.equal(rooms(1), responses)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"own": 1.5}, r"own=1\.5 is not allowed; give shares from 0 to 1"),
        ({"singing": 0.7, "songs": 0.7}, r"singing \+ songs=1\.4 is not allowed"),
        ({"instrumental": 0.6, "whole": 0.6}, r"instrumental \+ whole=1\.2 is not allowed"),
        ({"silent_voice": -0.1}, r"silent_voice=-0\.1 is not allowed"),
    ],
)
def test_impossible_shares_are_errors(values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**values)  # type: ignore[arg-type]


def test_the_real_sources_hold_what_the_model_card_says(test_data: Path) -> None:
    found: list[Recording] = recordings(test_data / "data")
    assert Counter(recording.kind for recording in found) == {
        "train": 80,
        "valid": 14,
        "songs": 4,
        "singing": 111,
        "instrumentals": 78,
    }
    assert {recording.name for recording in found if recording.kind == "valid"} == set(OFFICIAL_VALIDATION_TRACKS)
    names = [(recording.kind, recording.name) for recording in found]
    assert len(set(names)) == len(names), "one would overwrite the other"


def test_the_recipe_packs_trains_resumes_and_scores(
    made_up: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_default_model.main([str(made_up), str(tmp_path / "work"), "--pack"]) == 0
    assert str(tmp_path / "work" / "pack") in capsys.readouterr().out
    small = [f"--model.network={json.dumps(TINY.to_dict())}", "--model.compile=false", "--model.warmup_steps=0"]
    small += ["--trainer.precision=32", "--data.batch_size=2", "--data.epoch_excerpts=4"]
    small += ["--trainer.num_sanity_val_steps=0", "--pictures.every_n_validations=100"]
    places = [str(made_up), str(tmp_path / "work")]
    assert train_default_model.main([*places, "--", *small, "--trainer.max_epochs=1"]) == 0
    assert train_default_model.main([*places, "--report", "--", *small, "--trainer.max_epochs=2"]) == 0
    last = next((tmp_path / "work" / "training").rglob("last.ckpt"))
    assert WeightsFile.read(last).content["global_step"] == 4
    weights = tmp_path / "work" / f"{train_default_model.NAME}.safetensors"
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}
    songs = WeightsFile.read(weights).training_songs
    assert {"One - A", "Four - E", "Singer - phrase", "Five - F"} < set(songs)
    assert OFFICIAL_VALIDATION_TRACKS[0] not in songs
    for name in ("valid", "test", "test without vocals"):
        assert (tmp_path / "work" / "evaluations" / name / "report.html").is_file()
    from_pack = [str(tmp_path / "work" / "pack"), str(tmp_path / "elsewhere")]
    assert train_default_model.main([*from_pack, "--", *small, "--trainer.max_epochs=1"]) == 0
    assert (tmp_path / "elsewhere" / f"{train_default_model.NAME}.safetensors").is_file()
    capsys.readouterr()
    assert train_default_model.main([*from_pack, "--report"]) == 1
    assert "is a pack, which is only trained on; leave out --pack and --report" in capsys.readouterr().err


def test_a_wrong_option_of_the_recipe_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/train_default_model.py", str(tmp_path), str(tmp_path / "work")]
    ended = programs.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "there is no folder" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "work").exists()


def test_the_model_in_the_package_has_the_architecture_of_the_config() -> None:
    options = yaml.safe_load(train_default_model.CONFIG.read_text(encoding="utf-8"))
    assert load_model(train_default_model.NAME).config == ModelConfig.from_dict(options["model"]["network"])
