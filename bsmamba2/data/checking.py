"""Whether a folder of songs with stems can be trained on, and everything that is wrong with it."""

import itertools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from bsmamba2.data.activity import MOST_THREADS, write_index
from bsmamba2.data.audio_checks import (
    compressed_sums,
    inactive_stems,
    measure_track,
    short_track,
    silent_stems,
    unreadable_audio,
    usual_format,
    wrong_formats,
    wrong_lengths,
    wrong_sum,
)
from bsmamba2.data.decoding import DecodedDepth, decode_tracks
from bsmamba2.data.duplicate_checks import repeated_audio, repeated_names
from bsmamba2.data.findings import CheckedTrack, DataReport, Problem
from bsmamba2.data.musdb import CHANNELS, SAMPLE_RATE
from bsmamba2.data.name_checks import (
    formats_to_decode,
    found_tracks,
    kind_of,
    misplaced_files,
    missing_tracks,
    unlisted_or_empty,
    usual_stems,
    wrong_file_names,
)
from bsmamba2.data.track_files import track_files
from bsmamba2.data.tracks import Split
from bsmamba2.errors import InputError
from bsmamba2.model.config import ModelConfig


def check_data(
    root: Path,
    decoded: Path | None = None,
    depth: DecodedDepth = "float",
    index: Path | None = None,
    segment_seconds: float = ModelConfig.segment_seconds,
    sample_rate: int | None = None,
    channels: int | None = None,
    json: bool = False,
) -> tuple[str, bool]:
    """Lists what is wrong with a folder of songs with stems.

    Args:
        root: Folder with train/ and perhaps valid/ and test/: {track}.stem.mp4 files, or {track}/{stem}.wav folders.
        decoded: Folder to decode all tracks to once, as {split}/{track}/{stem}.wav, if there are stem files or stems in
            formats that cannot be read from any position; files that an interrupted run completed are kept.
        depth: Sample format of the decoded files; float neither rounds nor clips.
        index: File to write the index of active windows of train/ to, for the training option of the same name.
        segment_seconds: Length of a window of that index in seconds; that of the training segments.
        sample_rate: Sampling rate in Hz that all stems have to have, the network's; by default that of most tracks.
        channels: Number of channels that all stems have to have, the network's; by default that of most tracks.
        json: Print JSON.

    Returns:
        The text to print, and whether the folder can be trained on.

    Raises:
        InputError: The folder does not exist, or something cannot be written.
    """
    usual_rate, usual_channels = usual_format(path for split in _splits(root) for path in found_tracks(split))
    sample_rate = usual_rate if sample_rate is None else sample_rate
    channels = usual_channels if channels is None else channels
    if sample_rate < 1 or channels < 1:
        raise InputError(f"sample_rate={sample_rate}, channels={channels} is not allowed; give at least 1 of each")
    window = round(segment_seconds * sample_rate) if math.isfinite(segment_seconds) else 0
    if window < 1:
        raise InputError(f"segment_seconds={segment_seconds} is not allowed; give at least the length of a sample")
    if decoded is not None and decoded.resolve() == root.resolve():
        raise InputError(
            f"{decoded} is the folder to decode, which would then contain each track twice; give another one"
        )
    report = check_folder(root, window, sample_rate, channels)
    remarks = []
    if index is not None:
        remarks.append(_write_index(report, index, window))
    if decoded is not None:
        remarks.append(_decode(report, decoded, depth))
    report = replace(report, remarks=remarks)
    return report.to_json() if json else report.text(), report.healthy


def check_folder(root: Path, window: int, sample_rate: int = SAMPLE_RATE, channels: int = CHANNELS) -> DataReport:
    """Returns the report on a folder; a file that cannot be read is reported, not raised.

    Args:
        root: Folder with train/ and perhaps valid/ and test/.
        window: Length of a window in samples.
        sample_rate: Sampling rate in Hz that all stems have to have.
        channels: Number of channels that all stems have to have.

    Raises:
        InputError: The folder does not exist, or has none of the three.
    """
    splits = _splits(root)
    paths = [path for split in splits for path in found_tracks(split)]
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        scans = pool.map(measure_track, paths, itertools.repeat(window))
        try:
            tracks = list(tqdm(scans, "checking tracks", len(paths), unit="track", disable=None))
        except BaseException:
            # The pool would read the rest first.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    # A stem file that cannot be opened has the same fault in every stem.
    problems = dict.fromkeys(
        [
            *_problems_of_folders(root, splits, tracks, window),
            *_problems_of_tracks(tracks, window),
            *(problem for track in tracks for problem in wrong_formats(track, sample_rate, channels)),
        ]
    )
    return DataReport(root, kind_of(tracks), tracks, sorted(problems, key=lambda problem: problem.severity))


def _splits(root: Path) -> list[Path]:
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give the one that contains train/, valid/ or test/")
    splits = [root / split for split in get_args(Split) if (root / split).is_dir()]
    if not splits:
        raise InputError(f"{root} contains none of the folders train/, valid/ and test/; give the folder above them")
    return splits


def _problems_of_folders(
    root: Path, splits: Sequence[Path], tracks: Sequence[CheckedTrack], window: int
) -> Iterator[Problem]:
    yield from misplaced_files(root, root)
    for split in splits:
        yield from unlisted_or_empty(split)
        yield from misplaced_files(split, root)
    yield from formats_to_decode(tracks)
    yield from compressed_sums(tracks)
    yield from missing_tracks(root, tracks)
    yield from inactive_stems(tracks, window)


def _problems_of_tracks(tracks: Sequence[CheckedTrack], window: int) -> Iterator[Problem]:
    usual = usual_stems(tracks)
    for track in tracks:
        yield from wrong_file_names(track, usual)
        yield from unreadable_audio(track)
        yield from wrong_lengths(track)
        yield from short_track(track, window)
        yield from silent_stems(track)
        yield from wrong_sum(track)
    yield from repeated_names(tracks)
    yield from repeated_audio(tracks)


def _write_index(report: DataReport, index: Path, window: int) -> str:
    """Writes the index of the folder train/ and returns a line about it."""
    tracks = [track for track in report.tracks if track.split == "train"]
    if any(problem.severity == "error" and problem.place.split("/")[0] == "train" for problem in report.problems):
        return f"index: {index} is not written, because there are errors in train/"
    if any(track.path.is_dir() and track_files(track.path).to_decode for track in tracks):
        return (
            f"index: {index} is not written, because tracks must be decoded; decode them with --decoded and index those"
        )
    activities = {track.name: {stem: track.activities[stem] for stem in track.stems} for track in tracks}
    write_index(index, activities, window)
    return f"index: {len(activities)} tracks in {index}"


def _readable(report: DataReport) -> list[CheckedTrack]:
    return [track for track in report.tracks if track.sources]


def _decode(report: DataReport, output: Path, depth: DecodedDepth) -> str:
    """Decodes the tracks that can be read to their end and returns a line about it."""
    if not any(not track.path.is_dir() or track_files(track.path).to_decode for track in _readable(report)):
        return "decoded: nothing, because all stems can be read from any position already"
    whole = [track.path for track in report.tracks if set(track.activities) == set(track.sources)]
    decoded = decode_tracks(whole, output, depth)
    clipped = f", {decoded.clipped} samples beyond full scale clipped" if decoded.clipped else ""
    return (
        f"decoded: {len(whole)} of {len(report.tracks)} tracks to {output} "
        f"({decoded.written} files written, {decoded.kept} kept{clipped})"
    )
