"""The audio of a track, read once, and the problems in it."""

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from bsmamba2.audio.reading import AudioInfo, audio_info, read_blocks
from bsmamba2.data.activity import StemActivity, StemScan
from bsmamba2.data.findings import LOWEST_DB, CheckedTrack, Problem, Severity
from bsmamba2.data.musdb import CHANNELS, SAMPLE_RATE, TRACKS_WITH_WRONG_MIXTURE
from bsmamba2.data.track_files import StemLocation, track_files
from bsmamba2.data.tracks import COMPRESSED_LIMIT_DB, ROUNDED_LIMIT_DB
from bsmamba2.errors import InputError
from bsmamba2.metrics import SILENT_PEAK
from bsmamba2.stem_names import MIXTURE

Faults = list[tuple[str | None, str]]


def measure_track(path: Path, window: int) -> CheckedTrack:
    """Returns the content of a track, reading its stems side by side, and the faults of what cannot be read.

    Args:
        path: A stem file, or the folder of the stems' audio files.
        window: Length of a window of activity in samples.
    """
    try:
        files = track_files(path)
    except (InputError, OSError) as error:
        return CheckedTrack(path, faults=[(None, str(error))])
    sources = files.sources
    infos: dict[str, AudioInfo] = {}
    faults: Faults = []
    for name, (file, stream) in sources.items():
        try:
            infos[name] = audio_info(file, stream)
        except InputError as error:
            # A stem file is one file: if a stream cannot be opened, the file cannot.
            faults.append((None if stream is not None else name, str(error)))
    if not infos:
        return CheckedTrack(path, sources, files.unused, faults=faults)
    samples = (infos.get(MIXTURE) or min(infos.values(), key=lambda info: info.length)).length
    scans = {name: StemScan(samples, window) for name in infos}
    level = _read_side_by_side(sources, scans, infos, faults)
    unread = {name for name, _ in faults}
    activities: dict[str, StemActivity] = {}
    for name in [name for name in scans if name not in unread]:
        try:
            activities[name] = scans[name].activity(sources[name])
        except InputError as error:
            faults.append((name, str(error)))
    windows = (samples - window) // max(1, window // 2) + 1 if samples >= window else 0
    return CheckedTrack(
        path,
        sources,
        files.unused,
        infos,
        samples,
        activities,
        silent=frozenset(name for name in activities if scans[name].peak <= SILENT_PEAK),
        active_shares={
            name: len(activity.starts) / windows if windows else None
            for name, activity in activities.items()
            if name != MIXTURE
        },
        mixture_minus_sum_db=level,
        faults=faults,
    )


def _read_side_by_side(
    sources: Mapping[str, StemLocation], scans: Mapping[str, StemScan], infos: Mapping[str, AudioInfo], faults: Faults
) -> float | None:
    """Passes all blocks to the scans, and returns the level of mixture minus sum in dB of the mixture.

    It is None where it cannot be computed: without a mixture or a stem, or if rates, channels or silence forbid it.
    """
    comparable = MIXTURE in infos and len(infos) == len(sources) > 1
    comparable = comparable and len({(info.sample_rate, info.channels) for info in infos.values()}) == 1
    difference = power = 0.0
    streams = {name: read_blocks(sources[name][0], stream=sources[name][1]) for name in scans}
    for pieces in _equal_pieces(streams, faults):
        if comparable and len(pieces) == len(scans):
            left = scans[MIXTURE].length - scans[MIXTURE].samples
            doubles = {name: piece[:, :left].double() for name, piece in pieces.items()}
            mixture = doubles.pop(MIXTURE)
            power += mixture.square().sum().item()
            difference += (mixture - sum(doubles.values())).square().sum().item()
        for name, piece in pieces.items():
            scans[name].add(piece)
    if not comparable or faults or not power:
        return None
    return max(LOWEST_DB, 10 * math.log10(max(difference / power, 1e-300)))


def _equal_pieces(streams: dict[str, Iterator[Tensor]], faults: Faults) -> Iterator[dict[str, Tensor]]:
    """Yields the same samples of all streams; a stream that ends or fails is left out from there on."""
    waiting: dict[str, Tensor] = {}
    while streams or waiting:
        for name in [name for name in streams if name not in waiting]:
            try:
                waiting[name] = next(streams[name])
            except StopIteration:
                del streams[name]
            except InputError as error:
                faults.append((name, str(error)))
                del streams[name]
        if not waiting:
            return
        length = min(block.shape[-1] for block in waiting.values())
        yield {name: block[:, :length] for name, block in waiting.items()}
        waiting = {name: block[:, length:] for name, block in waiting.items() if block.shape[-1] > length}


def unreadable_audio(track: CheckedTrack) -> Iterator[Problem]:
    """Yields the problems of what could not be read to its end."""
    for name, text in track.faults:
        yield track.problem("error", text, name)


def usual_format(paths: Iterable[Path]) -> tuple[int, int]:
    """Returns sampling rate in Hz and channels of most tracks, by one stem of each; MUSDB18's if there is no track.

    Args:
        paths: Stem files and track folders.
    """
    formats: Counter[tuple[int, int]] = Counter()
    for path in paths:
        # What cannot be read is reported later.
        with contextlib.suppress(InputError, OSError):
            for file, stream in track_files(path).sources.values():
                info = audio_info(file, stream)
                formats[info.sample_rate, info.channels] += 1
                break
    return formats.most_common(1)[0][0] if formats else (SAMPLE_RATE, CHANNELS)


def wrong_formats(track: CheckedTrack, sample_rate: int, channels: int) -> Iterator[Problem]:
    """Yields the problems of stems with a different sampling rate in Hz or number of channels."""
    for name, info in track.infos.items():
        if (info.sample_rate, info.channels) != (sample_rate, channels):
            text = f"has {info.sample_rate} Hz and {info.channels} channels instead of {sample_rate} Hz and {channels}"
            yield track.problem("error", text, name)


def wrong_lengths(track: CheckedTrack) -> Iterator[Problem]:
    """Yields the problems of stems that are not as long as the mixture, or without one as the longest stem."""
    if not track.infos:
        return
    if MIXTURE in track.infos:
        expected, longest = track.infos[MIXTURE].length, "its mixture"
    else:
        expected, longest = max(info.length for info in track.infos.values()), "the longest stem"
    for name, info in track.infos.items():
        text = f"has {info.length} samples but {longest} {expected}"
        if info.length < expected:
            severity: Severity = "error" if MIXTURE in track.infos else "note"
            yield track.problem(severity, text, name)
        elif info.length > expected:
            yield track.problem("note", f"{text}; the rest is not used", name)


def short_track(track: CheckedTrack, window: int) -> Iterator[Problem]:
    """Yields the problem of a track that is shorter than a window."""
    if track.samples is not None and track.samples < window:
        yield track.problem("note", f"is shorter than a segment of {window} samples, so no excerpt is drawn from it")


def silent_stems(track: CheckedTrack) -> Iterator[Problem]:
    """Yields the problems of stems without sound."""
    for name in track.activities:
        if name in track.silent:
            yield track.problem("note", "is silent", name)


def wrong_sum(track: CheckedTrack) -> Iterator[Problem]:
    """Yields the problem of stems whose sum differs from the mixture by more than compression explains."""
    level = track.mixture_minus_sum_db
    if level is not None and level > COMPRESSED_LIMIT_DB:
        text = (
            f"mixture minus sum of the stems is {level:.1f} dB of the mixture (compressed files: below "
            f"{COMPRESSED_LIMIT_DB:g}); a stem is wrong or missing, or this is not their mixture"
        )
        yield track.problem("note" if track.name in TRACKS_WITH_WRONG_MIXTURE else "error", text)


def compressed_sums(tracks: Sequence[CheckedTrack]) -> Iterator[Problem]:
    """Yields one note on all tracks with the sums of compressed files: in a decoded MUSDB18 that is every track."""
    levels = [
        (level, track)
        for track in tracks
        if track.path.is_dir()
        and (level := track.mixture_minus_sum_db) is not None
        and ROUNDED_LIMIT_DB < level <= COMPRESSED_LIMIT_DB
    ]
    if levels:
        level, worst = max(levels, key=lambda found: found[0])
        text = (
            f"mixture minus sum of the stems is more than rounding explains ({ROUNDED_LIMIT_DB:g} dB of the mixture) "
            f"in {len(levels)} tracks, as in files that were compressed; at most {level:.1f} dB"
        )
        yield worst.problem("note", text)


def inactive_stems(tracks: Sequence[CheckedTrack], window: int) -> Iterator[Problem]:
    """Yields the problems of stems that no training excerpt can be drawn from."""
    train = [track for track in tracks if track.split == "train"]
    active = {stem for track in train for stem, share in track.active_shares.items() if share}
    for stem in sorted({stem for track in train for stem in track.active_shares} - active):
        text = f"has no window of {window} samples in which the stem {stem} is active; use a shorter --segment-seconds"
        yield Problem("error", "train", text)
