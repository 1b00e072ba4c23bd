"""The mix of some stems as a file: their weighted sum, of the whole song or of a part."""

from collections.abc import Mapping
from pathlib import Path

import torch

from bsmamba2.audio.formats import output_depth
from bsmamba2.audio.reading import audio_info, read_blocks
from bsmamba2.audio.tags import read_tags, write_tags
from bsmamba2.audio.writing import audio_writer, count_beyond_full_scale
from bsmamba2.errors import InputError
from bsmamba2.separation.settings import StemSettings
from bsmamba2.system.outputs import complete_files


def write_mix(
    path: Path, gains: Mapping[Path, float], stem_settings: StemSettings, seconds: tuple[float, float] | None = None
) -> str:
    """Writes the weighted sum of stem files, and returns a remark about it, which may be empty.

    It has the format, sample format and tags of the stems. In an integer format, a sum beyond full scale is clipped.

    Args:
        path: The file.
        gains: The factor of each stem file.
        stem_settings: How the stems were written.
        seconds: Where the part to write begins and ends in the stems; None for all.

    Raises:
        InputError: No stem is on, the part is empty, or the file cannot be read or written.
    """
    files = [file for file, gain in gains.items() if gain]
    if not files:
        raise InputError("no stem is on in this mix; turn one up first")
    info = audio_info(files[0])
    first, length = 0, None
    if seconds:
        first, last = (min(max(0, round(each * info.sample_rate)), info.length) for each in seconds)
        length = last - first
        if length < 1:
            raise InputError("the part to mix is empty; choose a longer one")
    depth = output_depth(stem_settings.format, "source", info.depth)
    streams = [read_blocks(file, first, length) for file in files]
    factors = torch.tensor([gains[file] for file in files], dtype=torch.float64)[:, None, None]
    clipped = 0
    with complete_files([path]) as complete:
        temporary = complete[path]
        longest = info.length - first if length is None else length
        with audio_writer(temporary, info.sample_rate, info.channels, longest, stem_settings.format, depth) as write:
            for blocks in zip(*streams, strict=True):
                mixed = (factors * torch.stack(list(blocks)).double()).sum(0)
                clipped += count_beyond_full_scale(mixed, depth)
                # Lossy writers take no more.
                write(mixed.float() if depth is None else mixed)
        write_tags(temporary, read_tags(files[0]), stem_settings.format)
    return f"{clipped} samples beyond full scale were clipped; turn the stems down to keep them" if clipped else ""
