"""Time, holes, depth and padding of files that FFmpeg's libraries read."""

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from bsmamba2.audio.irregularities import Hole, Irregularities, describe_holes
from bsmamba2.audio.reading import audio_info, read_audio, read_blocks
from bsmamba2.errors import InputError
from tests.audio.test_kinds import alignment

RATE = 44100


def sound(seconds: float, rate: int = RATE) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(2, 1, round(seconds * rate) + 31, generator=generator)
    return 0.2 * torch.nn.functional.conv1d(noise, torch.hann_window(32)[None, None] / 16)[:, 0]


def encode(
    path: Path, audio: Tensor, container: str, codec: str, rate: int = RATE,
    shift: Callable[[float], float] | None = None, film: bool = False, options: dict[str, str] | None = None,
    sample_format: str = "fltp",
) -> None:  # fmt: skip
    """Writes audio, with a picture if it is a film; `shift` moves a packet at a time in seconds by so many seconds."""
    packets = []
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        if film:
            video: Any = output.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        stream: Any = output.add_stream(codec, rate=rate, layout="stereo")
        stream.codec_context.format = sample_format
        if codec not in ("flac", "alac"):
            stream.bit_rate = 192_000
        for number in range(60 if film else 0):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * number, np.uint8), format="rgb24")
            picture.pts = number
            packets += video.encode(picture)
        packets += video.encode(None) if film else []
        # 24 bits are the upper ones of 32.
        wide = sample_format.startswith("s32")
        samples = (audio.double() * 2**23).round().int().mul(256).numpy() if wide else audio.numpy()
        frame = av.AudioFrame.from_ndarray(samples, format="s32p" if wide else "fltp", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        sounds = [*stream.encode(frame), *stream.encode(None)]
        for packet in sounds:
            moved = 0.0 if shift is None else shift(float(packet.pts * packet.time_base))
            packet.pts += round(moved / packet.time_base)
            packet.dts = packet.pts
        packets += sounds
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            output.mux(packet)


def found_in(path: Path) -> tuple[Tensor, Irregularities]:
    found = Irregularities()
    return torch.cat(list(read_blocks(path, found=found)), dim=-1), found


FILMS = {
    "mkv": ("matroska", "aac", RATE), "webm": ("matroska", "libopus", 48000), "mp4": ("mp4", "aac", RATE),
    "mov": ("mov", "alac", RATE), "ts": ("mpegts", "mp2", RATE),
}  # fmt: skip


@pytest.mark.parametrize("late", [0.0, 2.0])
@pytest.mark.parametrize("name", FILMS)
def test_stems_of_a_film_begin_with_the_film(tmp_path: Path, name: str, late: float) -> None:
    container, codec, rate = FILMS[name]
    path, audio = tmp_path / f"film.{name}", sound(3, rate)
    sample_format = {"aac": "fltp", "libopus": "flt", "alac": "s32p", "mp2": "fltp"}[codec]
    if codec == "mp2":
        codec = "libtwolame" if "libtwolame" in av.codecs_available else "aac"
    encode(path, audio, container, codec, rate, lambda time: late, film=True, sample_format=sample_format)
    result, found = found_in(path)
    place, alike = alignment(audio, result)
    assert alike > 0.95
    # Containers of milliseconds are up to one late or early; a transport stream does not state the encoder's delay.
    delay = 1024 if name == "ts" else 0
    assert abs(place - delay - round(late * rate)) <= (1100 if name in ("ts", "mp4") else rate / 500)
    assert found.holes == []
    assert abs(audio_info(path).length - result.shape[-1]) <= 2048
    assert torch.equal(read_audio(path, rate), result[:, rate:])
    if late:
        assert result[:, : round(1.9 * late / 2 * rate)].abs().max() < 1e-6


@pytest.mark.parametrize("film", [False, True])
@pytest.mark.parametrize("container", ["matroska", "mp4"])
def test_a_pause_is_kept_in_a_film_and_left_out_of_a_song(tmp_path: Path, container: str, film: bool) -> None:
    path, audio = tmp_path / "song", sound(3)
    encode(path, audio, container, "aac", shift=lambda time: 0.7 * (time >= 1.5), film=film)
    result, found = found_in(path)
    half = 66_150
    place, alike = alignment(audio[:, half + 4096 :], result[:, half + 4096 :])
    assert alike > 0.95
    assert abs(place - (0.7 * RATE if film else 0)) <= 50
    assert found.holes == []
    assert bool(found.notes) is not film
    if film:
        assert result[:, round(1.6 * RATE) : round(2.1 * RATE)].abs().max() < 1e-6


def test_sound_alone_that_begins_late_begins_at_once(tmp_path: Path) -> None:
    path, audio = tmp_path / "song.mka", sound(2)
    encode(path, audio, "matroska", "aac", shift=lambda time: 3.0)
    result, found = found_in(path)
    assert alignment(audio, result)[0] == 0
    assert found == Irregularities()


@pytest.mark.parametrize(
    ("container", "codec", "sample_format"),
    [("matroska", "flac", "s32"), ("mov", "alac", "s32p"), ("ogg", "flac", "s32"), ("matroska", "alac", "s32p")],
)
def test_24_bits_in_frames_of_32(tmp_path: Path, container: str, codec: str, sample_format: str) -> None:
    path, audio = tmp_path / "song", (sound(1).double() * 2**23).round().float() / 2**23
    encode(path, audio, container, codec, sample_format=sample_format)
    assert audio_info(path).depth == "24"
    assert torch.equal(read_audio(path), audio)


def with_edits(content: bytes, edits: list[tuple[int, int]]) -> bytes:
    """Returns an MP4 file, whose boxes of metadata are behind the samples, with other edits (duration, start)."""
    file = bytearray(content)

    def find(names: list[bytes], start: int, end: int) -> tuple[int, int]:
        while start < end:
            size = int.from_bytes(file[start : start + 4], "big")
            if file[start + 4 : start + 8] == names[0]:
                return (start, size) if len(names) == 1 else find(names[1:], start + 8, start + size)
            start += size
        raise AssertionError(names)

    path = [b"moov", b"trak", b"edts", b"elst"]
    place, size = find(path, 0, len(file))
    table = b"".join(struct.pack(">IiI", duration, start, 0x10000) for duration, start in edits)
    box = struct.pack(">I4sII", 16 + len(table), b"elst", 0, len(edits)) + table
    for depth in (1, 2, 3):
        start, whole = find(path[:depth], 0, len(file))
        file[start : start + 4] = struct.pack(">I", whole + len(box) - size)
    file[place : place + size] = box
    return bytes(file)


EDITS = {
    "one": [(132_300, 0)], "an empty one": [(88_200, -1), (132_300, 0)],
    "two": [(44_100, 0), (66_150, 66_150)], "two that are no packets": [(44_101, 0), (44_100, 44_101)],
}  # fmt: skip


@pytest.mark.parametrize("edits", EDITS)
def test_parts_of_an_mp4_file_with_edits(tmp_path: Path, edits: str) -> None:
    path = tmp_path / "song.m4a"
    encode(path, sound(3), "mp4", "alac", options={"movie_timescale": "44100"}, sample_format="s32p")
    path.write_bytes(with_edits(path.read_bytes(), EDITS[edits]))
    whole = read_audio(path)
    assert whole.shape[-1] > 80_000
    for start, length in ((30_000, 20_000), (60_000, 5000), (whole.shape[-1] - 3000, 3000)):
        assert torch.equal(read_audio(path, start, length), whole[:, start : start + length])
        assert torch.equal(read_audio(path, start), whole[:, start:])


def test_a_hole_is_an_error_unless_it_is_asked_for(tmp_path: Path) -> None:
    path, audio = tmp_path / "song.m4a", sound(3)
    encode(path, audio, "ipod", "aac")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged: 0\.\d+ s at 1\.\d+ s cannot be decoded; get a copy"):
        read_audio(path)
    result, found = found_in(path)
    [hole] = found.holes
    assert result[:, hole.start : hole.start + hole.length].eq(0).all()
    # What is behind keeps its time.
    behind = hole.start + hole.length + 2048
    assert alignment(audio[:, behind:], result[:, behind:])[0] == 0
    before = read_audio(path, 0, hole.start)
    assert torch.equal(before, result[:, : hole.start])
    with pytest.raises(InputError, match="is damaged"):
        read_audio(path, hole.start + 10, 5)


def test_holes_in_words() -> None:
    holes = [Hole(RATE * second, 441) for second in range(5)]
    assert describe_holes(holes[:1], RATE) == "0.01 s at 0.00 s cannot be decoded"
    assert describe_holes(holes, RATE).endswith("0.01 s at 2.00 s and 2 more cannot be decoded")
