"""Frames of MPEG audio (MP3, MP2), of AAC streams (ADTS) and of DTS, read from their bytes."""

import functools
import mmap
import os
import re
from dataclasses import dataclass
from typing import BinaryIO

from bsmamba2.audio.sample_files import id3_bytes

# ISO 11172-3 and 13818-3, section 2.4.2.3: kbit/s by MPEG-1 or not, and layer.
BIT_RATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
BIT_RATES[False, 3] = BIT_RATES[False, 2]
SAMPLE_RATES = (44100, 48000, 32000)
# So far behind the tags the first frame is looked for, and behind the counted frames more frames.
SEARCHED_BYTES = 2**22
# The first bytes of a DTS frame, and of the extension that can follow in it (ETSI TS 102 114).
DTS_CORE, DTS_EXTENSION = bytes.fromhex("7ffe8001"), bytes.fromhex("64582025")
# Samples by which every decoder of MP3 is late.
DECODER_DELAY = 529
# Their headers state the encoder's delay and padding.
GAPLESS_ENCODERS = (b"LAME", b"Lavf", b"Lavc")


@dataclass(frozen=True)
class MpegFrame:
    """What the header of a frame states: its size in bytes, its length in samples, and what all frames share."""

    size: int
    samples: int
    family: tuple[int, int, int]
    channels: int


@functools.lru_cache(maxsize=1024)
def mpeg_frame(header: bytes) -> MpegFrame | None:
    """Returns what the four bytes of a header of MPEG audio state; None if they are none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate, bits = header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or layer == 4 or rate == 3 or bits in (0, 15):
        return None
    sample_rate = SAMPLE_RATES[rate] >> (0, 0, 1, 0)[version] if version else SAMPLE_RATES[rate] >> 2
    bit_rate = 1000 * BIT_RATES[version == 3, layer][bits - 1]
    padding = header[2] >> 1 & 1
    channels = 1 if header[3] >> 6 == 3 else 2
    if layer == 1:
        return MpegFrame((12 * bit_rate // sample_rate + padding) * 4, 384, (version, layer, rate), channels)
    samples = 1152 if layer == 2 or version == 3 else 576
    return MpegFrame(samples // 8 * bit_rate // sample_rate + padding, samples, (version, layer, rate), channels)


def mp3_length(file: BinaryIO) -> int | None:
    """Returns the samples of an MP3 file after its encoder's delay and padding; None if it does not state them.

    It states them if its first frame is a Xing, Info or VBRI header, at its place, with a number of frames that is set
    and not zero, and if no frames follow those that are counted: files joined end to end have the header of the first.
    """
    begin = first_mpeg_frame(file)
    counted = None if begin is None else _counted(file, begin)
    if counted is None or counted.frames is None:
        return None
    walked, place = _walk(file, counted.begin, counted.frames + 1)
    size = file.seek(0, os.SEEK_END)
    if walked > counted.frames:
        end = place
        if counted.end is not None and place < counted.end and _begins_with(file, place, counted.frame.family):
            return None
    elif counted.end is not None and place >= counted.end:
        # All bytes that it counts are there, and are fewer frames.
        return None
    elif counted.end is not None or place >= size:
        # Other bytes are between the frames, or the file is truncated.
        end = size if counted.end is None else counted.end
    else:
        return None
    if _frames_follow(file, end, counted.frame.family):
        return None
    skipped = counted.delay + max(DECODER_DELAY, counted.padding) if counted.gapless else 0
    return max(0, counted.frames * counted.frame.samples - skipped)


def has_all_mp3_bytes(file: BinaryIO) -> bool:
    """Whether an MP3 file is as long as its first frame states, if it does; FFmpeg decodes half a frame to noise."""
    begin = first_mpeg_frame(file)
    counted = None if begin is None else _counted(file, begin)
    return counted is None or counted.end is None or counted.end <= file.seek(0, os.SEEK_END)


@dataclass(frozen=True)
class _Counted:
    """The header of an MP3 file: where its frame begins, the frames and the end of the bytes that it counts."""

    begin: int
    frame: MpegFrame
    frames: int | None
    end: int | None
    gapless: bool = False
    delay: int = 0
    padding: int = 0


def _counted(file: BinaryIO, begin: int) -> _Counted | None:
    file.seek(begin)
    content = file.read(4096)
    frame = mpeg_frame(content[:4])
    if frame is None:
        return None
    side = {(True, 2): 32, (True, 1): 17, (False, 2): 17, (False, 1): 9}[frame.family[0] == 3, frame.channels]
    if content[36:40] == b"VBRI":
        size, frames = (int.from_bytes(content[place : place + 4], "big") for place in (46, 50))
        return _Counted(begin, frame, frames or None, begin + size if size else None)
    if content[4 + side : 8 + side] not in (b"Xing", b"Info"):
        return None
    flags, place = int.from_bytes(content[8 + side : 12 + side], "big"), 12 + side
    values: list[int | None] = []
    for flag in (1, 2):
        values.append(int.from_bytes(content[place : place + 4], "big") or None if flags & flag else None)
        place += 4 if flags & flag else 0
    frames, size = values  # type: ignore[assignment]
    place += (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    delays = int.from_bytes(content[place + 21 : place + 24], "big")
    gapless = content[place : place + 4] in GAPLESS_ENCODERS
    return _Counted(begin, frame, frames, begin + size if size else None, gapless, delays >> 12, delays & 0xFFF)


def first_mpeg_frame(file: BinaryIO) -> int | None:
    """Returns the position of the first frame behind the tags; None if there is none."""
    tags = id3_bytes(file)
    file.seek(tags)
    place = _chain(file.read(2**16))
    return None if place is None else tags + place


def _begins_with(file: BinaryIO, place: int, family: tuple[int, int, int]) -> bool:
    """Whether a frame begins at a position."""
    file.seek(place)
    frame = mpeg_frame(file.read(4))
    return frame is not None and frame.family == family


def _frames_follow(file: BinaryIO, end: int, family: tuple[int, int, int]) -> bool:
    file.seek(end)
    return _chain(file.read(SEARCHED_BYTES), family) is not None


def _chain(content: bytes, family: tuple[int, int, int] | None = None) -> int | None:
    """Returns the position of the first of three frames one behind the other, or of a last one that ends the file."""
    for match in re.finditer(rb"\xff(?=[\xe2-\xff])", content):
        place, shared = match.start(), family
        for count in range(3):
            frame = mpeg_frame(content[place : place + 4])
            if frame is None or (shared is not None and frame.family != shared):
                break
            place, shared = place + frame.size, frame.family
            if place == len(content) and count:
                return match.start()
        else:
            return match.start()
    return None


def _walk(file: BinaryIO, begin: int, count: int) -> tuple[int, int]:
    """Returns how many of so many frames follow one another, and the position behind them."""
    place = begin
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for number in range(count):
            frame = mpeg_frame(content[place : place + 4])
            if frame is None:
                return number, place
            place += frame.size
    return count, place


def lost_aac_frames(file: BinaryIO) -> dict[int, int]:
    """Returns how many frames are missing before which frame of an AAC stream (ADTS), by the bytes between its frames.

    FFmpeg skips such bytes. Tags, and bytes behind the last frame, are not missing frames.
    """
    end = file.seek(0, os.SEEK_END)
    found: dict[int, int] = {}
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place, number, good = id3_bytes(file), 0, 0
        while place + 7 <= end:
            # As `_aac_frame_bytes`, which takes longer to call for every frame of a song.
            if content[place] == 0xFF and content[place + 1] & 0xF6 == 0xF0:
                size = (content[place + 3] & 3) << 11 | content[place + 4] << 3 | content[place + 5] >> 5
                if size >= 7:
                    place, number, good = place + size, number + 1, good + size
                    continue
            if tag := id3_bytes(file, place):
                place += tag
                continue
            following = _next_aac_frame(content, place + 1)
            if following is None:
                break
            # The damage begins in the frame before.
            lost = round((following - place) * number / good) if number else 0
            if lost:
                found[number] = lost
            place = following
    return found


def _next_aac_frame(content: mmap.mmap, place: int) -> int | None:
    """Returns the position of the next frame that is followed by another, or by the end of the file."""
    while (place := content.find(b"\xff", place)) >= 0:
        size = _aac_frame_bytes(content[place : place + 7])
        if size is not None and (
            place + size == len(content) or _aac_frame_bytes(content[place + size : place + size + 7])
        ):
            return place
        place += 1
    return None


def _aac_frame_bytes(header: bytes) -> int | None:
    """Returns the size of a frame that its header of seven bytes states (ISO 14496-3, section 1.A.2.2)."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return size if size >= 7 else None


def dts_core_bytes(header: bytes) -> int:
    """Returns the size of a DTS frame, without an extension, that its header of ten bytes states."""
    return ((header[5] & 3) << 12 | header[6] << 4 | header[7] >> 4) + 1
