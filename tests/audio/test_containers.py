import io
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bsmamba2.audio.containers import (
    Mp4Track,
    ends_with_matroska_segment,
    has_all_asf_bytes,
    has_all_avi_bytes,
    has_all_flv_bytes,
    has_all_mp4_boxes,
    mp4_counts_in_samples,
    mp4_track,
)
from bsmamba2.audio.formats import Format
from bsmamba2.audio.writing import write_audio

RATE = 44100


def written(folder: Path, format: Format, seed: int = 0) -> bytes:
    audio: Tensor = torch.rand(2, 30_000, generator=torch.Generator().manual_seed(seed)) - 0.5
    write_audio(folder / f"song.{format}", audio, RATE, format, None)
    return (folder / f"song.{format}").read_bytes()


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


def test_the_clock_of_mp4(tmp_path: Path) -> None:
    content = written(tmp_path, "m4a")
    assert mp4_counts_in_samples(io.BytesIO(content), RATE)
    assert not mp4_counts_in_samples(io.BytesIO(content), 48000)


@pytest.mark.parametrize("content", [b"", b"RIFF nothing", bytes(100)])
def test_bytes_that_are_not_mp4(content: bytes) -> None:
    assert not mp4_counts_in_samples(io.BytesIO(content), RATE)
    assert mp4_track(io.BytesIO(content), 1) == Mp4Track()


def test_the_track_of_mp4(tmp_path: Path) -> None:
    """The encoder's delay of 1024 samples is part of the media; the last packet alone is shorter."""
    content = written(tmp_path, "m4a")
    assert mp4_track(io.BytesIO(content), 1) == Mp4Track(31_024, True)
    assert mp4_track(io.BytesIO(content), 2) == Mp4Track()
    place = content.index(b"stts") + 8
    runs = int.from_bytes(content[place : place + 4], "big")
    assert runs == 2
    uneven = content[:place] + struct.pack(">I", 3) + content[place + 4 :]
    assert not mp4_track(io.BytesIO(uneven), 1).even_packets
    place = content.index(b"elst") + 8
    assert content[place : place + 4] == bytes([0, 0, 0, 1])
    # A second edit in place of the metadata behind the table.
    edited = content[:place] + bytes([0, 0, 0, 2]) + content[place + 4 :]
    assert not mp4_track(io.BytesIO(edited), 1).even_packets


@pytest.mark.parametrize("share", [0.2, 0.9, 0.9999])
def test_an_mp4_file_that_is_cut(tmp_path: Path, share: float) -> None:
    content = written(tmp_path, "m4a")
    assert has_all_mp4_boxes(io.BytesIO(content))
    assert has_all_mp4_boxes(io.BytesIO(content + bytes(1000)))
    assert has_all_mp4_boxes(io.BytesIO(content + b"APETAGEX"))
    assert not has_all_mp4_boxes(io.BytesIO(content[: int(share * len(content))]))


def test_the_size_stated_by_avi() -> None:
    for size, whole in ((92, True), (93, False), (0, True), (0xFFFFFFFF, True)):
        content = b"RIFF" + struct.pack("<I", size) + bytes(92)
        assert has_all_avi_bytes(io.BytesIO(content)) is whole


@pytest.mark.parametrize(("size", "flags", "whole"), [(1000, 2, True), (1001, 2, False), (1001, 3, True)])
def test_the_size_stated_by_asf(size: int, flags: int, whole: bool) -> None:
    properties = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365") + bytes(24) + struct.pack("<Q", size) + bytes(40)
    content = (bytes(30) + properties + struct.pack("<I", flags)).ljust(1000, b"\0")
    assert has_all_asf_bytes(io.BytesIO(content)) is whole


@pytest.mark.parametrize(("size", "whole"), [(1000.0, True), (1001.0, False), (0.0, True)])
def test_the_size_stated_by_flv(size: float, whole: bool) -> None:
    content = (b"FLV\1" + bytes(20) + b"filesize\0" + struct.pack(">d", size)).ljust(1000, b"\0")
    assert has_all_flv_bytes(io.BytesIO(content)) is whole
    assert has_all_flv_bytes(io.BytesIO(b"FLV\1" + bytes(20)))
