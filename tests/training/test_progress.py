import re
import time
from pathlib import Path
from typing import Any

import pytest
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from bsmamba2.model import ModelConfig
from bsmamba2.training.health import Health
from bsmamba2.training.progress import TrainingProgressBar
from tests.training.small_training import SmallTraining, batches, small_trainer

Song = dict[str, Tensor]


class StopAfter(Callback):
    """Ends a run after a number of batches."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self.steps -= 1
        trainer.should_stop = self.steps <= 0


def minutes_left(bar: str) -> list[int]:
    """Returns the times left that were shown, in minutes."""
    found = re.findall(r"left=(?:(\d+)d )?(?:(\d+)h )?(\d+)m", bar)
    return [1440 * int(days or 0) + 60 * int(hours or 0) + int(minutes) for days, hours, minutes in found]


def test_the_bar_shows_loss_throughput_and_the_time_left_of_all_epochs(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = [("song", {stem: audio[:, :9000] for stem, audio in song_stems.items()})]
    module = SmallTraining(tiny_config, batches(song_stems, tiny_config, 4), songs, seconds=(0.03, 0, 0))
    options: dict[str, Any] = {"limit_val_batches": 1, "num_sanity_val_steps": 1, "enable_progress_bar": True}
    options |= {"max_epochs": 1_000_000, "accumulate_grad_batches": 2}
    start = time.perf_counter()
    small_trainer(tmp_path, Health(), TrainingProgressBar(), StopAfter(8), **options).fit(module)
    seconds = time.perf_counter() - start
    bar = capsys.readouterr().out
    assert re.search(r"train/loss=\d", bar)
    assert re.search(r"audio_s/s=\d+\.\d", bar)
    assert re.search(r"left=\d+d \d+h \d+m", bar)
    # 2 million steps of two batches of at least 0.03 s; the pace is that of the last three of four steps.
    assert 2e6 * 0.06 < 60 * minutes_left(bar)[-1] < 2e6 * seconds / 3


def test_a_resumed_run_uses_its_own_pace(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song, capsys: pytest.CaptureFixture[str]
) -> None:
    module = SmallTraining(tiny_config, batches(song_stems, tiny_config, 10))
    options: dict[str, Any] = {"logger": False, "max_epochs": -1}
    trainer = small_trainer(tmp_path, **options, max_steps=10)
    trainer.fit(module)
    trainer.save_checkpoint(tmp_path / "ten.ckpt")
    module.seconds = (0.03, 0, 0)
    trainer = small_trainer(
        tmp_path, TrainingProgressBar(), StopAfter(4), **options, enable_progress_bar=True, max_steps=40_010
    )
    start = time.perf_counter()
    trainer.fit(module, ckpt_path=tmp_path / "ten.ckpt")
    seconds = time.perf_counter() - start
    assert 40_000 * 0.03 < 60 * minutes_left(capsys.readouterr().out)[-1] < 40_000 * seconds / 3 + 60


def test_without_a_limit_no_time_left_is_shown(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song, capsys: pytest.CaptureFixture[str]
) -> None:
    module = SmallTraining(tiny_config, batches(song_stems, tiny_config, 4))
    options: dict[str, Any] = {"logger": False, "max_epochs": -1, "enable_progress_bar": True}
    small_trainer(tmp_path, TrainingProgressBar(), StopAfter(3), **options).fit(module)
    bar = capsys.readouterr().out
    assert "train/loss=" in bar
    assert "left=" not in bar
