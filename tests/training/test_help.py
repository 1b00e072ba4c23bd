"""The help of `bsmamba2 train`."""

import re
from pathlib import Path

import pytest

import list_training_options
from bsmamba2.cli import main
from bsmamba2.training.help import GENERAL, LIGHTNING
from bsmamba2.training.options import TABLE, check_training_options


def shown(option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main(["train", option])
    assert stop.value.code == 0
    return capsys.readouterr().out.splitlines()


def options_of(lines: list[str]) -> list[str]:
    return [match[1] for line in lines if (match := re.match(r"  (?:-c \S+, )?--([\w.]+)", line))]


def test_the_help_has_our_options_and_the_usual_ones_of_lightning_in_a_line_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = shown("--help", capsys, monkeypatch)
    everything = options_of(shown("--help-all", capsys, monkeypatch))
    assert len(short) <= 150
    assert "A config is a program" in " ".join(short)
    assert len(everything) > 150
    assert not re.search("<class|:class:|``|type:|%%", "\n".join(short))
    listed = options_of(short)
    assert len(set(listed)) == len(listed)
    ours = {name for name in everything if re.match(r"(data|model|resume|health|pictures)\.", name)}
    groups = {name for name in ours if any(other.startswith(f"{name}.") for other in ours)}
    assert set(listed) == (ours - groups) | GENERAL.keys() | LIGHTNING.keys()


def test_a_line_has_the_default_and_what_the_option_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = shown("--help", capsys, monkeypatch)
    assert "  --model.network.depth              [6] Number of dual-path layers, each a …" in short
    assert "  --trainer.devices                  [auto] How many, or which: [0, 2]." in short
    assert "  --data.augmentation.gains               [0.5, 1.5] Lowest and highest …" in short
    assert "  --resume.every_steps    [100] Optimiser steps between two checkpoints." in short


def test_the_table_of_options_is_that_of_the_options() -> None:
    """If it is not: python scripts/list_training_options.py."""
    assert list_training_options.table() == TABLE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "tiny", "--data.root", "."],
        ["--config=tiny", "--data.root=."],
        ["--data.root", ".", "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs"],
        ["--data.root", ".", "--trainer.callbacks+=DeviceStatsMonitor", "--trainer.callbacks.cpu_stats", "true"],
        ["--data.root", ".", "--trainer.max_steps", "-1", "--model.learning_rate", "1e-3", "--trainer.max_epochs=null"],
        [
            "--data.root",
            ".",
            "--trainer.devices",
            "[0, 1]",
            "--data.validation_artists",
            "[A, B]",
            "--ema.decay",
            "0.9",
        ],
        [
            "--data.root",
            ".",
            "--data.shared_artists=true",
            "--trainer.val_check_interval",
            "0.5",
            "--ckpt_path",
            "last",
        ],
        ["--data.root", ".", "--model", "model.yaml", "--print_config"],
        ["--config", "{config}"],
    ],
)
def test_what_lightning_reads_is_not_refused(arguments: list[str], tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    config.write_text("data: {root: songs}")
    check_training_options([argument.replace("{config}", str(config)) for argument in arguments])
