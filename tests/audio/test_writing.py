import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsmamba2.audio.formats import INTEGER_BITS, LARGEST_WAV_BYTES, SUBTYPES, Depth, Format
from bsmamba2.audio.reading import AudioInfo, audio_info, read_audio
from bsmamba2.audio.writing import audio_writer, quantise, write_audio
from bsmamba2.errors import InputError
from tests import programs

RATE = 44100
LOSSLESS: list[tuple[Format, Depth]] = [("wav", depth) for depth in SUBTYPES["wav"]]
LOSSLESS += [("flac", depth) for depth in SUBTYPES["flac"]]
LOSSY: list[Format] = ["mp3", "ogg", "m4a"]
ALL: list[tuple[Format, Depth | None]] = [*LOSSLESS, *((format, None) for format in LOSSY)]
# A full disk is imitated by a limit on the size of files.
FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from bsmamba2.audio.writing import write_audio
from bsmamba2.errors import InputError
folder = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
audio = torch.rand(2, 100_000, generator=torch.Generator().manual_seed(0)) - 0.5
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for format, depth in (("wav", "16"), ("wav", "float"), ("flac", "16"), ("mp3", None), ("ogg", None), ("m4a", None)):
    file = folder / f"song.{format}"
    write_audio(file, audio, 44100, format, depth)
    size = file.stat().st_size
    for limit in (0, 30, 1000, 20_000, size - 5000, size - 600, size - 1):
        file.write_bytes(b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
        try:
            write_audio(file, audio, 44100, format, depth)
        except InputError as error:
            assert str(error).startswith(f"{file} cannot be written ("), error
        else:
            raise AssertionError(f"{format} was written in {limit} bytes")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        assert [path.name for path in folder.iterdir()] == [file.name], list(folder.iterdir())
        assert file.read_bytes() == b"old"
        file.unlink()
"""


def noise(channels: int, length: int) -> Tensor:
    return torch.rand(channels, length, generator=torch.Generator().manual_seed(0)) * 2 - 1


def music(channels: int, length: int) -> Tensor:
    """Returns noise with weak high frequencies, which lossy encoders expect."""
    window = torch.hann_window(64)[None, None] / 32
    audio = torch.randn(channels, 1, length + 63, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.conv1d(audio, window)[:, 0] * 2


def lag(audio: Tensor, reference: Tensor) -> int:
    """Returns the delay of the first channel in samples."""
    size = 2 * audio.shape[-1]
    spectrum = torch.fft.rfft(audio[0], size) * torch.fft.rfft(reference[0], size).conj()
    peak = int(torch.fft.irfft(spectrum, size).argmax())
    return peak if peak < size // 2 else peak - size


def snr(audio: Tensor, reference: Tensor) -> float:
    return 10 * float((reference.square().sum() / (audio - reference).square().sum()).log10())


def written_in_blocks(
    path: Path, audio: Tensor, cuts: list[int], format: Format, depth: Depth | None, rate: int = RATE
) -> Path:
    with audio_writer(path, rate, audio.shape[0], audio.shape[1], format, depth) as write:
        for block in audio.tensor_split(sorted(cuts), dim=-1):
            write(block)
    return path


def test_a_long_block_of_vorbis(tmp_path: Path) -> None:
    """The encoder of libsndfile crashes unless it is split."""
    write_audio(tmp_path / "song.ogg", torch.zeros(2, 3_000_000), RATE, "ogg", None)
    assert audio_info(tmp_path / "song.ogg").length == 3_000_000


@pytest.mark.parametrize(("format", "depth"), ALL)
def test_empty_blocks_between_others(tmp_path: Path, format: Format, depth: Depth | None) -> None:
    path = written_in_blocks(tmp_path / "song", music(2, 3000), [0, 1000, 1000, 3000], format, depth)
    assert read_audio(path).shape == (2, 3000)


@pytest.mark.parametrize(("format", "depth"), LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("length", [1, 1000, 100_001])
def test_lossless_files_hold_the_quantised_samples(
    tmp_path: Path, format: Format, depth: Depth, channels: int, length: int
) -> None:
    path, audio = tmp_path / "new" / f"song.{format}", noise(channels, length)
    write_audio(path, audio, RATE, format, depth)
    assert audio_info(path) == AudioInfo(length, RATE, channels, depth)
    assert torch.equal(read_audio(path), quantise(audio, depth))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("format", "depth", "rate"),
    [(format, depth, rate) for format, depth in (("wav", "16"), ("flac", "24")) for rate in (8000, 65535, 192_000)]
    + [("wav", "float", 2**31 - 1), ("flac", "16", 655_350)]
    + [("mp3", None, rate) for rate in (8000, 11025, 12000, 16000, 22050, 24000, 32000, 48000)]
    + [("ogg", None, rate) for rate in (1, 8000, 22050, 48000, 96000, 200_000)]
    + [("m4a", None, rate) for rate in (7350, 8000, 11025, 22050, 48000, 64000, 88200, 96000)],
)
@pytest.mark.parametrize("length", [1, 1000, 5000])
def test_rates(tmp_path: Path, format: Format, depth: Depth | None, rate: int, length: int) -> None:
    path, audio = tmp_path / "song", music(2, length)
    write_audio(path, audio, rate, format, depth)
    assert audio_info(path) == AudioInfo(length, rate, 2, depth)
    assert read_audio(path).shape == audio.shape


# Measured: 63, 32 and 22.6 dB; AAC replaces such noise by noise of its own.
@pytest.mark.parametrize(("format", "least"), [("mp3", 50), ("ogg", 26), ("m4a", 18)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("length", [1, 1000, 100_001])
def test_lossy_files_are_aligned_with_their_source(
    tmp_path: Path, format: Format, least: float, channels: int, length: int
) -> None:
    path, audio = tmp_path / f"song.{format}", music(channels, length)
    write_audio(path, audio, RATE, format, None)
    assert audio_info(path) == AudioInfo(length, RATE, channels, None)
    result = read_audio(path)
    assert result.shape == audio.shape
    if length > 1:
        assert lag(result, audio) == 0
    if length > 1000:
        assert snr(result, audio) > least
        # The ends too.
        assert snr(result[:, -500:], audio[:, -500:]) > least
        assert snr(result[:, :500], audio[:, :500]) > 26


@pytest.mark.parametrize("length", range(150, 4500, 350))
def test_short_vorbis_files_are_complete(tmp_path: Path, length: int) -> None:
    """FFmpeg alone cuts too much off if all audio is on one Ogg page."""
    write_audio(tmp_path / "song.ogg", music(2, length), RATE, "ogg", None)
    expected, _ = soundfile.read(tmp_path / "song.ogg", dtype="float32")
    np.testing.assert_allclose(read_audio(tmp_path / "song.ogg").mT, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("format", "depth"), ALL)
@settings(deadline=None, max_examples=4)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=5))
def test_cuts_between_blocks_leave_no_trace(
    tmp_path_factory: pytest.TempPathFactory, format: Format, depth: Depth | None, cuts: list[int]
) -> None:
    folder, audio = tmp_path_factory.mktemp("cuts"), music(2, 20_000)
    whole = read_audio(written_in_blocks(folder / "whole", audio, [], format, depth))
    cut = read_audio(written_in_blocks(folder / "cut", audio, cuts, format, depth))
    assert cut.shape == whole.shape
    # The Vorbis encoder's choices depend a little on how much of the signal it has seen.
    assert snr(cut, whole) > 50 if format == "ogg" else torch.equal(cut, whole)


def test_every_16_bit_value_survives(tmp_path: Path) -> None:
    """A different reader returns the same integers."""
    integers = torch.arange(-(2**15), 2**15)
    write_audio(tmp_path / "all.wav", (integers / 2**15)[None], RATE)
    samples, _ = soundfile.read(tmp_path / "all.wav", dtype="int16")
    np.testing.assert_array_equal(samples, integers)


@pytest.mark.parametrize("depth", ["8", "16", "24", "32"])
def test_integers_are_clipped_at_full_scale(tmp_path: Path, depth: Depth) -> None:
    write_audio(tmp_path / "loud.wav", torch.tensor([[-3.0, -1.0, 1.0, 3.0]]), RATE, "wav", depth)
    highest = 1 - 2.0 ** (1 - INTEGER_BITS[depth])
    assert read_audio(tmp_path / "loud.wav")[0].tolist() == pytest.approx([-1, -1, highest, highest], rel=0, abs=1e-8)


@pytest.mark.parametrize("depth", ["float", "double"])
def test_floats_keep_samples_beyond_full_scale(tmp_path: Path, depth: Depth) -> None:
    write_audio(tmp_path / "loud.wav", torch.tensor([[-3.0, 3.0]]), RATE, "wav", depth)
    assert read_audio(tmp_path / "loud.wav").tolist() == [[-3, 3]]


def test_quantising_rounds_to_the_nearest_step() -> None:
    steps = torch.tensor([0.4, 0.6, -0.4, -0.6, 12.2])
    assert (quantise(steps / 2**15, "16") * 2**15).tolist() == [0, 1, 0, -1, 12]
    assert torch.equal(quantise(steps, "float"), steps)
    assert torch.equal(quantise(steps, None), steps)


@pytest.mark.parametrize(
    ("depth", "length", "expected"),
    [
        ("16", LARGEST_WAV_BYTES // 4, "WAV"), ("16", LARGEST_WAV_BYTES // 4 + 1, "RF64"),
        ("float", LARGEST_WAV_BYTES // 8, "WAV"), ("float", LARGEST_WAV_BYTES // 8 + 1, "RF64"),
        ("8", 2**31, "RF64"), ("24", 2**30, "RF64"), ("double", 2**28, "RF64"),
    ],
)  # fmt: skip
def test_wav_beyond_4_gib_becomes_rf64(tmp_path: Path, depth: Depth, length: int, expected: str) -> None:
    audio = quantise(noise(2, 100), depth)
    with audio_writer(tmp_path / "song.wav", RATE, 2, length, "wav", depth) as write:
        write(audio)
    assert soundfile.info(tmp_path / "song.wav").format == expected
    assert torch.equal(read_audio(tmp_path / "song.wav"), audio)


@pytest.mark.parametrize(
    ("format", "depth", "rate", "channels"),
    [
        ("flac", "float", RATE, 2), ("flac", "32", RATE, 2), ("flac", "16", 700_000, 2), ("flac", "16", 65537, 2),
        ("flac", "16", RATE, 9), ("mp3", None, 96000, 2), ("mp3", None, RATE, 3), ("ogg", None, 384_000, 2),
        ("ogg", None, RATE, 9), ("m4a", None, 192_000, 2), ("m4a", None, RATE, 3), ("wav", "16", 2**31, 2),
    ],
)  # fmt: skip
def test_a_refused_format_leaves_the_old_file(
    tmp_path: Path, format: Format, depth: Depth | None, rate: int, channels: int
) -> None:
    path = tmp_path / "song"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=f"{format} (does not support|supports)|cannot be written as {format}"):
        write_audio(path, noise(channels, 100), rate, format, depth)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match=r"the output folder .*taken cannot be made"):
        write_audio(tmp_path / "taken" / "song.wav", noise(2, 100), RATE)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on file sizes is tested on Linux only")
def test_a_full_disk_is_reported_and_leaves_the_old_file(tmp_path: Path) -> None:
    result = programs.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "name", [b"a song", b'"quotes" \'n', b"two\nlines", "песня 花".encode(), b"concat:a|b", b"%03d", b"-x", b"\xff"]
)
@pytest.mark.parametrize(
    ("format", "depth"), [("wav", "16"), ("flac", "16"), ("mp3", None), ("ogg", None), ("m4a", None)]
)
def test_any_name(tmp_path: Path, name: bytes, format: Format, depth: Depth | None) -> None:
    folder = tmp_path / os.fsdecode(name)
    try:
        folder.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("no such name on this system")
    path = folder / f"{os.fsdecode(name)}.{format}"
    write_audio(path, noise(2, 3000), RATE, format, depth)
    assert read_audio(path).shape == (2, 3000)
