"""Separates one song: reads its file and writes its stems, in constant memory."""

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import torch
from torch import Tensor

from bsmamba2.audio.downmixing import downmixed
from bsmamba2.audio.formats import INTEGER_BITS, Depth, Format, check_rate, output_depth
from bsmamba2.audio.irregularities import Irregularities, describe_holes
from bsmamba2.audio.reading import AudioInfo, audio_info, channel_layout, file_state, read_blocks
from bsmamba2.audio.tags import Tags, read_tags, write_tags
from bsmamba2.audio.writing import audio_writer, count_beyond_full_scale, quantise
from bsmamba2.errors import InputError
from bsmamba2.player.page import SongPage, WriteSong, page_writer
from bsmamba2.separation.common_stems import Gives
from bsmamba2.separation.settings import StemSettings
from bsmamba2.separation.song_separator import ProgressCallback, SongSeparator, without
from bsmamba2.separation.threads import read_ahead, write_behind
from bsmamba2.stem_names import MIXTURE, RESIDUAL
from bsmamba2.system.outputs import complete_files, spool_folder

# Samples (c, m) of a mixture, and the estimates of the same samples by stem.
Part = tuple[Tensor, dict[str, Tensor]]
# The requested stems, each with the estimates that are subtracted from the song for it: none if it is one itself.
Subtracted = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class StemPage:
    """A page to listen to the stems of a song.

    Args:
        path: Its file.
        title: Name of the song, if its tags have none.
        files: Files of all stems, if it plays those; None to have the sound inside.
    """

    path: Path
    title: str
    files: Mapping[str, Path] | None = None

    def writer(
        self, path: Path, tags: Tags, subtracted: Subtracted, info: AudioInfo
    ) -> contextlib.AbstractContextManager[WriteSong]:
        """Returns what writes it.

        Args:
            path: Where it is written.
            tags: Tags of the song.
            subtracted: The stems.
            info: The part of the song that is separated.
        """
        shown = self.shown(tags, subtracted)
        return page_writer(path, shown, info.sample_rate, info.channels, info.length)

    def shown(self, tags: Tags, subtracted: Subtracted) -> SongPage:
        """Returns what it shows."""
        texts = {name: ", ".join(values) for name, values in tags.texts.items()}
        about = " · ".join(texts[name] for name in ("artist", "album") if name in texts)
        names = set(subtracted)
        sums = any(set(others) == names - {name} for name, others in subtracted.items() if others)
        links = None
        if self.files is not None:
            links = {stem: self._address(path) for stem, path in self.files.items()}
        return SongPage(texts.get("title", self.title), about, list(subtracted), links, sums)

    def _address(self, path: Path) -> str:
        relative = Path(os.path.relpath(path, self.path.parent))
        return "/".join(quote(os.fsencode(part), safe="") for part in relative.parts)


def write_stems(
    separator: SongSeparator,
    source: Path,
    paths: Mapping[str, Path],
    stem_settings: StemSettings,
    progress: ProgressCallback | None = None,
    found: Irregularities | None = None,
    page: StemPage | None = None,
    overwrite: bool = True,
) -> str:
    """Writes stems of a song and perhaps a page to listen to them, and returns a remark about them, which may be empty.

    The files appear only once all are complete, so that new vocals are never next to an old instrumental.

    Args:
        separator: Separates the song.
        source: The song.
        paths: Files of the stems to write, some or all of those in the settings.
        stem_settings: Which stems are written, and how.
        progress: Called with the share done, from 0 to 1.
        found: Where parts of the song that cannot be decoded, and are silent, are added. If None, they are an error.
        page: The page; None for none.
        overwrite: Whether files that exist are replaced.

    Raises:
        InputError: The song cannot be read or separated, or the stems cannot be written.
        OccupiedError: Another process writes them; or one exists, and overwrite is false.
    """
    gives = separator.gives
    subtracted = _subtracted(stem_settings.names(gives), gives)
    info, state = audio_info(source), file_state(source)
    try:
        check_rate(stem_settings.format, info.sample_rate)
        depth = output_depth(stem_settings.format, stem_settings.bit_depth, info.depth)
    except InputError as error:
        raise InputError(f"the stems of {source} cannot be written: {error}") from error
    blocks, info = _excerpt(source, info, stem_settings, gives.most_channels, found)
    tags = read_tags(source)
    parts = _with_progress(separator.stream(read_ahead(blocks), info.sample_rate), info.length, progress)
    with contextlib.ExitStack() as stack:
        targets = [*paths.values(), *([page.path] if page else [])]
        complete = stack.enter_context(complete_files(targets, overwrite))
        temporaries = {stem: complete[path] for stem, path in paths.items()}
        write_page: WriteSong | None = None
        if page is not None:
            write_page = stack.enter_context(page.writer(complete[page.path], tags, subtracted, info))
        gain, remark = 1.0, ""
        if depth in INTEGER_BITS and stem_settings.peak != "clip":
            spool = stack.enter_context(spool_folder(next(iter(paths.values()))))
            loudest, beyond = _spool(parts, spool, info, subtracted, depth)
            parts = _spooled(spool, gives.stems)
            if beyond and stem_settings.peak == "rescale":
                gain = (1 - 2.0 ** (1 - INTEGER_BITS[depth])) / loudest
                remark = f"all stems are scaled by {20 * math.log10(gain):.2f} dB, so that none exceeds full scale"
            elif beyond:
                depth = "float"
                remark = "written in float, because there are samples beyond full scale"
        format = stem_settings.format
        clipped = _write(parts, temporaries, info, subtracted, (format, depth), gain, write_page)
        if clipped:
            remark = f"{clipped} samples beyond full scale were clipped; --peak rescale or float keeps them"
        if file_state(source) != state:
            raise InputError(f"{source} changed while it was read; try again when nothing writes to it")
        for temporary in temporaries.values():
            write_tags(temporary, tags, stem_settings.format)
    return "; ".join(filter(None, [*_remarks(found, stem_settings, info), remark]))


def _excerpt(
    source: Path, info: AudioInfo, stem_settings: StemSettings, most_channels: int, found: Irregularities | None
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
    blocks = read_blocks(source, first, found=found)
    if stem_settings.duration is not None:
        # Not the smaller of the two: a file can contain a little more than its header states.
        requested = max(1, round(stem_settings.duration * info.sample_rate))
        blocks, length = _first(blocks, requested), min(length, requested)
    if info.channels > most_channels:
        blocks = downmixed(blocks, info.sample_rate, info.channels, most_channels, channel_layout(source))
    return blocks, replace(info, length=length, channels=min(info.channels, most_channels))


def _remarks(found: Irregularities | None, stem_settings: StemSettings, info: AudioInfo) -> list[str]:
    """Returns what was found in the part of a song that was separated, as phrases; holes behind it are taken out."""
    if found is None:
        return []
    if stem_settings.duration is not None:
        end = round(stem_settings.start * info.sample_rate) + info.length
        found.holes[:] = [hole for hole in found.holes if hole.start < end]
    silent = [f"{describe_holes(found.holes, info.sample_rate)}; this is silent"] if found.holes else []
    return [*silent, *found.notes]


def _write(
    parts: Iterable[Part],
    files: Mapping[str, Path],
    info: AudioInfo,
    subtracted: Subtracted,
    kind: tuple[Format, Depth | None],
    gain: float,
    write_page: WriteSong | None,
) -> int:
    """Writes the stems in a format and its depth, and returns how many samples are clipped."""
    (format, depth), clipped = kind, 0
    with contextlib.ExitStack() as stack:
        writers = {
            stem: stack.enter_context(audio_writer(file, info.sample_rate, info.channels, info.length, format, depth))
            for stem, file in files.items()
        }

        def write_part(part: Part) -> None:
            nonlocal clipped
            mixture, estimates = part
            mixture, scaled = gain * mixture, {stem: gain * estimate for stem, estimate in estimates.items()}
            stems = _stems(mixture, scaled, subtracted, depth)
            for stem, write in writers.items():
                write(stems[stem])
                clipped += count_beyond_full_scale(stems[stem], depth)
            if write_page is not None:
                write_page(mixture, stems)

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
        name: without(mixture, (quantise(estimates[stem], depth) for stem in others)) if others else estimates[name]
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
