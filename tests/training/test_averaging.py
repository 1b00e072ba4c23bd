from pathlib import Path
from typing import Any

import pytest
import torch

from bsmamba2 import load_model
from bsmamba2.model import ModelConfig
from bsmamba2.training.command import train
from tests.training.test_command import options

pytestmark = pytest.mark.usefixtures("no_figures")


def checkpoints(folder: Path) -> list[dict[str, Any]]:
    """Returns the best checkpoints in the order of their epochs."""
    return [torch.load(path, weights_only=True) for path in sorted(folder.rglob("epoch=*.ckpt"))]


def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    return max(float((left[name] - value).abs().max()) for name, value in right.items())


@pytest.mark.parametrize(
    ("start", "begun"),
    [
        (["--ema.update_starting_at_step=2"], [False, True, True]),
        (["--ema.update_starting_at_epoch=1", "--ema.update_every_n_steps=0"], [False, False, True]),
        (["--ema.update_starting_at_step=1000"], [False, False, False]),
    ],
)
def test_until_the_average_begins_the_trained_weights_are_validated_and_saved(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path, start: list[str], begun: list[bool]
) -> None:
    more = ("--trainer.max_epochs=3", "--ema.decay=0.5", "--model.learning_rate=0.01")
    train(options(tiny_config, musdb_root, tmp_path, *more, *start))
    saved = checkpoints(tmp_path)
    distances = [distance(content["state_dict"], content["current_model_state"]) for content in saved]
    assert [distance > 0 for distance in distances] == begun
    scores = [content["bsmamba2"]["metrics"]["val/usdr"] for content in saved]
    # An average that begins after a validation equals the weights that were validated.
    assert len(set(scores)) == (2 if "--ema.update_every_n_steps=0" in start else 3)
    (last,) = tmp_path.rglob("last.ckpt")
    assert all(torch.isfinite(value).all() for value in load_model(last).state_dict().values())


def test_a_resumed_average_begins_with_the_trained_weights(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path
) -> None:
    # It is resumed a step before the average begins.
    more = ("--data.epoch_excerpts=6", "--ema.update_starting_at_step=4", "--ema.decay=0.5")
    for folder, stops in (("straight", (2,)), ("resumed", (1, 2))):
        for epochs in stops:
            epoch = (f"--trainer.max_epochs={epochs}", "--ckpt_path=last")
            train(options(tiny_config, musdb_root, tmp_path / folder, *more, *epoch))
    straight, resumed = (checkpoints(tmp_path / folder)[-1] for folder in ("straight", "resumed"))
    assert distance(straight["state_dict"], resumed["state_dict"]) == 0
    assert distance(straight["state_dict"], straight["current_model_state"]) > 0
