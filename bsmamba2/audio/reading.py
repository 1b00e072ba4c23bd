"""Reading audio files: soundfile for formats that libsndfile reads exactly, PyAV for everything else.

Audio is (c, n) float32, full scale at 1.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import av
import mutagen
import numpy as np
import soundfile
import torch
from av.codec.context import Flags2
from av.sidedata.sidedata import Type as SideData
from torch import Tensor

from bsmamba2.audio import BLOCK
from bsmamba2.audio.containers import is_one_ogg_stream
from bsmamba2.audio.formats import DEPTHS, Depth
from bsmamba2.audio.kinds import file_kind
from bsmamba2.audio.sample_files import TRUNCATED, open_samples
from bsmamba2.errors import InputError

# How much shorter a stream may be than its container states, because containers round to their own clock.
CLOCK_SECONDS = 0.1
# Sample formats of the frames of a lossless codec.
FRAME_DEPTHS: dict[str, Depth] = {"u8": "8", "s16": "16", "s32": "32", "flt": "float", "dbl": "double", "s64": "double"}


@dataclass(frozen=True)
class AudioInfo:
    """Format and length of an audio file.

    Args:
        length: Samples per channel. It is approximate if a container rounds its length to its own clock (Matroska) or a
            lossy file does not state the padding of its last frame; reading to the end then gives a few more or less.
        sample_rate: Sampling rate in Hz.
        channels: Number of channels.
        depth: Sample format; None for lossy audio, which has none.
    """

    length: int
    sample_rate: int
    channels: int
    depth: Depth | None


def audio_info(path: Path, stream: int | None = None) -> AudioInfo:
    """Returns length, rate, channels and sample format of a file, or of one audio stream of a stem file.

    A file that does not state its length is decoded once to count its samples.

    Raises:
        InputError: The file is missing, empty, truncated, not audio, without samples, or lacks the stream.
    """
    with _opened(path, stream) as source:
        length = source.length
        if length is None:
            length = sum(block.shape[-1] for block in source.blocks(0, None))
        info = AudioInfo(length, source.sample_rate, source.channels, source.depth)
    if not info.length:
        raise InputError(f"{path} has no samples; give a file with audio in it")
    return info


def read_audio(path: Path, start: int = 0, length: int | None = None, stream: int | None = None) -> Tensor:
    """Returns audio (c, n) of a file, or of one audio stream of a stem file; see `read_blocks`."""
    return torch.cat(list(read_blocks(path, start, length, stream)), dim=-1)


def read_blocks(path: Path, start: int = 0, length: int | None = None, stream: int | None = None) -> Iterator[Tensor]:
    """Yields audio (c, n) of a file, or of one audio stream of a stem file, block by block.

    The encoder's delay is skipped if the file states it, so that the first sample is the first of the song.

    Args:
        path: The file.
        start: First sample.
        length: Number of samples; None to read to the end.
        stream: Number of the audio stream, by default the first.

    Raises:
        InputError: The file cannot be read, is truncated, changes during reading, or has a sample that is not finite.
    """
    with _opened(path, stream) as source:
        before, count = file_state(path), 0
        for block in source.blocks(start, length):
            if not block.isfinite().all():
                raise InputError(
                    f"{path} has samples that are not finite (NaN or infinity); repair or leave out this file"
                )
            count += block.shape[-1]
            yield block
        if file_state(path) != before:
            raise InputError(f"{path} changed while it was read; try again when nothing writes to it")
        least = length if length is not None else (source.length or 0) - source.slack - start
        if count < max(1, least):
            raise InputError(f"{path} ends before its sample {start + max(1, least)}; it is truncated or empty")


class _Sound:
    """A file open in libsndfile."""

    slack = 0

    def __init__(self, path: Path, sound: soundfile.SoundFile, length: int) -> None:
        self.path, self.sound = path, sound
        self.length: int | None = length
        self._end = length
        self.sample_rate, self.channels = sound.samplerate, sound.channels
        self.depth: Depth | None = DEPTHS[sound.subtype]

    def blocks(self, start: int, length: int | None) -> Iterator[Tensor]:
        """Yields audio (c, n) from sample start on."""
        try:
            start = min(start, self._end)
            self.sound.seek(start)
            left = self._end - start if length is None else min(length, self._end - start)
            while left and (samples := self.sound.read(min(BLOCK, left), dtype="float32", always_2d=True)).size:
                left -= len(samples)
                yield torch.from_numpy(np.ascontiguousarray(samples.T))
        except soundfile.LibsndfileError as error:
            raise InputError(f"{self.path} is damaged and cannot be read to its end ({_reason(error)})") from error


class _Stream:
    """One audio stream of a file open in FFmpeg's libraries."""

    def __init__(self, path: Path, container: av.container.InputContainer, number: int) -> None:
        self.path, self.container = path, container
        self.source = source = container.streams.audio[number]
        # Only part of a file, or an unknown codec.
        if source.codec_context is None or not source.sample_rate or not source.channels:
            raise InputError(
                f"{path} is damaged or not audio that can be read; get the whole file or convert it to WAV"
            )
        self.sample_rate, self.channels = source.sample_rate, source.channels
        self.ticks_are_samples = source.time_base == Fraction(1, source.sample_rate)
        self.start_time = source.start_time or 0
        self.packer: av.AudioResampler | None = None
        name, self.codec = container.format.name, source.codec_context.name
        with path.open("rb") as file:
            self.kind = file_kind(name, self.codec, file, self.sample_rate)
            if not self.kind.whole(file):
                raise InputError(f"{path} {TRUNCATED}")
            if name == "ogg" and len(container.streams) == 1 and not is_one_ogg_stream(file):
                raise InputError(f"{path} has several songs one after another; convert it to WAV first")
            self.depth = _lossless_depth(source, file)
        seconds = None if self.kind.length == "none" else _duration_seconds(source)
        self.length = None if seconds is None else round(seconds * self.sample_rate)
        self.is_ogg_vorbis = (name, self.codec) == ("ogg", "vorbis")
        if self.is_ogg_vorbis:
            # FFmpeg cuts too much off the end if all audio is on one Ogg page, so `blocks` does the cutting.
            source.codec_context.flags2 |= Flags2.skip_manual
        if (name, self.codec) == ("ogg", "opus") and self.length is not None:
            # Its duration includes the encoder's delay (RFC 7845, section 4.2).
            self.length -= int.from_bytes((source.codec_context.extradata or b"")[10:12], "little")
        exact = self.kind.length == "samples" or (self.ticks_are_samples and self.codec != "opus")
        self.slack = 0 if exact else round(CLOCK_SECONDS * self.sample_rate)

    def blocks(self, start: int, length: int | None) -> Iterator[Tensor]:
        """Yields audio (c, n) from sample start on."""
        stops = [start + length] if length is not None else []
        if self.length is not None and self.kind.cut:
            stops.append(self.length)
        stop = min(stops, default=None)
        position = None
        # AAC frames overlap: the first frame decoded after a seek is incomplete, so start a few frames earlier.
        runway = 4 * (self.source.codec_context.frame_size or 1024)
        if self.kind.seeks and self.ticks_are_samples and start > runway:
            self.container.seek(start - runway + self.start_time, stream=self.source)
        else:
            position = 0
        waiting: list[np.ndarray] = []
        ready = 0
        for frame in self.container.decode(self.source):
            if position is None:
                position = (frame.pts or 0) - self.start_time
            if self.is_ogg_vorbis:
                cut = frame.side_data.get(SideData.SKIP_SAMPLES, b"")  # type: ignore[call-overload]
                position -= int.from_bytes(bytes(cut)[:4], "little")
            if stop is not None and position >= stop:
                break
            samples = self._samples(frame)
            piece = samples[:, max(0, start - position) : None if stop is None else stop - position]
            position += samples.shape[1]
            # An empty piece would keep its whole frame in memory.
            if piece.shape[1]:
                waiting.append(piece)
                ready += piece.shape[1]
            if ready >= BLOCK:
                yield _joined(waiting)
                waiting, ready = [], 0
        if waiting:
            yield _joined(waiting)

    def _samples(self, frame: av.AudioFrame) -> np.ndarray:
        if (frame.sample_rate, frame.layout.nb_channels) != (self.sample_rate, self.channels):
            raise InputError(f"{self.path} changes its sampling rate or channels midway; convert it to WAV first")
        wide = frame.format.name in ("s64", "s64p")
        if wide or (frame.format.is_planar and self.channels >= 8):
            # PyAV accepts neither eight planes nor 64-bit integers.
            if self.packer is None:
                name = "dbl" if wide else frame.format.packed.name
                self.packer = av.AudioResampler(name, frame.layout, self.sample_rate)
            [frame] = self.packer.resample(frame)
        samples = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(-1, self.channels).T
        if samples.dtype.kind == "f":
            return samples.astype(np.float32, copy=False)
        full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        return ((samples - (full_scale if samples.dtype.kind == "u" else 0)) / full_scale).astype(np.float32)


@contextlib.contextmanager
def _opened(path: Path, stream: int | None) -> Iterator[_Sound | _Stream]:
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist; check the path")
        if path.is_dir():
            raise InputError(f"{path} is a folder; give an audio file")
        if not path.stat().st_size:
            raise InputError(f"{path} is an empty file; give a file with audio in it")
        opened = open_samples(path) if stream is None else None
        if opened is not None:
            sound, length = opened
            with sound:
                yield _Sound(path, sound, length)
            return
        # Opened here, so that no name is taken for a URL; and a playlist must not open other files.
        with path.open("rb") as file, av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
            count = len(container.streams.audio)
            if not count:
                raise InputError(f"{path} has no audio in it; give a file with an audio track")
            if (stream or 0) >= count:
                raise InputError(f"{path} has {count} audio streams; a MUSDB18 stem file has 5")
            yield _Stream(path, container, stream or 0)
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged or not audio that can be read ({_reason(error)})") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({_reason(error)}); check the file and its permissions") from error


def channel_layout(path: Path) -> str | None:
    """Returns FFmpeg's name of a file's channel layout, such as 5.1, or None if it states none."""
    try:
        with path.open("rb") as file, av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
            name: str = container.streams.audio[0].layout.name
    except (av.FFmpegError, IndexError, ValueError):
        return None
    return None if "channels" in name else name


def _duration_seconds(source: av.AudioStream) -> Fraction | None:
    """Returns the duration stated by the container; None if there is none."""
    if source.duration is not None and source.time_base is not None:
        return source.duration * source.time_base
    clock = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", source.metadata.get("DURATION", ""))
    return None if clock is None else 3600 * Fraction(clock[1]) + 60 * Fraction(clock[2]) + Fraction(clock[3])


def _lossless_depth(source: av.AudioStream, file: BinaryIO) -> Depth | None:
    if not source.codec_context.codec.lossless:
        return None
    plain = re.match(r"pcm_[su](8|16|24|32)", source.codec_context.name)
    if plain:
        return cast(Depth, plain[1])
    depth = FRAME_DEPTHS.get(source.format.name.removesuffix("p")) if source.format else None
    # Samples of 24 bits come in frames of 32.
    file.seek(0)
    try:
        bits = getattr(getattr(mutagen.File(file), "info", None), "bits_per_sample", 0)
    except mutagen.MutagenError:
        bits = 0
    return "24" if depth == "32" and bits == 24 else depth


def _joined(pieces: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(pieces, axis=1))


def file_state(path: Path) -> tuple[int, int, int]:
    """Returns inode, size and modification time, which change when a file is written to."""
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _reason(error: Exception) -> str:
    return getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
