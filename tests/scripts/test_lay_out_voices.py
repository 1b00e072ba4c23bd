"""Voices and music laid out as speech and noise: splits that share nobody, levels, lengths and the format."""

from itertools import combinations
from pathlib import Path

import pytest
import torch

import lay_out_voices
from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.audio.writing import write_audio


def tone(seconds: float, hertz: float) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * 44100)) / 44100)[None]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Returns sources of ten singers with two clips each and ten artists, each with a tone of its own."""
    for folder, table, column in (("singing-2", "clips.csv", "singer"), ("instrumental-cc", "tracks.csv", "artist")):
        rows = [f"file,{column}"]
        for number in range(10):
            for clip in range(2):
                path = Path(f"{column} {number}") / f"{clip}.ogg"
                seconds = 0.5 + 0.1 * clip if column == "singer" else 0.3
                write_audio(tmp_path / folder / path, tone(seconds, 200 + 50 * number), 44100, format="ogg", depth=None)
                rows.append(f"{path.as_posix()},{path.parent}")
        (tmp_path / folder / table).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def loudest_hertz(path: Path) -> int:
    """Returns the frequency of a tone, to the nearest of those that the sources have."""
    audio = read_audio(path)[0]
    return 50 * round(torch.fft.rfft(audio).abs().argmax().item() * 16000 / len(audio) / 50)


def test_nobody_is_in_two_splits_and_ratios_are_in_their_range(sources: Path, tmp_path: Path) -> None:
    root = tmp_path / "voices"
    assert lay_out_voices.main([str(sources), str(root)]) == 0
    singers: dict[str, set[str]] = {}
    music: dict[str, set[int]] = {}
    ratios_db = []
    for folder in sorted(root.glob("*/*")):
        speech, noise = (folder / f"{stem}.wav" for stem in ("speech", "noise"))
        split, singer = folder.parent.name, folder.name.partition(" - ")[0]
        singers.setdefault(split, set()).add(singer)
        music.setdefault(split, set()).add(loudest_hertz(noise))
        assert (audio_info(speech).sample_rate, audio_info(speech).channels) == (16000, 1)
        assert audio_info(speech).length == audio_info(noise).length
        assert loudest_hertz(speech) == 200 + 50 * int(singer.split()[1])
        energies = [read_audio(path).square().sum() for path in (speech, noise)]
        ratios_db.append(10 * torch.log10(energies[0] / energies[1]).item())
    assert {split: len(names) for split, names in singers.items()} == {"train": 6, "valid": 2, "test": 2}
    for names in (singers, music):
        assert not any(first & second for first, second in combinations(names.values(), 2))  # type: ignore[operator]
    assert len(ratios_db) == 20
    assert -0.1 < min(ratios_db) < 4
    assert 11 < max(ratios_db) < 15.1
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*.wav")}
    assert lay_out_voices.main([str(sources), str(root)]) == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.wav")} == times


def test_a_missing_source_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lay_out_voices.main([str(tmp_path), str(tmp_path / "voices")]) == 1
    assert "clips.csv cannot be read (No such file or directory)" in capsys.readouterr().err
