import io
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor

from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import mixture_of
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.stem_names import MUSDB_STEMS
from bsmamba2.training.command import train
from bsmamba2.training.pictures import Pictures
from tests.training.small_training import SmallTraining, batches, events, small_trainer
from tests.training.test_command import options

Song = dict[str, Tensor]
NAMES = ["One - First", "Two - Second/B", "Three's - Third", "Four - Fourth"]


def excerpt_songs(song_stems: Song, seconds: float = 0.25) -> list[tuple[str, Song]]:
    """Returns four songs, each a different part of the real one."""
    length = round(seconds * SAMPLE_RATE)
    return [
        (name, {stem: song_stems[stem][:, start : start + length] for stem in MUSDB_STEMS})
        for start, name in zip(range(60_000, 88_200, 4000), NAMES, strict=False)
    ]


def test_every_validation_is_logged_in_images_and_audio(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song
) -> None:
    songs = excerpt_songs(song_stems)
    module = SmallTraining(tiny_config, batches(song_stems, tiny_config, 2), songs)
    small_trainer(tmp_path, Pictures(), max_epochs=2, limit_val_batches=1.0, num_sanity_val_steps=1).fit(module)
    kept = events(tmp_path)
    assert kept.Tags()["images"] == [f"val_pictures/{name}/vocals: mixture, estimate, reference" for name in NAMES[:3]]
    sounds = {f"val_audio/{name}/{kind}": 1 for name in NAMES[:3] for kind in ("mixture", "vocals reference")}
    sounds |= {f"val_audio/{name}/vocals estimate": 2 for name in NAMES[:3]}
    assert {tag: len(kept.Audio(tag)) for tag in kept.Tags()["audio"]} == sounds
    for tag in kept.Tags()["images"]:
        assert [image.step for image in kept.Images(tag)] == [2, 4]
        picture = Image.open(io.BytesIO(kept.Images(tag)[0].encoded_image_string))
        assert picture.size == (kept.Images(tag)[0].width, 3 * 160 + 2 * 4)
    audio, rate = soundfile.read(io.BytesIO(kept.Audio(f"val_audio/{NAMES[0]}/mixture")[0].encoded_audio_string))
    assert rate == SAMPLE_RATE
    assert torch.tensor(audio).float() == pytest.approx(mixture_of(songs[0][1]).mean(0).clamp(-1, 1), abs=1e-4)


def test_a_training_run_logs_them_by_default(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    train(options(tiny_config, musdb_root, tmp_path))
    assert events(tmp_path).Tags()["images"] == ["val_pictures/Leaf - Summerghost/vocals: mixture, estimate, reference"]


def test_images_can_be_rarer_than_validations(tmp_path: Path, tiny_config: ModelConfig, song_stems: Song) -> None:
    module = SmallTraining(tiny_config, batches(song_stems, tiny_config, 1), excerpt_songs(song_stems))
    small_trainer(tmp_path, Pictures(every_n_validations=2), max_epochs=3, limit_val_batches=2).fit(module)
    kept = events(tmp_path)
    assert [image.step for image in kept.Images(kept.Tags()["images"][0])] == [1, 3]
    assert [audio.step for audio in kept.Audio(f"val_audio/{NAMES[0]}/vocals estimate")] == [1, 3]
    with pytest.raises(InputError, match="every_n_validations=0"):
        Pictures(every_n_validations=0)


def test_the_loudest_ten_seconds_of_the_stems_are_logged(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song, capsys: pytest.CaptureFixture[str]
) -> None:
    # At 8 kHz, the fixture's samples are eleven seconds.
    config = replace(tiny_config, sample_rate=8000)
    long = {stem: 0.01 * song_stems[stem] for stem in MUSDB_STEMS}
    long["vocals"][:, -8000:] *= 50
    # Louder, but not an estimated stem; also too loud for 16 bits.
    long["drums"][:, :16000] = 3
    module = SmallTraining(config, batches(song_stems, config, 1), [("long", long)])
    small_trainer(tmp_path, Pictures(), limit_val_batches=1).fit(module)
    assert "out of range" not in capsys.readouterr().out
    kept = events(tmp_path)
    audio, _ = soundfile.read(
        io.BytesIO(kept.Audio("val_audio/long/vocals reference")[0].encoded_audio_string), dtype="float32"
    )
    assert torch.from_numpy(audio) == pytest.approx(long["vocals"][:, -80_000:].mean(0), abs=1e-4)


def test_without_tensorboard_nothing_is_logged_which_is_reported_once(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song, caplog: pytest.LogCaptureFixture
) -> None:
    module = SmallTraining(tiny_config, batches(song_stems, tiny_config, 1), excerpt_songs(song_stems))
    with caplog.at_level(logging.INFO, "bsmamba2"):
        small_trainer(tmp_path, Pictures(), logger=False, max_epochs=2, limit_val_batches=2).fit(module)
    assert sum("TensorBoard is not the logger" in record.getMessage() for record in caplog.records) == 1
