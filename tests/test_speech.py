"""Speech as a task: a network is trained on speech and noise, scored, and separates a file, with both time stages."""

import json
import math
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor

from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from bsmamba2.errors import InputError
from bsmamba2.hub import HubNetwork
from bsmamba2.model import PrimeKnet
from bsmamba2.training.command import train
from bsmamba2.weights.checkpoint import load_model, save_model
from tests.model.make_golden import PRIMEKNET
from tests.model.test_primeknet import tones

RATE = 16000
SMALL = (
    "--model.network.dense_channel=4",
    "--model.network.segment_seconds=0.25",
    "--data.batch_size=2",
    "--data.epoch_excerpts=4",
    "--data.workers=0",
    "--trainer.max_epochs=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--pictures.every_n_validations=100",
)


def noise(length: int, seed: int) -> Tensor:
    return 0.05 * torch.randn(1, length, generator=torch.Generator().manual_seed(seed))


def logged(events: Path) -> set[str]:
    """Returns the names of the figures in a log."""
    log = EventAccumulator(str(events))
    log.Reload()
    return set(log.Tags()["scalars"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of recordings of speech and noise, 16 kHz mono."""
    folder = tmp_path_factory.mktemp("speech")
    for number, path in enumerate(("train/A - 1", "train/B - 2", "test/C - 3")):
        length = RATE + 100 * number
        write_audio(folder / path / "speech.wav", tones(length)[0], RATE)
        write_audio(folder / path / "noise.wav", noise(length, number), RATE)
    return folder


@pytest.mark.parametrize("time_stage", ["mamba", "prime"])
def test_train_evaluate_and_separate(
    root: Path, tmp_path: Path, time_stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--config=primeknet-tiny", *SMALL, f"--model.network.time_stage={time_stage}"]
    options += [f"--data.root={root}", f"--data.cache={tmp_path}", "--data.validation_tracks=[B - 2]"]
    path = train([*options, f"--trainer.default_root_dir={tmp_path}"])
    (events,) = path.parents[1].glob("events.*")
    assert {"health/gradient_time_to_frequency", "health/mask_magnitude", "train/compressed"} <= logged(events)
    config = load_model(path).config
    assert (config.kind, config.time_stage, config.outputs) == ("primeknet", time_stage, ("speech", "noise"))

    run = tmp_path / "scores"
    assert main(["evaluate", "--model", str(path), "--root", str(root), "--output", str(run)]) == 0
    table = capsys.readouterr().out
    assert "speech, median over tracks  SI-SDR dB  STOI" in table
    scores = json.loads((run / "results.json").read_text(encoding="utf-8"))["tracks"]["C - 3"]["scores"]["speech"]
    assert 0 < scores["mixture"]["stoi"] <= 1
    assert math.isfinite(scores["estimate"]["si_sdr"])
    assert "STOI" in (run / "report.html").read_text(encoding="utf-8")

    mixture = torch.cat([tones(RATE)[0] + noise(RATE, 7), noise(RATE, 8)])
    write_audio(tmp_path / "call.wav", mixture, 44100, depth="float")
    out = tmp_path / "out"
    assert main(["separate", str(tmp_path / "call.wav"), "--model", str(path), "--output", str(out)]) == 0
    stems = {path.stem: read_audio(path) for path in out.rglob("*.wav")}
    assert sorted(stems) == ["noise", "speech"]
    assert {audio_info(path).sample_rate for path in out.rglob("*.wav")} == {44100}
    torch.testing.assert_close(stems["speech"] + stems["noise"], mixture, rtol=0, atol=1e-5)


def test_scores_without_their_packages(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    estimates = tmp_path / "estimates" / "C - 3"
    write_audio(estimates / "speech.wav", 0.9 * read_audio(root / "test/C - 3/speech.wav"), RATE)
    monkeypatch.setattr("bsmamba2.metrics.speech.SPEECH_PACKAGES", {"stoi": "no_stoi", "pesq": "no_pesq"})
    monkeypatch.setattr("bsmamba2.evaluation.scoring.SPEECH_PACKAGES", {"stoi": "no_stoi", "pesq": "no_pesq"})
    arguments = ["--estimates", str(tmp_path / "estimates"), "--root", str(root), "--output", str(tmp_path / "run")]
    assert main(["evaluate", *arguments, "--no-report"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("scores of speech whose package is not installed are left out; run pip install no_stoi") == 1
    assert "uSDR dB" in shown.out
    assert "STOI" not in shown.out
    run = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert run["speech_scores"] == []


def test_what_is_only_for_the_other_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = PrimeKnet(PRIMEKNET)
    save_model(network, tmp_path / "speech.safetensors")
    model = ["--model", str(tmp_path / "speech.safetensors")]
    assert main(["export", str(tmp_path / "speech.onnx"), *model]) == 1
    assert "is a PrimeKnet, which cannot be exported; give a BSMamba2" in capsys.readouterr().err
    with pytest.raises(InputError, match="a PrimeKnet cannot be a HubNetwork, which is a BSMamba2"):
        HubNetwork.of(network)


def test_recordings_at_another_rate_are_refused_in_training(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["train", "--config=primeknet-tiny", *SMALL, f"--data.root={root}", "--model.network.sample_rate=8000"]
    options += ["--data.validation_tracks=[B - 2]"]
    options += [f"--trainer.default_root_dir={tmp_path}", f"--data.cache={tmp_path}"]
    assert main(options) == 1
    assert "8000 Hz" in capsys.readouterr().err


def test_music_trains_too(musdb_root: Path, tmp_path: Path) -> None:
    """Stereo songs are two items each."""
    options = ["--config=primeknet-tiny", *SMALL, f"--data.root={musdb_root}", f"--data.cache={tmp_path}"]
    network = {"stems": "[vocals]", "residual": "instrumental", "channels": 2, "sample_rate": 44100}
    network |= {"n_fft": 1024, "window_length": 1024, "hop_length": 256, "segment_seconds": 0.1}
    options += [f"--model.network.{name}={value}" for name, value in network.items()]
    options += ["--data.augmentation.snr_db=null", "--data.validation_seconds=0.25"]
    path = train([*options, f"--trainer.default_root_dir={tmp_path}"])
    config = load_model(path).config
    assert (config.channels, config.outputs) == (2, ("vocals", "instrumental"))
