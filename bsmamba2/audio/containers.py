"""What containers state about themselves in their bytes, where the decoding libraries do not report or check it."""

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from mutagen.mp4._atom import Atom, AtomError, Atoms

# Advanced Systems Format, section 3.2: the File Properties Object.
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
SEARCHED_HEADER_BYTES = 2**16
# Boxes at the top of MP4 files (ISO 14496-12, table 1, and QuickTime).
MP4_BOXES = frozenset(
    b"ftyp styp pdin moov moof mfra mdat free skip wide uuid meta sidx ssix prft emsg udta pnot".split()
)
UNREADABLE = (AtomError, KeyError, IndexError, StopIteration, struct.error)


@dataclass(frozen=True)
class Mp4Track:
    """What an MP4 file states about a track.

    Args:
        media_ticks: Duration before the edit list, on the clock of the track; 0 if it is in fragments.
        even_packets: Whether all packets but the last have one length and are played once, in order.
    """

    media_ticks: int = 0
    even_packets: bool = False


def mp4_counts_in_samples(file: BinaryIO, sample_rate: int) -> bool:
    """Whether the clock of an MP4 file is its sampling rate, so that its duration is exact to the sample."""
    try:
        movie = _movie(file)
        return _clock(_content(file, movie, b"mvhd"))[0] == sample_rate and not _is_fragmented(movie)
    except UNREADABLE:
        return False


def mp4_track(file: BinaryIO, identifier: int) -> Mp4Track:
    """Returns what an MP4 file states about the track with an identifier (ISO 14496-12, sections 8.3 to 8.8)."""
    try:
        movie = _movie(file)
        for track in movie.findall(b"trak"):
            header = _content(file, track, b"tkhd")
            place = 20 if header[0] == 1 else 12
            if int.from_bytes(header[place : place + 4], "big") == identifier and not _is_fragmented(movie):
                media = _clock(_content(file, track, b"mdia", b"mdhd"))[1]
                times = _content(file, track, b"mdia", b"minf", b"stbl", b"stts")
                runs = struct.unpack_from(">I", times, 4)[0]
                even = runs == 1 or (runs == 2 and struct.unpack_from(">I", times, 16)[0] == 1)
                return Mp4Track(media, even and _edits(file, track) <= 1)
    except UNREADABLE:
        pass
    return Mp4Track()


def _movie(file: BinaryIO) -> Atom:
    file.seek(0)
    return Atoms(file).path(b"moov")[-1]


def _is_fragmented(movie: Atom) -> bool:
    children: list[Atom] = movie.children or []
    return any(atom.name == b"mvex" for atom in children)


def _content(file: BinaryIO, atom: Atom, *names: bytes) -> bytes:
    for name in names:
        children: list[Atom] = atom.children or []
        atom = next(child for child in children if child.name == name)
    complete, content = atom.read(file)
    if not complete:
        raise KeyError(atom.name)
    result: bytes = content
    return result


def _clock(header: bytes) -> tuple[int, int]:
    """Returns ticks per second and duration of a mvhd or mdhd box."""
    place, width = (20, 8) if header[0] == 1 else (12, 4)
    return int.from_bytes(header[place : place + 4], "big"), int.from_bytes(
        header[place + 4 : place + 4 + width], "big"
    )


def _edits(file: BinaryIO, track: Atom) -> int:
    try:
        # The box in it has a header of 8 bytes.
        content = _content(file, track, b"edts")[8:]
    except StopIteration:
        return 0
    wide = content[0] == 1
    count = int.from_bytes(content[4:8], "big")
    starts = [
        struct.unpack_from(">q" if wide else ">i", content, 8 + (8 if wide else 4) + edit * (20 if wide else 12))[0]
        for edit in range(count)
    ]
    return sum(start >= 0 for start in starts)


def has_all_mp4_boxes(file: BinaryIO) -> bool:
    """Whether the boxes of an MP4 file are as long as they state; what follows the last box is not examined."""
    size, place = file.seek(0, os.SEEK_END), 0
    while place + 8 <= size:
        file.seek(place)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length < 8 or name not in MP4_BOXES:
            return True
        if place + length > size:
            return False
        place += length
    return True


def second_mp4_file(file: BinaryIO) -> int | None:
    """Returns the position of a second MP4 file behind one that is not in fragments; None if there is none."""
    size, place, movies = file.seek(0, os.SEEK_END), 0, 0
    while place + 8 <= size:
        file.seek(place)
        length, name = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length < 8 or name not in MP4_BOXES or name in (b"moof", b"sidx", b"styp"):
            return None
        movies += name == b"moov"
        if name == b"ftyp" and place > 0 and movies:
            return place
        place += length
    return None


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


def has_all_avi_bytes(file: BinaryIO) -> bool:
    """Whether an AVI file is as long as its first RIFF chunk states; a writer to a pipe leaves it unknown."""
    size = file.seek(0, os.SEEK_END)
    file.seek(4)
    stated = int.from_bytes(file.read(4), "little")
    return stated >= 0x7FFF0000 or stated + 8 <= size


def has_all_asf_bytes(file: BinaryIO) -> bool:
    """Whether a WMA or WMV file is as long as it states; a broadcast states nothing."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(SEARCHED_HEADER_BYTES)
    place = head.find(ASF_FILE_PROPERTIES)
    if place < 0 or place + 92 > len(head):
        return True
    stated, flags = int.from_bytes(head[place + 40 : place + 48], "little"), head[place + 88]
    return bool(flags & 1) or stated <= size


def has_all_dsf_bytes(file: BinaryIO) -> bool:
    """Whether a DSF file has all bytes of its data chunk; tags may follow it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(32)
    place = 28 + int.from_bytes(file.read(8), "little")
    file.seek(place)
    name, stated = file.read(4), int.from_bytes(file.read(8), "little")
    return name != b"data" or place + stated <= size


def has_all_flv_bytes(file: BinaryIO) -> bool:
    """Whether an FLV file is as long as its metadata state, if they do."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(SEARCHED_HEADER_BYTES)
    place = head.find(b"filesize\0")
    number = head[place + 9 : place + 17]
    return place < 0 or len(number) < 8 or not struct.unpack(">d", number)[0] > size
