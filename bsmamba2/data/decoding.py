"""Decodes stem files once to folders of WAV files, which can be read at any position without decoding."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from bsmamba2.audio.reading import AudioInfo, audio_info, read_blocks
from bsmamba2.audio.writing import audio_writer, count_beyond_full_scale
from bsmamba2.data.musdb import STREAMS
from bsmamba2.data.tracks import track_name
from bsmamba2.errors import InputError
from bsmamba2.system.files import complete_file, remove_unfinished

DecodedDepth = Literal["16", "24", "float"]


@dataclass(frozen=True)
class Decoded:
    """Result of decoding stem files.

    Args:
        written: Number of files written.
        kept: Number of files that existed already.
        clipped: Number of samples that an integer depth clipped to full scale.
    """

    written: int
    kept: int
    clipped: int


def decode_stem_files(paths: Sequence[Path], output: Path, depth: DecodedDepth = "float") -> Decoded:
    """Writes mixture and stems of stem files to `{output}/{split}/{track}/{stem}.wav`, the split being their folder.

    A file appears only once it is complete; files of an earlier run are kept. Samples that an encoder added after the
    length stated by a stem file are left out, as in training.

    Args:
        paths: Stem files.
        output: Folder for the folders of the splits.
        depth: Sample format; float keeps every sample as decoded.

    Raises:
        InputError: A stem file cannot be read, or a file cannot be written.
    """
    written = kept = clipped = 0
    jobs = [(path, stem, stream) for path in paths for stem, stream in STREAMS.items()]
    for path, stem, stream in tqdm(jobs, "decoding stem files", unit="stem", disable=None):
        file = output / path.parent.name / track_name(path) / f"{stem}.wav"
        info = audio_info(path, stream)
        remove_unfinished(file.parent, ".wav")
        if _is_complete(file, info, depth):
            kept += 1
        else:
            clipped += _decode(path, stream, info, file, depth)
            written += 1
    return Decoded(written, kept, clipped)


def _decode(path: Path, stream: int, info: AudioInfo, file: Path, depth: DecodedDepth) -> int:
    """Writes one file and returns how many samples were clipped to full scale."""
    clipped = 0
    with (
        complete_file(file) as temporary,
        audio_writer(temporary, info.sample_rate, info.channels, info.length, "wav", depth) as write,
    ):
        for block in read_blocks(path, 0, info.length, stream):
            clipped += count_beyond_full_scale(block, depth)
            write(block)
    return clipped


def _is_complete(file: Path, info: AudioInfo, depth: DecodedDepth) -> bool:
    if not file.exists():
        return False
    try:
        found = audio_info(file)
    # Not a file that this function wrote: it is replaced.
    except InputError:
        return False
    return found == AudioInfo(info.length, info.sample_rate, info.channels, depth)
