import logging
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from bsmamba2.data.excerpts import Excerpts
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.training.branches import BranchBalance, parallel_blocks
from bsmamba2.training.health import Health
from tests.training.small_training import SmallTraining, batches, broken, scalars, small_trainer

Song = dict[str, Tensor]


def test_the_figures_are_those_of_the_gradients_and_masks(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song
) -> None:
    module = SmallTraining(tiny_config, batches(song_stems, tiny_config, 2))
    masks: list[Tensor] = []
    hook = module.network.mask_estimators[0].register_forward_hook(lambda *call: masks.append(call[-1].detach()))
    loss = sum((module.loss(batch.stems) / 2 for batch in module.train_batches), torch.tensor(0.0))
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    hook.remove()
    named = dict(zip([name for name, _ in module.named_parameters()], gradients, strict=True))

    def norm(part: str) -> float:
        squares = [float(gradient.square().sum()) for name, gradient in named.items() if part in name]
        assert squares
        return math.sqrt(sum(squares))

    small_trainer(tmp_path, Health(), accumulate_grad_batches=2).fit(module)
    expected = {
        "health/gradient_forward_to_backward": norm("forward_blocks") / norm("backward_blocks"),
        "health/gradient_time_to_bands": norm("layers.0.0") / norm("layers.0.1"),
        "health/gradient_norm": norm(""),
        "health/mask_magnitude": float(torch.stack(masks).abs().mean()),
        "health/skipped_share": 0,
        "health/unreadable": 0,
    }
    for name, value in expected.items():
        assert scalars(tmp_path, name) == [pytest.approx(value, rel=1e-4)], name
    assert 0.1 < scalars(tmp_path, "health/peak_memory_gib")[0] < 64
    assert not module.network.mask_estimators[0]._forward_hooks


def test_the_branches_of_parallel_blocks_are_compared(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song, caplog: pytest.LogCaptureFixture
) -> None:
    """The ratio is that of the gradients; a branch without a gain has none, and is named."""
    config = replace(tiny_config, time_mixer="rwkv6+mamba2", band_mixer="rwkv6+mamba2", rwkv_headdim=4)
    module = SmallTraining(config, batches(song_stems, config, 1))
    module.loss(module.train_batches[0].stems).backward()
    squares = {"rwkv6": 0.0, "mamba2": 0.0}
    for name, parameter in module.network.named_parameters():
        for branch in squares:
            if f".{branch}." in name and parameter.grad is not None:
                squares[branch] += float(parameter.grad.square().sum())
    module.zero_grad()
    small_trainer(tmp_path / "alive", Health()).fit(module)
    (ratio,) = scalars(tmp_path / "alive", "health/gradient_rwkv6_to_mamba2")
    assert ratio == pytest.approx(math.sqrt(squares["rwkv6"] / squares["mamba2"]), rel=1e-4)
    assert "does not change" not in caplog.text
    assert not any(layer._forward_pre_hooks for layer in module.network.layers)

    module = SmallTraining(config, batches(song_stems, config, 1))
    for block in parallel_blocks(module.network):
        torch.nn.init.zeros_(block.mamba_gain)
    small_trainer(tmp_path / "dead", Health()).fit(module)
    assert "the gradient of RWKV-6 is inf times that of Mamba-2 in step 1" in caplog.text
    assert "so Mamba-2 hardly takes part" in caplog.text


def test_a_branch_is_dead_after_a_hundred_steps_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    balance = BranchBalance()
    for step, ratio in [(1, 0.05), (60, 0.2), (70, 0.05), (169, 0.02)]:
        balance.judge(ratio, step)
    assert "is dead" not in caplog.text
    balance.judge(0.01, 170)
    balance.judge(0.01, 180)
    assert caplog.text.count("the branch RWKV-6 of the parallel block is dead: since step 70") == 1
    assert caplog.text.count("hardly takes part") == 1


def test_a_branch_whose_output_does_not_change_over_time_is_named(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(tiny_config, time_mixer="rwkv6+mamba2", band_mixer="rwkv6+mamba2", rwkv_headdim=4)
    module = SmallTraining(config, batches(song_stems, config, 1))
    for block in parallel_blocks(module.network)[:1]:
        torch.nn.init.zeros_(block.rwkv6.output.weight)
    small_trainer(tmp_path, Health()).fit(module)
    assert caplog.text.count("does not change over time") == 1
    assert "the output of layers.0.0.forward_blocks.0.mixer.rwkv6 does not change over time" in caplog.text


def test_figures_are_due_at_optimiser_steps(tmp_path: Path, tiny_config: ModelConfig, song_stems: Song) -> None:
    module = SmallTraining(tiny_config, batches(song_stems, tiny_config, 8))
    looked = []
    module.network.mask_estimators[0].register_forward_pre_hook(
        lambda *call: looked.append(len(call[0]._forward_hooks))
    )
    small_trainer(tmp_path, Health(), accumulate_grad_batches=2, log_every_n_steps=2).fit(module)
    assert len(scalars(tmp_path, "health/mask_magnitude")) == 2
    assert looked == [0, 0, 1, 1] * 2


@pytest.mark.parametrize("seconds", [(0, 0.5, 0), (0, 0, 0.5)], ids=["validation", "checkpoint"])
def test_throughput_counts_training_only(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song, seconds: tuple[float, float, float]
) -> None:
    module = SmallTraining(tiny_config, batches(song_stems, tiny_config, 2), [("song", song_stems)], seconds=seconds)
    options: dict[str, Any] = {"log_every_n_steps": 2}
    if seconds[1]:
        trainer = small_trainer(tmp_path, Health(), limit_val_batches=1, val_check_interval=1, **options)
    else:
        checkpoint = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=1)
        trainer = small_trainer(tmp_path, Health(), checkpoint, enable_checkpointing=True, **options)
    start = time.perf_counter()
    trainer.fit(module)
    training_seconds = time.perf_counter() - start - module.waited_seconds
    (throughput,) = scalars(tmp_path, "train/audio_seconds_per_second")
    assert 0 < 2 * 2 * tiny_config.segment_seconds / throughput < training_seconds


def test_steps_that_are_not_finite_are_counted(tmp_path: Path, tiny_config: ModelConfig, song_stems: Song) -> None:
    train = batches(song_stems, tiny_config, 4)
    train[1] = broken(train[1])
    small_trainer(tmp_path, Health()).fit(SmallTraining(tiny_config, train, spoiled=[3]))
    assert scalars(tmp_path, "health/skipped_share") == [pytest.approx(share) for share in (0, 1 / 2, 1 / 3, 2 / 4)]
    assert scalars(tmp_path, "health/skipped") == [0, 1, 1, 2]


def test_a_loss_that_is_not_finite_stops_after_ten_steps(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song
) -> None:
    train = batches(song_stems, tiny_config, 40)
    train[10::2] = [broken(batch) for batch in train[10::2]]
    # Every second batch from step 6 on is broken: a step is as bad as its worst batch.
    health = Health(max_skipped_share=1)
    message = r"the loss is not finite, in 10 of the last 15 optimiser steps since step 6, .*lower --model"
    with pytest.raises(InputError, match=message):
        small_trainer(tmp_path, health, logger=False, accumulate_grad_batches=2).fit(SmallTraining(tiny_config, train))
    assert health.skipped == 10


def test_too_many_skipped_steps_stop_even_if_not_consecutive(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song
) -> None:
    train = batches(song_stems, tiny_config, 24)
    spoiled = range(1, 24, 2)
    small_trainer(tmp_path, Health(max_skipped_share=0.5), logger=False).fit(
        SmallTraining(tiny_config, train, spoiled=spoiled)
    )
    with pytest.raises(
        InputError, match=r"the gradients are not finite, in 10 of the last 20 optimiser steps since step 2"
    ):
        small_trainer(tmp_path, Health(), logger=False).fit(SmallTraining(tiny_config, train, spoiled=spoiled))


def test_the_counts_are_restored_from_a_checkpoint(tmp_path: Path, tiny_config: ModelConfig, song_stems: Song) -> None:
    train = batches(song_stems, tiny_config, 7)
    train[0] = Excerpts(train[0].stems, ["one.wav cannot be read"])
    module = SmallTraining(tiny_config, train, spoiled=range(1, 7))
    trainer = small_trainer(tmp_path, Health(), logger=False)
    trainer.fit(module)
    trainer.save_checkpoint(tmp_path / "seven.ckpt")
    health = Health()
    with pytest.raises(InputError, match=r"in 10 of the last 12 optimiser steps since step 2,"):
        small_trainer(tmp_path, health, logger=False, max_epochs=2).fit(
            module, ckpt_path=tmp_path / "seven.ckpt", weights_only=True
        )
    assert health.unreadable == 2


def test_unreadable_files_are_reported_once_and_stop_the_run_if_too_many(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song, caplog: pytest.LogCaptureFixture
) -> None:
    train = batches(song_stems, tiny_config, 4)
    faults = [["one.wav is broken"], ["one.wav is broken", "two.wav is broken"], [], ["three.wav is broken"]]
    train = [Excerpts(batch.stems, fault) for batch, fault in zip(train, faults, strict=True)]
    with caplog.at_level(logging.WARNING, "bsmamba2"):
        small_trainer(tmp_path, Health(max_unreadable=4)).fit(SmallTraining(tiny_config, train))
    assert [record.getMessage() for record in caplog.records] == [f"{n}.wav is broken" for n in ("one", "two", "three")]
    assert scalars(tmp_path, "health/unreadable") == [1, 3, 3, 4]
    with pytest.raises(InputError, match=r"4 pieces of audio .* was: three\.wav is broken; `bsmamba2 check-data`"):
        small_trainer(tmp_path, Health(max_unreadable=3), logger=False).fit(SmallTraining(tiny_config, train))


def test_the_first_batch_must_match_the_network(tmp_path: Path, tiny_config: ModelConfig, song_stems: Song) -> None:
    stems = batches(song_stems, tiny_config, 1)[0].stems
    cases = {
        r"'drums' of the first batch has samples that are not finite": broken(Excerpts(stems, [])).stems,
        r"no stem 'vocals', which the network estimates, but drums, bass, other": {
            name: stems[name] for name in ("drums", "bass", "other")
        },
        r"'bass' of the first batch has shape \(2, 2, 4409\), .* \(2, 2, 4410\)": stems
        | {"bass": stems["bass"][..., 1:]},
        r"'other' of the first batch has shape \(1, 2, 4410\)": stems | {"other": stems["other"][:1]},
        r"'drums' of the first batch has shape \(2, 1, 4410\)": {name: audio[:, :1] for name, audio in stems.items()},
    }
    for message, batch in cases.items():
        with pytest.raises(InputError, match=message):
            small_trainer(tmp_path, Health(), logger=False).fit(SmallTraining(tiny_config, [Excerpts(batch, [])]))


def test_the_first_loss_must_be_finite_even_after_a_resume(
    tmp_path: Path, tiny_config: ModelConfig, song_stems: Song
) -> None:
    module = SmallTraining(tiny_config, batches(song_stems, tiny_config, 1))
    health = Health()
    trainer = small_trainer(tmp_path, health, logger=False)
    trainer.fit(module)
    with torch.no_grad():
        next(module.network.parameters()).view(-1)[0] = math.nan
    trainer.save_checkpoint(tmp_path / "broken.ckpt")
    with pytest.raises(InputError, match=r"the loss of the first batch is nan"):
        small_trainer(tmp_path, health, logger=False, max_epochs=2).fit(module, ckpt_path=tmp_path / "broken.ckpt")


@pytest.mark.parametrize("options", [{"max_skipped_share": 1.5}, {"max_unreadable": -1}])
def test_invalid_limits_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))}={next(iter(options.values()))}"):
        Health(**options)
