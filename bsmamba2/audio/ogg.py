"""Pages of Ogg files (RFC 3533, section 6): whether they are all there, and where one song follows another."""

import mmap
import os
import zlib
from dataclasses import dataclass
from typing import BinaryIO

FIRST, LAST = 2, 4
REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


@dataclass(frozen=True)
class OggPages:
    """What the pages of an Ogg file show.

    Args:
        songs: First and last byte + 1 of each song; joined files and recordings of a radio have several.
        whole: Whether nothing is missing behind the last page.
        marked: Whether the last page is marked as the last of its song. Some recorders do not mark it.
        intact: Whether no page is missing or damaged between others.
    """

    songs: tuple[tuple[int, int], ...]
    whole: bool
    marked: bool
    intact: bool


def ogg_pages(file: BinaryIO) -> OggPages:
    """Returns what the pages of an Ogg file show; pages with a wrong checksum do not count."""
    size = file.seek(0, os.SEEK_END)
    starts: list[int] = []
    place, end, marked, in_headers, intact = 0, 0, False, False, True
    # The number of the next page of each stream whose audio has begun.
    numbers: dict[bytes, int] = {}
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        while (place := content.find(b"OggS", place)) >= 0:
            table = place + 27 + (content[place + 26] if place + 27 <= size else 0)
            following = table + sum(content[place + 27 : table])
            if following > size or not _is_intact(content[place:following]):
                place += 4
                continue
            flags, serial = content[place + 5], content[place + 14 : place + 18]
            number = int.from_bytes(content[place + 18 : place + 22], "little")
            if flags & FIRST:
                numbers.pop(serial, None)
            # A tag may be before the first page.
            intact = intact and (place == end or not end) and numbers.get(serial, number) == number
            if serial in numbers or any(content[place + 6 : place + 14]):
                numbers[serial] = number + 1
            # Several streams of one song begin together.
            if flags & FIRST and not in_headers:
                starts.append(place)
            in_headers, marked = bool(flags & FIRST), bool(flags & LAST)
            place = end = following
        rest = content[end : end + 2**20].strip(b"\0")
    songs = tuple(zip(starts, [*starts[1:], size], strict=True)) or ((0, size),)
    # What follows a marked page is not of the song, unless it was a page; a page can be cut in its first four bytes.
    whole = not rest or (marked and b"OggS" not in rest and not b"OggS".startswith(rest))
    return OggPages(songs, whole, marked, intact)


def _is_intact(page: bytes) -> bool:
    """Whether the checksum of a page is right: that of zlib, with the bits of each byte in the opposite order."""
    stated = int.from_bytes(page[22:26], "little")
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(REVERSED)
    found = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{found:032b}"[::-1], 2) == stated
