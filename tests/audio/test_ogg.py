import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bsmamba2.audio.ogg import OggPages, ogg_pages

RATE = 44100


@pytest.fixture
def pages(tmp_path: Path) -> list[bytes]:
    """Returns the pages of an Ogg Vorbis file of ten seconds of noise."""
    path = tmp_path / "song.ogg"
    with soundfile.SoundFile(path, "w", RATE, 2, format="OGG", subtype="VORBIS") as file:
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (10 * RATE, 2))
        for start in range(0, len(noise), 2048):
            file.write(noise[start : start + 2048])
    content = path.read_bytes()
    starts = [place for place in range(len(content)) if content.startswith(b"OggS", place)]
    return [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)], strict=True)]


def sealed(page: bytes) -> bytes:
    """Returns a page with the right checksum, computed bit by bit."""
    page, value = page[:22] + bytes(4) + page[26:], 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return page[:22] + struct.pack("<I", value) + page[26:]


def examined(tmp_path: Path, pages: list[bytes], behind: bytes = b"") -> OggPages:
    path = tmp_path / "pages"
    path.write_bytes(b"".join(pages) + behind)
    with path.open("rb") as file:
        return ogg_pages(file)


def test_the_pages_of_a_song(tmp_path: Path, pages: list[bytes]) -> None:
    assert len(pages) > 5
    size = len(b"".join(pages))
    assert examined(tmp_path, pages) == OggPages(((0, size),), whole=True, marked=True, intact=True)
    assert [sealed(page) for page in pages] == pages


def test_two_songs_with_one_serial_number(tmp_path: Path, pages: list[bytes]) -> None:
    size = len(b"".join(pages))
    assert examined(tmp_path, pages + pages).songs == ((0, size), (size, 2 * size))
    assert examined(tmp_path, pages + pages).intact


@pytest.mark.parametrize("behind", [bytes(5000), b"TAG" + b"some text behind the last page" * 4])
def test_what_follows_a_marked_page_is_not_missing(tmp_path: Path, pages: list[bytes], behind: bytes) -> None:
    assert examined(tmp_path, pages, behind).whole


@pytest.mark.parametrize("cut", [1, 3, 30, 2000])
def test_a_page_that_is_cut(tmp_path: Path, pages: list[bytes], cut: int) -> None:
    assert not examined(tmp_path, pages[:-1], pages[-1][:cut]).whole


def test_a_file_without_its_last_page(tmp_path: Path, pages: list[bytes]) -> None:
    """As some recorders end."""
    found = examined(tmp_path, pages[:-1])
    assert found.whole
    assert not found.marked


@pytest.mark.parametrize("place", [0, 6, 40])
def test_a_last_page_with_a_wrong_byte(tmp_path: Path, pages: list[bytes], place: int) -> None:
    wrong = bytearray(pages[-1])
    wrong[place] ^= 0x55
    assert not examined(tmp_path, [*pages[:-1], bytes(wrong)]).whole


def test_a_page_that_is_missing_or_damaged(tmp_path: Path, pages: list[bytes]) -> None:
    assert not examined(tmp_path, pages[:4] + pages[5:]).intact
    wrong = bytearray(pages[4])
    wrong[100] ^= 1
    found = examined(tmp_path, [*pages[:4], bytes(wrong), *pages[5:]])
    assert found.whole
    assert not found.intact


def test_a_recording_of_a_radio(tmp_path: Path, pages: list[bytes]) -> None:
    """The header, then pages from the middle, with the numbers they had."""
    assert examined(tmp_path, pages[:2] + pages[5:]).intact
