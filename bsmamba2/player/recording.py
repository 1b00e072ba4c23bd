"""What a page has of a sound, collected block by block in temporary files, so that memory does not grow with it."""

import base64
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from torch import Tensor

from bsmamba2.player.drawing import PEAKS_PER_COLUMN, Peaks, SpectrogramImages, columns_per_second
from bsmamba2.player.opus import OPUS_RATE, opus_writer

# A multiple of three, so that the parts of a text in base64 can be joined.
PART_BYTES = 3 << 16


class Recording:
    """Waveform, spectrogram and, if wanted, the compressed sound; `close` it, or use `contextlib.closing`.

    Args:
        sample_rate: Sampling rate in Hz.
        channels: Number of channels, 1 or 2.
        seconds: Approximate length, which decides how fine waveform and spectrogram are.
        bits_per_second: Size of the compressed sound; None for none.
        folder: Where the temporary files are, without names; by default that of the system.

    Attributes:
        sample_rate: Sampling rate in Hz.
        length: Number of samples so far.
        loudest: The brightest point of the spectrogram so far, from 0 to 255.
    """

    def __init__(
        self, sample_rate: int, channels: int, seconds: float, bits_per_second: int | None, folder: Path | None = None
    ) -> None:
        self.sample_rate, self.length = sample_rate, 0
        columns = columns_per_second(seconds)
        self._hop = max(1, round(sample_rate / columns))
        self._stretch = max(1, round(sample_rate / columns / PEAKS_PER_COLUMN))
        self._images, self._peaks = SpectrogramImages(sample_rate, self._hop), Peaks(self._stretch)
        self._open, self._encoding = contextlib.ExitStack(), contextlib.ExitStack()
        self._peak_file: BinaryIO = self._open.enter_context(_temporary(folder))
        self._image_file: BinaryIO = self._open.enter_context(_temporary(folder))
        self._image_sizes: list[int] = []
        self._sound_file: BinaryIO | None = None
        if bits_per_second is not None:
            self._sound_file = self._open.enter_context(_temporary(folder))
            self._encode = self._encoding.enter_context(
                opus_writer(self._sound_file, sample_rate, channels, bits_per_second)
            )

    def __call__(self, block: Tensor) -> None:
        """Takes the next block (c, n)."""
        self.length += block.shape[-1]
        self._peak_file.write(self._peaks(block))
        self._keep(self._images(block))
        if self._sound_file is not None:
            self._encode(block)

    def finish(self) -> None:
        """Completes it behind the last block."""
        self._peak_file.write(self._peaks.finish())
        self._keep(self._images.finish())
        self._encoding.close()

    def close(self) -> None:
        """Removes the temporary files, also if it was not finished."""
        with self._open:
            self._encoding.close()

    @property
    def loudest(self) -> int:
        """The brightest point of the spectrogram so far, from 0 to 255."""
        return self._images.loudest

    @property
    def rates(self) -> dict[str, float]:
        """Columns of the spectrogram and stretches of the waveform per second."""
        return {"columnRate": self.sample_rate / self._hop, "peakRate": self.sample_rate / self._stretch}

    @property
    def sound_rate(self) -> int:
        """Sampling rate in Hz of the sound that is played: the compressed one, or else the recorded one."""
        return OPUS_RATE if self._sound_file is not None else self.sample_rate

    def json(self) -> Iterator[str]:
        """Yields the finished recording as members of a JSON object, in parts."""
        yield '"peaks":"'
        yield from _base64(self._peak_file)
        yield '","images":['
        self._image_file.seek(0)
        for number, size in enumerate(self._image_sizes):
            image = base64.b64encode(self._image_file.read(size)).decode("ascii")
            yield f'{"," if number else ""}"data:image/webp;base64,{image}"'
        yield "]"
        if self._sound_file is not None:
            yield ',"sound":"'
            yield from _base64(self._sound_file)
            yield '"'

    def _keep(self, images: Iterator[bytes]) -> None:
        for image in images:
            self._image_file.write(image)
            self._image_sizes.append(len(image))


def _temporary(folder: Path | None) -> BinaryIO:
    return cast(BinaryIO, tempfile.TemporaryFile(dir=folder))


def _base64(file: BinaryIO) -> Iterator[str]:
    file.seek(0)
    while part := file.read(PART_BYTES):
        yield base64.b64encode(part).decode("ascii")
