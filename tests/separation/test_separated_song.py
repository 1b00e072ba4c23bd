"""Songs that the Python API separates."""

import base64
import io
import re
from pathlib import Path

import pytest
import soundfile
import torch
from PIL import Image

from bsmamba2 import ModelConfig, Separator
from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2
from bsmamba2.separation.separated_song import SeparatedSong
from bsmamba2.weights.checkpoint import save_model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "A & B.flac"
    write_audio(path, 0.1 * torch.randn(2, 30_000), 32_000, "flac", "24")
    return path


@pytest.fixture
def separator(tmp_path: Path, tiny_config: ModelConfig) -> Separator:
    """Returns one that was made from a file of weights."""
    torch.manual_seed(0)
    save_model(BSMamba2(tiny_config), tmp_path / "model.safetensors")
    return Separator(tmp_path / "model.safetensors", overlap=0)


def test_a_song_has_its_stems_as_attributes(separator: Separator, file: Path) -> None:
    done: list[float] = []
    song = separator.separate_file(file, callback=done.append)
    assert list(song.stems) == ["vocals", "instrumental"]
    mixture = read_audio(file)
    assert torch.equal(song.vocals, separator(mixture, 32_000)["vocals"])
    assert torch.equal(song.instrumental, mixture - song.vocals)
    assert {"vocals", "instrumental"} <= set(dir(song))
    assert done[-1] == 1
    assert repr(separator) == f"<Separator: vocals; 44100 Hz, on {separator.device}>"
    assert repr(song) == "<A & B: vocals, instrumental; 0.9 s, stereo, 32000 Hz>"
    with pytest.raises(AttributeError, match="there is no 'drums' here; there are vocals, instrumental"):
        song.drums  # noqa: B018


def test_its_files_have_the_same_samples(separator: Separator, file: Path, tmp_path: Path) -> None:
    song = separator.separate_file(str(file))
    files = song.save(tmp_path / "new" / "stems")
    assert [path.name for path in files] == ["vocals.wav", "instrumental.wav"]
    for path, audio in zip(files, song.stems.values(), strict=True):
        written, rate = soundfile.read(path, dtype="float32")
        assert rate == 32_000
        assert torch.equal(torch.from_numpy(written).T, audio)


@pytest.mark.parametrize(("rate", "kind"), [(44_100, "mpeg"), (96_000, "wav")])
def test_a_notebook_shows_spectrograms_and_players(rate: int, kind: str) -> None:
    song = SeparatedSong("<b>", {"lead-vocals": 0.1 * torch.randn(2, rate), "backing": torch.zeros(2, rate)}, rate)
    assert song.lead_vocals is song.stems["lead-vocals"]
    page = song._repr_html_()
    assert "<b><" not in page.replace("<b>lead-vocals</b>", "").replace("<b>backing</b>", "")
    images = re.findall('data:image/png;base64,([^"]+)', page)
    sounds = re.findall(f'data:audio/{kind};base64,([^"]+)', page)
    assert len(images) == len(sounds) == 2
    loud, silent = (Image.open(io.BytesIO(base64.b64decode(image))) for image in images)
    assert loud.size[0] > 400
    assert len(loud.getcolors(1 << 24) or []) > 100
    assert len(silent.getcolors(1 << 24) or []) == 1
    audio, played = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
    assert played == rate
    assert abs(audio.std() - 0.1) < 0.02


def test_a_model_that_does_not_exist_and_a_file_that_is_no_song(separator: Separator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a file nor a published model"):
        Separator("small-vocal/s")
    (tmp_path / "text.wav").write_text("text")
    with pytest.raises(InputError):
        separator.separate_file(tmp_path / "text.wav")
