"""The stems of one song, from its file to theirs, in constant memory."""

import contextlib
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bsmamba2.audio.downmixing import downmixed
from bsmamba2.audio.formats import INTEGER_BITS, SUBTYPES, Depth, Format, check_rate, output_depth
from bsmamba2.audio.reading import AudioInfo, audio_info, channel_layout, file_state, read_blocks
from bsmamba2.audio.tags import read_tags, write_tags
from bsmamba2.audio.writing import audio_writer, count_beyond_full_scale, quantise
from bsmamba2.errors import InputError
from bsmamba2.separation.separator import ProgressCallback, Separator
from bsmamba2.separation.threads import read_ahead, write_behind
from bsmamba2.stem_names import INSTRUMENTAL, MIXTURE, RESIDUAL
from bsmamba2.system.files import complete_file

BitDepth = Literal["source", "16", "24", "float"]
Peak = Literal["clip", "rescale", "float"]

# Samples (c, m) of a mixture, and the estimates of the same samples by stem.
Part = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class StemSettings:
    """What is made of a song.

    Args:
        stems: Names of the stems: those of the network, `instrumental` or `residual`.
        format: File format.
        bit_depth: Sample format; `source` is that of the song.
        peak: What happens to samples beyond full scale in an integer format.
        start_seconds: Where in the song to begin.
        duration_seconds: How much of it to take; None for all.
        downmix: Whether a song of more channels than the network takes is mixed down.

    Raises:
        InputError: Two of them contradict each other, or one is out of its range.
    """

    stems: tuple[str, ...]
    format: Format = "wav"
    bit_depth: BitDepth = "source"
    peak: Peak = "clip"
    start_seconds: float = 0.0
    duration_seconds: float | None = None
    downmix: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start_seconds < math.inf:
            raise InputError(f"start={self.start_seconds} is not allowed; give seconds of at least 0")
        if self.duration_seconds is not None and not 0 < self.duration_seconds < math.inf:
            raise InputError(f"duration={self.duration_seconds} is not allowed; give seconds above 0")
        if self.bit_depth != "source":
            output_depth(self.format, self.bit_depth, None)
        if self.peak != "clip" and self.format not in SUBTYPES:
            raise InputError(f"{self.format} is lossy and clips nothing; leave --peak {self.peak} out")
        if self.peak == "float" and "float" not in SUBTYPES[self.format]:
            raise InputError(f"{self.format} cannot hold float samples; give --peak clip or rescale, or the format wav")


def write_stems(
    separator: Separator,
    source: Path,
    paths: Mapping[str, Path],
    settings: StemSettings,
    progress: ProgressCallback | None = None,
) -> str:
    """Writes stems of a song, and returns what there is to know about them, empty where there is nothing.

    The files are there only once all are complete: new vocals never lie beside an old instrumental.

    Args:
        separator: What separates.
        source: The song.
        paths: Files of the stems to write, some or all of those in the settings.
        settings: What to make of the song.
        progress: Called with the share done, from 0 to 1.

    Raises:
        InputError: The song cannot be read or separated, or the stems cannot be written.
    """
    info, state = audio_info(source), file_state(source)
    try:
        check_rate(settings.format, info.sample_rate)
        depth = output_depth(settings.format, settings.bit_depth, info.depth)
    except InputError as error:
        raise InputError(f"the stems of {source} cannot be written: {error}") from error
    blocks, info = _excerpt(source, info, settings, separator.network.config.channels)
    tags = read_tags(source)
    parts = _with_progress(separator.stream(read_ahead(blocks), info.sample_rate), info.length, progress)
    with contextlib.ExitStack() as stack:
        temporaries = {stem: stack.enter_context(complete_file(path)) for stem, path in paths.items()}
        gain, remark = 1.0, ""
        if depth in INTEGER_BITS and settings.peak != "clip":
            near = next(iter(paths.values())).parent
            spool = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".", dir=near)))
            loudest, beyond = _spool(parts, spool, info, settings.stems, depth)
            parts = _spooled(spool, separator.network.config.stems)
            if beyond and settings.peak == "rescale":
                gain = (1 - 2.0 ** (1 - INTEGER_BITS[depth])) / loudest
                remark = f"all stems are scaled by {20 * math.log10(gain):.2f} dB, so that none exceeds full scale"
            elif beyond:
                depth = "float"
                remark = "written in float, because there are samples beyond full scale"
        clipped = _write(parts, temporaries, info, settings, depth, gain)
        if clipped:
            remark = f"samples beyond full scale that are clipped: {clipped}; --peak rescale or float keeps them"
        if file_state(source) != state:
            raise InputError(f"{source} changed while it was read; try again when nothing writes to it")
        for temporary in temporaries.values():
            write_tags(temporary, tags, settings.format)
    return remark


def _excerpt(
    source: Path, info: AudioInfo, settings: StemSettings, most_channels: int
) -> tuple[Iterator[Tensor], AudioInfo]:
    """Returns the blocks that are separated, and what they hold."""
    if info.channels > most_channels and not settings.downmix:
        raise InputError(
            f"{source} has {info.channels} channels and the model takes 1 or {most_channels}; give --downmix, or mix "
            "it down first"
        )
    first = round(settings.start_seconds * info.sample_rate)
    if first >= info.length:
        raise InputError(f"{source} ends after {info.length / info.sample_rate:g} s; start before its end")
    length = info.length - first
    blocks = read_blocks(source, first)
    if settings.duration_seconds is not None:
        # Not the shorter of both: a file can hold a little more than it says.
        asked = max(1, round(settings.duration_seconds * info.sample_rate))
        blocks, length = _first(blocks, asked), min(length, asked)
    if info.channels > most_channels:
        blocks = downmixed(blocks, info.sample_rate, info.channels, most_channels, channel_layout(source))
    return blocks, replace(info, length=length, channels=min(info.channels, most_channels))


def _write(
    parts: Iterable[Part],
    files: Mapping[str, Path],
    info: AudioInfo,
    settings: StemSettings,
    depth: Depth | None,
    gain: float,
) -> int:
    """Writes the stems and returns how many samples are clipped."""
    clipped = 0
    with contextlib.ExitStack() as stack:
        writers = {
            stem: stack.enter_context(
                audio_writer(file, info.sample_rate, info.channels, info.length, settings.format, depth)
            )
            for stem, file in files.items()
        }

        def write_part(part: Part) -> None:
            nonlocal clipped
            mixture, estimates = part
            scaled = {stem: gain * estimate for stem, estimate in estimates.items()}
            stems = _stems(gain * mixture, scaled, settings.stems, depth)
            for stem, write in writers.items():
                write(stems[stem])
                clipped += count_beyond_full_scale(stems[stem], depth)

        write_behind(parts, write_part)
    return clipped


def _stems(
    mixture: Tensor, estimates: dict[str, Tensor], names: Sequence[str], depth: Depth | None
) -> dict[str, Tensor]:
    """Returns the stems asked for.

    What is written of a stem is taken off the mixture: so the files sum to it, not only the numbers before them.
    """
    stems = dict(estimates)
    if INSTRUMENTAL in names:
        stems[INSTRUMENTAL] = mixture - quantise(estimates["vocals"], depth)
    if RESIDUAL in names:
        written = [quantise(estimates[name], depth) for name in names if name in estimates]
        stems[RESIDUAL] = mixture - torch.stack(written).sum(0)
    return {name: stems[name] for name in names}


def _spool(
    parts: Iterable[Part], folder: Path, info: AudioInfo, names: Sequence[str], depth: Depth | None
) -> tuple[float, int]:
    """Writes mixture and estimates to a folder; returns the stems' highest magnitude, and samples beyond full scale."""
    loudest, beyond = 0.0, 0
    with contextlib.ExitStack() as stack:
        writers = {}
        for mixture, estimates in parts:
            for name, block in {MIXTURE: mixture, **estimates}.items():
                if name not in writers:
                    writers[name] = stack.enter_context(
                        audio_writer(folder / name, info.sample_rate, info.channels, info.length, "wav", "float")
                    )
                writers[name](block)
            samples = torch.stack(list(_stems(mixture, estimates, names, depth).values()))
            if samples.numel():
                loudest = max(loudest, samples.abs().max().item())
                beyond += count_beyond_full_scale(samples, depth)
    return loudest, beyond


def _spooled(folder: Path, stems: Sequence[str]) -> Iterator[Part]:
    files = [read_blocks(folder / name) for name in (MIXTURE, *stems)]
    for mixture, *estimates in zip(*files, strict=True):
        yield mixture, dict(zip(stems, estimates, strict=True))


def _first(blocks: Iterable[Tensor], length: int) -> Iterator[Tensor]:
    for block in blocks:
        yield block[:, :length]
        length -= block.shape[-1]
        if length <= 0:
            return


def _with_progress(parts: Iterable[Part], length: int, progress: ProgressCallback | None) -> Iterator[Part]:
    done = 0
    for mixture, estimates in parts:
        yield mixture, estimates
        done += mixture.shape[-1]
        if progress:
            progress(min(1.0, done / length))
