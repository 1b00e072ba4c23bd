"""The sample format of lossless audio that FFmpeg's libraries read."""

import re
from typing import cast

import av
import av.logging

from bsmamba2.audio.formats import Depth

# Sample formats of the frames of a lossless codec.
FRAME_DEPTHS: dict[str, Depth] = {"u8": "8", "s16": "16", "s32": "32", "flt": "float", "dbl": "double", "s64": "double"}


def lossless_depth(container: av.container.InputContainer, source: av.AudioStream) -> Depth | None:
    """Returns the sample format of a stream; None if it is lossy."""
    codec = source.codec_context.codec
    # DTS is lossless in one of its profiles; WavPack is lossless by default.
    lossy = codec.name == "dca" and source.profile != "DTS-HD MA"
    if not codec.lossless or lossy or source.format is None:
        return None
    plain = re.match(r"pcm_[su](8|16|24|32)", codec.name)
    if plain:
        return cast(Depth, plain[1])
    depth = FRAME_DEPTHS.get(source.format.name.removesuffix("p"))
    return _stated_depth(container, source) if depth == "32" else depth


def _stated_depth(container: av.container.InputContainer, source: av.AudioStream) -> Depth:
    """Returns the depth of samples that come in frames of 32 bits: FFmpeg's bits_per_raw_sample, which PyAV prints."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        description = container.dumps_format()  # type: ignore[attr-defined]
    finally:
        av.logging.set_level(level)
    stated = re.search(rf"^  Stream #0:{source.index}\b.*\bs32p? \((\d+) bit\)", description, re.MULTILINE)
    bits = int(stated[1]) if stated else 32
    return next((cast(Depth, str(depth)) for depth in (8, 16, 24) if bits <= depth), "32")
