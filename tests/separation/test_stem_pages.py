"""Pages that are written with the stems: where they are, what they play and show, and what refuses or replaces them."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bsmamba2.audio.formats import Format
from bsmamba2.audio.tags import Tags, write_tags
from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.weights.checkpoint import save_model
from tests.conftest import full_disk

RATE = 44100
MODEL = ["--model", "model.safetensors", "--device", "cpu"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, tiny_network: BSMamba2, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a folder with a model of random weights and a song the current one."""
    monkeypatch.chdir(tmp_path)
    save_model(tiny_network, Path("model.safetensors"))
    write_audio(Path("song.wav"), noise(), RATE)
    return tmp_path


def noise(seconds: float = 0.5, seed: int = 0, channels: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.2 * torch.randn(channels, round(seconds * RATE), generator=generator).clamp(-4, 4)


def separate(*arguments: str) -> int:
    return main(["separate", *MODEL, *arguments])


def files(folder: str = "stems") -> list[str]:
    """Returns all files in a folder, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def shown(page: str | Path) -> dict[str, Any]:
    """Returns what the player of a page reads."""
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', Path(page).read_text(encoding="utf-8"))
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize("arguments", [["song.wav", "--page"], ["--page", "song.wav"], ["--page=inside", "song.wav"]])
def test_a_page_has_the_sound_of_the_stems(arguments: list[str]) -> None:
    assert separate(*arguments) == 0
    assert files() == ["song/instrumental.wav", "song/listen.html", "song/vocals.wav"]
    song = shown("stems/song/listen.html")
    assert song["name"] == "song"
    assert [sound["name"] for sound in song["sounds"]] == ["vocals", "instrumental"]
    assert all(sound["sound"] and not sound["file"] for sound in song["sounds"])
    assert song["seconds"] == 0.5


def test_a_value_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert separate("song.wav", "--page=outside") == 2
    assert "there is no 'outside'" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "ogg", "m4a"])
def test_a_linked_page_plays_the_files(format: Format) -> None:
    assert separate("song.wav", "--page", "linked", "--format", format) == 0
    song = shown("stems/song/listen.html")
    assert [sound["file"] for sound in song["sounds"]] == [f"vocals.{format}", f"instrumental.{format}"]
    assert not any("sound" in sound for sound in song["sounds"])
    assert (song["rate"], song["seconds"]) == (RATE, 0.5)


def test_pages_follow_the_template_and_are_linked_from_there() -> None:
    Path("50% #1?.wav").write_bytes(Path("song.wav").read_bytes())
    assert separate("50% #1?.wav", "--page", "linked", "--template", "{stem}/{track}.{ext}") == 0
    assert files() == ["instrumental/50% #1?.wav", "listen/50% #1?.html", "vocals/50% #1?.wav"]
    song = shown("stems/listen/50% #1?.html")
    assert [sound["file"] for sound in song["sounds"]] == [
        "../vocals/50%25%20%231%3F.wav", "../instrumental/50%25%20%231%3F.wav",
    ]  # fmt: skip


def test_each_song_of_an_album_has_a_page() -> None:
    for seed, name in enumerate(("one", "two")):
        path = Path("album", f"{name}.flac")
        write_audio(path, noise(seed=seed), RATE, "flac")
        write_tags(path, Tags({"title": [f"<{name}>"], "artist": ["A", "B"], "album": ["C & D"]}), "flac")
    assert separate("album", "--page", "--template", "{track} - {stem}.{ext}") == 0
    assert [name for name in files() if name.endswith("html")] == ["one - listen.html", "two - listen.html"]
    text = Path("stems/one - listen.html").read_text(encoding="utf-8")
    assert "<h1>&lt;one&gt;</h1>" in text
    assert "<p>A, B · C &amp; D</p>" in text


def test_a_part_of_a_song_has_a_page_of_this_part() -> None:
    assert separate("song.wav", "--page", "--start", "0.1", "--duration", "0.2") == 0
    assert shown("stems/song/listen.html")["seconds"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("stems", "summing"),
    [
        ("drums,bass,other,vocals", False),
        ("drums,bass,residual", True),
        ("vocals,instrumental", True),
        ("vocals,instrumental,residual", False),
        ("vocals", False),
    ],
)
def test_the_song_is_in_the_page_if_the_stems_do_not_sum_to_it(
    tiny_config: ModelConfig, stems: str, summing: bool
) -> None:
    four = dataclasses.replace(tiny_config, stems=("drums", "bass", "other", "vocals"))
    save_model(BSMamba2(four), Path("model.safetensors"))
    assert separate("song.wav", "--page", "linked", "--stems", stems) == 0
    sounds = shown("stems/song/listen.html")["sounds"]
    assert [sound["name"] for sound in sounds] == [*stems.split(","), *([] if summing else ["mixture"])]
    assert [sound["mixture"] for sound in sounds] == [False] * len(stems.split(",")) + [True] * (not summing)


@pytest.mark.parametrize("peak", ["rescale", "float"])
def test_stems_that_are_made_in_two_passes_have_a_page(peak: str) -> None:
    write_audio(Path("loud.wav"), 5 * noise(), RATE)
    assert separate("loud.wav", "--page", "--peak", peak) == 0
    assert shown("stems/loud/listen.html")["seconds"] == 0.5


def test_an_existing_page_is_refused_kept_or_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path("stems/song/listen.html")
    page.parent.mkdir(parents=True)
    page.write_text("mine")
    assert separate("song.wav", "--page") == 1
    assert "listen.html already exists" in capsys.readouterr().err
    assert files() == ["song/listen.html"]
    assert separate("song.wav", "--page", "--skip-existing") == 0
    assert files() == ["song/instrumental.wav", "song/listen.html", "song/vocals.wav"]
    assert page.read_text() == "mine"
    assert separate("song.wav", "--page", "--overwrite") == 0
    assert shown(page)["name"] == "song"


def test_a_page_is_added_to_existing_stems() -> None:
    assert separate("song.wav") == 0
    before = Path("stems/song/vocals.wav").stat().st_mtime_ns
    assert separate("song.wav", "--page", "linked", "--skip-existing") == 0
    assert [sound["file"] for sound in shown("stems/song/listen.html")["sounds"]] == ["vocals.wav", "instrumental.wav"]
    assert Path("stems/song/vocals.wav").stat().st_mtime_ns == before


def test_two_songs_with_one_page_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other").mkdir()
    Path("other/song.mp3").write_bytes(Path("song.wav").read_bytes())
    assert separate("song.wav", "other/song.mp3", "--page", "--stems", "vocals", "--template", "{track}.{ext}") == 1
    assert "would both write" in capsys.readouterr().err


def test_a_full_disk_leaves_neither_stems_nor_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    """The stems fit, the page does not."""
    write_audio(Path("song.wav"), noise(4), RATE)
    with full_disk(170_000):
        assert separate("song.wav", "--page", "--format", "ogg") == 1
    assert "cannot be written (File too large); free some space" in capsys.readouterr().err
    assert files() == []


def test_mono_songs_have_a_page() -> None:
    write_audio(Path("mono.wav"), noise(channels=1), RATE)
    assert separate("mono.wav", "--page") == 0
    assert shown("stems/mono/listen.html")["seconds"] == 0.5
