from pathlib import Path

import pytest
import soundfile

from bsmamba2.cli import main
from bsmamba2.demo import EXCERPTS_SECONDS, example_song

ROOT = Path(__file__).parent.parent


def test_the_demo_does_the_three_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--config", str(ROOT / "configs" / "tiny.yaml"), "--training-minutes", "0.05"]) == 0
    said = capsys.readouterr().out
    for words in (
        "mixture as estimate",
        "model, trained for",
        "seconds per second of audio",
        "scan ",
        "beat the mixture",
    ):
        assert words in said.replace("beats", "beat")
    name = example_song().name
    samples = 0
    for split, (start, stop) in EXCERPTS_SECONDS.items():
        frames = soundfile.info(tmp_path / "demo" / "data" / split / name / "vocals.wav").frames
        assert frames == round(stop * 44100) - round(start * 44100)
        samples += frames
    assert samples <= round(6.08 * 44100), "train, valid and test share no second"
    vocals, instrumental, mixture = (
        soundfile.read(path, dtype="int16")[0].astype(int)
        for path in (
            tmp_path / "demo" / "stems" / name / "vocals.wav",
            tmp_path / "demo" / "stems" / name / "instrumental.wav",
            tmp_path / "demo" / "data" / "test" / name / "mixture.wav",
        )
    )
    assert (vocals + instrumental == mixture).all()


def test_the_demo_deletes_no_folder_it_did_not_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo" / "data").mkdir(parents=True)
    assert main(["demo", "--config", str(ROOT / "configs" / "tiny.yaml")]) == 1
    assert "that no demo made" in capsys.readouterr().err
    assert (tmp_path / "demo" / "data").is_dir()
