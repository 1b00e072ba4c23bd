import io
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bsmamba2.audio.containers import (
    ends_with_matroska_segment,
    has_all_mp3_bytes,
    has_mp3_frame_count,
    is_one_ogg_stream,
    last_ogg_page,
    mp4_counts_in_samples,
)
from bsmamba2.audio.formats import Format
from bsmamba2.audio.writing import write_audio

RATE = 44100


def written(folder: Path, format: Format, seed: int = 0) -> bytes:
    audio: Tensor = torch.rand(2, 30_000, generator=torch.Generator().manual_seed(seed)) - 0.5
    write_audio(folder / f"song.{format}", audio, RATE, format, None)
    return (folder / f"song.{format}").read_bytes()


def test_the_last_page_of_an_ogg_file(tmp_path: Path) -> None:
    content = written(tmp_path, "ogg")
    page = last_ogg_page(io.BytesIO(content))
    assert page.startswith(b"OggS")
    assert content.endswith(page)
    assert page[5] & 4


@pytest.mark.parametrize("missing", [1, 100])
def test_an_ogg_file_without_its_last_bytes_has_no_last_page(tmp_path: Path, missing: int) -> None:
    content = written(tmp_path, "ogg")
    assert last_ogg_page(io.BytesIO(content[:-missing])) == b""
    # A complete page that is not marked as the last one.
    assert last_ogg_page(io.BytesIO(content[: content.rindex(b"OggS")])) == b""


@pytest.mark.parametrize("content", [b"", b"OggS", b"no page at all"])
def test_bytes_without_an_ogg_page(content: bytes) -> None:
    assert last_ogg_page(io.BytesIO(content)) == b""


def numbered(content: bytes, serial: bytes) -> bytes:
    """Returns an Ogg file with another serial number; its checksums are not read here."""
    old = content[14:18]
    return content.replace(old, serial)


def test_one_ogg_stream_and_two(tmp_path: Path) -> None:
    content = written(tmp_path, "ogg")
    first, second = numbered(content, b"aaaa"), numbered(content, b"bbbb")
    assert is_one_ogg_stream(io.BytesIO(first))
    assert not is_one_ogg_stream(io.BytesIO(first + second))


def matroska(size: int, width: int, content: int) -> io.BytesIO:
    """Returns a header and a segment that states its size in a number of bytes (RFC 8794, section 4)."""
    length = (size | 1 << 7 * width).to_bytes(width, "big")
    return io.BytesIO(bytes.fromhex("1a45dfa3") + b"\x83abc" + bytes.fromhex("18538067") + length + bytes(content))


@pytest.mark.parametrize("width", range(1, 9))
def test_a_matroska_segment_is_complete_or_not(width: int) -> None:
    assert ends_with_matroska_segment(matroska(100, width, 100))
    assert ends_with_matroska_segment(matroska(100, width, 101))
    assert not ends_with_matroska_segment(matroska(100, width, 99))
    # All ones: the size is unknown, as in a live stream.
    assert ends_with_matroska_segment(matroska(2 ** (7 * width) - 1, width, 0))


def mp3(mark: bytes, flags: int, fields: bytes, tags: int = 0, content: int = 1000) -> io.BytesIO:
    """Returns the start of an MP3 file: tags of a size, and a frame with a mark, and how many bytes there are."""
    size = bytes(tags >> shift & 127 for shift in (21, 14, 7, 0))
    header = b"ID3\x04\0\0" + size + bytes(tags) if tags else b""
    frame = b"\xff\xfb\x90\x00" + bytes(32) + mark + bytes([0, 0, 0, flags]) + fields
    return io.BytesIO(header + frame.ljust(content, b"\0"))


@pytest.mark.parametrize("tags", [0, 5, 300])
@pytest.mark.parametrize(("mark", "stated"), [(b"Xing", True), (b"Info", True), (b"VBRI", True), (b"LAME", False)])
def test_the_frame_count_of_mp3(mark: bytes, stated: bool, tags: int) -> None:
    assert has_mp3_frame_count(mp3(mark, 0, bytes(12), tags)) is stated


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


@pytest.mark.parametrize("tags", [0, 300])
def test_the_size_stated_by_mp3(tags: int) -> None:
    for flags, fields in ((3, number(7)), (2, b"")):
        complete = fields + number(1000) + bytes(8)
        assert has_all_mp3_bytes(mp3(b"Xing", flags, complete, tags, content=1000))
        assert not has_all_mp3_bytes(mp3(b"Xing", flags, complete, tags, content=999))
    # The number of frames alone says nothing about bytes.
    assert has_all_mp3_bytes(mp3(b"Xing", 1, number(5000) + bytes(8), tags))


def test_the_clock_of_mp4(tmp_path: Path) -> None:
    content = written(tmp_path, "m4a")
    assert mp4_counts_in_samples(io.BytesIO(content), RATE)
    assert not mp4_counts_in_samples(io.BytesIO(content), 48000)


@pytest.mark.parametrize("content", [b"", b"RIFF nothing", bytes(100)])
def test_bytes_that_are_not_mp4(content: bytes) -> None:
    assert not mp4_counts_in_samples(io.BytesIO(content), RATE)
