"""Decodes tracks once to folders of WAV files, which can be read at any position without decoding."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.audio.formats import DecodedDepth
from bsmamba2.audio.reading import AudioInfo, audio_info, read_blocks
from bsmamba2.audio.writing import audio_writer, count_beyond_full_scale
from bsmamba2.data.track_files import STEM_FILE, StemLocation, track_files
from bsmamba2.errors import InputError
from bsmamba2.system.console import progress_bar
from bsmamba2.system.files import complete_file, locked, remove_unfinished


@dataclass(frozen=True)
class Decoded:
    """Result of decoding tracks.

    Args:
        written: Number of files written.
        kept: Number of files that existed already.
        clipped: Number of samples that an integer depth clipped to full scale.
    """

    written: int
    kept: int
    clipped: int


def decode_tracks(paths: Sequence[Path], output: Path, depth: DecodedDepth = "float") -> Decoded:
    """Writes mixture and stems of tracks to `{output}/{split}/{track}/{stem}.wav`, the split being their folder.

    A file appears only once it is complete; files of an earlier run are kept unless their source has changed. Another
    process that decodes to the same folder is waited for. Samples that an encoder added after the length stated by a
    stem file are left out, as in training.

    Args:
        paths: Stem files and track folders.
        output: Folder for the folders of the splits.
        depth: Sample format; float keeps every sample as decoded.

    Raises:
        InputError: A track cannot be read, or a file cannot be written.
    """
    with locked(output):
        return _decoded(paths, output, depth)


def _decoded(paths: Sequence[Path], output: Path, depth: DecodedDepth) -> Decoded:
    written = kept = clipped = 0
    jobs = [(path, stem, source) for path in paths for stem, source in track_files(path).sources.items()]
    for path, stem, source in progress_bar(jobs, "decoding tracks", unit="stem"):
        file = decoded_folder(path, output) / f"{stem}.wav"
        remove_unfinished(file.parent, ".wav")
        if _is_complete(file, source, depth):
            kept += 1
        else:
            clipped += _decode(source, file, depth)
            written += 1
    return Decoded(written, kept, clipped)


def decoded_folder(path: Path, output: Path) -> Path:
    """Returns the folder that `decode_tracks` writes a track to."""
    name = path.name.removesuffix(STEM_FILE) if not path.is_dir() else path.name
    return output / path.parent.name / name


def _decode(source: StemLocation, file: Path, depth: DecodedDepth) -> int:
    """Writes one file, with the modification time of its source, and returns how many samples were clipped."""
    path, stream = source
    info, state = audio_info(path, stream), path.stat()
    clipped = 0
    with complete_file(file) as temporary:
        with audio_writer(temporary, info.sample_rate, info.channels, info.length, "wav", depth) as write:
            # The length that other files state can be approximate.
            for block in read_blocks(path, 0, None if stream is None else info.length, stream):
                clipped += count_beyond_full_scale(block, depth)
                write(block)
        os.utime(temporary, ns=(state.st_atime_ns, state.st_mtime_ns))
    return clipped


def _is_complete(file: Path, source: StemLocation, depth: DecodedDepth) -> bool:
    if not file.exists():
        return False
    path, stream = source
    if stream is None and file.stat().st_mtime_ns != path.stat().st_mtime_ns:
        return False
    try:
        found = audio_info(file)
    # Not a file that this function wrote: it is replaced.
    except InputError:
        return False
    info = audio_info(path, stream)
    length = found.length if stream is None else info.length
    return found == AudioInfo(length, info.sample_rate, info.channels, depth)
