import sys
from pathlib import Path

import pytest

from benchmarks import training
from bsmamba2.errors import InputError

CONFIG = """
model:
  network: {dim: 8, depth: 1, bands: [500, 525], headdim: 8, d_state: 8, expand: 1, segment_seconds: 0.1}
  loss: {stft: 0.0}
data: {epoch_excerpts: 36}
trainer: {max_epochs: 5}
"""


def test_a_step_is_measured_with_the_days_of_the_whole_training_run(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    setting = training.TrainingSetting(config, 2, "float32", "chunked", True, compile=False)
    row = training.measure_setting(setting, 1, "cpu")
    assert row["audio_per_second"] == pytest.approx(2 * 0.1 / row["step_seconds"])
    assert row["training_hours"] == pytest.approx(5 * 36 * 0.1 / 3600)
    assert row["days"] == pytest.approx(5 * 36 * 0.1 / row["audio_per_second"] / 86_400)
    assert row["peak_gib"] > 0.1 or sys.platform == "win32"


def test_a_row_is_printed_for_every_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    options = ["--recompute", "no", "--device", "cpu", "--batch-sizes", "1", "--scans", "chunked", "--steps", "1"]
    assert training.main(["--configs", str(config), *options]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].split()[:6] == ["config", "1", "float32", "chunked", "no", "no"]
    assert printed.err == ""


def test_a_config_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: {network: {depth: 0}}", encoding="utf-8")
    with pytest.raises(InputError, match="depth=0 is not allowed"):
        training.measure_setting(
            training.TrainingSetting(config, 1, "float32", "chunked", False, compile=False), 1, "cpu"
        )


@pytest.mark.parametrize("options", [{"batch_sizes": [0]}, {"steps": 0}])
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="is not allowed; give values above 0"):
        training.Options(**options)  # type: ignore[arg-type]


def test_a_network_without_a_scan_is_measured_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    mixers = "time_mixer: roformer, band_mixer: roformer, attention_heads: 1, attention_headdim: 8"
    config.write_text(CONFIG.replace("headdim: 8, d_state: 8, expand: 1", mixers), encoding="utf-8")
    assert training.main(["--configs", str(config), "--recompute", "no", "--device", "cpu", "--steps", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:4] == ["config", "1", "float32", "auto"]
