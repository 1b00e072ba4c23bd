"""Files joined end to end in formats of which players and libraries read only the first."""

import mmap
import os
import re
from pathlib import Path
from typing import BinaryIO

from bsmamba2.audio.containers import second_mp4_file
from bsmamba2.audio.sample_files import id3_bytes, sample_data

# How files begin whose end is not stated where it could be looked up: FLAC, TTA, WMA, and WavPack, by a first block.
BEGINNINGS = {
    b"fLaC": re.compile(rb"fLaC[\x00\x80]\x00\x00\x22", re.DOTALL),
    b"TTA1": re.compile(rb"TTA1[\x01\x02\x03]\x00", re.DOTALL),
    b"0&\xb2u": re.compile(rb"0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa\x00b\xcel", re.DOTALL),
    b"wvpk": re.compile(rb"wvpk.{4}.\x04.{2}.{4}\x00{4}.{4}.[\x08-\x0f\x18-\x1f\x28-\x2f\x38-\x3f].{2}", re.DOTALL),
}
SAMPLE_FILE = re.compile(
    rb"\x00{0,8}(?:(?:RIFF|RIFX|RF64).{4}WAVE|riff\x2e\x91\xcf\x11|FORM.{4}AIF[FC]|caff\x00\x01|\.snd\x00)", re.DOTALL
)


def second_file(path: Path) -> int | None:
    """Returns the position of a second file in a file, which would not be read; None if there is none.

    Streams of frames or pages, such as MP3 and Ogg, are read through, and have no such place.
    """
    with path.open("rb") as file:
        start = id3_bytes(file)
        file.seek(start)
        head = file.read(8)
        if head[4:] == b"ftyp":
            return second_mp4_file(file)
        if head[:4] in BEGINNINGS:
            return _second_beginning(file, head[:4], start + 4)
        data = sample_data(file)
        if data is None or data.size is None:
            return None
        # Behind the samples, or behind the chunks that follow them.
        ends = [data.begin + data.size]
        if head[:4] in (b"RIFF", b"RIFX", b"FORM"):
            ends.append(start + 8 + int.from_bytes(head[4:], "little" if head[:4] == b"RIFF" else "big"))
        for end in ends:
            file.seek(end)
            if SAMPLE_FILE.match(file.read(32)):
                return end
        return None


def _second_beginning(file: BinaryIO, mark: bytes, place: int) -> int | None:
    size = file.seek(0, os.SEEK_END)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        while 0 <= (place := content.find(mark, place)) < size:
            if BEGINNINGS[mark].match(content[place : place + 32]):
                return place
            place += 1
    return None
