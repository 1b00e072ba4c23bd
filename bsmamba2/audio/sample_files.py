"""Files of plain samples (WAV, RF64, W64, AIFF, AU, CAF) and FLAC: where the samples are, and libsndfile to read them.

libsndfile takes chunks after the samples for samples (W64), and a size of zero for no samples, so the header is read
here.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import soundfile

from bsmamba2.audio.file_section import FileSection
from bsmamba2.audio.formats import DEPTHS, SAMPLE_FILES
from bsmamba2.errors import InputError

# First bytes of WAV (little and big endian), RF64, W64, AIFF, FLAC, AU and CAF files.
# Sizes in the header of a file that was written to a pipe, where its writer could not go back: the largest number,
# perhaps rounded down to whole blocks. (Zero is treated separately: it can also be true.)
UNKNOWN_SIZES = (range(0x7FFF0000, 0x80000001), range(0xFFFF0000, 0x100000000))
LARGEST_SIZE_32 = 0xFFFFFFFF
UNKNOWN_SIZE_64 = 2**62
TRUNCATED = "is truncated: it is shorter than its header states; get the whole file"
UNREAD = "bytes behind its samples, which belong to no chunk, are not read"
# Its buffer for a path.
LIBSNDFILE_PATH_BYTES = 1024
SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}


@dataclass(frozen=True)
class SampleData:
    """Where the samples of a file are.

    Args:
        begin: Position of their first byte.
        size: Their number of bytes; None if the file does not state it, so that they end with the file.
        corrections: Sizes to read in place of those in the file, as bytes by position.
    """

    begin: int
    size: int | None
    corrections: dict[int, bytes] = field(default_factory=dict)


def open_samples(path: Path) -> tuple[soundfile.SoundFile, int, str] | None:
    """Returns a file open in libsndfile, its number of samples per channel, and a note about it, which may be empty.

    It returns None if FFmpeg's libraries must read the file.

    libsndfile would lose samples of an MP3 file without a table of contents, and takes the floats of some W64 files for
    integers.

    Raises:
        InputError: The file is shorter than its header states.
    """
    with path.open("rb") as file:
        tag = id3_bytes(file)
        file.seek(tag)
        if file.read(4) not in SAMPLE_FILES:
            return None
        data = sample_data(file)
        available = file.seek(0, os.SEEK_END) - (data.begin if data else 0)
        note = ""
        if data is not None and data.size is not None:
            # Libraries silently read what is left of a truncated file.
            if data.size > available:
                raise InputError(f"{path} {TRUNCATED}")
            note = "" if _ends_or_has_chunk(file, data.begin + data.size) else UNREAD
    name = native_name(path)
    corrected = tag or (data is not None and data.corrections)
    try:
        if corrected or name is None:
            sound = soundfile.SoundFile(FileSection(path, tag, corrections=data.corrections if data else None))
        else:
            sound = soundfile.SoundFile(name)
    except (soundfile.LibsndfileError, TypeError):
        return None
    # A FLAC file that does not state its length has a huge one.
    if sound.subtype not in DEPTHS or sound.frames > 2**62 or (sound.format, sound.subtype) == ("W64", "PCM_32"):
        sound.close()
        return None
    if data is None:
        return sound, sound.frames, ""
    size = available if data.size is None else data.size
    return sound, min(sound.frames, size // (SAMPLE_BYTES[sound.subtype] * sound.channels)), note


def _ends_or_has_chunk(file: BinaryIO, place: int) -> bool:
    """Whether a file ends at a position, up to a chunk's worth of padding, or a chunk with a name begins there."""
    file.seek(place)
    behind = file.read(32)
    names = (behind[:4], behind[place % 2 :][:4], behind.lstrip(b"\0")[:4])
    return len(behind) < 8 or any(name.isascii() and name.decode("ascii").isprintable() for name in names)


def id3_bytes(file: BinaryIO, start: int = 0) -> int:
    """Returns the size of the ID3v2 tags at a position (id3.org, ID3v2.4.0, section 3), 0 if there are none."""
    end = start
    while True:
        file.seek(end)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127:
            return end - start
        size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        end += 10 + size + (10 if head[5] & 0x10 else 0)


def sample_data(file: BinaryIO) -> SampleData | None:
    """Returns where the samples of a WAV, RF64, W64, AIFF, AU or CAF file are; None if that is unknown, as in FLAC."""
    start = id3_bytes(file)
    end = file.seek(0, os.SEEK_END)
    file.seek(start)
    head = file.read(40)
    readers = {
        b"RIFF": _riff, b"RIFX": _riff, b"RF64": _riff, b"riff": _w64, b"FORM": _aiff, b".snd": _au, b"caff": _caf,
    }  # fmt: skip
    reader = readers.get(head[:4])
    return None if reader is None else reader(file, head, start, end)


def _riff(file: BinaryIO, head: bytes, start: int, end: int) -> SampleData | None:
    order = "big" if head[:4] == b"RIFX" else "little"
    whole = int.from_bytes(head[4:8], order)  # type: ignore[arg-type]
    large: int | None = None
    large_begin = 0
    for name, begin, size in _chunks(file, start + 12, end, 4, 4, order, 2):
        if name == b"ds64":
            file.seek(begin)
            content, large_begin = file.read(16), begin
            large, whole = int.from_bytes(content[8:16], "little"), int.from_bytes(content[:8], "little")
        elif name == b"data":
            if head[:4] == b"RF64" and size == LARGEST_SIZE_32 and large is not None:
                if 0 < large < UNKNOWN_SIZE_64 or (large == 0 and begin == end):
                    return SampleData(begin, large)
                sizes = struct.pack("<QQ", end - start - 8, end - begin)
                return SampleData(begin, None, {large_begin: sizes})
            empty = size == 0 and start + 8 + whole >= end and _is_chunks(file, begin, end, order)
            if empty or (size and not any(size in unknown for unknown in UNKNOWN_SIZES)):
                return SampleData(begin, size)
            largest = LARGEST_SIZE_32.to_bytes(4, "big")
            return SampleData(begin, None, {start + 4: largest, begin - 4: largest} if size == 0 else {})
    return None


def _w64(file: BinaryIO, head: bytes, start: int, end: int) -> SampleData | None:
    whole = int.from_bytes(head[16:24], "little")
    for name, begin, size in _chunks(file, start + 40, end, 16, 8, "little", 8):
        if name[:4] == b"data":
            # The sizes include the 24 bytes before the content.
            if 24 < size < UNKNOWN_SIZE_64 or begin == end or (size <= 24 and end <= start + whole < UNKNOWN_SIZE_64):
                return SampleData(begin, max(0, size - 24))
            found = {start + 16: end - start, begin - 8: end - begin + 24}
            return SampleData(begin, None, {place: value.to_bytes(8, "little") for place, value in found.items()})
    return None


def _aiff(file: BinaryIO, head: bytes, start: int, end: int) -> SampleData | None:
    whole = int.from_bytes(head[4:8], "big")
    for name, begin, size in _chunks(file, start + 12, end, 4, 4, "big", 2):
        if name == b"SSND":
            file.seek(begin)
            skipped = 8 + int.from_bytes(file.read(4), "big")
            empty = start + 8 + whole >= end and _is_chunks(file, begin + size, end, "big")
            if size > skipped or begin + skipped >= end or empty:
                stated = None if any(size in unknown for unknown in UNKNOWN_SIZES) else max(0, size - skipped)
                return SampleData(begin + skipped, stated)
            found = {start + 4: end - start - 8, begin - 4: end - begin}
            corrections = {place: min(value, LARGEST_SIZE_32).to_bytes(4, "big") for place, value in found.items()}
            return SampleData(begin + skipped, None, corrections)
    return None


def _au(file: BinaryIO, head: bytes, start: int, end: int) -> SampleData | None:
    begin, size = start + int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
    if size and not any(size in unknown for unknown in UNKNOWN_SIZES):
        return SampleData(begin, size)
    return SampleData(begin, None, {start + 8: LARGEST_SIZE_32.to_bytes(4, "big")} if size == 0 else {})


def _caf(file: BinaryIO, head: bytes, start: int, end: int) -> SampleData | None:
    for name, begin, size in _chunks(file, start + 8, end, 4, 8, "big", 1):
        if name == b"data":
            # Before the samples there is a count of edits.
            return SampleData(begin + 4, None if size == 2**64 - 1 else max(0, size - 4))
    return None


def _is_chunks(file: BinaryIO, begin: int, end: int, order: str) -> bool:
    """Whether a file consists of chunks with names from a position to its end."""
    place = begin
    for name, content, size in _chunks(file, begin, end, 4, 4, order, 2):
        if not (name.isascii() and name.decode("ascii").isprintable()):
            return False
        place = content + size
    return end - 8 < place <= end + 1


def _chunks(
    file: BinaryIO, start: int, end: int, name_bytes: int, size_bytes: int, order: str, alignment: int
) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, position of the content, and stated size of the chunks of a file."""
    place = start
    while place + name_bytes + size_bytes <= end:
        file.seek(place)
        name = file.read(name_bytes)
        size = int.from_bytes(file.read(size_bytes), order)  # type: ignore[arg-type]
        begin = place + name_bytes + size_bytes
        yield name, begin, size
        # The sizes of W64 include what is before the content.
        place = begin + size - (name_bytes + size_bytes if name_bytes == 16 else 0)
        place += -(place - start) % alignment
        if place < begin:
            return


def native_name(path: Path) -> str | bytes | None:
    """Returns a path as soundfile needs it: bytes, as it fails on names that are not UTF-8; text on Windows.

    It is None if the path is too long for libsndfile, which can then be given a file that is open.
    """
    if os.name == "nt":
        return str(path)
    name = os.fsencode(path)
    return name if len(name) < LIBSNDFILE_PATH_BYTES else None
