from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.spectrograms import single_spectrograms
from bsmamba2.cli import main
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.demo import EXCERPTS_SECONDS, SONG_SECONDS, example_song, verdict
from bsmamba2.demo_files import MARKER
from bsmamba2.evaluation.results import ESTIMATE, MIXTURE_ROW, Results
from bsmamba2.evaluation.scores import StemScores
from bsmamba2.report.spectrogram_figure import write_spectrogram_figure
from bsmamba2.weights.registry import DEFAULT_MODEL, PUBLISHED_MODELS

ROOT = Path(__file__).parent.parent
# Rows of pixels inside the three spectrograms of the figure; columns 120 to 1000 are inside too.
PANELS = (slice(100, 310), slice(391, 601), slice(682, 892))


def check_stems(demo: Path, seconds: float) -> None:
    """The stems are as long as the song and sum to it exactly, except where the range of 16 bits clips one."""
    name = example_song().name
    vocals, instrumental, mixture = (
        soundfile.read(path, dtype="int16")[0].astype(int)
        for path in (
            demo / "stems" / name / "vocals.wav",
            demo / "stems" / name / "instrumental.wav",
            demo / "data" / "test" / name / "mixture.wav",
        )
    )
    assert len(mixture) == round(seconds * SAMPLE_RATE)
    clipped = (abs(vocals) >= 32767) | (abs(instrumental) >= 32767)
    assert clipped.mean() < 1e-4
    assert (vocals + instrumental == mixture)[~clipped].all()
    assert vocals.any()
    assert instrumental.any()


def pixels(path: Path) -> np.ndarray:
    """Returns the pixels of an image (height, width, 3)."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def test_the_demo_separates_scores_and_draws_a_song(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder without the project's files, over the files of an earlier demo with --train."""
    monkeypatch.chdir(tmp_path)
    demo, name = tmp_path / "demo", example_song().name
    left = [demo / "runs" / "last.ckpt", demo / "stems" / "old" / "vocals.wav", demo / "data" / "train" / "a.wav"]
    for file in left:
        file.parent.mkdir(parents=True)
        file.touch()
    (tmp_path / MARKER).touch()
    assert main(["demo"]) == 0
    assert not any(file.exists() for file in left)
    printed = capsys.readouterr().out
    lines = {name: values.strip() for name, _, values in (line.partition("  ") for line in printed.splitlines())}
    model = PUBLISHED_MODELS[DEFAULT_MODEL]
    results = Results.read(demo / "evaluation")
    scores = results.tracks[name].scores["vocals"]
    first, second = printed.strip().splitlines()[:2]
    assert first == f"Separated 0 to 6.05 s of {name}, a song that {model.name} was not trained on."
    assert second == verdict(scores), "what worked comes first"
    assert lines["model"] == f"{model.name}, licence of its weights: {model.licence}"
    assert results.tracks[name].seconds == pytest.approx(SONG_SECONDS, abs=1e-4)
    for row, shown in ((MIXTURE_ROW, "the song as it is"), (ESTIMATE, f"vocals estimated by {model.name}")):
        assert lines[shown].split() == [f"{scores[row]['csdr']:.2f}", "dB", f"{scores[row]['usdr']:.2f}", "dB"]
    assert scores[ESTIMATE]["usdr"] > max(0, scores[MIXTURE_ROW]["usdr"]), "the weights in the package separate"
    assert lines["protocol"] == "single"
    assert float(lines["seconds per second of audio"]) > 0
    assert " on " in lines["scan"]
    for shown in ("vocals", "instrumental", "the song", "spectrograms", "report"):
        assert (tmp_path / lines[shown]).is_file()
    page = demo / "stems" / name / "listen.html"
    assert lines["listen"] == page.as_uri(), "an address that a terminal makes a link of"
    assert "<h1>" in page.read_text(encoding="utf-8")
    check_stems(demo, SONG_SECONDS)
    assert name in (tmp_path / lines["report"]).read_text(encoding="utf-8")
    image = pixels(tmp_path / lines["spectrograms"])
    assert image.shape == (970, 1200, 3)
    drawn = [lines["the song"], lines["vocals"], f"demo/data/test/{name}/vocals.wav"]
    sounds = torch.stack([read_audio(tmp_path / file).mean(0) for file in drawn])
    expected = single_spectrograms(sounds, SAMPLE_RATE).double()[:, :, 13:145, 41:748].mean((1, 2, 3)).tolist()
    assert [image[rows, 120:1000].mean() for rows in PANELS] == pytest.approx(expected, rel=0.03)


def test_each_sound_has_its_panel_in_the_figure(tmp_path: Path) -> None:
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(SAMPLE_RATE) / SAMPLE_RATE).expand(2, -1)
    path = tmp_path / "figure.png"
    brightest = []
    for quiet in (0, 1, 2):
        gains = [0.0 if number == quiet else 1.0 for number in range(3)]
        sounds = {str(number): gain * tone for number, gain in enumerate(gains)}
        write_spectrogram_figure(path, "Cash $_^$", sounds, SAMPLE_RATE)
        image = pixels(path).sum(2)[:, 120:1000]
        brightest.append([int(image[rows].max()) for rows in PANELS])
    # The first is the reference of the colours; if it is silent, everything else is full scale.
    assert [[value > 600 for value in values] for values in brightest[1:]] == [[True, False, True], [True, True, False]]
    assert brightest[0][0] < 50


@pytest.mark.parametrize(
    ("model", "mixture", "printed"),
    [
        (
            3.0,
            -5.0,
            "are 8.0 dB closer to the true ones than the song itself and 3.0 dB closer to the true ones than silence.",
        ),
        (-1.0, -5.0, "and 1.0 dB farther from the true ones than silence. They do NOT beat silence."),
        (2.0, 2.0, "2.0 dB closer to the true ones than silence. They do NOT beat the song itself."),
        (float("nan"), 1.0, "They do NOT beat the song itself and silence."),
    ],
)
def test_the_verdict_compares_with_the_mixture_and_silence(model: float, mixture: float, printed: str) -> None:
    scores = {ESTIMATE: StemScores({"usdr": model}), MIXTURE_ROW: StemScores({"usdr": mixture})}
    assert verdict(scores).endswith(printed)


def test_the_demo_trains_on_the_song(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = str(ROOT / "configs" / "tiny.yaml")
    assert main(["demo", "--train", "--config", config, "--training-minutes", "0.01"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "mixture as estimate",
        "model, trained for",
        "seconds per second of audio",
        "scan ",
        "beat the mixture",
    ):
        assert words in printed.replace("beats", "beat")
    name = example_song().name
    samples = 0
    for split, (start, stop) in EXCERPTS_SECONDS.items():
        frames = soundfile.info(tmp_path / "demo" / "data" / split / name / "vocals.wav").frames
        assert frames == round(stop * SAMPLE_RATE) - round(start * SAMPLE_RATE)
        samples += frames
    assert samples <= round(SONG_SECONDS * SAMPLE_RATE), "train, valid and test share no second"
    start, stop = EXCERPTS_SECONDS["test"]
    check_stems(tmp_path / "demo", stop - start)


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        (["--config", "tiny.yaml"], 2, "--config can be used only for training; give --train too"),
        (["--training-minutes", "3"], 2, "--training-minutes can be used only for training; give --train too"),
        (["--config", "a", "--training-minutes", "0"], 2, "--config and --training-minutes can be used only"),
        (["--train", "--config", "none"], 1, "there is no config none; give a file, or a name: bsmamba2, "),
        (["--train", "--config", str(ROOT / "configs" / "tiny.yaml"), "--training-minutes", "0"], 2, "a time above 0"),
        (["--train", "--config", str(ROOT / "configs" / "tiny.yaml"), "--training-minutes", "inf"], 2, "inf is not"),
    ],
)
def test_options_that_cannot_be_used_are_errors(
    options: list[str],
    status: int,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *options]) == status
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("options", [[], ["--train", "--config", str(ROOT / "configs" / "tiny.yaml")]])
def test_the_demo_deletes_no_folder_it_did_not_make(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo" / "data").mkdir(parents=True)
    assert main(["demo", *options]) == 1
    assert "was not made by a demo" in capsys.readouterr().err
    assert (tmp_path / "demo" / "data").is_dir()
