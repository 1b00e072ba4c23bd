"""The table of containers and codecs that FFmpeg's libraries read: how a length is known, and where a file ends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal

from bsmamba2.audio.containers import (
    ends_with_matroska_segment,
    has_all_mp3_bytes,
    has_mp3_frame_count,
    last_ogg_page,
    mp4_counts_in_samples,
)

# How the length of a file is known: stated to the sample, stated by a clock that is rounded, or not at all.
Length = Literal["samples", "clock", "none"]

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"


@dataclass(frozen=True)
class FileKind:
    """A kind of file, as a row of the table.

    Args:
        name: What users call it.
        containers: FFmpeg's names of the containers; none for every container without a row.
        codecs: FFmpeg's names of the codecs; none for all.
        length: How the length is known.
        cut: Whether samples after the stated end are padding, which is left out.
        applies: Whether the row applies to a file of a sampling rate in Hz.
        whole: Whether the bytes of a file are all there.
        seeks: Whether positions after a seek are exact: they are wrong for FLAC in Ogg and ADPCM, and Opus needs more
            context to decode.
    """

    name: str
    containers: tuple[str, ...] = ()
    codecs: tuple[str, ...] = ()
    length: Length = "clock"
    cut: bool = False
    applies: Callable[[BinaryIO, int], bool] = lambda file, sample_rate: True
    whole: Callable[[BinaryIO], object] = lambda file: True
    seeks: bool = False


KINDS = (
    FileKind(
        "MP3 with a Xing or VBRI header", ("mp3",), (), "samples", True,
        applies=lambda file, sample_rate: has_mp3_frame_count(file), whole=has_all_mp3_bytes,
    ),
    FileKind("MP3 without a header", ("mp3",), (), "none"),
    FileKind("AAC, AC-3, E-AC-3, DTS", ("aac", "ac3", "eac3", "dts", "loas"), (), "none"),
    FileKind("Ogg Vorbis", ("ogg",), ("vorbis",), "samples", True, whole=last_ogg_page),
    FileKind("Ogg Opus", ("ogg",), ("opus",), "clock", whole=last_ogg_page),
    FileKind("Ogg FLAC, Speex", ("ogg",), (), "samples", whole=last_ogg_page),
    FileKind(
        "MP4 with a clock of samples", (MP4,), ("aac", "alac"), "samples", True, mp4_counts_in_samples, seeks=True
    ),
    FileKind("MP4 with a clock of samples, other codecs", (MP4,), (), "samples", True, mp4_counts_in_samples),
    FileKind("MP4 with a different clock", (MP4,), ("aac", "alac"), "clock", seeks=True),
    FileKind("MP4 with a different clock, other codecs", (MP4,), (), "clock"),
    FileKind("Matroska, WebM", ("matroska,webm",), (), "clock", whole=ends_with_matroska_segment),
    FileKind("Opus elsewhere", (), ("opus",), "clock"),
    FileKind("all others", (), (), "clock"),
)  # fmt: skip


def file_kind(container: str, codec: str, file: BinaryIO, sample_rate: int) -> FileKind:
    """Returns the first row of the table that applies to a file.

    Args:
        container: FFmpeg's name of its container.
        codec: FFmpeg's name of the codec of its audio.
        file: Its bytes.
        sample_rate: Its sampling rate in Hz.
    """
    return next(
        kind
        for kind in KINDS
        if container in (kind.containers or (container,))
        and codec in (kind.codecs or (codec,))
        and kind.applies(file, sample_rate)
    )
