import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bsmamba2.audio.irregularities import Irregularities
from bsmamba2.audio.reading import audio_info, read_audio, read_blocks
from bsmamba2.audio.sample_files import id3_bytes, sample_data
from bsmamba2.errors import InputError

RATE = 44100
LENGTH = 20_001
FORMATS = {"wav": "WAV", "rf64": "RF64", "w64": "W64", "aiff": "AIFF", "au": "AU", "caf": "CAF"}
# Where the samples' size is, and what counts before them; found from the mark of their chunk.
W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
W64_MARKER = bytes.fromhex("abf76256392dd2118ac300c04f8edb8a")


def samples(seed: int = 0) -> np.ndarray:
    """Returns 16-bit integers (n, c)."""
    return np.random.default_rng(seed).integers(-32768, 32768, (LENGTH, 2)).astype(np.int16)


def written(path: Path, format: str, order: str = "FILE") -> bytes:
    soundfile.write(path, samples(), RATE, "PCM_16", endian=order, format=format)
    return path.read_bytes()


def check(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    info = audio_info(path)
    assert (info.length, info.sample_rate, info.channels, info.depth) == (LENGTH, RATE, 2, "16")
    assert torch.equal(read_audio(path) * 32768, torch.from_numpy(samples().T.astype(np.float32)))
    assert torch.equal(read_audio(path, 1234, 100) * 32768, torch.from_numpy(samples()[1234:1334].T.astype(np.float32)))


def with_chunk(format: str, content: bytes) -> bytes:
    """Returns a file with a chunk of text behind its samples, as its format prescribes."""
    text, file = b"MARKER12" * 600, bytearray(content)
    if format == "W64":
        file += bytes(-len(file) % 8) + W64_MARKER + struct.pack("<Q", 24 + len(text)) + text
        file[16:24] = struct.pack("<Q", len(file))
    elif format == "CAF":
        file += b"info" + struct.pack(">Q", len(text)) + text
    elif format == "AIFF":
        file += b"ANNO" + struct.pack(">I", len(text)) + text
        file[4:8] = struct.pack(">I", len(file) - 8)
    elif format == "AU":
        file += text
    else:
        file += b"LIST" + struct.pack("<I", len(text)) + text
        if format == "WAV":
            file[4:8] = struct.pack("<I", len(file) - 8)
    return bytes(file)


def without_size(format: str, content: bytes, size: int) -> bytes:
    """Returns a file whose writer did not go back to fill in the sizes."""
    file = bytearray(content)
    if format == "W64":
        place = content.index(W64_DATA) + 16
        file[16:24], file[place : place + 8] = bytes(8), struct.pack("<Q", size)
    elif format == "AU":
        file[8:12] = struct.pack(">I", size)
    else:
        mark, order = (b"SSND", ">I") if format == "AIFF" else (b"data", "<I")
        place = content.index(mark) + 4
        file[4:8] = file[place : place + 4] = struct.pack(order, size)
    return bytes(file)


@pytest.mark.parametrize("name", FORMATS)
def test_chunks_behind_the_samples_are_not_samples(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"song.{name}"
    check(path, with_chunk(FORMATS[name], written(path, FORMATS[name])))


def test_floats_in_w64_end_before_a_chunk_behind_them(tmp_path: Path) -> None:
    path = tmp_path / "song.w64"
    soundfile.write(path, samples() / 32768, RATE, "FLOAT", format="W64")
    path.write_bytes(with_chunk("W64", path.read_bytes()))
    assert torch.equal(read_audio(path) * 32768, torch.from_numpy(samples().T.astype(np.float32)))


@pytest.mark.parametrize("name", ["wav", "aiff", "au", "w64"])
def test_a_size_of_zero_is_unknown_if_bytes_follow(tmp_path: Path, name: str) -> None:
    """As a recorder leaves it when it crashes."""
    path = tmp_path / f"song.{name}"
    check(path, without_size(FORMATS[name], written(path, FORMATS[name]), 0))


@pytest.mark.parametrize("name", ["wav", "aiff", "au"])
def test_the_largest_size_is_unknown(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"song.{name}"
    check(path, without_size(FORMATS[name], written(path, FORMATS[name]), 0xFFFFFFFF))


@pytest.mark.parametrize("size", [2**64 - 1, 2**63 - 1, 0])
@pytest.mark.parametrize("format", ["W64", "RF64"])
def test_large_sizes_that_a_pipe_leaves_unknown(tmp_path: Path, format: str, size: int) -> None:
    path = tmp_path / "song.x"
    content = bytearray(written(path, format))
    place = 16 if format == "W64" else content.index(b"ds64") + 8
    content[place : place + 8] = struct.pack("<Q", size)
    place = content.index(W64_DATA) + 16 if format == "W64" else place + 8
    content[place : place + 8] = struct.pack("<Q", size)
    check(path, bytes(content))


@pytest.mark.parametrize("name", ["wav", "aiff"])
def test_a_size_of_zero_in_a_file_of_the_right_size_is_unknown_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"song.{name}"
    content = bytearray(written(path, FORMATS[name]))
    place = content.index({"wav": b"data", "aiff": b"SSND"}[name]) + 4
    content[place : place + 4] = bytes(4)
    check(path, bytes(content))


def test_a_position_that_no_file_has(tmp_path: Path) -> None:
    path = tmp_path / "song.caf"
    content = bytearray(written(path, "CAF"))
    place = content.index(b"data") + 4
    content[place : place + 8] = struct.pack(">Q", 2**63 + 100)
    path.write_bytes(content)
    with pytest.raises(InputError, match="is truncated"):
        audio_info(path)


def test_a_recording_that_stopped_behind_a_reserved_chunk(tmp_path: Path) -> None:
    """AVAudioFile reserves 4 KiB for its header and states the size of the header alone."""
    content = written(tmp_path / "song.wav", "WAV")
    place = content.index(b"fmt ")
    head = b"RIFF" + struct.pack("<I", 4088) + b"WAVEJUNK" + struct.pack("<I", 4044) + bytes(4044)
    data = content.index(b"data")
    check(tmp_path / "song.wav", head + content[place:data] + b"data" + bytes(4) + content[data + 8 :])


def test_a_wav_file_of_a_chunk_and_no_samples(tmp_path: Path) -> None:
    """Its sizes are consistent, so that zero is true."""
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 2)), RATE, "PCM_16")
    content = bytearray((tmp_path / "none.wav").read_bytes() + b"LIST" + struct.pack("<I", 400) + bytes(400))
    content[4:8] = struct.pack("<I", len(content) - 8)
    (tmp_path / "none.wav").write_bytes(content)
    with pytest.raises(InputError, match="has no samples"):
        audio_info(tmp_path / "none.wav")


@pytest.mark.parametrize("name", [*FORMATS, "flac"])
def test_a_tag_before_the_header(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"song.{name}"
    check(path, b"ID3\3\0\0\0\0\1\x0a" + bytes(138) + written(path, FORMATS.get(name, "FLAC")))


def test_rifx_is_big_endian(tmp_path: Path) -> None:
    content = written(tmp_path / "song.wav", "WAV", "BIG")
    assert content.startswith(b"RIFX")
    check(tmp_path / "song.wav", content)


@pytest.mark.parametrize("cut", [4, 1000, 60_000])
@pytest.mark.parametrize("change", [lambda format, content: content, with_chunk], ids=["plain", "chunk"])
@pytest.mark.parametrize("name", FORMATS)
def test_samples_that_are_missing(tmp_path: Path, name: str, change: Callable[[str, bytes], bytes], cut: int) -> None:
    path = tmp_path / f"song.{name}"
    content = written(path, FORMATS[name])
    whole = change(FORMATS[name], content)
    path.write_bytes(whole[: len(content) - cut])
    with pytest.raises(InputError, match="is truncated"):
        read_audio(path)


def test_a_chunk_behind_the_samples_that_is_cut(tmp_path: Path) -> None:
    """All samples are there."""
    path = tmp_path / "song.wav"
    check(path, with_chunk("WAV", written(path, "WAV"))[:-100])


@pytest.mark.parametrize("format", ["WAV", "AIFF"])
def test_a_size_that_is_too_small_is_noted(tmp_path: Path, format: str) -> None:
    path = tmp_path / "song"
    content = bytearray(written(path, format))
    mark, order, header = (b"SSND", ">I", 8) if format == "AIFF" else (b"data", "<I", 0)
    place = content.index(mark) + 4
    content[place : place + 4] = struct.pack(order, header + 4 * 1000)
    path.write_bytes(content)
    found = Irregularities()
    assert sum(block.shape[-1] for block in read_blocks(path, found=found)) == 1000
    assert found.notes == ["bytes behind its samples, which belong to no chunk, are not read"]
    for whole in (written(path, format), with_chunk(format, written(path, format))):
        path.write_bytes(whole)
        list(read_blocks(path, found=(found := Irregularities())))
        assert found.notes == []


def test_tags_one_after_another() -> None:
    tag = b"ID3\4\0\0\0\0\1\x02" + bytes(130)
    footed = b"ID3\4\0\x10\0\0\0\x05" + bytes(5) + b"3DI\4\0\x10\0\0\0\x05"
    assert id3_bytes(io.BytesIO(tag + footed + b"RIFF")) == len(tag + footed)
    assert id3_bytes(io.BytesIO(b"RIFF" + tag), 4) == len(tag)
    assert id3_bytes(io.BytesIO(b"ID3\4\0\0\xff\xff\xff\xff")) == 0


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\0\0\0\0WAVEdata", b"FORM" + bytes(100), b"caff" + bytes(100)])
def test_bytes_without_samples(content: bytes) -> None:
    assert sample_data(io.BytesIO(content)) is None
