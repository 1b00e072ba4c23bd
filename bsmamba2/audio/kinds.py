"""The table of containers and codecs: how a length is known, whether the end is exact, what may be missing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal

from bsmamba2.audio.containers import (
    ends_with_matroska_segment,
    has_all_asf_bytes,
    has_all_avi_bytes,
    has_all_dsf_bytes,
    has_all_flv_bytes,
    has_all_mp4_boxes,
    mp4_counts_in_samples,
)
from bsmamba2.audio.mpeg import has_all_mp3_bytes, mp3_length

# How the length of a file is known: stated to the sample, stated by a clock that is rounded, or found by decoding. What
# is stated is doubtful if it can be wrong in a whole file; the length is then found by decoding as well.
Length = Literal["samples", "clock", "decoding", "doubtful"]
# How the size of a hole is known: by time stamps before and behind it, or by those of pages, which are exact; by the
# stated length of packets; or by the bytes that cannot be decoded. In some containers nothing is between the packets,
# so that bytes that are skipped show damage.
Holes = Literal["stamps", "stamps and bytes", "pages", "packets", "packets and bytes", "bytes"]

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
        tried: Files of this kind that the tests make with an encoder, for the documentation.
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
    tried: tuple[str, ...] = ()


# What libsndfile reads.
SAMPLE_KINDS = (
    FileKind(
        "WAV, RF64, RIFX, W64, AIFF, AU, CAF of plain samples", length="samples", cut=True,
        truncation="fewer bytes than the data chunk states",
        remark="Exactly the data chunk is read. A size that is unknown, or zero although bytes follow, as a pipe or a "
        "crashed recorder leaves it, is that of the rest of the file. A tag before the header is skipped.",
        tried=("WAV", "RF64", "RIFX", "W64", "AIFF", "AU", "CAF"),
    ),
    FileKind(
        "FLAC", length="samples", cut=True, truncation="fewer samples than the header states",
        remark="If it does not state its length, it is read to its end.", tried=("FLAC",),
    ),
)  # fmt: skip
KINDS = (
    FileKind(
        "MP3 with a number of frames", ("mp3",), ("mp3float", "mp3"), "samples", True, "bytes",
        applies=lambda file, sample_rate: mp3_length(file) is not None, whole=has_all_mp3_bytes,
        truncation="fewer bytes or frames than its Xing, Info or VBRI header counts",
        remark="Delay and padding of the encoder are left out. Tags and other bytes behind the last frame are ignored.",
        tried=("LAME, constant bit rate", "LAME, variable bit rate"),
    ),
    FileKind(
        "MP3 without, joined MP3, MP2", ("mp3",), (), "decoding", False, "bytes", whole=has_all_mp3_bytes,
        truncation="cannot be recognised",
        remark="Read to the last frame. The songs of joined files follow one another, as in players.",
        tried=("LAME without header", "two joined", "MP2"),
    ),
    FileKind(
        "AAC (ADTS)", ("aac",), (), "decoding", False, "bytes", truncation="cannot be recognised",
        remark="The encoder's delay is not stated and is kept, as in players. Tags between the frames are skipped.",
        tried=("AAC",),
    ),
    FileKind(
        "AC-3, E-AC-3, DTS, TrueHD, AAC (LATM)", ("ac3", "eac3", "dts", "truehd", "mlp", "loas"), (), "decoding", False,
        "bytes", truncation="cannot be recognised", remark="Read to the last frame.",
        tried=("AC-3", "E-AC-3", "DTS", "TrueHD", "MLP", "LATM"),
    ),
    FileKind(
        "Ogg Vorbis", ("ogg",), ("vorbis",), "samples", True, "pages",
        truncation="the last page is incomplete or damaged",
        remark="Joined files are read through. A recording of a radio begins at its first page. If no page is marked "
        "as the last, this is reported.",
        tried=("Vorbis", "Vorbis, two joined"),
    ),
    FileKind(
        "Ogg Opus, FLAC, Speex", ("ogg",), (), "clock", False, "pages",
        truncation="the last page is incomplete or damaged",
        remark="As Ogg Vorbis.",
        tried=("Opus", "FLAC in Ogg"),
    ),
    FileKind(
        "MP4, M4A, MOV whose clock is the sampling rate", (MP4_FILES,), (), "samples", True,
        applies=mp4_counts_in_samples, whole=has_all_mp4_boxes,
        truncation="a box or the last packet ends before the stated end",
        remark="Delay and padding of the encoder are left out, by the edit list or iTunSMPB.",
        tried=("AAC with a clock of 44100", "ALAC in M4A with a clock of 44100"),
    ),
    FileKind(
        "MP4, M4A, MOV, 3GP with another clock or in fragments", (MP4_FILES,), (), whole=has_all_mp4_boxes,
        truncation="a box or the last packet ends before the stated end",
        remark="The delay of the encoder is left out, by the edit list or iTunSMPB. A fragmented file that is cut "
        "between two fragments cannot be recognised.",
        tried=("AAC in M4A", "ALAC in MOV", "AAC in 3GP", "Opus in MP4", "fragments", "DASH fragments from a pipe"),
    ),
    FileKind(
        "Matroska, WebM", ("matroska,webm",), (), holes="stamps and bytes", whole=ends_with_matroska_segment,
        truncation="the segment or the last packet ends before the stated end",
        remark="From a pipe neither is stated, and the file is read to its end.",
        tried=("AAC in MKA", "Opus in WebM", "Vorbis in WebM", "FLAC in MKA", "AAC in MKA from a pipe"),
    ),
    FileKind(
        "WMA, WMV", ("asf",), (), "decoding", whole=has_all_asf_bytes,
        truncation="fewer bytes than the header states; from a pipe, cannot be recognised",
        remark="The stated duration is that of the film, or of the packets.",
        tried=("WMA 2", "WMA 1", "WMA 2 from a pipe"),
    ),
    FileKind(
        "AVI", ("avi",), (), "doubtful", False, "packets and bytes", whole=has_all_avi_bytes,
        truncation="fewer bytes than the header states; from a pipe, cannot be recognised",
        remark="It has no time stamps: sound that begins late begins at once.",
        tried=("MP3 in AVI", "samples in AVI", "MP3 in AVI from a pipe"),
    ),
    FileKind(
        "FLV", ("flv",), (), "decoding", False, "stamps and bytes", whole=has_all_flv_bytes,
        truncation="fewer bytes than its metadata state; from a pipe, cannot be recognised",
        tried=("AAC in FLV", "MP3 in FLV from a pipe"),
    ),
    FileKind(
        "MPEG transport and program streams, NUT", ("mpegts", "mpeg", "nut"), (), "doubtful",
        truncation="cannot be recognised",
        tried=("AAC in a transport stream", "MP2 in a program stream", "AAC in NUT"),
    ),
    FileKind(
        "WavPack, TTA", ("wv", "tta"), (), "samples", False, "packets",
        truncation="fewer samples than the header states",
        tried=("WavPack", "TTA"),
    ),
    FileKind(
        "WAV, AIFF, AU, W64 of coded samples", ("wav", "aiff", "au", "w64"), (), "decoding", False, "packets",
        truncation="fewer bytes than the data chunk states", remark="ADPCM, μ-law, MP3 in WAV, and others.",
        tried=("IMA ADPCM in WAV", "IMA ADPCM in WAV from a pipe", "μ-law in AU"),
    ),
    FileKind(
        "CAF of coded samples", ("caf",), (), "clock", False, "packets",
        truncation="fewer bytes than the data chunk states",
        tried=("ALAC in CAF",),
    ),
    FileKind("VOC", ("voc",), (), "doubtful", False, "packets", truncation="cannot be recognised",
        tried=("VOC", "VOC from a pipe"),
    ),
    FileKind(
        "RealMedia", ("rm",), (), "doubtful", truncation="cannot be recognised", tried=("AC-3 in RealMedia",),
    ),
    FileKind(
        "IRCAM, G.722, SBC, aptX, AMR", ("ircam", "g722", "sbc", "aptx", "amr"), (), "decoding", False, "packets",
        truncation="cannot be recognised", tried=("IRCAM",),
    ),
    FileKind(
        "DSF (DSD)", ("dsf",), (), "clock", False, "packets", whole=has_all_dsf_bytes,
        truncation="fewer bytes than the data chunk states", remark="The last block may be filled up.",
        tried=("DSD of one tone",),
    ),
    FileKind(
        "others", (), (), "clock", False, "packets", remark="All that FFmpeg's libraries decode.", tried=("AST",),
    ),
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


LENGTHS: dict[Length, str] = {
    "samples": "stated, exact",
    "clock": "stated, rounded",
    "decoding": "by decoding",
    "doubtful": "by decoding; what is stated can be wrong",
}
HOLES: dict[Holes, str] = {
    "stamps": "time stamps",
    "stamps and bytes": "time stamps",
    "pages": "positions of pages",
    "packets": "lengths of packets",
    "packets and bytes": "lengths of packets",
    "bytes": "number of bytes",
}


def kinds_as_markdown() -> str:
    """Returns the table of `docs/formats.md`."""
    rows = ["| file | length | truncated if | holes by | | tried |", "|---|---|---|---|---|---|"]
    for kind in (*SAMPLE_KINDS, *KINDS):
        holes = "–" if kind in SAMPLE_KINDS else HOLES[kind.holes]
        cells = (kind.name, LENGTHS[kind.length], kind.truncation, holes, kind.remark, "; ".join(kind.tried))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"
