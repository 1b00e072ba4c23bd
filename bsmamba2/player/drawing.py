"""What a player draws of a sound: extremes of its samples and images of its spectrogram, computed block by block."""

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.audio.sample_queue import SampleQueue
from bsmamba2.audio.spectrograms import N_FFT, mel_rows

# A song has as many columns as a wide screen shows, within these limits per second.
WANTED_COLUMNS = 1600
COLUMNS_PER_SECOND = (20, 80)
# Each of a waveform is two bytes, so there are more of them.
PEAKS_PER_COLUMN = 2.5
# An image covers a minute of a song or less.
IMAGE_COLUMNS = 1200
# Levels in an image are brightness: 0 is this, 255 full scale.
DARKEST_DB = -100.0
WEBP_OPTIONS = {"quality": "60", "compression_level": "2"}


def columns_per_second(seconds: float) -> float:
    """Returns how many columns of a spectrogram a second has in a song of this length."""
    fewest, most = COLUMNS_PER_SECOND
    return min(max(WANTED_COLUMNS / max(seconds, 1e-3), fewest), most)


class Peaks:
    """Lowest and highest samples of short stretches of a sound.

    Args:
        stretch: Samples in a stretch.
    """

    def __init__(self, stretch: int) -> None:
        self._stretch = stretch
        self._queue = SampleQueue()

    def __call__(self, block: Tensor) -> bytes:
        """Takes the next block (c, n) and returns what is ready: for each stretch two signed bytes, of all channels."""
        self._queue.append(block)
        return self._bytes(self._queue.take(len(self._queue) // self._stretch * self._stretch))

    def finish(self) -> bytes:
        """Returns the last stretch, which may be shorter; empty if there is none."""
        rest = self._queue.take(len(self._queue))
        if not rest.shape[-1]:
            return b""
        return self._bytes(F.pad(rest, (0, -rest.shape[-1] % self._stretch), mode="replicate"))

    def _bytes(self, audio: Tensor) -> bytes:
        if not audio.shape[-1]:
            return b""
        stretches = audio.unfold(-1, self._stretch, self._stretch).movedim(0, 1).flatten(1)
        extremes = torch.stack([stretches.amin(1), stretches.amax(1)], dim=1)
        return (127 * extremes).round().clamp(-127, 127).to(torch.int8).numpy().tobytes()


class SpectrogramImages:
    """Spectrogram of a sound as images, from one after another minute of it.

    Their brightness is the level: black is 100 dB below a full-scale tone or less, white is full scale. Frequency rises
    from the bottom as in `bsmamba2.audio.spectrograms`.

    Args:
        sample_rate: Sampling rate in Hz.
        hop: Samples from one column to the next.

    Attributes:
        loudest: The brightest point so far, from 0 to 255.
    """

    def __init__(self, sample_rate: int, hop: int) -> None:
        self.loudest = 0
        self._hop = hop
        self._window = torch.hann_window(N_FFT // 2)
        self._rows = mel_rows(sample_rate, torch.float32)
        self._columns: list[Tensor] = []
        # The middle of a window is the middle of its column.
        self._queue, before = SampleQueue(), len(self._window) // 2 - hop // 2
        self._queue.append(torch.zeros(1, max(0, before)))
        self._skipped = max(0, -before)
        self._length = self._drawn = 0

    def __call__(self, block: Tensor) -> Iterator[bytes]:
        """Takes the next block (c, n) and yields the images (WebP) that are ready."""
        self._length += block.shape[-1]
        mono = block.float().mean(0, keepdim=True)[:, self._skipped :]
        self._skipped -= min(self._skipped, block.shape[-1])
        self._queue.append(mono)
        yield from self._images(max(0, (len(self._queue) - len(self._window)) // self._hop + 1))

    def finish(self) -> Iterator[bytes]:
        """Yields the last image, if there is one."""
        left = -(-self._length // self._hop) - self._drawn
        self._queue.append(torch.zeros(1, left * self._hop + len(self._window)))
        yield from self._images(left)
        if self._columns:
            yield self._encoded(torch.cat(self._columns))

    def _images(self, columns: int) -> Iterator[bytes]:
        if columns <= 0:
            return
        samples = self._queue.first((columns - 1) * self._hop + len(self._window))[0]
        # The next window may begin behind all samples so far.
        self._skipped += max(0, columns * self._hop - len(self._queue))
        self._queue.take(columns * self._hop)
        self._columns.append(self._levels(samples))
        self._drawn += columns
        if sum(map(len, self._columns)) < IMAGE_COLUMNS:
            return
        ready = torch.cat(self._columns)
        while len(ready) >= IMAGE_COLUMNS:
            yield self._encoded(ready[:IMAGE_COLUMNS])
            ready = ready[IMAGE_COLUMNS:]
        self._columns = [ready] if len(ready) else []

    def _levels(self, samples: Tensor) -> Tensor:
        """Returns the brightness (column, row) of the spectrogram of samples (n)."""
        frames = samples.unfold(-1, len(self._window), self._hop) * self._window
        spectrum = torch.fft.rfft(frames, n=N_FFT) * (2 / self._window.sum())
        level_db = 10 * (spectrum.abs().square() @ self._rows.mT).clamp(min=1e-20).log10()
        brightness = (255 * (1 - level_db / DARKEST_DB)).round().clamp(0, 255).to(torch.uint8)
        self.loudest = max(self.loudest, int(brightness.max()))
        return brightness

    def _encoded(self, brightness: Tensor) -> bytes:
        """Returns an image file of brightness (column, row)."""
        pixels: np.ndarray = brightness.mT.flip(0).contiguous().numpy()
        codec = av.CodecContext.create("libwebp", "w")
        codec.height, codec.width = pixels.shape
        codec.pix_fmt, codec.time_base, codec.options = "yuv420p", Fraction(1), WEBP_OPTIONS
        frame = av.VideoFrame.from_ndarray(pixels, "gray").reformat(
            format="yuv420p", src_color_range="JPEG", dst_color_range="MPEG"
        )
        return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
