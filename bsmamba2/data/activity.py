"""Windows in which a stem is active, which random mixes are drawn from, and the index file that stores them."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

from bsmamba2.audio.reading import read_blocks
from bsmamba2.data.activity_cache import ActivityCache
from bsmamba2.data.track_files import StemLocation
from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.stem_names import MIXTURE
from bsmamba2.system.console import progress_bar
from bsmamba2.system.files import complete_file, remove_unfinished, sha256_of_text

BLOCKS = 10
QUANTILE = 0.15
RMS_THRESHOLD = 1e-3
RMS_OF_SILENCE = 1e-5
VERSION = 1
# Files that are scanned at the same time; most of the work is outside Python.
MOST_THREADS = min(8, os.cpu_count() or 1)

# By stem: track number and first sample of every window.
Windows = dict[str, list[tuple[int, int]]]


@dataclass(frozen=True)
class ActivityIndex:
    """Active windows of the tracks of a training run.

    Args:
        windows: The active windows of every stem over all tracks.
        data_hash: Hash of the audio and its names, the same on every machine.
    """

    windows: Windows
    data_hash: str


@dataclass(frozen=True)
class StemActivity:
    """What the index file stores for one stem of one track.

    Args:
        file: Name of its file, without folders.
        bytes: Size of that file.
        modified_seconds: Its modification time in seconds since 1970.
        samples: Length of the stem in samples.
        hash: Hash of its audio.
        starts: First samples of its active windows.
    """

    file: str
    bytes: int
    modified_seconds: int
    samples: int
    hash: str
    starts: list[int]


# By track name and stem name.
Activities = Mapping[str, Mapping[str, StemActivity]]


class StemScan:
    """Finds the active windows, hash and peak of a stem that comes in blocks.

    A window starts every half window and is cut into 10 blocks. Per window and channel the threshold is the 15 %
    quantile of the blocks' RMS, at least 1e-3; the window is active when more than half of its blocks exceed it in
    every channel. The incomplete last window is dropped. (Paper, section 4.1, and its code.)

    Args:
        length: Number of samples to scan; later ones are ignored.
        window: Length of a window in samples.
    """

    def __init__(self, length: int, window: int) -> None:
        self.length, self.window = length, window
        self.samples, self.peak = 0, 0.0
        self.starts: list[int] = []
        self._digest = hashlib.sha256()
        self._next = 0
        self._rest: Tensor | None = None

    def add(self, block: Tensor) -> None:
        """Takes the next samples (c, n)."""
        block = block[:, : self.length - self.samples]
        if not block.shape[-1]:
            return
        self.samples += block.shape[-1]
        self.peak = max(self.peak, block.abs().max().item())
        # Sample by sample, so that the hash does not depend on the blocks.
        self._digest.update(block.mT.contiguous().numpy().astype("<f4", copy=False).tobytes())
        rest = block if self._rest is None else torch.cat([self._rest, block], dim=-1)
        if rest.shape[-1] >= self.window:
            step = max(1, self.window // 2)
            active = _active(rest.unfold(-1, self.window, step))
            self.starts += [self._next + number * step for number in active.nonzero()[:, 0].tolist()]
            self._next += len(active) * step
            rest = rest[:, len(active) * step :]
        self._rest = rest

    def activity(self, source: StemLocation) -> StemActivity:
        """Returns the result for the index file.

        Raises:
            InputError: The file cannot be read.
        """
        path, stream = source
        state = path.stat()
        # Decoded lossy audio differs in the last bit between processors; its packets do not.
        digest = self._digest.hexdigest() if stream is None else _packet_digest(path, stream)
        return StemActivity(path.name, state.st_size, int(state.st_mtime), self.samples, digest[:32], self.starts)


def index_tracks(tracks: Sequence[Track], window: int, cache: Path, index: Path | None = None) -> ActivityIndex:
    """Returns the active windows of every stem over all tracks, from an index file if it matches these tracks.

    What is known of a file is kept in the cache, so that only files that are new or have changed are read, several at a
    time; an interrupted scan resumes.

    Args:
        tracks: Songs to train on; the index may contain more.
        window: Length of a window in samples.
        cache: Folder for what is known of the files.
        index: The index file; it is made if it does not exist.

    Raises:
        InputError: A stem has no active window, a file cannot be read or written, or the given index file was made of
            different files or settings.
    """
    if index is not None and index.exists():
        try:
            return _joined(tracks, _fitting_activities(index, tracks, window), window)
        except _StaleIndexError as error:
            root = tracks[0].path.parent.parent
            raise InputError(
                f"the index {index} cannot be used, because {error}; `bsmamba2 check-data {root} --index {index}` "
                "makes a new one (with the --segment-seconds of the training run)"
            ) from error
    activities = _cached_activities(tracks, window, cache)
    joined = _joined(tracks, activities, window)
    if index is not None:
        write_index(index, activities, window)
    return joined


def write_index(path: Path, activities: Activities, window: int) -> None:
    """Writes the index file of tracks.

    Raises:
        InputError: It cannot be written.
    """
    tracks = {
        track: {stem: asdict(activity) for stem, activity in stems.items()} for track, stems in activities.items()
    }
    document = {
        "version": VERSION,
        "settings": _settings(window),
        "data": data_hash(activities),
        "tracks": tracks,
    }
    remove_unfinished(path.parent, path.suffix)
    with complete_file(path) as temporary:
        temporary.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def data_hash(activities: Activities) -> str:
    """Returns a hash of the names, stems, lengths and audio of tracks, independent of their order and files."""
    rows = sorted(
        (track, stem, activity.samples, activity.hash)
        for track, stems in activities.items()
        for stem, activity in stems.items()
    )
    return sha256_of_text(json.dumps(rows))[:32]


class _StaleIndexError(Exception):
    """Why an index file cannot be used."""


def _active(windows: Tensor) -> Tensor:
    """Returns which of the windows (c, windows, n) are active."""
    block = max(1, windows.shape[-1] // BLOCKS)
    blocks = windows[..., : block * BLOCKS].unflatten(-1, (-1, block))
    # Window by window: they overlap, and squaring all at once would need twice the memory.
    rms = torch.stack([part.square().mean(-1).sqrt() for part in blocks.unbind(1)], dim=1)
    rms = torch.where(rms == 0, RMS_OF_SILENCE, rms)
    threshold = rms.quantile(QUANTILE, dim=-1, keepdim=True).clamp(min=RMS_THRESHOLD)
    return ((rms > threshold).float().mean(-1) > 0.5).all(0)


def _cached_activities(tracks: Sequence[Track], window: int, folder: Path) -> Activities:
    """Returns the activities of all stems; those that the cache does not have are scanned."""
    root = tracks[0].path.parent.parent.absolute()
    described = json.dumps([VERSION, _settings(window), str(root)])
    cache = ActivityCache(folder / f"activity-{sha256_of_text(described)[:32]}.jsonl", root)
    states = {
        (track.name, stem): cache.state((file.absolute(), stream), track.length)
        for track in tracks
        for stem, (file, stream) in track.sources.items()
        if stem != MIXTURE
    }
    jobs = [(track, stem) for track in tracks for stem in track.stems if cache.get(states[track.name, stem]) is None]
    if jobs:
        with cache.opened(), ThreadPoolExecutor(MOST_THREADS) as pool:
            scans = {pool.submit(_scanned, track, stem, window): (track.name, stem) for track, stem in jobs}
            try:
                progress = progress_bar(as_completed(scans), "indexing stems", total=len(scans), unit="stem")
                for scan in progress:
                    cache.add(states[scans[scan]], asdict(scan.result()))
            except BaseException:
                # The pool would scan the rest first.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    activities: dict[str, dict[str, StemActivity]] = {track.name: {} for track in tracks}
    for (name, stem), state in states.items():
        activities[name][stem] = StemActivity(**cache.get(state) or {})
    return activities


def _scanned(track: Track, stem: str, window: int) -> StemActivity:
    scan = StemScan(track.length, window)
    path, stream = track.sources[stem]
    for block in read_blocks(path, 0, track.length, stream):
        scan.add(block)
    return scan.activity(track.sources[stem])


def _joined(tracks: Sequence[Track], activities: Activities, window: int) -> ActivityIndex:
    windows: Windows = {
        stem: [(number, start) for number, track in enumerate(tracks) for start in activities[track.name][stem].starts]
        for stem in tracks[0].stems
    }
    silent = [stem for stem, found in windows.items() if not found]
    if silent:
        raise InputError(
            f"the stem {silent[0]} is not active for a whole segment of {window} samples in any track "
            f"(the longest track has {max(track.length for track in tracks)}); use a shorter segment or other tracks"
        )
    return ActivityIndex(windows, data_hash({track.name: activities[track.name] for track in tracks}))


def _fitting_activities(path: Path, tracks: Sequence[Track], window: int) -> Activities:
    """Returns the content of an index file, if it was made of the files of these tracks as they are now."""
    settings, activities = _read_index(path)
    for name, value in _settings(window).items():
        if settings.get(name) != value:
            raise _StaleIndexError(f"it was made with {name}={settings.get(name)} and not {value}")
    for track in tracks:
        if track.name not in activities:
            raise _StaleIndexError(f"it lacks the track {track.name!r}")
        for stem in track.stems:
            if stem not in activities[track.name]:
                raise _StaleIndexError(f"it lacks the stem {stem!r} of the track {track.name!r}")
            file, activity = track.sources[stem][0], activities[track.name][stem]
            state = file.stat()
            now = (file.name, state.st_size, int(state.st_mtime), track.length)
            if now != (activity.file, activity.bytes, activity.modified_seconds, activity.samples):
                raise _StaleIndexError(f"{file} is not the file that it was made from")
    return activities


def _read_index(path: Path) -> tuple[dict[str, Any], Activities]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != VERSION:
            raise _StaleIndexError(f"it has the format {document['version']} and not {VERSION}")
        activities = {
            track: {stem: StemActivity(**found) for stem, found in stems.items()}
            for track, stems in document["tracks"].items()
        }
        if document["data"] != data_hash(activities):
            raise _StaleIndexError("it is damaged")
        return dict(document["settings"]), activities
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _StaleIndexError("it is damaged or not an index of active windows") from error


def _settings(window: int) -> dict[str, float]:
    return {
        "window": window,
        "blocks": BLOCKS,
        "quantile": QUANTILE,
        "rms_threshold": RMS_THRESHOLD,
        "rms_of_silence": RMS_OF_SILENCE,
    }


def _packet_digest(path: Path, stream: int) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file, av.open(file, "r", options={"protocol_whitelist": "none"}) as container:
            for packet in container.demux(container.streams.audio[stream]):
                digest.update(bytes(packet))
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); check the file") from error
    return digest.hexdigest()
