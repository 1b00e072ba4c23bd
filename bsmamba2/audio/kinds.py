"""The table of containers and codecs: how a length is known, whether the end is exact, what may be missing.

`docs/formats.md` is made from it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal

from bsmamba2.audio.containers import (
    ends_with_matroska_segment,
    has_all_asf_bytes,
    has_all_avi_bytes,
    has_all_flv_bytes,
    has_all_mp4_boxes,
    mp4_counts_in_samples,
)
from bsmamba2.audio.mpeg import has_all_mp3_bytes, mp3_length

# How the length of a file is known: stated to the sample, stated by a clock that is rounded, or found by decoding.
Length = Literal["samples", "clock", "decoding"]
# How the size of a hole is known: by time stamps before and behind it, without or with the bytes between packets; by
# time stamps of pages, which are exact; by the stated length of packets; or by the bytes that cannot be decoded.
Holes = Literal["stamps", "stamps and bytes", "pages", "packets", "bytes"]

MP4_FILES = "mov,mp4,m4a,3gp,3g2,mj2"


@dataclass(frozen=True)
class FileKind:
    """A kind of file, as a row of the table.

    Args:
        name: What users call it.
        containers: FFmpeg's names of the containers; none for every container without a row.
        codecs: FFmpeg's names of the codecs; none for all.
        length: How the length is known.
        cut: Whether samples after the stated end are padding, which is left out.
        holes: How the size of a hole is known.
        applies: Whether the row applies to a file of a sampling rate in Hz.
        whole: Whether the bytes of a file are all there.
        truncation: How a truncated file is recognised, for the documentation.
        remark: What may be missing and what is done, for the documentation.
    """

    name: str
    containers: tuple[str, ...] = ()
    codecs: tuple[str, ...] = ()
    length: Length = "clock"
    cut: bool = False
    holes: Holes = "stamps"
    applies: Callable[[BinaryIO, int], bool] = lambda file, sample_rate: True
    whole: Callable[[BinaryIO], bool] = lambda file: True
    truncation: str = "the last packet ends before the stated end"
    remark: str = ""


KINDS = (
    FileKind(
        "MP3 with a number of frames", ("mp3",), ("mp3float", "mp3"), "samples", True, "bytes",
        applies=lambda file, sample_rate: mp3_length(file) is not None, whole=has_all_mp3_bytes,
        truncation="fewer bytes or frames than its Xing, Info or VBRI header counts",
        remark="Delay and padding of the encoder are left out. Tags and other bytes behind the last frame are ignored.",
    ),
    FileKind(
        "MP3 without, joined MP3, MP2", ("mp3",), (), "decoding", False, "bytes", whole=has_all_mp3_bytes,
        truncation="cannot be recognised",
        remark="Read to the last frame. The songs of joined files follow one another, as in players.",
    ),
    FileKind(
        "AAC (ADTS)", ("aac",), (), "decoding", False, "bytes", truncation="cannot be recognised",
        remark="The encoder's delay is not stated and is kept, as in players. Tags between the frames are skipped.",
    ),
    FileKind(
        "AC-3, E-AC-3, DTS, TrueHD, AAC (LATM)", ("ac3", "eac3", "dts", "truehd", "mlp", "loas"), (), "decoding", False,
        "bytes", truncation="cannot be recognised", remark="Read to the last frame.",
    ),
    FileKind(
        "Ogg Vorbis", ("ogg",), ("vorbis",), "samples", True, "pages",
        truncation="the last page is incomplete or damaged",
        remark="Joined files are read through. A recording of a radio begins at its first page. If no page is marked "
        "as the last, this is reported.",
    ),
    FileKind(
        "Ogg Opus, FLAC, Speex", ("ogg",), (), "clock", False, "pages",
        truncation="the last page is incomplete or damaged",
        remark="As Ogg Vorbis.",
    ),
    FileKind(
        "MP4, M4A, MOV whose clock is the sampling rate", (MP4_FILES,), (), "samples", True,
        applies=mp4_counts_in_samples, whole=has_all_mp4_boxes,
        truncation="a box or the last packet ends before the stated end",
        remark="Delay and padding of the encoder are left out, by the edit list or iTunSMPB.",
    ),
    FileKind(
        "MP4, M4A, MOV, 3GP with another clock or in fragments", (MP4_FILES,), (), whole=has_all_mp4_boxes,
        truncation="a box or the last packet ends before the stated end",
        remark="The delay of the encoder is left out, by the edit list or iTunSMPB. A fragmented file that is cut "
        "between two fragments cannot be recognised.",
    ),
    FileKind(
        "Matroska, WebM", ("matroska,webm",), (), holes="stamps and bytes", whole=ends_with_matroska_segment,
        truncation="the segment or the last packet ends before the stated end",
        remark="From a pipe neither is stated, and the file is read to its end.",
    ),
    FileKind(
        "WMA, WMV", ("asf",), (), "decoding", whole=has_all_asf_bytes,
        truncation="fewer bytes than the header states; from a pipe, cannot be recognised",
        remark="The stated duration is that of the film, or of the packets.",
    ),
    FileKind(
        "AVI", ("avi",), (), "decoding", False, "packets", whole=has_all_avi_bytes,
        truncation="fewer bytes than the header states; from a pipe, cannot be recognised",
        remark="It has no time stamps: sound that begins late begins at once.",
    ),
    FileKind(
        "FLV", ("flv",), (), "decoding", False, "stamps and bytes", whole=has_all_flv_bytes,
        truncation="fewer bytes than its metadata state; from a pipe, cannot be recognised",
    ),
    FileKind(
        "MPEG transport and program streams, NUT", ("mpegts", "mpeg", "nut"), (), "decoding",
        truncation="cannot be recognised",
    ),
    FileKind(
        "WavPack, TTA", ("wv", "tta"), (), "samples", False, "packets",
        truncation="fewer samples than the header states",
    ),
    FileKind(
        "WAV, AIFF, AU, W64 of coded samples", ("wav", "aiff", "au", "w64"), (), "decoding", False, "packets",
        truncation="fewer bytes than the data chunk states", remark="ADPCM, μ-law, MP3 in WAV, and others.",
    ),
    FileKind(
        "CAF of coded samples", ("caf",), (), "clock", False, "packets",
        truncation="fewer bytes than the data chunk states",
    ),
    FileKind(
        "VOC, RealMedia, telephony", ("voc", "rm", "ircam", "sbc", "aptx", "g722", "amr"), (), "decoding", False,
        "packets",
        truncation="cannot be recognised",
    ),
    FileKind("DSF (DSD)", ("dsf",), (), "clock", False, "packets", remark="The last block may be filled up."),
    FileKind("others", (), (), "clock", False, "packets", remark="What FFmpeg's libraries decode, to the stated end."),
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
