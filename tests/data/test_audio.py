from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from bsmamba2.data.audio import INTEGER_BITS, AudioInfo, audio_info, quantise, read_audio, write_audio
from bsmamba2.data.musdb import STREAMS, Track
from bsmamba2.errors import InputError

RATE = 44100
FORMATS = [
    ("wav", "PCM_U8"), ("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "PCM_32"), ("wav", "FLOAT"), ("wav", "DOUBLE"),
    ("flac", "PCM_S8"), ("flac", "PCM_16"), ("flac", "PCM_24"),
]  # fmt: skip


def noise(channels: int, length: int) -> Tensor:
    return torch.rand(channels, length, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("suffix", "subtype"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str, subtype: str, channels: int) -> None:
    path, audio = tmp_path / "new" / f"song.{suffix}", noise(channels, 5000)
    write_audio(path, audio, RATE, subtype)
    assert audio_info(path) == AudioInfo(5000, RATE, channels, subtype)
    assert read_audio(path).dtype == torch.float32
    assert torch.equal(read_audio(path), quantise(audio, subtype))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_every_16_bit_value_survives(tmp_path: Path) -> None:
    """Another reader gives the integers back."""
    integers = torch.arange(-(2**15), 2**15)
    write_audio(tmp_path / "all.wav", (integers / 2**15)[None], RATE, "PCM_16")
    samples, _ = soundfile.read(tmp_path / "all.wav", dtype="int16")
    np.testing.assert_array_equal(samples, integers)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32"])
def test_integers_are_clipped_at_full_scale(tmp_path: Path, subtype: str) -> None:
    write_audio(tmp_path / "loud.wav", torch.tensor([[-3.0, -1.0, 1.0, 3.0]]), RATE, subtype)
    highest = 1 - 2.0 ** (1 - INTEGER_BITS[subtype])
    assert read_audio(tmp_path / "loud.wav")[0].tolist() == pytest.approx([-1, -1, highest, highest], rel=0, abs=1e-8)


def test_floats_keep_what_lies_beyond_full_scale(tmp_path: Path) -> None:
    write_audio(tmp_path / "loud.wav", torch.tensor([[-3.0, 3.0]]), RATE, "FLOAT")
    assert read_audio(tmp_path / "loud.wav").tolist() == [[-3, 3]]


def test_quantising_rounds_to_the_nearest_step() -> None:
    steps = torch.tensor([0.4, 0.6, -0.4, -0.6, 12.2])
    assert (quantise(steps / 2**15, "PCM_16") * 2**15).tolist() == [0, 1, 0, -1, 12]
    assert torch.equal(quantise(steps, "FLOAT"), steps)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize(("start", "length"), [(0, 1), (1, 4096), (4095, 5000), (9999, 1), (0, 10000), (5000, None)])
def test_a_part_of_a_file_is_a_slice_of_it(tmp_path: Path, suffix: str, start: int, length: int | None) -> None:
    path = tmp_path / f"song.{suffix}"
    write_audio(path, noise(2, 10000), RATE, "PCM_16")
    expected = read_audio(path)[:, start : None if length is None else start + length]
    assert torch.equal(read_audio(path, start, length), expected)


@pytest.fixture(scope="module")
def vocals(song: Track) -> Tensor:
    """Returns the whole vocals of the stem file."""
    return song.read("vocals")


@pytest.mark.parametrize("start", [0, 1, 1024, 4096, 4097, 5000, 44100, 123457, -5000, -1025, -1000, -1])
@pytest.mark.parametrize("length", [1, 1000, 20000, None])
def test_a_part_of_a_stem_stream_is_a_slice_of_it(song: Track, vocals: Tensor, start: int, length: int | None) -> None:
    """A start below zero counts from the end."""
    start %= vocals.shape[-1]
    if length and start + length > vocals.shape[-1]:
        length = None
    expected = vocals[:, start : None if length is None else start + length]
    assert torch.equal(song.read("vocals", start, length), expected)


def test_parts_of_a_stem_file_with_an_edit_list(test_data: Path) -> None:
    """The previews of MUSDB18 say how many of their first and last samples are padding; this moves positions."""
    path = test_data / "data" / "musdb18-7-cc" / "train" / "Music Delta - 80s Rock.stem.mp4"
    whole = read_audio(path, stream=4)
    for start in (1, 5000, 123457, 290000):
        assert torch.equal(read_audio(path, start, 1000, stream=4), whole[:, start : start + 1000])


def test_streams_of_a_stem_file(song: Track) -> None:
    """The stems sum to the mixture, but for its mastering."""
    stems = {name: song.read(name, 0, 2 * RATE) for name in STREAMS}
    mixture = stems.pop("mixture")
    rest = mixture - torch.stack(list(stems.values())).sum(0)
    assert rest.square().mean() < 0.02 * mixture.square().mean()
    info = audio_info(song.path, STREAMS["vocals"])
    assert (info.sample_rate, info.channels, info.subtype) == (RATE, 2, "")
    assert info.length == song.read("vocals").shape[-1]


def test_a_stream_that_is_not_there(song: Track) -> None:
    with pytest.raises(InputError, match="has 5 audio streams; a MUSDB18 stem file has 5"):
        read_audio(song.path, stream=5)


@pytest.mark.parametrize("stream", [None, 0])
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"", "is an empty file"), (b"no audio " * 100, "is not audio|is damaged or no stem")],
)
def test_files_that_are_no_audio(tmp_path: Path, content: bytes | None, message: str, stream: int | None) -> None:
    path = tmp_path / "song.wav"
    if content is not None:
        path.write_bytes(content)
    for work in (lambda: audio_info(path, stream), lambda: read_audio(path, stream=stream)):
        with pytest.raises(InputError, match=rf"song\.wav ({message})"):
            work()


@pytest.mark.parametrize("stream", [None, 0])
def test_a_folder_is_no_audio(tmp_path: Path, stream: int | None) -> None:
    with pytest.raises(InputError, match="is a folder; give an audio file"):
        read_audio(tmp_path, stream=stream)


def test_a_file_without_samples(tmp_path: Path) -> None:
    write_audio(tmp_path / "none.wav", torch.zeros(2, 0), RATE, "PCM_16")
    with pytest.raises(InputError, match="has no samples"):
        audio_info(tmp_path / "none.wav")
    with pytest.raises(InputError, match="has no samples"):
        read_audio(tmp_path / "none.wav")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_not_finite(tmp_path: Path, value: float) -> None:
    audio = torch.zeros(2, 100)
    audio[1, 50] = value
    write_audio(tmp_path / "song.wav", audio, RATE, "FLOAT")
    with pytest.raises(InputError, match="has samples that are not finite"):
        read_audio(tmp_path / "song.wav")
    assert read_audio(tmp_path / "song.wav", 51).eq(0).all()


@pytest.mark.parametrize(("start", "length"), [(0, 101), (100, 1), (50, 51), (10**9, 1)])
def test_reading_past_the_end(tmp_path: Path, start: int, length: int) -> None:
    write_audio(tmp_path / "song.wav", noise(2, 100), RATE, "PCM_16")
    with pytest.raises(InputError, match=f"ends before its sample {start + length};"):
        read_audio(tmp_path / "song.wav", start, length)


def test_reading_past_the_end_of_a_stream(song: Track, vocals: Tensor) -> None:
    end = vocals.shape[-1]
    for start, length in ((end - 10, 11), (end + 5000, 1)):
        with pytest.raises(InputError, match=f"ends before its sample {start + length};"):
            song.read("vocals", start, length)


@pytest.mark.parametrize("share", [0.01, 0.6, 0.9999])
def test_a_truncated_stem_file(tmp_path: Path, song: Track, share: float) -> None:
    content = song.path.read_bytes()
    path = tmp_path / "short.stem.mp4"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"short\.stem\.mp4 (is damaged|ends before)"):
        read_audio(path, 0, song.length, stream=4)
    with pytest.raises(InputError, match=r"short\.stem\.mp4 (is damaged|ends before)"):
        read_audio(path, stream=4)


def test_a_truncated_flac_file(tmp_path: Path) -> None:
    path = tmp_path / "short.flac"
    write_audio(path, noise(2, 20000), RATE, "PCM_16")
    path.write_bytes(path.read_bytes()[:40000])
    with pytest.raises(InputError, match="is damaged and cannot be read whole"):
        read_audio(path)


@pytest.mark.parametrize(
    ("name", "rate", "subtype", "channels"),
    [("a.flac", RATE, "FLOAT", 2), ("a.flac", 10**6, "PCM_16", 2), ("a.flac", RATE, "PCM_16", 9), ("a.txt", 1, "", 2)],
)
def test_what_a_format_cannot_hold_leaves_nothing(
    tmp_path: Path, name: str, rate: int, subtype: str, channels: int
) -> None:
    with pytest.raises(InputError, match=f"{name} cannot be written as .* {subtype} at {rate} Hz"):
        write_audio(tmp_path / name, noise(channels, 100), rate, subtype)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path, audio = tmp_path / "song.flac", quantise(noise(2, 100), "PCM_16")
    write_audio(path, audio, RATE, "PCM_16")
    with pytest.raises(InputError, match="cannot be written as FLAC"):
        write_audio(path, -audio, RATE, "FLOAT")
    assert torch.equal(read_audio(path), audio)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=r"the output folder .*taken cannot be made"):
        write_audio(tmp_path / "taken" / "song.wav", noise(2, 100), RATE, "PCM_16")
