"""Writing audio files block by block: soundfile for WAV, FLAC, MP3 and OGG, PyAV for M4A."""

import contextlib
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from torch import Tensor

from bsmamba2.audio.formats import INTEGER_BITS, LARGEST_WAV_BYTES, SUBTYPES, Depth, Format, check_channels, check_rate
from bsmamba2.audio.reading import audio_info
from bsmamba2.audio.sample_files import native_name
from bsmamba2.errors import InputError
from bsmamba2.system.files import complete_file

# On libsndfile's scale from 0 (best) to 1: MP3 at 320 kbit/s for 44.1 kHz, Vorbis at quality 8.
COMPRESSION: dict[str, dict[str, Any]] = {
    "mp3": {"compression_level": 0.0, "bitrate_mode": "CONSTANT"},
    "ogg": {"compression_level": 0.2},
}
AAC_BITS_PER_SAMPLE = 3
# libsndfile's code for an error of the operating system.
SYSTEM_ERROR = 2

Write = Callable[[Tensor], None]


def write_audio(
    path: Path, audio: Tensor, sample_rate: int, format: Format = "wav", depth: Depth | None = "16"
) -> None:
    """Writes audio (c, n) to a file that appears only once it is complete; see `audio_writer`."""
    with (
        complete_file(path) as temporary,
        audio_writer(temporary, sample_rate, audio.shape[0], audio.shape[1], format, depth) as write,
    ):
        write(audio)


@contextlib.contextmanager
def audio_writer(
    path: Path, sample_rate: int, channels: int, length: int, format: Format, depth: Depth | None
) -> Iterator[Write]:
    """Gives a function that writes the next block (c, n) to a file, and checks the file when the context ends.

    Args:
        path: The file; its suffix does not matter.
        sample_rate: Sampling rate in Hz.
        channels: Number of channels.
        length: Approximate number of samples; WAV above 4 GiB becomes RF64.
        format: File format.
        depth: Sample format; samples are rounded to integer formats by `quantise`. None for a lossy format.

    Raises:
        InputError: The format does not support this rate, depth or number of channels.
        OSError: The file could not be written completely, for example because the disk is full.
    """
    check_rate(format, sample_rate)
    check_channels(format, channels)
    written = 0
    with contextlib.ExitStack() as stack:
        try:
            if format == "m4a":
                write = stack.enter_context(_m4a_writer(path, sample_rate, channels))
            else:
                write = stack.enter_context(_sound_writer(path, sample_rate, channels, length, format, depth))
        except (soundfile.LibsndfileError, av.FFmpegError, ValueError) as error:
            reason = getattr(error, "error_string", error)
            if getattr(error, "code", None) == SYSTEM_ERROR:
                raise OSError(0, reason) from error
            raise InputError(
                f"{channels} channels of {depth or 'compressed'} samples at {sample_rate} Hz cannot be written as "
                f"{format} ({reason}); choose another format or depth"
            ) from error

        def write_and_count(block: Tensor) -> None:
            nonlocal written
            # FFmpeg fails on an empty block.
            if block.shape[-1]:
                write(block)
            written += block.shape[-1]

        yield write_and_count
    # Some errors of a full disk show up only here.
    if written:
        try:
            arrived = audio_info(path).length
        except InputError as error:
            raise OSError(0, "the written file cannot be read back") from error
        if arrived != written:
            raise OSError(0, f"only {arrived} of {written} samples were written")


def quantise(audio: Tensor, depth: Depth | None) -> Tensor:
    """Returns audio as a sample format stores it: integer formats round it to their steps and clip it to full scale."""
    if depth not in INTEGER_BITS:
        return audio
    steps = 2 ** (INTEGER_BITS[depth] - 1)
    return ((audio.double() * steps).round().clamp(-steps, steps - 1) / steps).to(audio)


def count_beyond_full_scale(audio: Tensor, depth: Depth | None) -> int:
    """Returns how many samples `quantise` clips."""
    if depth not in INTEGER_BITS:
        return 0
    steps = 2 ** (INTEGER_BITS[depth] - 1)
    levels = (audio.double() * steps).round()
    return int(((levels < -steps) | (levels > steps - 1)).sum())


@contextlib.contextmanager
def _sound_writer(
    path: Path, sample_rate: int, channels: int, length: int, format: Format, depth: Depth | None
) -> Iterator[Write]:
    subtype = SUBTYPES[format].get(depth, "") if depth else None
    bytes_per_sample = {"float": 4, "double": 8}.get(str(depth)) or INTEGER_BITS.get(str(depth), 0) // 8
    large = format == "wav" and length * channels * bytes_per_sample > LARGEST_WAV_BYTES
    name = native_name(path)
    sound = soundfile.SoundFile(
        os.open(path, os.O_RDWR | os.O_CREAT) if name is None else name,
        "w",
        sample_rate,
        channels,
        subtype,
        format="RF64" if large else format.upper(),
        **COMPRESSION.get(format, {}),
    )

    def write(block: Tensor) -> None:
        # Long blocks overflow the stack of libsndfile's Vorbis encoder.
        for part in block.split(4096, dim=-1):
            samples: np.ndarray = part.mT.contiguous().numpy()
            if depth in INTEGER_BITS:
                samples = (quantise(part.double(), depth).mT * 2**31).numpy().astype(np.int32)
            try:
                sound.write(samples)
            # soundfile asserts that libsndfile took every sample.
            except (soundfile.LibsndfileError, AssertionError) as error:
                raise OSError(0, getattr(error, "error_string", "samples were refused")) from error

    with sound:
        yield write


@contextlib.contextmanager
def _m4a_writer(path: Path, sample_rate: int, channels: int) -> Iterator[Write]:
    # With the sampling rate as its clock the file can state its exact length in samples.
    options = {"movie_timescale": str(sample_rate)}
    with path.open("wb") as file, av.open(file, "w", format="ipod", options=options) as container:
        layout = "stereo" if channels == 2 else "mono"
        stream = container.add_stream("aac", rate=sample_rate, layout=layout)
        stream.bit_rate = AAC_BITS_PER_SAMPLE * sample_rate * channels
        position = 0

        def write(block: Tensor) -> None:
            nonlocal position
            frame = av.AudioFrame.from_ndarray(block.contiguous().numpy(), format="fltp", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = sample_rate, Fraction(1, sample_rate), position
            position += frame.samples
            container.mux(stream.encode(frame))

        yield write
        if position:
            container.mux(stream.encode(None))
