import contextlib
import os
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsmamba2.audio import BLOCK
from bsmamba2.audio.formats import Depth
from bsmamba2.audio.reading import AudioInfo, audio_info, read_audio, read_blocks
from bsmamba2.audio.writing import quantise, write_audio
from bsmamba2.data.musdb import STREAMS
from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError

RATE = 44100
LENGTH = 100_001
FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs an ffmpeg program")
# Encoded by libsndfile: container, sample format, depth. All of them are lossless.
SOUNDS: dict[str, tuple[str, str, Depth]] = {
    "8.wav": ("WAV", "PCM_U8", "8"), "16.wav": ("WAV", "PCM_16", "16"), "24.wav": ("WAV", "PCM_24", "24"),
    "32.wav": ("WAV", "PCM_32", "32"), "float.wav": ("WAV", "FLOAT", "float"),
    "double.wav": ("WAV", "DOUBLE", "double"),
    "wavex.wav": ("WAVEX", "PCM_24", "24"), "rf64.wav": ("RF64", "PCM_16", "16"), "w64": ("W64", "PCM_24", "24"),
    "8.aiff": ("AIFF", "PCM_S8", "8"), "16.aiff": ("AIFF", "PCM_16", "16"), "float.aiff": ("AIFF", "FLOAT", "float"),
    "16.flac": ("FLAC", "PCM_16", "16"), "24.flac": ("FLAC", "PCM_24", "24"), "au": ("AU", "PCM_16", "16"),
    "float.au": ("AU", "FLOAT", "float"), "caf": ("CAF", "PCM_16", "16"),
}  # fmt: skip
# Encoded by FFmpeg, lossless: codec, its sample format, container, depth.
LOSSLESS: dict[str, tuple[str, str, str, Depth]] = {
    "16.m4a": ("alac", "s16p", "ipod", "16"), "24.m4a": ("alac", "s32p", "ipod", "24"),
    "wv": ("wavpack", "s16p", "wv", "16"), "flac.ogg": ("flac", "s16", "ogg", "16"),
    "flac.mp4": ("flac", "s16", "mp4", "16"), "flac.mkv": ("flac", "s16", "matroska", "16"),
    "pcm.mkv": ("pcm_s16le", "s16", "matroska", "16"),
}  # fmt: skip
# Lossy: codec, container, options of the container; the delay that the file does not state; the length in samples.
LOSSY: dict[str, tuple[str, str, dict[str, str], int, int]] = {
    "xing.mp3": ("libmp3lame", "mp3", {}, 0, LENGTH),
    # The last samples are padding that the file does not state.
    "no-xing.mp3": ("libmp3lame", "mp3", {"write_xing": "0"}, 1105, 101_376),
    "m4a": ("aac", "ipod", {}, 0, 100_352),
    "fast.m4a": ("aac", "ipod", {"movflags": "+faststart"}, 0, 100_352),
    "mp4": ("aac", "mp4", {}, 0, 100_352),
    "aac.mkv": ("aac", "matroska", {}, 0, 100_352),
    "opus": ("libopus", "ogg", {}, 0, LENGTH),
    "webm": ("libopus", "webm", {}, 0, LENGTH),
    "opus.mkv": ("libopus", "matroska", {}, 0, LENGTH),
    "adts.aac": ("aac", "adts", {}, 1024, 101_376),
}
# Files whose clock is not their sampling rate state their length to within this many samples.
CLOCK = {"m4a": 1024, "fast.m4a": 1024, "mp4": 1024, "aac.mkv": 1024, "webm": 480, "opus.mkv": 480}
CLOCK |= {"flac.mkv": 50, "pcm.mkv": 50}
VORBIS = "ogg"
ALL = [*SOUNDS, *LOSSLESS, *LOSSY, VORBIS]


def noise(channels: int, length: int) -> Tensor:
    return torch.rand(channels, length, generator=torch.Generator().manual_seed(0)) * 2 - 1


def music(channels: int, length: int) -> Tensor:
    """Returns noise with weak high frequencies, which lossy encoders expect."""
    window = torch.hann_window(64)[None, None] / 32
    audio = torch.randn(channels, 1, length + 63, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.conv1d(audio, window)[:, 0].clamp(-0.9, 0.9)


def lag(audio: Tensor, reference: Tensor) -> int:
    """Returns the delay of the first channel in samples."""
    size = 2 * max(audio.shape[-1], reference.shape[-1])
    spectrum = torch.fft.rfft(audio[0], size) * torch.fft.rfft(reference[0], size).conj()
    peak = int(torch.fft.irfft(spectrum, size).argmax())
    return peak if peak < size // 2 else peak - size


def encode(
    path: Path, audio: Tensor, codec: str, sample_format: str, container: str, options: dict[str, str] | None = None
) -> None:
    """Writes audio with FFmpeg's libraries; integers are given as they are stored."""
    rate = 48000 if codec == "libopus" else RATE
    layout = "stereo" if audio.shape[0] == 2 else "mono"
    given = {torch.int16: "s16p", torch.int32: "s32p", torch.float32: "fltp"}[audio.dtype]
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout=layout)
        stream.codec_context.format = sample_format
        if codec == "aac":
            stream.bit_rate = 256_000
            stream.codec_context.options = {"aac_pns": "0"}
        frame = av.AudioFrame.from_ndarray(audio.numpy(), format=given, layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def integers(audio: Tensor, bits: int) -> Tensor:
    """Returns the integers a codec of so many bits takes: 24 bits are the upper ones of 32."""
    scaled = (audio.double() * 2 ** (bits - 1)).round()
    return scaled.to(torch.int16) if bits == 16 else (scaled * 2**8).to(torch.int32)


@pytest.fixture(scope="module")
def audio() -> Tensor:
    return music(2, LENGTH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, audio: Tensor) -> Path:
    """Returns a folder with a file of each format, all of the same audio."""
    folder = tmp_path_factory.mktemp("formats")
    for name, (container, subtype, depth) in SOUNDS.items():
        samples = quantise(audio.double(), depth).mT.numpy()
        soundfile.write(folder / f"song.{name}", samples, RATE, subtype, format=container)
    for name, (codec, sample_format, container, depth) in LOSSLESS.items():
        encode(folder / f"song.{name}", integers(audio, int(depth)), codec, sample_format, container)
    for name, (codec, container, options, _, _) in LOSSY.items():
        sample_format = {"libmp3lame": "fltp", "libopus": "flt", "aac": "fltp"}[codec]
        encode(folder / f"song.{name}", audio, codec, sample_format, container, options)
    write_audio(folder / f"song.{VORBIS}", audio, RATE, "ogg", None)
    return folder


def fails(path: Path, message: str, stream: int | None = None) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_audio(path, stream=stream)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", [*SOUNDS, *LOSSLESS])
def test_lossless_formats_are_read_exactly(folder: Path, audio: Tensor, name: str) -> None:
    depth = SOUNDS[name][2] if name in SOUNDS else LOSSLESS[name][3]
    path = folder / f"song.{name}"
    info, result = audio_info(path), read_audio(path)
    assert (info.sample_rate, info.channels, info.depth) == (RATE, 2, depth)
    assert abs(info.length - LENGTH) <= CLOCK.get(name, 0)
    assert result.dtype == torch.float32
    assert torch.equal(result, quantise(audio.double(), depth).float())


@pytest.mark.parametrize("name", [*LOSSY, VORBIS])
def test_lossy_formats_are_aligned_with_their_source(folder: Path, audio: Tensor, name: str) -> None:
    codec, _, _, late, length = LOSSY.get(name, ("vorbis", "", {}, 0, LENGTH))
    path = folder / f"song.{name}"
    info, result = audio_info(path), read_audio(path)
    assert (info.sample_rate, info.channels, info.depth) == (48000 if codec == "libopus" else RATE, 2, None)
    assert abs(info.length - length) <= CLOCK.get(name, 0)
    assert result.shape == (2, length)
    assert lag(result, audio) == late
    end = min(LENGTH, length - late)
    error = result[:, late : late + end] - audio[:, :end]
    assert error.square().sum() < 0.02 * audio.square().sum()


@pytest.mark.parametrize("name", ["xing.mp3", VORBIS])
def test_a_different_decoder_reads_the_same(folder: Path, name: str) -> None:
    expected, _ = soundfile.read(folder / f"song.{name}", dtype="float32")
    np.testing.assert_allclose(read_audio(folder / f"song.{name}").mT, expected, rtol=0, atol=1e-5)


def decoded_by_ffmpeg(path: Path, channels: int) -> Tensor:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:a:0", "-f", "f32le", "-"]
    output = subprocess.run(command, capture_output=True, check=True).stdout
    return torch.from_numpy(np.frombuffer(output, "<f4").reshape(-1, channels).T.copy())


@FFMPEG
# Old versions of the program do not skip the delay of AAC in Matroska.
@pytest.mark.parametrize("name", [name for name in (*LOSSY, VORBIS) if name != "aac.mkv"])
def test_the_ffmpeg_program_reads_the_same(folder: Path, name: str) -> None:
    result, expected = read_audio(folder / f"song.{name}"), decoded_by_ffmpeg(folder / f"song.{name}", 2)
    # Versions differ in how much padding they keep at the end.
    assert abs(result.shape[-1] - expected.shape[-1]) <= 1024
    end = min(result.shape[-1], expected.shape[-1])
    torch.testing.assert_close(result[:, :end], expected[:, :end], rtol=0, atol=1e-4)


@pytest.mark.parametrize("quality", ["variable", "constant"])
def test_mp3_files_without_a_frame_count_are_read_to_the_end(tmp_path: Path, audio: Tensor, quality: str) -> None:
    """With loud and quiet parts the bit rate varies, and a length estimated from it is wrong."""
    song = torch.cat([audio, 0 * audio, audio, 1e-4 * audio], dim=-1)
    with av.open(str(tmp_path / "song.mp3"), "w", options={"write_xing": "0"}) as output:
        stream: Any = output.add_stream("libmp3lame", rate=RATE, layout="stereo")
        stream.codec_context.format = "fltp"
        if quality == "constant":
            stream.bit_rate = 128_000
        else:
            stream.codec_context.flags |= av.codec.context.Flags.qscale
            stream.codec_context.global_quality = 2 * 118
        frame = av.AudioFrame.from_ndarray(song.numpy(), format="fltp", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert b"Xing" not in (tmp_path / "song.mp3").read_bytes()
    result = read_audio(tmp_path / "song.mp3")
    assert audio_info(tmp_path / "song.mp3").length == result.shape[-1]
    assert song.shape[-1] + 1105 <= result.shape[-1] < song.shape[-1] + 1105 + 2 * 1152
    assert lag(result, song) == 1105


MP3_FILES = [
    "mdn-multitrack-cc0/horns.mp3", "mixtures/spleeter_audio_example.mp3", "singing/csd_en001b.mp3",
]  # fmt: skip


@pytest.mark.parametrize("name", MP3_FILES)
def test_real_mp3_files(test_data: Path, name: str) -> None:
    path = test_data / "data" / name
    expected, rate = soundfile.read(path, dtype="float32", always_2d=True)
    result = read_audio(path)
    assert audio_info(path) == AudioInfo(len(expected), rate, 2, None)
    torch.testing.assert_close(result.mT, torch.from_numpy(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "length"),
    [("bassguitar", 3_541_248), ("clav", 3_671_424), ("drums", 3_671_424), ("leadguitar", 3_671_424)],
)
def test_lengths_of_real_mp3_files(test_data: Path, name: str, length: int) -> None:
    """They do not state their length; these are the numbers of samples that the FFmpeg program decodes."""
    assert audio_info(test_data / "data" / "mdn-multitrack-cc0" / f"{name}.mp3").length == length


@pytest.mark.parametrize("name", ["singing/vocadito_1.wav", "everything-is-free-cc0/*Lithium/bass.flac"])
def test_real_files_of_samples(test_data: Path, name: str) -> None:
    [path] = (test_data / "data").glob(name)
    expected, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert audio_info(path) == AudioInfo(len(expected), rate, expected.shape[1], "16")
    assert torch.equal(read_audio(path).mT, torch.from_numpy(expected))


@FFMPEG
def test_a_real_alac_stem_file(test_data: Path) -> None:
    [path] = (test_data / "data").rglob("*ALAC*.stem.m4a")
    assert audio_info(path) == AudioInfo(265_216, RATE, 2, "16")
    assert torch.equal(read_audio(path), decoded_by_ffmpeg(path, 2))


def test_a_stem_file_without_a_stream_number_is_its_mixture(song: Track) -> None:
    assert torch.equal(read_audio(song.path, 0, RATE), read_audio(song.path, 0, RATE, stream=0))
    assert not torch.equal(read_audio(song.path, 0, RATE), read_audio(song.path, 0, RATE, stream=1))


@pytest.mark.parametrize("name", ["mp4", "mkv"])
def test_the_sound_of_a_video(tmp_path: Path, audio: Tensor, name: str) -> None:
    path = tmp_path / f"film.{name}"
    film(path, audio)
    assert lag(read_audio(path), audio) == 0


def film(path: Path, audio: Tensor | None) -> None:
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("mpeg4", rate=25)
        video.width = video.height = 64
        sound: Any = None if audio is None else output.add_stream("aac", rate=RATE, layout="stereo")
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
        for number in range(10):
            picture.pts = number
            output.mux(video.encode(picture))
        output.mux(video.encode(None))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(audio.numpy(), format="fltp", layout="stereo")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
            output.mux(sound.encode(frame))
            output.mux(sound.encode(None))


def test_a_video_without_sound(tmp_path: Path) -> None:
    film(tmp_path / "film.mp4", None)
    fails(tmp_path / "film.mp4", "has no audio in it; give a file with an audio track")


def test_wav_from_a_pipe(tmp_path: Path, folder: Path) -> None:
    """Its writer could not go back to fill in the sizes."""
    content = bytearray((folder / "song.16.wav").read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    (tmp_path / "pipe.wav").write_bytes(content)
    assert audio_info(tmp_path / "pipe.wav") == AudioInfo(LENGTH, RATE, 2, "16")
    assert torch.equal(read_audio(tmp_path / "pipe.wav"), read_audio(folder / "song.16.wav"))


@pytest.mark.parametrize("name", ["16.flac", "24.flac"])
def test_flac_without_a_length(tmp_path: Path, folder: Path, name: str) -> None:
    """The number of samples is the last 36 bits before the checksum; 0 is unknown."""
    content = bytearray((folder / f"song.{name}").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "pipe.flac").write_bytes(content)
    assert audio_info(tmp_path / "pipe.flac") == audio_info(folder / f"song.{name}")
    assert torch.equal(read_audio(tmp_path / "pipe.flac"), read_audio(folder / f"song.{name}"))


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=8)
@given(start=st.integers(0, LENGTH - 500), length=st.integers(1, LENGTH) | st.none())
def test_a_part_of_a_file_is_a_slice_of_it(folder: Path, name: str, start: int, length: int | None) -> None:
    path = folder / f"song.{name}"
    whole = wholes.setdefault(path, read_audio(path) if path not in wholes else torch.empty(0))
    start = min(start, whole.shape[-1] - 1)
    length = None if length is None else min(length, whole.shape[-1] - start)
    expected = whole[:, start : None if length is None else start + length]
    blocks = list(read_blocks(path, start, length))
    assert torch.equal(torch.cat(blocks, dim=-1), expected)
    assert torch.equal(read_audio(path, start, length), expected)


wholes: dict[Path, Tensor] = {}


@pytest.mark.parametrize("name", ALL)
def test_reading_past_the_end(folder: Path, name: str) -> None:
    path = folder / f"song.{name}"
    end = read_audio(path).shape[-1]
    for start, length in ((0, end + 1), (end, 1), (end - 50, 51), (10**9, 1)):
        with pytest.raises(InputError, match=f"ends before its sample {start + length};"):
            read_audio(path, start, length)


@pytest.fixture(scope="module")
def vocals(song: Track) -> Tensor:
    """Returns the whole vocals of the stem file."""
    return song.read("vocals")


@pytest.mark.parametrize("start", [0, 1, 1024, 4096, 4097, 5000, 44100, 123457, -5000, -1025, -1000, -1])
@pytest.mark.parametrize("length", [1, 1000, 20000, None])
def test_a_part_of_a_stem_stream_is_a_slice_of_it(song: Track, vocals: Tensor, start: int, length: int | None) -> None:
    """A start below zero counts from the end."""
    start %= vocals.shape[-1]
    if length and start + length > vocals.shape[-1]:
        length = None
    expected = vocals[:, start : None if length is None else start + length]
    assert torch.equal(song.read("vocals", start, length), expected)


def test_parts_of_a_stem_file_with_an_edit_list(test_data: Path) -> None:
    """The previews of MUSDB18 state how many of their first and last samples are padding, which shifts positions."""
    path = test_data / "data" / "musdb18-7-cc" / "train" / "Music Delta - 80s Rock.stem.mp4"
    whole = read_audio(path, stream=4)
    for start in (1, 5000, 123457, 290000):
        assert torch.equal(read_audio(path, start, 1000, stream=4), whole[:, start : start + 1000])


def test_streams_of_a_stem_file(song: Track) -> None:
    """The stems sum to the mixture, except for its mastering."""
    stems = {name: song.read(name, 0, 2 * RATE) for name in STREAMS}
    mixture = stems.pop("mixture")
    rest = mixture - torch.stack(list(stems.values())).sum(0)
    assert rest.square().mean() < 0.02 * mixture.square().mean()
    info = audio_info(song.path, STREAMS["vocals"])
    assert (info.sample_rate, info.channels, info.depth) == (RATE, 2, None)
    assert info.length == song.read("vocals").shape[-1]


def test_a_missing_stream_is_an_error(song: Track) -> None:
    fails(song.path, "has 5 audio streams; a MUSDB18 stem file has 5", stream=5)


def test_reading_past_the_end_of_a_stream(song: Track, vocals: Tensor) -> None:
    end = vocals.shape[-1]
    for start, length in ((end - 10, 11), (end + 5000, 1)):
        with pytest.raises(InputError, match=f"ends before its sample {start + length};"):
            song.read("vocals", start, length)


@pytest.mark.parametrize("name", ["ogg", "mka", "7.1.wav"])
def test_eight_channels(tmp_path: Path, name: str) -> None:
    """PyAV's own conversion reads out of bounds from eight planes on."""
    path, audio = tmp_path / f"song.{name}", music(8, 20_000)
    if name == "mka":
        with av.open(str(path), "w", format="matroska") as output:
            stream: Any = output.add_stream("libopus", rate=48000, layout="7.1")
            packed = audio.mT.reshape(1, -1).contiguous().numpy()
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout="7.1")
            frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), 0
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    else:
        write_audio(path, audio, RATE, "ogg" if name == "ogg" else "wav", None if name == "ogg" else "float")
    result = read_audio(path)
    assert result.shape == audio.shape
    similar = torch.corrcoef(torch.cat([result, audio]))[:8, 8:]
    # Every channel appears once: FFmpeg orders those of Vorbis as in WAV.
    assert sorted(similar.argmax(1).tolist()) == list(range(8)) if name != "mka" else similar[0, 0] > 0.9
    assert similar.max(1).values[[0, 1, 2]].min() > 0.9


# A missing half is noticed in all of these; a missing last byte in the second list.
TRUNCATED = [name for name in ALL if name not in ("no-xing.mp3", "adts.aac", "caf")]
TO_THE_LAST_BYTE = [
    *(name for name in SOUNDS if name != "caf"), "xing.mp3", "ogg", "opus", "flac.ogg", "webm", "aac.mkv",
    "flac.mkv", "opus.mkv", "pcm.mkv",
]  # fmt: skip


@pytest.mark.parametrize("name", TRUNCATED)
def test_truncated_files(tmp_path: Path, folder: Path, name: str) -> None:
    content = (folder / f"song.{name}").read_bytes()
    path = tmp_path / f"short.{name}"
    for share in (0.002, 0.01, 0.3, 0.6, 0.9, 0.97):
        path.write_bytes(content[: int(share * len(content))])
        fails(path, "is truncated|is damaged|ends before|cannot be read|is an empty file|has no audio")


@pytest.mark.parametrize("name", TO_THE_LAST_BYTE)
def test_files_without_their_last_byte(tmp_path: Path, folder: Path, name: str) -> None:
    path = tmp_path / f"short.{name}"
    path.write_bytes((folder / f"song.{name}").read_bytes()[:-1])
    fails(path, "is truncated|is damaged|ends before")


@pytest.mark.parametrize("name", ALL)
def test_any_beginning_of_a_file_is_read_or_refused(tmp_path: Path, folder: Path, name: str) -> None:
    content = (folder / f"song.{name}").read_bytes()
    path = tmp_path / f"short.{name}"
    for size in (1, 3, 4, 11, 12, 20, 44, 60, 100, 200, 400, 700, 1000, 1500, 3000):
        path.write_bytes(content[:size])
        with contextlib.suppress(InputError):
            read_audio(path)


@FFMPEG
@pytest.mark.parametrize(("name", "codec"), [("mkv", "libopus"), ("webm", "libvorbis"), ("mkv", "flac")])
def test_truncated_matroska_files_of_the_ffmpeg_program(tmp_path: Path, folder: Path, name: str, codec: str) -> None:
    path = tmp_path / f"song.{name}"
    command = ["ffmpeg", "-v", "error", "-i", str(folder / "song.16.wav"), "-c:a", codec, str(path)]
    subprocess.run(command, check=True)
    assert read_audio(path).shape[-1] > LENGTH - 100
    content = path.read_bytes()
    for share in (0.01, 0.3, 0.6, 0.9, 0.999):
        path.write_bytes(content[: int(share * len(content))])
        fails(path, "is truncated|is damaged|ends before")


@pytest.mark.parametrize("share", [0.01, 0.6, 0.9999])
def test_a_truncated_stem_file(tmp_path: Path, song: Track, share: float) -> None:
    content = song.path.read_bytes()
    path = tmp_path / "short.stem.mp4"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"short\.stem\.mp4 (is damaged|ends before|is truncated)"):
        read_audio(path, 0, song.length, stream=4)
    fails(path, "is damaged|ends before|is truncated", stream=4)


@pytest.mark.parametrize("place", [0.3, 0.5, 0.8])
def test_an_ogg_file_with_a_gap(tmp_path: Path, folder: Path, place: float) -> None:
    content = (folder / "song.ogg").read_bytes()
    pages = [number for number in range(len(content)) if content.startswith(b"OggS", number)]
    gap = int(place * len(pages))
    (tmp_path / "gap.ogg").write_bytes(content[: pages[gap]] + content[pages[gap + 1] :])
    fails(tmp_path / "gap.ogg", "ends before its sample|is damaged")


@pytest.mark.parametrize("names", [("ogg", "other.ogg"), ("ogg", "ogg"), ("opus", "opus"), ("flac.ogg", "flac.ogg")])
def test_ogg_files_one_after_another_are_read_through(tmp_path: Path, folder: Path, names: tuple[str, str]) -> None:
    """Two beginnings of a stream show it, whether their serial numbers differ or not."""
    write_audio(tmp_path / "song.other.ogg", music(2, 5000), RATE, "ogg", None)
    parts = [folder / f"song.{name}" if name in ALL else tmp_path / f"song.{name}" for name in names]
    path = tmp_path / "both.ogg"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    expected = torch.cat([read_audio(part) for part in parts], dim=-1)
    assert torch.equal(read_audio(path), expected)
    assert audio_info(path).length == expected.shape[-1]
    join = read_audio(parts[0]).shape[-1]
    assert torch.equal(read_audio(path, join - 700, 1500), expected[:, join - 700 : join + 800])
    assert torch.equal(read_audio(path, join + 100), expected[:, join + 100 :])


def test_ogg_files_of_different_rates_one_after_another(tmp_path: Path, folder: Path) -> None:
    write_audio(tmp_path / "other.ogg", music(2, 5000), 48000, "ogg", None)
    content = (folder / "song.ogg").read_bytes() + (tmp_path / "other.ogg").read_bytes()
    (tmp_path / "both.ogg").write_bytes(content)
    fails(tmp_path / "both.ogg", "changes its sampling rate or channels midway; convert it to WAV first")


@pytest.mark.parametrize("stream", [None, 0])
@pytest.mark.parametrize("name", ["song.wav", "song.mp3", "song"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"", "is an empty file"), (b"no audio " * 100, "is damaged or not audio")],
)
def test_files_that_are_not_audio(
    tmp_path: Path, name: str, content: bytes | None, message: str, stream: int | None
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    fails(path, f"{name} {message}", stream)
    with pytest.raises(InputError, match=f"{name} {message}"):
        audio_info(path, stream)


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{}'\n"])
@pytest.mark.parametrize("name", ["song.mp3", "song.m3u8", "song.ffconcat"])
@pytest.mark.parametrize("target", ["other.mp3", "file:{}/other.mp3", "{}/other.mp3"])
def test_a_playlist_does_not_open_other_files(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "song.xing.mp3", tmp_path / "other.mp3")
    (tmp_path / name).write_text(text.format(target.format(tmp_path)))
    fails(tmp_path / name, "is damaged or not audio|has no audio|cannot be read")


@pytest.mark.parametrize("stream", [None, 0])
def test_a_folder_is_not_audio(tmp_path: Path, stream: int | None) -> None:
    fails(tmp_path, "is a folder; give an audio file", stream)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    fails(tmp_path / f"{'long' * 100}.wav", "cannot be read|does not exist")


@pytest.mark.usefixtures("permissions_matter")
def test_a_file_that_may_not_be_read(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "song.wav"
    shutil.copy(folder / "song.16.wav", path)
    path.chmod(0)
    fails(path, "cannot be read .* check the file and its permissions")


@pytest.mark.parametrize("format", ["WAV", "FLAC", "AIFF", "AU", "RF64", "W64"])
def test_a_file_without_samples(tmp_path: Path, format: str) -> None:
    path = tmp_path / "none"
    soundfile.write(path, np.zeros((0, 2)), RATE, "PCM_16", format=format)
    with pytest.raises(InputError, match=r"none (has no samples|ends before|is damaged|is an empty file)"):
        audio_info(path)
    fails(path, "has no samples|ends before|is damaged|is an empty file")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_samples_that_are_not_finite(tmp_path: Path, value: float) -> None:
    audio = torch.zeros(2, 100)
    audio[1, 50] = value
    write_audio(tmp_path / "song.wav", audio, RATE, depth="float")
    fails(tmp_path / "song.wav", "has samples that are not finite")
    assert read_audio(tmp_path / "song.wav", 51).eq(0).all()


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(1000))


def touch(path: Path) -> None:
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))


def replace(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    copy.replace(path)


@pytest.mark.parametrize("change", [append, touch, replace])
@pytest.mark.parametrize("name", ["16.wav", "16.flac", "xing.mp3", "m4a", "ogg", "opus"])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, folder: Path, name: str, change: Callable[[Path], None]
) -> None:
    path = tmp_path / f"song.{name}"
    shutil.copy(folder / f"song.{name}", path)
    blocks = read_blocks(path)
    assert next(blocks).shape[-1] >= BLOCK
    change(path)
    with pytest.raises(InputError, match=r"changed while it was read; try again|is damaged"):
        list(blocks)


def test_a_file_that_vanishes_while_it_is_read(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "song.wav"
    shutil.copy(folder / "song.16.wav", path)
    blocks = read_blocks(path)
    next(blocks)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        list(blocks)


NAMES: Iterable[bytes] = [
    b"a song", b"\"quotes\" 'n", b"two\nlines", "песня 花".encode(), b"concat:a|b", b"http:", b"pipe:0", b"file:x",
    b"%03d", b"-x", b"\xff",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("format", ["16.wav", "16.flac", "xing.mp3", "m4a", "ogg"])
def test_any_name(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, name: bytes, format: str) -> None:
    """In the current folder too, where a name could be mistaken for a URL or an option."""
    monkeypatch.chdir(tmp_path)
    path = Path(f"{os.fsdecode(name)}.{format.rpartition('.')[2]}")
    try:
        shutil.copy(folder / f"song.{format}", path)
    except (OSError, UnicodeError):
        pytest.skip("no such name on this system")
    expected = audio_info(folder / f"song.{format}")
    assert audio_info(path) == audio_info(tmp_path / path) == expected
    assert read_audio(path, 0, 1000).shape == (2, 1000)


@FFMPEG
@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_s32le"])
def test_floats_in_w64_are_not_read_as_integers(tmp_path: Path, codec: str) -> None:
    """FFmpeg writes them with an extensible header, which libsndfile reads as 32-bit integers."""
    write_audio(tmp_path / "a.wav", noise(2, 5000), RATE, depth="float")
    command = ["ffmpeg", "-v", "error", "-i", f"{tmp_path}/a.wav", "-c:a", codec, f"{tmp_path}/a.w64"]
    subprocess.run(command, check=True)
    assert audio_info(tmp_path / "a.w64").depth == ("float" if codec == "pcm_f32le" else "32")
    torch.testing.assert_close(read_audio(tmp_path / "a.w64"), noise(2, 5000), rtol=0, atol=1e-6)


@FFMPEG
def test_integers_of_64_bit(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", noise(2, 5000), RATE, depth="float")
    command = ["ffmpeg", "-v", "error", "-i", f"{tmp_path}/a.wav", "-c:a", "pcm_s64le", f"{tmp_path}/b.wav"]
    subprocess.run(command, check=True)
    assert audio_info(tmp_path / "b.wav").depth == "double"
    torch.testing.assert_close(read_audio(tmp_path / "b.wav"), noise(2, 5000), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "whole"), [(0x7FFFF000, True), (0xFFFFFFFF, True), (0x7FFE0000, False)])
def test_header_sizes_of_files_from_pipes(tmp_path: Path, size: int, whole: bool) -> None:
    path = tmp_path / "a.wav"
    write_audio(path, noise(2, 5000), RATE)
    content = path.read_bytes()
    place = content.index(b"data") + 4
    path.write_bytes(content[:place] + size.to_bytes(4, "little") + content[place + 4 :])
    with contextlib.nullcontext() if whole else pytest.raises(InputError, match="is truncated"):
        assert read_audio(path).shape == (2, 5000)


def test_a_late_start_keeps_no_frames_in_memory(tmp_path: Path) -> None:
    """The frames before it take 11 MB when they are decoded."""
    path = tmp_path / "a.mp3"
    write_audio(path, 0.1 * noise(2, 1_500_000), RATE, "mp3", None)
    tracemalloc.start()
    block = next(iter(read_blocks(path, 1_400_000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert block.shape[-1] >= BLOCK
    assert peak < 5_000_000
