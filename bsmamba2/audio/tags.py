"""Tags and cover of a song, copied to its stems: those that stay true of a stem, under one name in all formats.

Only the texts of `KEYS` are copied. Loudness, encoder settings, gapless data and length describe the samples of the
source and would be wrong for a stem. The library mediafile was tried in place of the key table: it keeps one value of
artist and title, only the day of a date, and numbers alone for tracks.
"""

import base64
import errno
import io
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import mutagen
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, ID3, Encoding, Frames, PictureType
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, MP4Cover, MP4Tags
from mutagen.ogg import OggFileType
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from bsmamba2.audio.file_section import FileSection
from bsmamba2.audio.formats import LARGEST_WAV_BYTES

log = logging.getLogger(__name__)

# By name here and in Vorbis comments: the ID3 frame and the MP4 key.
KEYS = {
    "title": ("TIT2", "©nam"), "artist": ("TPE1", "©ART"), "album": ("TALB", "©alb"), "albumartist": ("TPE2", "aART"),
    "date": ("TDRC", "©day"), "genre": ("TCON", "©gen"), "composer": ("TCOM", "©wrt"), "copyright": ("TCOP", "cprt"),
    "tracknumber": ("TRCK", "trkn"), "discnumber": ("TPOS", "disk"), "comment": ("COMM", "©cmt"),
    "lyrics": ("USLT", "©lyr"), "bpm": ("TBPM", "tmpo"), "isrc": ("TSRC", "----:com.apple.iTunes:ISRC"),
    "musicbrainz_trackid": ("UFID:http://musicbrainz.org", "----:com.apple.iTunes:MusicBrainz Track Id"),
} | {
    f"musicbrainz_{name.replace(' ', '').lower()}id": (
        f"TXXX:MusicBrainz {name} Id", f"----:com.apple.iTunes:MusicBrainz {name} Id"
    )
    for name in ("Artist", "Album", "Album Artist", "Release Group", "Release Track", "Work", "Disc")
}  # fmt: skip
# FFmpeg's names, where they differ.
FFMPEG_NAMES = {"albumartist": "album_artist", "tracknumber": "track", "discnumber": "disc"}
TARGETS: dict[str, Any] = {"wav": WAVE, "flac": FLAC, "mp3": MP3, "ogg": OggVorbis, "m4a": MP4}
COVER_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
LARGEST_COVER = 2**24 - 2**10  # FLAC limits a metadata block to 16 MiB.
HEADER_BYTES = 2**20  # An upper limit for everything but the samples of a WAV file.


@dataclass(frozen=True)
class Cover:
    """An image: the bytes of its file, and image/jpeg or image/png."""

    data: bytes
    mime: str


@dataclass(frozen=True)
class Tags:
    """Texts and cover of a song.

    Args:
        texts: One or more values by name; the names are those of `KEYS`.
        cover: The front cover, or else the first image.
    """

    texts: dict[str, list[str]] = field(default_factory=dict)
    cover: Cover | None = None


def read_tags(path: Path) -> Tags:
    """Returns the tags of an audio file; those that cannot be read are left out with a warning."""
    texts: dict[str, list[str]] = {}
    pictures: list[tuple[int, bytes]] = []
    try:
        file = mutagen.File(path)
        tags: Any = getattr(file, "tags", None)
        if isinstance(tags, ID3):
            texts = {name: _id3_values(tags, key) for name, (key, _) in KEYS.items()}
            pictures = [(picture.type, picture.data) for picture in tags.getall("APIC")]
        elif isinstance(tags, MP4Tags):
            texts = {name: [_mp4_text(value) for value in tags.get(key, [])] for name, (_, key) in KEYS.items()}
            pictures = [(PictureType.COVER_FRONT, bytes(picture)) for picture in tags.get("covr", [])]
        elif isinstance(file, FLAC | OggFileType):
            texts = {name: _vorbis_values(tags or {}, name) for name in KEYS}
            blocks = (tags or {}).get("metadata_block_picture", [])
            found = [*getattr(file, "pictures", []), *(Picture(base64.b64decode(block)) for block in blocks)]
            pictures = [(picture.type, picture.data) for picture in found]
        else:
            texts = _ffmpeg_texts(path)
    except Exception as error:  # Damaged tags make mutagen raise almost anything; the audio can still be good.
        log.warning("some tags of %s cannot be read and are left out (%s)", path, error)
        texts = texts or _ffmpeg_texts(path)
    return Tags(_clean(texts), _cover(pictures))


def write_tags(path: Path, tags: Tags, format: str) -> None:
    """Writes tags into a complete audio file in place; its samples stay as they are.

    A text that the format does not support, such as a track number in words in MP4, is left out. If no tags can be
    written, the file stays as it is and a warning gives the reason.

    Args:
        path: The file; its suffix does not matter.
        tags: What to write; if empty, the file is not touched.
        format: wav, flac, mp3, ogg or m4a.

    Raises:
        OSError: The file cannot be opened, or writing failed midway (the disk is full), so that it may be damaged.
    """
    target, texts = TARGETS[format], _clean(tags.texts)
    if not texts and not tags.cover:
        return
    raw = _WatchedFile(path, "r+b")
    try:
        with io.BufferedRandom(raw) as file:
            if target is WAVE and (file.read(4) != b"RIFF" or path.stat().st_size > LARGEST_WAV_BYTES + HEADER_BYTES):
                raise ValueError("only plain WAV below 4 GiB can contain them")
            audio = target(file)
            if audio.tags is None:
                audio.add_tags()
            fill = {WAVE: _fill_id3, MP3: _fill_id3, MP4: _fill_mp4}.get(target, _fill_vorbis)
            fill(audio, texts, tags.cover)
            file.seek(0)
            audio.save(file)
    except Exception as error:  # From the format, the system, or a bug in mutagen.
        if raw.changed:
            system = error if isinstance(error, OSError) else error.__context__  # mutagen wraps it in its own.
            reason = getattr(system, "strerror", None) or f"its tags could not be written whole: {error}"
            raise OSError(getattr(system, "errno", None) or errno.EIO, reason, str(path)) from error
        log.warning("a %s file in %s gets no tags (%s); its audio is complete", format, path.parent, error)


class _WatchedFile(io.FileIO):
    """A file that records whether it was changed."""

    changed = False

    def write(self, data: Any, /) -> int:
        self.changed = True
        return super().write(data)

    def truncate(self, size: int | None = None, /) -> int:
        self.changed = True
        return super().truncate(size)


def _fill_id3(audio: Any, texts: Mapping[str, list[str]], cover: Cover | None) -> None:
    for name, values in texts.items():
        kind, _, description = KEYS[name][0].partition(":")
        content: dict[str, Any] = {"encoding": Encoding.UTF8, "text": values}
        if kind == "UFID":
            content = {"owner": description, "data": values[0].encode("ascii", "replace")}
        elif kind == "TXXX":
            content["desc"] = description
        elif kind == "COMM":
            content["lang"] = "XXX"
        elif kind == "USLT":
            content |= {"text": "\n".join(values), "lang": "XXX"}
        audio.tags.add(Frames[kind](**content))
    if cover:
        picture = APIC(encoding=Encoding.LATIN1, mime=cover.mime, type=PictureType.COVER_FRONT, data=cover.data)
        audio.tags.add(picture)


def _fill_vorbis(audio: Any, texts: Mapping[str, list[str]], cover: Cover | None) -> None:
    audio.tags.update(texts)
    if cover:
        picture = Picture()
        picture.type, picture.mime, picture.data = PictureType.COVER_FRONT, cover.mime, cover.data
        if isinstance(audio, FLAC):
            audio.add_picture(picture)
        else:
            audio.tags["metadata_block_picture"] = [base64.b64encode(picture.write()).decode()]


def _fill_mp4(audio: Any, texts: Mapping[str, list[str]], cover: Cover | None) -> None:
    for name, values in texts.items():
        key = KEYS[name][1]
        content: list[Any] = list(values)
        if key.startswith("----"):
            content = [value.encode() for value in values]
        elif key in ("trkn", "disk"):
            matches = (re.fullmatch(r"\s*(\d{1,4})\s*(?:/\s*(\d{1,4})\s*)?", value) for value in values)
            content = [(int(match[1]), int(match[2] or 0)) for match in matches if match]
        elif key == "tmpo":
            content = [round(float(value)) for value in values if re.fullmatch(r"\s*\d{1,4}(\.\d+)?\s*", value)]
        if content:
            audio.tags[key] = content
    if cover:
        kind = MP4Cover.FORMAT_PNG if cover.mime == "image/png" else MP4Cover.FORMAT_JPEG
        audio.tags["covr"] = [MP4Cover(cover.data, kind)]


def _id3_values(tags: Any, key: str) -> list[str]:
    for frame in tags.getall(key):
        if frame.FrameID == "UFID":
            return [frame.data.decode("ascii", "replace")]
        # Comments with a description contain data of programs, such as gapless data.
        if frame.FrameID != "COMM" or frame.desc in ("", "ID3v1 Comment"):
            text = frame.genres if frame.FrameID == "TCON" else frame.text
            return [text] if isinstance(text, str) else [str(value) for value in text]
    return []


def _mp4_text(value: Any) -> str:
    if isinstance(value, tuple):
        number, total = value
        return f"{number}/{total}" if total else _mp4_text(number)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value or "")  # Zero means unknown.


def _vorbis_values(tags: Mapping[str, list[str]], name: str) -> list[str]:
    """Returns the values of a name; the total of tracks or discs, which has a name of its own, follows a slash."""
    values, kind = tags.get(name, []), name.removesuffix("number")
    totals = tags.get(f"{kind}total", []) or tags.get(f"total{kind}s", [])
    if kind != name and values and totals and "/" not in values[0]:
        return [f"{values[0]}/{totals[0]}"]
    return values


def _ffmpeg_texts(path: Path) -> dict[str, list[str]]:
    """Returns the texts that FFmpeg reads, for tags that mutagen does not read: LIST INFO, Matroska, WMA."""
    try:
        options = {"protocol_whitelist": "none"}
        with FileSection(path) as file, av.open(file, "r", options=options, metadata_errors="replace") as container:
            found = {key.lower(): text for key, text in container.metadata.items()}
    except (av.FFmpegError, OSError, ValueError):
        return {}
    texts = {name: found.get(FFMPEG_NAMES.get(name, name), "") for name in KEYS}
    # Text that was not UTF-8 is unreadable here.
    return {name: [text] for name, text in texts.items() if "\N{REPLACEMENT CHARACTER}" not in text}


def _cover(pictures: list[tuple[int, bytes]]) -> Cover | None:
    for _, data in sorted(pictures, key=lambda picture: picture[0] != PictureType.COVER_FRONT):
        for signature, mime in COVER_TYPES.items():
            if data.startswith(signature) and len(data) <= LARGEST_COVER:
                return Cover(data, mime)
    return None


def _clean(texts: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Returns the non-empty texts of known names as valid Unicode; NUL separates values, as in ID3."""
    clean = {}
    for name in KEYS:
        whole = "\0".join(texts.get(name, [])).encode("utf-8", "replace").decode()
        if values := [value for value in whole.split("\0") if value.strip()]:
            clean[name] = values
    return clean
