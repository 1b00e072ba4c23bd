"""Lightning's own tools, used from Python."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EMAWeightAveraging,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from lightning.pytorch.tuner.tuning import Tuner

from bsmamba2 import load_model
from bsmamba2.data.datamodule import MusdbDataModule
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.training.command import train
from bsmamba2.training.module import SeparationModule
from tests.training.test_command import options


def trainer(folder: Path, **settings: Any) -> Trainer:
    plain: dict[str, Any] = {"accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_progress_bar": False}
    return Trainer(default_root_dir=folder, enable_checkpointing=False, **(plain | settings))


@pytest.fixture
def data(musdb_root: Path, tmp_path: Path) -> MusdbDataModule:
    return MusdbDataModule(
        musdb_root, 0.1, 44100, 2, ("vocals",), 42, batch_size=2, epoch_excerpts=4, workers=0, cache=tmp_path / "cache",
        validation_seconds=0.25,
    )  # fmt: skip


def test_a_checkpoint_is_loaded_by_lightning(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    path = train(options(tiny_config, musdb_root, tmp_path, "--model.learning_rate=0.01"))
    module = SeparationModule.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    assert module.network.config == tiny_config
    assert module.learning_rate == 0.01
    expected = load_model(path).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in module.network.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_module_is_trained_and_validated_without_the_command(
    tmp_path: Path, tiny_config: ModelConfig, data: MusdbDataModule
) -> None:
    module = SeparationModule(tiny_config)
    (before,) = trainer(tmp_path).validate(module, data, verbose=False)
    trainer(tmp_path, callbacks=[EMAWeightAveraging()]).fit(module, data)
    (after,) = trainer(tmp_path).validate(module, data, verbose=False)
    assert before["val/usdr"] != after["val/usdr"]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overfit_batches": 2}, "overfit_batches is not allowed, .*use few tracks instead"),
        ({"precision": "bf16-true"}, "precision=bf16-true is not allowed, .*; give bf16-mixed"),
        ({"callbacks": [BatchSizeFinder()]}, "BatchSizeFinder cannot be used"),
        ({"callbacks": [LearningRateFinder()]}, "LearningRateFinder cannot be used"),
        ({"callbacks": [StochasticWeightAveraging(1e-3)]}, "StochasticWeightAveraging cannot be used"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(
    tmp_path: Path, tiny_config: ModelConfig, data: MusdbDataModule, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        trainer(tmp_path / "run", **settings).fit(SeparationModule(tiny_config), data)
    assert list((tmp_path / "run").rglob("*")) == []


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("tool", ["lr_find", "scale_batch_size"])
def test_the_tuner_is_refused_by_the_name_of_its_callback(
    tmp_path: Path, tiny_config: ModelConfig, data: MusdbDataModule, tool: str
) -> None:
    with pytest.raises(InputError, match="Finder cannot be used"):
        getattr(Tuner(trainer(tmp_path / "run")), tool)(SeparationModule(tiny_config), datamodule=data)
    assert list((tmp_path / "run").rglob("*")) == []
