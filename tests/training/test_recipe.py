"""The published recipe (arXiv:2508.14556): every value of it as an option, and what a few of them do to a run."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from bsmamba2.model import ModelConfig
from bsmamba2.training.command import train
from tests.training.test_command import options
from tests.training.test_resuming import last_of

pytestmark = pytest.mark.usefixtures("no_figures")

CONFIG = Path(__file__).parents[2] / "configs" / "bsmamba2.yaml"
BANDS = [2] * 24 + [4] * 12 + [12] * 8 + [24] * 8 + [48] * 8 + [128, 129]

# Option, value in configs/bsmamba2.yaml, value without a config. Sections are those of the paper; values without a
# section are from the authors' implementation.
RECIPE: list[tuple[str, Any, Any]] = [
    # Network, section 3.
    ("model.network.dim", 256, 256),
    ("model.network.depth", 6, 6),
    ("model.network.bands", BANDS, BANDS),
    ("model.network.stems", ["vocals"], ["vocals"]),
    ("model.network.channels", 2, 2),
    ("model.network.n_fft", 2048, 2048),
    ("model.network.window_length", 2048, 2048),
    ("model.network.hop_length", 441, 441),
    ("model.network.sample_rate", 44100, 44100),
    ("model.network.segment_seconds", 8.0, 8.0),
    # Loss, section 3.4.
    ("model.loss.l1", 10.0, 10.0),
    ("model.loss.stft", 1.0, 1.0),
    ("model.loss.stft_windows", [4096, 2048, 1024, 512, 256], [4096, 2048, 1024, 512, 256]),
    ("model.loss.stft_hop", 147, 147),
    ("model.loss.stft_min_n_fft", 2048, 2048),
    # Optimisation, section 4.
    ("model.learning_rate", 5e-4, 5e-4),
    ("model.betas", [0.9, 0.999], [0.9, 0.999]),
    ("model.weight_decay", 0.01, 0.01),
    ("model.decayed", "all", "all"),
    ("model.warmup_steps", 0, 0),
    ("model.schedule", "constant", "constant"),
    ("model.init_from", None, None),
    ("ema.decay", 0.999, 0.999),
    ("ema.use_buffers", False, False),
    ("ema.update_every_n_steps", 1, 1),
    ("ema.update_starting_at_step", None, None),
    ("trainer.gradient_clip_val", 3.0, None),
    # None is Lightning's default, the norm over all gradients.
    ("trainer.gradient_clip_algorithm", None, None),
    ("trainer.precision", "bf16-mixed", None),
    ("trainer.devices", 2, "auto"),
    ("trainer.accelerator", "gpu", "auto"),
    ("trainer.accumulate_grad_batches", 6, 1),
    ("trainer.max_epochs", 2000, None),
    ("trainer.max_steps", -1, -1),
    ("seed_everything", 42, 42),
    # Data, section 4.
    ("data.batch_size", 5, 5),
    ("data.epoch_excerpts", 6000, 6000),
    ("data.shared_artists", True, False),
    ("data.validation_tracks", None, None),
    ("data.validation_seconds", None, None),
    ("data.augmentation.gains", [0.5, 1.5], [0.5, 1.5]),
    ("data.augmentation.silence", 0.1, 0.1),
    ("data.augmentation.remix", 1.0, 1.0),
    *[
        (f"data.augmentation.{name}", 0.0, 0.0)
        for name in ("silent_vocals", "polarity", "channel_swap", "pitch", "tempo", "equaliser")
    ],
    # Checkpoints: the four best; by uSDR, where the authors also keep four by the loss.
    ("checkpoint.save_top_k", 4, 4),
    ("checkpoint.monitor", "val/usdr", "val/usdr"),
    ("checkpoint.mode", "max", "max"),
    ("checkpoint.every_n_epochs", None, None),
    ("trainer.check_val_every_n_epoch", 1, 1),
]


def printed_config(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    with pytest.raises(SystemExit):
        train([*arguments, "--data.root=nowhere", "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


def option(config: dict[str, Any], name: str) -> Any:
    value: Any = config
    for key in name.split("."):
        value = value[key]
    return value


@pytest.mark.parametrize("given", ["config", "nothing"])
def test_the_published_recipe(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = printed_config(capsys, *([f"--config={CONFIG}"] if given == "config" else []))
    expected = {name: published if given == "config" else default for name, published, default in RECIPE}
    assert {name: option(config, name) for name in expected} == expected
    if given == "config":
        trainer, data = config["trainer"], config["data"]
        excerpts_per_step = data["batch_size"] * trainer["devices"] * trainer["accumulate_grad_batches"]
        assert excerpts_per_step == 60
        assert data["epoch_excerpts"] / excerpts_per_step == 100


@pytest.fixture(scope="module")
def clipped(musdb_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Returns the folders of two equal runs of one and of two steps, with gradients clipped to a norm of 0.001."""
    from tests.conftest import TINY

    more = ("--trainer.gradient_clip_val=0.001", "--model.learning_rate=0.05", "--trainer.log_every_n_steps=1")
    folders = [tmp_path_factory.mktemp("steps") for _ in range(2)]
    for steps, folder in enumerate(folders, start=1):
        train(options(TINY, musdb_root, folder, *more, f"--trainer.max_steps={steps}", "--trainer.limit_val_batches=0"))
    return folders


def test_gradients_are_clipped_to_the_configured_norm(clipped: list[Path]) -> None:
    """AdamW's first average of gradients is a tenth of the gradient that it was given."""
    states = last_of(clipped[0])["optimizer_states"][0]["state"].values()
    norm = math.sqrt(sum((10 * state["exp_avg"]).square().sum().item() for state in states))
    assert norm == pytest.approx(0.001, rel=1e-2)
    events = EventAccumulator(str(next(clipped[0].rglob("events.out.tfevents.*")).parent)).Reload()
    assert events.Scalars("health/gradient_norm")[0].value > 0.01


def test_the_average_decays_by_a_thousandth_per_step(clipped: list[Path]) -> None:
    first, second = (last_of(folder) for folder in clipped)
    moved = torch.cat([(second["state_dict"][name] - value).flatten() for name, value in first["state_dict"].items()])
    ahead = torch.cat(
        [(second["current_model_state"][name] - value).flatten() for name, value in first["state_dict"].items()]
    )
    assert (moved @ ahead / (ahead @ ahead)).item() == pytest.approx(0.001, rel=0.05)


def test_the_four_best_checkpoints_are_kept(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    more = ("--trainer.max_epochs=6", "--data.epoch_excerpts=2")
    train(options(tiny_config, musdb_root, tmp_path, *more, "--model.learning_rate=0.01", "--ema.decay=0.5"))
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents.*")).parent)).Reload()
    scores = {event.step: event.value for event in events.Scalars("val/usdr")}
    assert len(scores) == 6
    files = {int(path.stem.rpartition("step=")[2]) for path in tmp_path.rglob("epoch=*.ckpt")}
    # TensorBoard counts the steps of a validation from 0.
    assert files == {step + 1 for step in sorted(scores, key=lambda step: scores[step])[-4:]}
