"""Samples of frames that FFmpeg's libraries have decoded."""

from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData

from bsmamba2.errors import InputError


class FrameReader:
    """Turns frames of one stream into samples.

    Args:
        path: The file, for messages.
        sample_rate: Sampling rate in Hz.
        channels: Number of channels.
    """

    def __init__(self, path: Path, sample_rate: int, channels: int) -> None:
        self._path, self._sample_rate, self._channels = path, sample_rate, channels
        self._packer: av.AudioResampler | None = None

    def samples(self, frame: av.AudioFrame) -> np.ndarray:
        """Returns samples (c, n) in float32, full scale at 1.

        Raises:
            InputError: The frame has a different sampling rate or number of channels.
        """
        if (frame.sample_rate, frame.layout.nb_channels) != (self._sample_rate, self._channels):
            raise InputError(f"{self._path} changes its sampling rate or channels midway; convert it to WAV first")
        wide = frame.format.name in ("s64", "s64p")
        if wide or (frame.format.is_planar and self._channels >= 8):
            # PyAV accepts neither eight planes nor 64-bit integers.
            if self._packer is None:
                name = "dbl" if wide else frame.format.packed.name
                self._packer = av.AudioResampler(name, frame.layout, self._sample_rate)
            [frame] = self._packer.resample(frame)
        if frame.format.name == "fltp":
            # PyAV's own conversion takes several times as long.
            planes = [np.frombuffer(memoryview(plane), np.float32, frame.samples) for plane in frame.planes]
            return np.concatenate(planes).reshape(self._channels, frame.samples)
        samples = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(-1, self._channels).T
        if samples.dtype.kind == "f":
            return samples.astype(np.float32, copy=False)
        full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        return ((samples - (full_scale if samples.dtype.kind == "u" else 0)) / full_scale).astype(np.float32)


def skipped_samples(frame: av.AudioFrame) -> int:
    """Returns the samples to skip at the beginning of a frame, if the decoder is set not to do so."""
    cut = frame.side_data.get(SideData.SKIP_SAMPLES, b"")  # type: ignore[call-overload]
    return int.from_bytes(bytes(cut)[:4], "little")
