"""Lengths read from the bytes of a file, where the decoding libraries do not report or check them."""

import os
import re
from typing import BinaryIO

from mutagen.mp4._atom import AtomError, Atoms

LONGEST_OGG_PAGE = 65_307


def last_ogg_page(file: BinaryIO) -> bytes:
    """Returns the last page of an Ogg file if it is complete and marked as the end of its stream (RFC 3533, 6)."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - LONGEST_OGG_PAGE))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or not page[5] & 4:
        return b""
    segments = page[26]
    return page if len(page) >= 27 + segments + sum(page[27 : 27 + segments]) else b""


def is_one_ogg_stream(file: BinaryIO) -> bool:
    """Whether the first and the last page of an Ogg file have the same serial number."""
    file.seek(0)
    return file.read(18)[14:] == last_ogg_page(file)[14:18]


def ends_with_matroska_segment(file: BinaryIO) -> bool:
    """Whether a Matroska file is at least as long as its segment's header states, if it does (RFC 8794, section 6)."""
    end = 0
    for _ in ("header", "segment"):
        file.seek(end + 4)
        first = int.from_bytes(file.read(1), "big")
        width = 9 - first.bit_length()
        value = int.from_bytes(file.read(width - 1), "big") | (first & 0xFF >> width) << 8 * (width - 1)
        if value == 2 ** (7 * width) - 1:
            return True
        end += 4 + width + value
    return end <= file.seek(0, os.SEEK_END)


def has_mp3_frame_count(file: BinaryIO) -> bool:
    """Whether the first frame of an MP3 file states the number of frames; otherwise its duration is a guess."""
    return any(mark in _first_mp3_frame(file)[1] for mark in (b"Xing", b"Info", b"VBRI"))


def has_all_mp3_bytes(file: BinaryIO) -> bool:
    """Whether an MP3 file is as long as its first frame states, if it does; FFmpeg decodes half a frame to noise."""
    start, frame = _first_mp3_frame(file)
    stated = re.search(rb"(?:Xing|Info)\0\0\0(.)(.{12})", frame, re.DOTALL)
    if stated is None or not stated[1][0] & 2:
        return True
    # After the flags: the number of frames, which is optional, then the number of bytes.
    offset = 4 if stated[1][0] & 1 else 0
    return start + int.from_bytes(stated[2][offset : offset + 4], "big") <= file.seek(0, os.SEEK_END)


def _first_mp3_frame(file: BinaryIO) -> tuple[int, bytes]:
    """Returns the position of the first frame, after the tags, and the bytes from there on."""
    file.seek(0)
    head = file.read(10)
    tags = 0
    if head[:3] == b"ID3":
        tags = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    file.seek(tags)
    return tags, file.read(4096)


def mp4_counts_in_samples(file: BinaryIO, sample_rate: int) -> bool:
    """Whether the clock of an MP4 file is its sampling rate, so that its duration is exact to the sample."""
    file.seek(0)
    try:
        header = Atoms(file).path(b"moov", b"mvhd")[-1]
        complete, content = header.read(file)
    except (AtomError, KeyError):
        return False
    offset = 20 if content[:1] == b"\1" else 12
    return complete and int.from_bytes(content[offset : offset + 4], "big") == sample_rate
