"""Sounds compressed for a page: Opus, in the container that most browsers decode it from."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import BinaryIO

import av
from torch import Tensor

from bsmamba2.audio.downmixing import LAYOUTS
from bsmamba2.audio.resampling import Resampler

# Opus knows no rate above; sounds of any other are resampled.
OPUS_RATE = 48000
# A setting of libopus, from 0 to 10; this takes half the time of the default, for 5 % more bytes.
COMPLEXITY = 5
# Without these, a file of the same sound has a different random number each time.
CONTAINER_OPTIONS = {"fflags": "+bitexact"}


@contextlib.contextmanager
def opus_writer(
    file: BinaryIO, sample_rate: int, channels: int, bits_per_second: int
) -> Iterator[Callable[[Tensor], None]]:
    """Gives a function that writes the next block (c, n) to a WebM file of Opus at 48 kHz, complete after the context.

    Safari decodes Opus in WebM since its version 15, and in MP4 or Ogg only in later ones.

    Args:
        file: An open file that can be written to and read at any place.
        sample_rate: Sampling rate of the blocks in Hz.
        channels: Their number of channels, 1 or 2.
        bits_per_second: Size of the file; on average, as quiet parts take less.

    Raises:
        OSError: The file cannot be written completely.
    """
    resampler = Resampler(sample_rate, OPUS_RATE, channels)
    given = position = 0
    with _errors_of_the_system(), av.open(file, "w", format="webm", options=CONTAINER_OPTIONS) as container:
        stream = container.add_stream(
            "libopus", rate=OPUS_RATE, layout=LAYOUTS[channels], options={"compression_level": str(COMPLEXITY)}
        )
        stream.bit_rate = bits_per_second

        def encode(block: Tensor) -> None:
            nonlocal position
            # FFmpeg fails on an empty block.
            if block.shape[-1]:
                samples = block.mT.reshape(1, -1).contiguous().numpy()
                frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=LAYOUTS[channels])
                frame.sample_rate, frame.time_base, frame.pts = OPUS_RATE, Fraction(1, OPUS_RATE), position
                position += frame.samples
                with _errors_of_the_system():
                    container.mux(stream.encode(frame))

        def write(block: Tensor) -> None:
            nonlocal given
            given += block.shape[-1]
            encode(resampler(block))

        yield write
        encode(resampler.finish(round(given * OPUS_RATE / sample_rate)))
        if position:
            container.mux(stream.encode(None))


@contextlib.contextmanager
def _errors_of_the_system() -> Iterator[None]:
    """Raises what a file raises while PyAV writes to it, such as that the disk is full."""
    try:
        yield
    except av.FFmpegError as error:
        system: BaseException | None = error
        while system is not None and not isinstance(system, OSError):
            system = system.__context__
        raise system or OSError(errno.EIO, f"the sound cannot be written: {error}") from error
