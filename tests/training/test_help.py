"""The help of `bsmamba2 train`."""

import re

import pytest

from bsmamba2.cli import main
from bsmamba2.training.help import GENERAL, LIGHTNING


def shown(option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", "100")
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
    assert "  --model.network.depth                 [6] Number of dual-path layers, each a mixer over time …" in short
    assert "  --trainer.devices                     [auto] How many devices, or which: [0, 2]." in short
