"""Whether a folder of songs with stems can be trained on, and everything that is wrong with it."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bsmamba2.audio.formats import DecodedDepth
from bsmamba2.data.activity import MOST_THREADS, write_index
from bsmamba2.data.audio_checks import (
    compressed_sums,
    inactive_stems,
    measure_track,
    short_track,
    silent_stems,
    unreadable_audio,
    wrong_formats,
    wrong_lengths,
    wrong_sum,
)
from bsmamba2.data.decoding import decode_tracks
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
from bsmamba2.data.track_files import split_folders, track_files
from bsmamba2.system.console import progress_bar


def check_folder(root: Path, window: int, sample_rate: int = SAMPLE_RATE, channels: int = CHANNELS) -> DataReport:
    """Returns the report on a folder; a file that cannot be read is reported, not raised.

    Args:
        root: Folder with train/ and perhaps valid/ and test/.
        window: Length of a window in samples.
        sample_rate: Sampling rate in Hz that all stems must have.
        channels: Number of channels that all stems must have.

    Raises:
        InputError: The folder does not exist, or has none of the three.
    """
    splits = split_folders(root)
    paths = [path for split in splits for path in found_tracks(split)]
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        scans = pool.map(measure_track, paths, itertools.repeat(window))
        try:
            tracks = list(progress_bar(scans, "checking tracks", total=len(paths), unit="track"))
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


def write_checked_index(report: DataReport, index: Path, window: int) -> str:
    """Writes the index of the folder train/ of a report and returns a line about it."""
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


def decode_checked(report: DataReport, output: Path, depth: DecodedDepth) -> str:
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
