import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from bsmamba2.audio.irregularities import Irregularities
from bsmamba2.audio.mpeg import MpegFrame, has_all_mp3_bytes, lost_aac_frames, mp3_length, mpeg_frame
from bsmamba2.audio.reading import read_audio, read_blocks

RATE = 44100
LENGTH = 60_000


def encoded(
    path: Path,
    codec: str,
    container: str,
    options: dict[str, str] | None = None,
    length: int = LENGTH,
    rate: int = RATE,
) -> bytes:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (2, length)).astype(np.float32)
    with av.open(str(path), "w", format=container, options={"id3v2_version": "0", **(options or {})}) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout="stereo")
        stream.codec_context.format = "fltp"
        stream.bit_rate = 128_000 if rate == RATE else 64_000
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="stereo")
        frame.sample_rate = rate
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path.read_bytes()


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Returns an MP3 file with a header that counts frames and bytes."""
    return encoded(tmp_path_factory.mktemp("mp3") / "song.mp3", "libmp3lame", "mp3")


def length(tmp_path: Path, content: bytes) -> int | None:
    (tmp_path / "a.mp3").write_bytes(content)
    with (tmp_path / "a.mp3").open("rb") as file:
        return mp3_length(file)


def flags_of(song: bytes) -> int:
    """Returns the position of the flags of its Xing or Info header."""
    place = max(song.find(b"Xing"), song.find(b"Info"))
    assert place == 36
    return place + 4


@pytest.mark.parametrize(
    ("header", "frame"),
    [
        ("fffb9064", MpegFrame(417, 1152, (3, 3, 0), 2)),
        ("fffb92c4", MpegFrame(418, 1152, (3, 3, 0), 1)),
        ("fff394c4", MpegFrame(240, 576, (2, 3, 1), 1)),
        ("ffe340c4", MpegFrame(208, 576, (0, 3, 0), 1)),
        ("fffdc004", MpegFrame(835, 1152, (3, 2, 0), 2)),
        ("fffbf064", None), ("fffb0064", None), ("fffb9c64", None), ("ffeb9064", None), ("fff99064", None),
        ("00fb9064", None), ("fffb90", None),
    ],
)  # fmt: skip
def test_headers_of_frames(header: str, frame: MpegFrame | None) -> None:
    assert mpeg_frame(bytes.fromhex(header)) == frame


def test_the_length_that_is_stated(tmp_path: Path, song: bytes) -> None:
    assert length(tmp_path, song) == LENGTH
    tag = b"ID3\4\0\0\0\0\1\0" + b"Xing" + bytes(124)
    assert length(tmp_path, tag + song) == LENGTH
    assert length(tmp_path, tag + tag + song) == LENGTH


def test_a_count_whose_flag_is_off_or_that_is_zero(tmp_path: Path, song: bytes) -> None:
    place = flags_of(song)
    off = song[:place] + struct.pack(">I", 0xE) + song[place + 4 :]
    zero = song[: place + 4] + bytes(4) + song[place + 8 :]
    assert length(tmp_path, off) is length(tmp_path, zero) is None


@pytest.mark.parametrize("mark", [b"Xing", b"Info", b"VBRI"])
def test_a_mark_at_another_place_states_nothing(tmp_path: Path, mark: bytes) -> None:
    """In the samples, and in a second tag."""
    song = encoded(tmp_path / "song.mp3", "libmp3lame", "mp3", {"write_xing": "0"})
    fields = mark + bytes.fromhex("0000000f 00000005 00001000")
    assert length(tmp_path, song) is None
    assert length(tmp_path, song[:200] + fields + song[200 + len(fields) :]) is None
    assert length(tmp_path, b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + b"ID3\4\0\0\0\0\0\x10" + fields + song) is None


def test_frames_behind_the_counted_ones(tmp_path: Path, song: bytes) -> None:
    """Songs that were joined have a header for the first alone."""
    short = encoded(tmp_path / "short.mp3", "libmp3lame", "mp3", length=5000)
    assert length(tmp_path, song + short) is None
    assert length(tmp_path, song + b"TAG" + bytes(125) + short) is None
    place = flags_of(song)
    # Without a number of bytes the frames are counted.
    uncounted = song[:place] + struct.pack(">I", 1) + song[place + 4 :]
    assert length(tmp_path, uncounted) is not None
    assert length(tmp_path, uncounted + short) is None


@pytest.mark.parametrize("behind", [bytes(20_000), b"TAG" + bytes(125), b"APETAGEX" + bytes(range(256)) * 200])
def test_tags_behind_the_frames(tmp_path: Path, song: bytes, behind: bytes) -> None:
    assert length(tmp_path, song + behind) == LENGTH


def test_a_count_that_is_not_that_of_the_frames(tmp_path: Path, song: bytes) -> None:
    """All bytes that the header states are there, so that it is the number of frames that is wrong."""
    place = song.index(b"Info") + 8
    count = int.from_bytes(song[place : place + 4], "big")
    for wrong in (count // 2, count - 1, count + 1, 2 * count):
        assert length(tmp_path, song[:place] + struct.pack(">I", wrong) + song[place + 4 :]) is None


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_nothing_is_lost_where_the_count_is_too_small(tmp_path: Path, rate: int) -> None:
    """At 16 kHz frames are shorter than the delay of the encoder, which is skipped."""
    song = encoded(tmp_path / "a.mp3", "libmp3lame", "mp3", rate=rate)
    whole = read_audio(tmp_path / "a.mp3")
    place = song.index(b"Info") + 8
    count = int.from_bytes(song[place : place + 4], "big")
    (tmp_path / "a.mp3").write_bytes(song[:place] + struct.pack(">I", count // 2) + song[place + 4 :])
    read = read_audio(tmp_path / "a.mp3")
    assert torch.equal(read[:, : whole.shape[1]], whole)
    # The padding behind its end is not known.
    assert 0 <= read.shape[1] - whole.shape[1] < 1152


@pytest.mark.parametrize(("begin", "size"), [(5000, 3000), (7001, 500), (6500, 6000)])
def test_bytes_that_are_overwritten_are_a_hole_of_whole_frames(tmp_path: Path, begin: int, size: int) -> None:
    content = bytearray(encoded(tmp_path / "a.mp3", "libmp3lame", "mp3", {"write_xing": "0"}))
    path = tmp_path / "a.mp3"
    before = read_audio(path).shape[1]
    for over in (bytes(size), np.random.default_rng(size).bytes(size)):
        content[begin : begin + size] = over
        path.write_bytes(content)
        found = Irregularities()
        after = sum(block.shape[1] for block in read_blocks(path, found=found))
        assert after == before
        assert sum(hole.length for hole in found.holes) >= size // 418 * 1152


def test_the_bytes_that_are_stated(tmp_path: Path, song: bytes) -> None:
    path = tmp_path / "a.mp3"
    for content, whole in ((song, True), (song + bytes(9), True), (song[:-1], False), (song[:3000], False)):
        path.write_bytes(content)
        with path.open("rb") as file:
            assert has_all_mp3_bytes(file) is whole


@pytest.mark.parametrize("content", [b"", b"no frame " * 1000, b"\xff\xfb\x90\x64"])
def test_bytes_without_frames(tmp_path: Path, content: bytes) -> None:
    assert length(tmp_path, content) is None


def test_frames_that_an_aac_stream_lacks(tmp_path: Path) -> None:
    path = tmp_path / "song.aac"
    content = encoded(path, "aac", "adts")
    sizes, place = [], 0
    while place < len(content):
        sizes.append((content[place + 3] & 3) << 11 | content[place + 4] << 3 | content[place + 5] >> 5)
        place += sizes[-1]
    starts = np.cumsum([0, *sizes]).tolist()

    def lost(changed: bytes) -> dict[int, int]:
        path.write_bytes(changed)
        with path.open("rb") as file:
            return lost_aac_frames(file)

    assert lost(content) == lost(content + bytes(5000)) == {}
    gap = content[: starts[20]] + bytes(starts[25] - starts[20]) + content[starts[25] :]
    assert lost(gap) == {20: 5}
    assert lost(content[: starts[20]] + b"ID3\4\0\0\0\0\1\0" + bytes(128) + content[starts[20] :]) == {}
