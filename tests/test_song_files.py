import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from bsmamba2.data.audio import AudioInfo, audio_info, read_audio, write_audio
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.separation import separate
from bsmamba2.song_files import Format, separate_files, separate_song, to_rate

RATE = 44100


def noise(channels: int = 2, length: int = 9001, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(channels, length, generator=torch.Generator().manual_seed(seed)).clamp(-4, 4)


def sine(rate: int, length: int) -> Tensor:
    """Returns stereo with 440 Hz on the left and 1 kHz on the right, faded in and out."""
    seconds = torch.arange(length, dtype=torch.float64) / rate
    waves = torch.stack([torch.sin(2 * math.pi * frequency * seconds) for frequency in (440, 1000)])
    return (0.5 * waves * torch.sin(math.pi * seconds * rate / length)).float()


def song(path: Path, audio: Tensor | None = None, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    write_audio(path, noise() if audio is None else audio, rate, subtype)
    return path


def save(network: BSMamba2, path: Path) -> Path:
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"network": dataclasses.asdict(network.config)}}, path)
    return path


@pytest.fixture
def model(tiny_network: BSMamba2, tmp_path: Path) -> Path:
    """Returns the checkpoint of a network of random weights."""
    return save(tiny_network, tmp_path / "model.ckpt")


@pytest.fixture
def identity(tiny_network: BSMamba2) -> BSMamba2:
    """Returns a network that returns the mixture: every mask is 1, whatever the features."""
    for to_freqs in tiny_network.mask_estimators[0].to_freqs:  # type: ignore[union-attr]
        last = to_freqs[0][-1]
        torch.nn.init.zeros_(last.weight)
        values = len(last.bias) // 2
        with torch.no_grad():
            last.bias.copy_(torch.cat([torch.tensor([1.0, 0.0]).repeat(values // 2), torch.full((values,), 50.0)]))
    return tiny_network


@pytest.mark.parametrize(
    ("suffix", "subtype", "format", "expected"),
    [
        ("wav", "PCM_16", "wav", "PCM_16"),
        ("wav", "PCM_24", "wav", "PCM_24"),
        ("wav", "FLOAT", "wav", "FLOAT"),
        ("wav", "PCM_16", "flac", "PCM_16"),
        ("wav", "FLOAT", "flac", "PCM_24"),
        ("wav", "PCM_U8", "flac", "PCM_24"),
        ("flac", "PCM_16", "flac", "PCM_16"),
        ("flac", "PCM_24", "wav", "PCM_24"),
        ("mp3", "MPEG_LAYER_III", "wav", "FLOAT"),
        ("mp3", "MPEG_LAYER_III", "flac", "PCM_24"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_vocals_and_instrumental_sum_to_the_song(
    model: Path, tmp_path: Path, suffix: str, subtype: str, format: Format, expected: str, channels: int
) -> None:
    source = song(tmp_path / f"a.b song.{suffix}", noise(channels), RATE, subtype)
    separate_files([source], model, tmp_path / "out", format)
    folder = tmp_path / "out" / "a.b song"
    paths = [folder / f"{name}.{format}" for name in ("instrumental", "vocals")]
    assert sorted(folder.iterdir()) == paths
    mixture, stems = read_audio(source), [read_audio(path) for path in paths]
    for path in paths:
        assert audio_info(path) == AudioInfo(mixture.shape[-1], RATE, channels, expected)
    torch.testing.assert_close(sum(stems), mixture, rtol=0, atol=1e-6)
    if subtype.startswith("PCM"):
        mix, *parts = (soundfile.read(path, dtype="int32")[0] for path in [source, *paths])
        np.testing.assert_array_equal(parts[0] + parts[1], mix)
    assert stems[1].square().mean() > 1e-6


def test_vocals_are_what_the_network_estimates(model: Path, tiny_network: BSMamba2, tmp_path: Path) -> None:
    source = song(tmp_path / "song.wav", subtype="FLOAT")
    settings: dict[str, Any] = {"segment_seconds": 0.05, "overlap": 0.5, "batch_size": 2}
    separate_files([source], model, tmp_path / "out", device="cpu", scan="sequential", **settings)
    expected = separate(tiny_network, noise(), scan="sequential", **settings)[0]
    written = read_audio(tmp_path / "out" / "song" / "vocals.wav")
    torch.testing.assert_close(written, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(separate(tiny_network, noise())[0], expected, atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("length", [1, 4801, 20000])
def test_the_song_keeps_its_rate_length_and_place(
    identity: BSMamba2, tmp_path: Path, rate: int, channels: int, length: int
) -> None:
    mixture = sine(rate, length)[:channels]
    source = song(tmp_path / "song.wav", mixture, rate, "FLOAT")
    separate_files([source], save(identity, tmp_path / "identity.ckpt"), tmp_path / "out")
    vocals = tmp_path / "out" / "song" / "vocals.wav"
    assert audio_info(vocals) == AudioInfo(length, rate, channels, "FLOAT")
    torch.testing.assert_close(read_audio(vocals), mixture, rtol=0, atol=1e-6 if rate == RATE else 2e-3)


@pytest.mark.parametrize("source_rate", [8000, 44100, 48000, 96000])
@pytest.mark.parametrize("target_rate", [8000, 44100, 48000])
def test_another_rate_neither_shifts_nor_scales(source_rate: int, target_rate: int) -> None:
    length = target_rate // 2
    resampled = to_rate(sine(source_rate, source_rate // 2), source_rate, target_rate, length)
    torch.testing.assert_close(resampled, sine(target_rate, length), rtol=0, atol=5e-4)


@pytest.mark.parametrize("length", [1, 999, 1000, 1001])
def test_another_rate_gives_the_length_asked_for(length: int) -> None:
    assert to_rate(noise(length=1000), RATE, RATE, length).shape == (2, length)
    assert to_rate(noise(length=1088), 48000, RATE, length).shape == (2, length)


def test_mono_is_separated_as_the_mean_of_both_channels(tiny_network: BSMamba2) -> None:
    mono = noise(1)
    both = separate(tiny_network, mono.repeat(2, 1))[0]
    assert not torch.allclose(both[0], both[1], atol=1e-4)
    result = separate_song(tiny_network, mono, RATE)
    torch.testing.assert_close(result["vocals"], both.mean(0, keepdim=True), rtol=0, atol=1e-6)


def test_other_stems_have_their_names_and_no_instrumental(tiny_config: ModelConfig, tmp_path: Path) -> None:
    network = BSMamba2(dataclasses.replace(tiny_config, stems=("drums", "bass")))
    source = song(tmp_path / "song.wav", subtype="FLOAT")
    separate_files([source], save(network, tmp_path / "model.ckpt"), tmp_path / "out", overlap=0)
    folder = tmp_path / "out" / "song"
    assert {path.name for path in folder.iterdir()} == {"drums.wav", "bass.wav"}
    for stem, estimate in zip(("drums", "bass"), separate(network, noise(), overlap=0), strict=True):
        torch.testing.assert_close(read_audio(folder / f"{stem}.wav"), estimate, rtol=0, atol=1e-6)


def test_what_is_there_is_kept_before_any_work(model: Path, tmp_path: Path) -> None:
    sources = [song(tmp_path / f"{name}.wav") for name in ("first", "second")]
    taken = tmp_path / "out" / "second" / "instrumental.wav"
    taken.parent.mkdir(parents=True)
    taken.write_text("precious")
    with pytest.raises(InputError, match=r"second.instrumental\.wav is already there; give another --output, or"):
        separate_files(sources, model, tmp_path / "out")
    assert taken.read_text() == "precious"
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [taken]
    separate_files(sources, model, tmp_path / "out", overwrite=True)
    assert audio_info(taken).length == 9001
    assert len(list((tmp_path / "out").rglob("*.wav"))) == 4


def test_stems_of_another_format_are_not_in_the_way(model: Path, tmp_path: Path) -> None:
    source = song(tmp_path / "song.wav")
    separate_files([source], model, tmp_path / "out", "wav")
    separate_files([source], model, tmp_path / "out", "flac")
    assert len(list((tmp_path / "out" / "song").iterdir())) == 4


def test_two_songs_of_one_name_are_an_error(model: Path, tmp_path: Path) -> None:
    sources = [song(tmp_path / "a" / "song.wav"), song(tmp_path / "b" / "song.flac")]
    with pytest.raises(InputError, match=r"song\.wav and .*song\.flac would both write .*song"):
        separate_files(sources, model, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out").exists()


def test_broken_songs_do_not_stop_the_others(model: Path, tmp_path: Path) -> None:
    broken, wide = tmp_path / "broken.wav", song(tmp_path / "wide.wav", noise(3))
    broken.write_text("no audio")
    good = [song(tmp_path / f"{name}.wav") for name in ("first", "last")]
    sources = [good[0], broken, wide, tmp_path / "missing.wav", good[1]]
    with pytest.raises(InputError, match=r"3 of 5 files could not be separated; the first: .*broken\.wav is not audio"):
        separate_files(sources, model, tmp_path / "out")
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    stems = ("instrumental.wav", "vocals.wav")
    assert written == [f"{name}/{stem}" for name in ("first", "last") for stem in stems]


def test_an_output_folder_that_cannot_be_made(model: Path, tmp_path: Path) -> None:
    source = song(tmp_path / "song.wav")
    with pytest.raises(InputError, match=r"^the output folder .*song\.wav cannot be made"):
        separate_files([source], model, source)


def test_a_song_of_too_many_channels(model: Path, tmp_path: Path) -> None:
    source = song(tmp_path / "wide.wav", noise(3))
    with pytest.raises(InputError, match=r"wide\.wav cannot be separated: it has 3 channels; the model takes 1 or 2"):
        separate_files([source], model, tmp_path / "out")


def test_clipping_is_reported(identity: BSMamba2, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = song(tmp_path / "loud.wav", torch.full((2, 4410), 1.5), subtype="FLOAT")
    checkpoint = save(identity, tmp_path / "identity.ckpt")
    separate_files([source], checkpoint, tmp_path / "float", "wav")
    assert "clipped" not in caplog.text
    separate_files([source], checkpoint, tmp_path / "out", "flac")
    assert "8820 samples beyond full scale are clipped" in caplog.text
    stems = [read_audio(tmp_path / "out" / "loud" / f"{name}.flac") for name in ("vocals", "instrumental")]
    torch.testing.assert_close(sum(stems), torch.full((2, 4410), 1.5), rtol=0, atol=1e-6)
