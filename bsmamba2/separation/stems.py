"""Separates one song: reads its file and writes its stems, in constant memory."""

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
from bsmamba2.separation.song_separator import Gives, ProgressCallback, SongSeparator
from bsmamba2.separation.threads import read_ahead, write_behind
from bsmamba2.stem_names import MIXTURE, RESIDUAL
from bsmamba2.system.files import complete_file

BitDepth = Literal["source", "16", "24", "float"]
Peak = Literal["clip", "rescale", "float"]

# Samples (c, m) of a mixture, and the estimates of the same samples by stem.
Part = tuple[Tensor, dict[str, Tensor]]
# The requested stems, each with the estimates that are subtracted from the song for it: none if it is one itself.
Subtracted = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class StemSettings:
    """Which stems of a song are written, and how.

    Args:
        stems: Stems to write: those of the model, instrumental (the song without the vocals), the rest of the song if
            the model has a name for it, such as reverb, or residual (the song without the other stems that are
            written). By default those of the model and its rest. If the file of a model does not name its stems, these
            are their names, in the order of the model.
        format: File format of the stems: wav, flac, mp3 (320 kbit/s), ogg (Vorbis) or m4a (AAC).
        bit_depth: Sample format in wav and flac. A source that has none, such as MP3, gives float in wav and 24 bit in
            flac.
        peak: How to treat samples beyond full scale in an integer format: clip them, rescale all stems of the song by
            one factor, or write its stems in float.
        start: Seconds to leave out at the beginning of each song.
        duration: Seconds of each song to separate, by default all.
        downmix: Mix songs of more than two channels down to stereo; otherwise they are an error.

    Raises:
        InputError: Two settings contradict each other, or one is out of its range.
    """

    stems: Sequence[str] | None = None
    format: Format = "wav"
    bit_depth: BitDepth = "source"
    peak: Peak = "clip"
    start: float = 0.0
    duration: float | None = None
    downmix: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start < math.inf:
            raise InputError(f"start={self.start} is not allowed; give seconds of at least 0")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise InputError(f"duration={self.duration} is not allowed; give seconds above 0")
        if self.bit_depth != "source":
            output_depth(self.format, self.bit_depth, None)
        if self.peak != "clip" and self.format not in SUBTYPES:
            raise InputError(f"{self.format} is lossy and clips nothing; leave --peak {self.peak} out")
        if self.peak == "float" and "float" not in SUBTYPES[self.format]:
            raise InputError(
                f"{self.format} does not support float samples; give --peak clip or rescale, or the format wav"
            )

    def names(self, gives: Gives) -> tuple[str, ...]:
        """Returns the names of the stems to write with a model or an ensemble.

        Raises:
            InputError: A stem cannot be written with it, is given twice, or none is given.
        """
        if self.stems is None:
            return gives.outputs
        allowed = [*gives.stems, *gives.differences, RESIDUAL]
        for stem in self.stems:
            if stem not in allowed:
                raise InputError(f"the stem {stem!r} cannot be written; with this model choose {', '.join(allowed)}")
        if not self.stems or len(set(self.stems)) < len(self.stems):
            raise InputError(f"stems={list(self.stems)} is not allowed; give at least one, each only once")
        if RESIDUAL in self.stems and not set(self.stems) & set(gives.stems):
            raise InputError(
                f"{RESIDUAL} is the song without the other stems; choose one of {', '.join(gives.stems)} too"
            )
        return tuple(self.stems)

    def estimated(self, gives: Gives) -> list[str]:
        """Returns the estimates that the stems to write are made of; raises as `names`."""
        names = [name for name in self.names(gives) if name != RESIDUAL]
        return [stem for name in names for stem in gives.differences.get(name, (name,))]


def write_stems(
    separator: SongSeparator,
    source: Path,
    paths: Mapping[str, Path],
    stem_settings: StemSettings,
    progress: ProgressCallback | None = None,
) -> str:
    """Writes stems of a song, and returns a remark about them, which may be empty.

    The files appear only once all are complete, so that new vocals are never next to an old instrumental.

    Args:
        separator: Separates the song.
        source: The song.
        paths: Files of the stems to write, some or all of those in the settings.
        stem_settings: Which stems are written, and how.
        progress: Called with the share done, from 0 to 1.

    Raises:
        InputError: The song cannot be read or separated, or the stems cannot be written.
    """
    gives = separator.gives
    subtracted = _subtracted(stem_settings.names(gives), gives)
    info, state = audio_info(source), file_state(source)
    try:
        check_rate(stem_settings.format, info.sample_rate)
        depth = output_depth(stem_settings.format, stem_settings.bit_depth, info.depth)
    except InputError as error:
        raise InputError(f"the stems of {source} cannot be written: {error}") from error
    blocks, info = _excerpt(source, info, stem_settings, gives.channels)
    tags = read_tags(source)
    parts = _with_progress(separator.stream(read_ahead(blocks), info.sample_rate), info.length, progress)
    with contextlib.ExitStack() as stack:
        temporaries = {stem: stack.enter_context(complete_file(path)) for stem, path in paths.items()}
        gain, remark = 1.0, ""
        if depth in INTEGER_BITS and stem_settings.peak != "clip":
            near = next(iter(paths.values())).parent
            spool = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".", dir=near)))
            loudest, beyond = _spool(parts, spool, info, subtracted, depth)
            parts = _spooled(spool, gives.stems)
            if beyond and stem_settings.peak == "rescale":
                gain = (1 - 2.0 ** (1 - INTEGER_BITS[depth])) / loudest
                remark = f"all stems are scaled by {20 * math.log10(gain):.2f} dB, so that none exceeds full scale"
            elif beyond:
                depth = "float"
                remark = "written in float, because there are samples beyond full scale"
        clipped = _write(parts, temporaries, info, subtracted, stem_settings.format, depth, gain)
        if clipped:
            remark = f"{clipped} samples beyond full scale were clipped; --peak rescale or float keeps them"
        if file_state(source) != state:
            raise InputError(f"{source} changed while it was read; try again when nothing writes to it")
        for temporary in temporaries.values():
            write_tags(temporary, tags, stem_settings.format)
    return remark


def _excerpt(
    source: Path, info: AudioInfo, stem_settings: StemSettings, most_channels: int
) -> tuple[Iterator[Tensor], AudioInfo]:
    """Returns the blocks to separate, and their length and channels."""
    if info.channels > most_channels and not stem_settings.downmix:
        raise InputError(
            f"{source} has {info.channels} channels and the model takes 1 or {most_channels}; give --downmix, or mix "
            "it down first"
        )
    first = round(stem_settings.start * info.sample_rate)
    if first >= info.length:
        raise InputError(f"{source} ends after {info.length / info.sample_rate:g} s; start before its end")
    length = info.length - first
    blocks = read_blocks(source, first)
    if stem_settings.duration is not None:
        # Not the smaller of the two: a file can contain a little more than its header states.
        requested = max(1, round(stem_settings.duration * info.sample_rate))
        blocks, length = _first(blocks, requested), min(length, requested)
    if info.channels > most_channels:
        blocks = downmixed(blocks, info.sample_rate, info.channels, most_channels, channel_layout(source))
    return blocks, replace(info, length=length, channels=min(info.channels, most_channels))


def _write(
    parts: Iterable[Part],
    files: Mapping[str, Path],
    info: AudioInfo,
    subtracted: Subtracted,
    format: Format,
    depth: Depth | None,
    gain: float,
) -> int:
    """Writes the stems and returns how many samples are clipped."""
    clipped = 0
    with contextlib.ExitStack() as stack:
        writers = {
            stem: stack.enter_context(audio_writer(file, info.sample_rate, info.channels, info.length, format, depth))
            for stem, file in files.items()
        }

        def write_part(part: Part) -> None:
            nonlocal clipped
            mixture, estimates = part
            scaled = {stem: gain * estimate for stem, estimate in estimates.items()}
            stems = _stems(gain * mixture, scaled, subtracted, depth)
            for stem, write in writers.items():
                write(stems[stem])
                clipped += count_beyond_full_scale(stems[stem], depth)

        write_behind(parts, write_part)
    return clipped


def _subtracted(names: Sequence[str], gives: Gives) -> Subtracted:
    estimated = [name for name in names if name in gives.stems]
    return {name: [] if name in estimated else {**gives.differences, RESIDUAL: estimated}[name] for name in names}


def _stems(
    mixture: Tensor, estimates: Mapping[str, Tensor], subtracted: Subtracted, depth: Depth | None
) -> dict[str, Tensor]:
    """Returns the requested stems.

    An estimate is subtracted from the mixture as it is written, after quantisation, so that the files sum to the
    mixture.
    """
    return {
        name: mixture - torch.stack([quantise(estimates[stem], depth) for stem in others]).sum(0)
        if others
        else estimates[name]
        for name, others in subtracted.items()
    }


def _spool(
    parts: Iterable[Part], folder: Path, info: AudioInfo, subtracted: Subtracted, depth: Depth | None
) -> tuple[float, int]:
    """Writes mixture and estimates to a folder; returns the stems' peak and the number of samples beyond full scale."""
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
            samples = torch.stack(list(_stems(mixture, estimates, subtracted, depth).values()))
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
