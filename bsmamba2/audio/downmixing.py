"""Surround sound mixed down to stereo or mono."""

from collections.abc import Iterable, Iterator

import av
import torch
from torch import Tensor

from bsmamba2.errors import InputError

# FFmpeg's name of the usual channel order, by number of channels.
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def downmixed(
    blocks: Iterable[Tensor], sample_rate: int, channels: int, target_channels: int, layout: str | None = None
) -> Iterator[Tensor]:
    """Yields audio (c, n) mixed down to one or two channels by FFmpeg's coefficients (ITU-R BS.775), without the LFE.

    Raises:
        InputError: This number of channels has no usual order.
    """
    layout = layout or LAYOUTS.get(channels)
    if layout is None:
        raise InputError(f"the audio has {channels} channels in an unknown order; mix it down to stereo first")
    mixer = av.AudioResampler("fltp", LAYOUTS[target_channels], sample_rate)
    for block in blocks:
        # Interleaved: PyAV does not accept eight planes.
        samples = block.mT.reshape(1, -1).contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate = sample_rate
        for mixed in mixer.resample(frame):
            yield torch.from_numpy(mixed.to_ndarray())
