import base64
import errno
import itertools
import logging
import os
import shutil
import struct
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import mutagen
import mutagen.id3
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, COMM, RVA2, TENC, TLEN, TSSE, TXXX, UFID, USLT
from mutagen.mp4 import MP4, MP4Cover
from mutagen.wave import WAVE

from bsmamba2.audio import tags as module
from bsmamba2.audio.tags import Cover, Tags, read_tags, write_tags

RATE = 44100
FORMATS = {
    "wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III"), "ogg": ("OGG", "VORBIS"),
    "aiff": ("AIFF", "PCM_16"), "opus": ("OGG", "OPUS"),
}  # fmt: skip
SOURCES = [*FORMATS, "m4a"]
TARGETS = ["wav", "flac", "mp3", "ogg", "m4a"]
ITUNES = "----:com.apple.iTunes:"
# name, ID3 frame, MP4 key, values
FIELDS: list[tuple[str, str, str, list[str]]] = [
    ("title", "TIT2", "\xa9nam", ["Für Elise — 花 Песня"]),
    ("artist", "TPE1", "\xa9ART", ["Anna Björk", "Боб"]),
    ("album", "TALB", "\xa9alb", ["Two\nlines"]),
    ("albumartist", "TPE2", "aART", ["Various"]),
    ("date", "TDRC", "\xa9day", ["2013-05-06"]),
    ("genre", "TCON", "\xa9gen", ["Dream Pop"]),
    ("composer", "TCOM", "\xa9wrt", ["Clara"]),
    ("copyright", "TCOP", "cprt", ["© 2013 Nobody"]),
    ("tracknumber", "TRCK", "trkn", ["1/12"]),
    ("discnumber", "TPOS", "disk", ["2/3"]),
    ("comment", "COMM", "\xa9cmt", ["a comment"]),
    ("lyrics", "USLT", "\xa9lyr", ["la\nla\nla"]),
    ("bpm", "TBPM", "tmpo", ["128"]),
    ("isrc", "TSRC", ITUNES + "ISRC", ["GBAYE6700149"]),
    ("musicbrainz_trackid", "UFID:http://musicbrainz.org", ITUNES + "MusicBrainz Track Id", ["f1a2"]),
    ("musicbrainz_artistid", "TXXX:MusicBrainz Artist Id", ITUNES + "MusicBrainz Artist Id", ["a1", "a2"]),
    ("musicbrainz_albumartistid", "TXXX:MusicBrainz Album Artist Id", ITUNES + "MusicBrainz Album Artist Id", ["c3"]),
    (
        "musicbrainz_releasegroupid",
        "TXXX:MusicBrainz Release Group Id",
        ITUNES + "MusicBrainz Release Group Id",
        ["d"],
    ),
]
TEXTS = {name: values for name, _, _, values in FIELDS}
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")


def png(rows: int = 1) -> bytes:
    """Returns a valid grey PNG of that many rows, which hardly compress."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = np.random.default_rng(0).integers(0, 256, (rows, 1025), dtype=np.uint8)
    pixels[:, 0] = 0
    header = struct.pack(">2I5B", 1024, rows, 8, 0, 0, 0, 0)
    image = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels.tobytes())) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + image


FRONT, BACK = Cover(JPEG, "image/jpeg"), Cover(png(), "image/png")


def make_audio(path: Path, kind: str, length: int = 20011, **options: str) -> Path:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (length, 2))
    if kind != "m4a":
        container, subtype = FORMATS[kind]
        soundfile.write(path, samples, 48000 if kind == "opus" else RATE, format=container, subtype=subtype)
        return path
    with av.open(str(path), "w", format="ipod", options=options) as output:
        stream = output.add_stream("aac", rate=RATE, layout="stereo")
        frame = av.AudioFrame.from_ndarray(samples.T.astype(np.float32).copy(), format="fltp", layout="stereo")
        frame.sample_rate = RATE
        for packet in itertools.chain(stream.encode(frame), stream.encode(None)):
            output.mux(packet)
    return path


def decode(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        is_mp4 = file.read(8)[4:] == b"ftyp"
    if not is_mp4:
        samples, _ = soundfile.read(path)
        return np.asarray(samples)
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1).T


def picture(cover: Cover, kind: int) -> Picture:
    block = Picture()
    block.type, block.mime, block.data = kind, cover.mime, cover.data
    return block


def tag_with_mutagen(path: Path) -> None:
    """Gives a file all texts, a back and a front cover, and much that would be false for a stem."""
    audio: Any = mutagen.File(path)
    assert audio is not None
    if audio.tags is None:
        audio.add_tags()
    tags = audio.tags
    if isinstance(tags, mutagen.id3.ID3):
        for _, key, _, values in FIELDS:
            kind, _, desc = key.partition(":")
            if kind == "UFID":
                tags.add(UFID(owner=desc, data=values[0].encode()))
            elif kind == "USLT":
                tags.add(USLT(encoding=3, lang="eng", text=values[0]))
            else:
                frame = getattr(mutagen.id3, kind)(encoding=3, text=values)
                frame.desc, frame.lang = desc, "eng"
                tags.add(frame)
        tags.add(COMM(encoding=3, lang="eng", desc="iTunSMPB", text="FALSE 00000210"))
        tags.add(COMM(encoding=3, lang="aaa", desc="iTunNORM", text="FALSE 00000210"))
        tags.add(TXXX(encoding=3, desc="replaygain_track_gain", text="FALSE dB"))
        tags.add(RVA2(desc="track", channel=1, gain=-6, peak=0.5))
        for frame_class in (TENC, TSSE):
            tags.add(frame_class(encoding=3, text="FALSE"))
        tags.add(TLEN(encoding=3, text="987654"))
        for cover, number in ((BACK, 4), (FRONT, 3)):
            tags.add(APIC(mime=cover.mime, type=number, desc=str(number), data=cover.data))
    elif isinstance(audio, MP4):
        for _, _, key, values in FIELDS:
            content: list[Any] = values
            if key in ("trkn", "disk"):
                content = [tuple(map(int, values[0].split("/")))]
            elif key == "tmpo":
                content = [int(values[0])]
            elif key.startswith("----"):
                content = [value.encode() for value in values]
            tags[key] = content
        tags["\xa9too"] = ["FALSE encoder"]
        for name in ("iTunSMPB", "iTunNORM", "replaygain_track_gain"):
            tags[ITUNES + name] = [b"FALSE 00000210"]
        tags["covr"] = [MP4Cover(FRONT.data, MP4Cover.FORMAT_JPEG), MP4Cover(BACK.data, MP4Cover.FORMAT_PNG)]
    else:
        tags.update(TEXTS)
        for name in ("REPLAYGAIN_TRACK_GAIN", "R128_TRACK_GAIN", "ENCODER", "ENCODEDBY", "ENCODERSETTINGS", "LENGTH"):
            tags[name] = "FALSE"
        blocks = [picture(BACK, 4), picture(FRONT, 3)]
        if isinstance(audio, FLAC):
            for block in blocks:
                audio.add_picture(block)
        else:
            tags["metadata_block_picture"] = [base64.b64encode(block.write()).decode() for block in blocks]
    audio.save()


def read_with_mutagen(path: Path) -> Tags:
    """Returns the texts and the only image of a file, as mutagen itself reads them."""
    audio: Any = mutagen.File(path)
    assert audio is not None
    texts, tags = {}, audio.tags
    if isinstance(tags, mutagen.id3.ID3):
        for name, key, _, _ in FIELDS:
            for frame in tags.getall(key):
                text = frame.data.decode() if key.startswith("UFID") else frame.text
                texts[name] = [text] if isinstance(text, str) else [str(value) for value in text]
        pictures = [(frame.data, frame.mime, frame.type) for frame in tags.getall("APIC")]
    elif isinstance(audio, MP4):
        for name, _, key, _ in FIELDS:
            if key in tags:
                values = tags[key]
                if key in ("trkn", "disk"):
                    texts[name] = [f"{first}/{second}" for first, second in values]
                else:
                    texts[name] = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
        types = {MP4Cover.FORMAT_JPEG: "image/jpeg", MP4Cover.FORMAT_PNG: "image/png"}
        pictures = [(bytes(cover), types[cover.imageformat], 3) for cover in tags.get("covr", [])]
    else:
        texts = {name: tags[name] for name, _, _, _ in FIELDS if name in tags}
        if isinstance(audio, FLAC):
            found = audio.pictures
        else:
            found = [Picture(base64.b64decode(block)) for block in tags.get("metadata_block_picture", [])]
        pictures = [(block.data, block.mime, block.type) for block in found]
    assert all(kind == 3 for *_, kind in pictures)
    assert len(pictures) <= 1
    return Tags(texts, Cover(*pictures[0][:2]) if pictures else None)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns a fully tagged file of every source format."""
    folder = tmp_path_factory.mktemp("sources")
    files = {kind: make_audio(folder / f"source.{kind}", kind) for kind in SOURCES}
    for path in files.values():
        tag_with_mutagen(path)
    return files


@pytest.fixture(scope="module")
def untagged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns a file of every target format as the separation writes it, without a suffix."""
    folder = tmp_path_factory.mktemp("targets")
    return {kind: make_audio(folder / kind, kind) for kind in TARGETS}


@pytest.fixture
def fresh(tmp_path: Path, untagged: dict[str, Path]) -> Callable[[str], Path]:
    return lambda kind: Path(shutil.copy(untagged[kind], tmp_path / f"{kind}.tmp"))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
def test_everything_is_copied_and_the_audio_is_unchanged(
    sources: dict[str, Path], fresh: Callable[[str], Path], source: str, target: str
) -> None:
    path = fresh(target)
    before = decode(path)
    tags = read_tags(sources[source])
    assert tags == Tags(TEXTS, FRONT)
    write_tags(path, tags, target)
    assert read_with_mutagen(path) == Tags(TEXTS, FRONT)
    assert read_tags(path) == Tags(TEXTS, FRONT)
    for false in (b"FALSE", b"RVA2", b"987654", b"iTunSMPB"):
        assert false not in path.read_bytes()
    after = decode(path)
    np.testing.assert_array_equal(after, before)
    if target in ("wav", "flac", "mp3", "ogg"):
        assert len(after) == 20011


@pytest.mark.parametrize("target", TARGETS)
def test_ffprobe_reads_the_title_and_the_cover(fresh: Callable[[str], Path], target: str) -> None:
    if not shutil.which("ffprobe"):
        pytest.skip("there is no ffprobe on PATH")
    path = fresh(target)
    write_tags(path, Tags(TEXTS, FRONT), target)
    command = ["ffprobe", "-v", "error", "-show_entries", "format_tags:stream_tags:stream=codec_type", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"title={TEXTS['title'][0]}" in shown or f"TITLE={TEXTS['title'][0]}" in shown
    assert "track=1/12" in shown
    assert "codec_type=video" in shown


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("length", [1, 1001])
def test_short_files_with_an_odd_number_of_bytes(tmp_path: Path, target: str, length: int) -> None:
    path = tmp_path / "short"
    if target == "wav":
        soundfile.write(path, np.full(length, 0.5), RATE, format="WAV", subtype="PCM_U8")
    else:
        make_audio(path, target, length)
    before = decode(path)
    write_tags(path, Tags(TEXTS, FRONT), target)
    assert read_with_mutagen(path) == Tags(TEXTS, FRONT)
    np.testing.assert_array_equal(decode(path), before)


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_kind_of_wav(tmp_path: Path, subtype: str) -> None:
    """Some have further chunks."""
    path = tmp_path / "song"
    soundfile.write(path, np.linspace(-1, 1, 1001)[:, None].repeat(3, 1), RATE, format="WAV", subtype=subtype)
    before = decode(path)
    write_tags(path, Tags(TEXTS, FRONT), "wav")
    assert read_with_mutagen(path) == Tags(TEXTS, FRONT)
    np.testing.assert_array_equal(decode(path), before)


@pytest.mark.parametrize("target", TARGETS)
def test_a_cover_of_some_megabytes(fresh: Callable[[str], Path], target: str) -> None:
    path, cover = fresh(target), Cover(png(6000), "image/png")
    before = decode(path)
    assert len(cover.data) > 6_000_000
    write_tags(path, Tags(TEXTS, cover), target)
    assert read_with_mutagen(path) == Tags(TEXTS, cover)
    np.testing.assert_array_equal(decode(path), before)


@pytest.mark.parametrize("data", [b"GIF89a....", b"", b"\x89PNG\r\n\x1a\n" + bytes(2**24)])
def test_a_cover_that_some_format_cannot_hold_is_left_out(tmp_path: Path, data: bytes) -> None:
    path = make_audio(tmp_path / "song.mp3", "mp3")
    audio: Any = mutagen.File(path)
    audio.add_tags()
    audio.tags.add(APIC(mime="image/png", type=3, desc="", data=data))
    audio.tags.add(APIC(mime="", type=4, desc="back", data=JPEG))
    audio.save()
    assert read_tags(path) == Tags({}, FRONT)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("title", ["a\0b", "", " ", "c\0"], ["a", "b", "c"]),
        ("title", ["", " \n", "\0"], None),
        ("title", ["lone \udc80 surrogate"], ["lone ? surrogate"]),
        ("artist", ["\r\nright\u202eleft", "=;/\\"], ["\r\nright\u202eleft", "=;/\\"]),
        ("unknown", ["text"], None),
    ],
)
def test_odd_texts(
    fresh: Callable[[str], Path], target: str, name: str, values: list[str], expected: list[str] | None
) -> None:
    path = fresh(target)
    write_tags(path, Tags({"album": ["kept"], name: values}), target)
    assert read_with_mutagen(path).texts == {"album": ["kept"]} | ({name: expected} if expected else {})


@pytest.mark.parametrize(
    ("name", "value", "target", "expected"),
    [
        ("tracknumber", "A1", "m4a", None), ("tracknumber", "1/70000", "m4a", None),
        ("tracknumber", "70000", "m4a", None), ("tracknumber", "7", "m4a", "7/0"),
        ("tracknumber", "A1", "mp3", "A1"), ("bpm", "127.6", "m4a", "128"), ("bpm", "fast", "m4a", None),
        ("bpm", "9" * 400, "m4a", None), ("bpm", "127.6", "flac", "127.6"), ("date", "last spring", "mp3", None),
        ("date", "last spring", "ogg", "last spring"), ("musicbrainz_trackid", "ö", "wav", "?"),
        ("date", "2014-10-17T12:42:00Z", "mp3", "2014-10-17 12:42"),
    ],
)  # fmt: skip
def test_texts_that_a_format_cannot_hold_are_left_out(
    fresh: Callable[[str], Path], name: str, value: str, target: str, expected: str | None
) -> None:
    path = fresh(target)
    write_tags(path, Tags({"album": ["kept"], name: [value]}), target)
    assert read_with_mutagen(path).texts == {"album": ["kept"]} | ({name: [expected]} if expected else {})


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.dictionaries(st.sampled_from(list(module.KEYS)), st.lists(st.text(), max_size=3)))
def test_any_text_survives_or_is_dropped(
    fresh: Callable[[str], Path], caplog: pytest.LogCaptureFixture, target: str, texts: dict[str, list[str]]
) -> None:
    path = fresh(target)
    write_tags(path, Tags(texts), target)
    found = read_tags(path).texts
    assert not caplog.records
    for name in ("title", "artist", "album", "composer", "isrc", "musicbrainz_artistid", "musicbrainz_workid"):
        expected = [part for value in texts.get(name, []) for part in value.split("\0") if part.strip()]
        assert found.get(name, []) == expected
    assert set(found) <= {name for name, values in texts.items() if "".join(values).strip("\0 ")}


def test_the_total_of_a_vorbis_comment(tmp_path: Path) -> None:
    path = make_audio(tmp_path / "song.flac", "flac")
    audio: Any = mutagen.File(path)
    audio.tags.update({"TrackNumber": "1", "TOTALTRACKS": "12", "discnumber": "1", "disctotal": "2"})
    audio.save()
    assert read_tags(path).texts == {"tracknumber": ["1/12"], "discnumber": ["1/2"]}
    audio.tags["tracknumber"] = "3/4"
    audio.save()
    assert read_tags(path).texts["tracknumber"] == ["3/4"]


@pytest.mark.parametrize("kind", ["mp3", "m4a"])
def test_an_identifier_that_is_not_text_does_not_affect_the_title(tmp_path: Path, kind: str) -> None:
    path = make_audio(tmp_path / f"song.{kind}", kind)
    audio: Any = mutagen.File(path)
    if kind == "mp3":
        audio.add_tags()
        audio.tags.add(mutagen.id3.TIT2(encoding=3, text="kept"))
        audio.tags.add(UFID(owner="http://musicbrainz.org", data=b"\xff"))
    else:
        audio.tags.update({"\xa9nam": ["kept"], ITUNES + "MusicBrainz Track Id": [b"\xff"]})
    audio.save()
    assert read_tags(path).texts == {"title": ["kept"], "musicbrainz_trackid": ["\N{REPLACEMENT CHARACTER}"]}


def test_unknown_numbers_of_mp4_are_left_out(tmp_path: Path) -> None:
    path = make_audio(tmp_path / "song.m4a", "m4a")
    audio: Any = mutagen.File(path)
    audio.tags.update({"trkn": [(3, 0)], "disk": [(0, 0)], "tmpo": [0]})
    audio.save()
    assert read_tags(path).texts == {"tracknumber": ["3"]}


def test_mp4_with_its_index_before_the_audio(tmp_path: Path) -> None:
    """The audio moves when tags are inserted, and the index with it."""
    path = make_audio(tmp_path / "song", "m4a", movflags="faststart")
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")
    before = decode(path)
    write_tags(path, Tags(TEXTS, FRONT), "m4a")
    assert read_with_mutagen(path) == Tags(TEXTS, FRONT)
    np.testing.assert_array_equal(decode(path), before)


def write_list_info(path: Path, title: str = "Titel ö") -> None:
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16", format="WAV") as sound:
        sound.title, sound.artist, sound.album, sound.date = title, "Künstler", "Album", "2001"
        sound.genre, sound.comment, sound.tracknumber, sound.software = "Folk", "words", "4", "FALSE"
        sound.write(np.zeros((100, 2)))


INFO = {
    "title": ["Titel ö"], "artist": ["Künstler"], "album": ["Album"], "date": ["2001"], "genre": ["Folk"],
    "tracknumber": ["4"], "comment": ["words"],
}  # fmt: skip


def test_list_info_of_a_wav(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    write_list_info(path)
    assert b"LIST" in path.read_bytes()
    assert read_tags(path) == Tags(INFO)
    content = path.read_bytes()
    path.write_bytes(content.replace("Künstler".encode(), "K\xfcnstler ".encode("latin-1")))
    assert read_tags(path) == Tags({name: values for name, values in INFO.items() if name != "artist"})
    audio: Any = WAVE(path)
    audio.add_tags()
    audio.tags.add(mutagen.id3.TIT2(encoding=3, text="of the ID3 chunk"))
    audio.save()
    assert read_tags(path) == Tags({"title": ["of the ID3 chunk"]})


@pytest.mark.parametrize("container", ["matroska", "webm"])
def test_tags_that_mutagen_does_not_read(tmp_path: Path, container: str) -> None:
    with av.open(str(tmp_path / "song"), "w", format=container) as file:
        stream = file.add_stream("libopus", rate=48000, layout="stereo")
        file.metadata.update({"title": "Titel ö", "artist": "Künstler", "album_artist": "Alle", "track": "3/9"})
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 9600), np.float32), format="flt", layout="stereo")
        frame.sample_rate = 48000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    expected = {"title": ["Titel ö"], "artist": ["Künstler"], "albumartist": ["Alle"], "tracknumber": ["3/9"]}
    assert read_tags(tmp_path / "song") == Tags(expected)


def test_a_broken_id3_chunk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "song.wav"
    write_list_info(path)
    audio: Any = WAVE(path)
    audio.add_tags()
    audio.tags.add(mutagen.id3.TIT2(encoding=3, text="lost"))
    audio.save()
    content = path.read_bytes()
    position = content.index(b"ID3\x04")
    path.write_bytes(content[: position + 6] + b"\x7f\x7f\x7f\x7f" + content[position + 10 :])
    # FFmpeg reads it although mutagen does not.
    assert read_tags(path) == Tags(INFO | {"title": ["lost"]})
    assert "song.wav cannot be read and are left out" in caplog.text


@pytest.mark.parametrize("source", SOURCES)
def test_damaged_files_never_raise(sources: dict[str, Path], tmp_path: Path, source: str) -> None:
    content, path = sources[source].read_bytes(), tmp_path / sources[source].name
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = np.frombuffer(content, np.uint8).copy()
        for start in (0, max(0, len(damaged) - 3000)):
            damaged[random.integers(start, min(len(damaged), start + 3000), 20)] = random.integers(0, 256, 20)
        path.write_bytes(damaged[: random.integers(1, len(damaged) + 1)].tobytes())
        assert isinstance(read_tags(path), Tags)


def test_files_without_tags(tmp_path: Path, untagged: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "song.txt").write_text("no audio")
    (tmp_path / "song.raw").write_bytes(bytes(100))
    for path in (*untagged.values(), tmp_path / "song.txt", tmp_path / "song.raw"):
        assert read_tags(path) == Tags()
    assert not caplog.records


@pytest.mark.parametrize("target", TARGETS)
def test_without_tags_the_file_is_not_touched(fresh: Callable[[str], Path], target: str) -> None:
    path = fresh(target)
    before, changed = path.read_bytes(), path.stat().st_mtime_ns
    write_tags(path, Tags({"title": [""]}), target)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, changed)


@pytest.mark.parametrize(("magic", "size"), [(b"RF64", 5 * 2**30), (b"RIFF", 2**32 - 1000), (b"RF64", 1000)])
def test_wav_that_mutagen_cannot_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, magic: bytes, size: int
) -> None:
    path = tmp_path / "long.wav"
    sizes = b"ds64" + struct.pack("<IQQQI", 28, size - 8, size - 80, (size - 80) // 4, 0)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, RATE, RATE * 4, 4, 16)
    riff_size, data_size = (2**32 - 1,) * 2 if magic == b"RF64" else (size - 8, size - 80)
    header = magic + struct.pack("<I", riff_size) + b"WAVE"
    header += (sizes if magic == b"RF64" else b"JUNK" + struct.pack("<I", 28) + bytes(28)) + form
    header += b"data" + struct.pack("<I", data_size)
    with open(path, "wb") as file:
        file.write(header)
        file.truncate(size)
    assert soundfile.info(path).frames == (size - 80) // 4
    with caplog.at_level(logging.WARNING):
        write_tags(path, Tags(TEXTS, FRONT), "wav")
    assert "gets no tags (only plain WAV below 4 GiB can contain them); its audio is complete" in caplog.text
    assert path.stat().st_size == size
    with open(path, "rb") as file:
        assert file.read(len(header)) == header


@pytest.mark.parametrize("target", TARGETS)
def test_a_file_that_is_not_what_it_should_be_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    path = tmp_path / "song"
    path.write_bytes(b"RIFF nothing " * 100)
    write_tags(path, Tags(TEXTS), target)
    assert path.read_bytes() == b"RIFF nothing " * 100
    assert f"a {target} file in {tmp_path} gets no tags" in caplog.text


def test_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="aiff"):
        write_tags(tmp_path / "song", Tags(), "aiff")


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_tags(tmp_path / "song", Tags(TEXTS), "wav")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("failures", [1, 1000])
def test_a_full_disk(fresh: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, target: str, failures: int) -> None:
    """A single failed write is seen by mutagen only; if all writes fail, closing the file fails too."""
    left = iter(range(failures))

    class FullFile(module._WatchedFile):
        def write(self, data: Any, /) -> int:
            self.changed = True
            if next(left, None) is None:
                return super().write(data)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "_WatchedFile", FullFile)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_tags(fresh(target), Tags(TEXTS, FRONT), target)
    assert (caught.value.errno, caught.value.strerror) == (errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("change", "argument"), [("write", b"half"), ("truncate", 10)])
def test_an_error_midway_is_raised(
    fresh: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, change: str, argument: Any
) -> None:
    def save(audio: WAVE, file: Any) -> None:
        getattr(file, change)(argument)
        raise mutagen.MutagenError("no more")

    monkeypatch.setattr(WAVE, "save", save)
    with pytest.raises(OSError, match="its tags could not be written whole: no more"):
        write_tags(fresh("wav"), Tags(TEXTS), "wav")


@pytest.mark.parametrize("target", ["wav", "mp3", "flac", "m4a"])
def test_memory_stays_small(tmp_path: Path, target: str) -> None:
    path, length = tmp_path / "long", 64 * 2**20
    if target == "wav":
        soundfile.write(path, np.zeros((length // 4, 2), np.int16), RATE, format="WAV", subtype="PCM_16")
    else:
        make_audio(path, target)
        with open(path, "r+b") as file:
            file.seek(0, os.SEEK_END)
            # A box that MP4 readers skip, and zeros after the frames of the other formats.
            file.write(struct.pack(">I4s", length, b"free"))
            file.truncate(file.tell() + length - 8)
    tracemalloc.start()
    write_tags(path, Tags(TEXTS, FRONT), target)
    read_tags(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23
    assert read_with_mutagen(path) == Tags(TEXTS, FRONT)


REAL = {
    "data/mdn-multitrack-cc0/bassguitar.mp3": {
        "title": ["bassguitar"], "artist": ["Mark Boas"], "album": ["Mark Boas's Album"],
        "date": ["2014-10-17 12:42:00"], "composer": ["Mark Boas"], "bpm": ["75"],
    },
    "data/mixtures/spleeter_audio_example.mp3": {
        "title": ["Slow Motion Dream (ft. CSoul,Alex Beroza & Robert Siekawitch)"], "artist": ["Steven M Bryant"],
        "album": ["ccMixter"], "date": ["2013"],
    },
    "data/musdb18-7-cc/train/Music Delta - 80s Rock.stem.mp4": {},
    "data/stempeg-falcon69/The Easton Ellises - Falcon 69.stem.mp4": {},
    "data/stempeg-falcon69/The Easton Ellises - Falcon 69 (NI ALAC).stem.m4a": {},
    "data/singing/csd_en001b.mp3": {},
    "data/singing/vocadito_1.wav": {},
    "data/everything-is-free-cc0/Software-Entwicklungskit - Lithium/mixture.flac": {},
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("target", TARGETS)
def test_tags_of_real_files(test_data: Path, fresh: Callable[[str], Path], name: str, target: str) -> None:
    tags, path = read_tags(test_data / name), fresh(target)
    assert tags.texts == REAL[name]
    assert (tags.cover is not None) == (".stem." in name)
    write_tags(path, tags, target)
    if tags != Tags():
        assert read_with_mutagen(path) == tags
