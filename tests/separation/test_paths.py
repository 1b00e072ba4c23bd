import os
import re
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.separation.inputs import SongFile, find_song_files
from bsmamba2.separation.paths import Destination, StemPaths, portable_name
from tests.separation.empty_songs import found, touch

NAMES = [
    "two words.wav",
    'it\'s "quoted".wav',
    "new\nline.wav",
    "ñandú 音楽.wav",
    "[x].wav",
    "-x.wav",
    "{a}%s.wav",
    "*.wav",
]
STEMS = ("vocals", "instrumental")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes an empty folder the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(*inputs: str | Path, template: str = Destination.template, stems: Sequence[str] = STEMS) -> list[str]:
    """Returns the paths of the first stem."""
    destination = Destination(template=template)
    paths = StemPaths(find_song_files(inputs, destination.output), destination, stems, "wav")
    return [files[stems[0]].as_posix() for files in paths.values()]


def test_folders_are_searched_for_audio_recursively() -> None:
    touch("songs/b.FLAC", "songs/in/deep/c.mp3", "songs/a.wav", "songs/cover.jpg", "songs/notes", "songs/z.stem.mp4")
    assert found("songs") == ["songs/a.wav", "songs/b.FLAC", "songs/z.stem.mp4", "songs/in/deep/c.mp3"]
    assert written("songs") == [
        "stems/a/vocals.wav",
        "stems/b/vocals.wav",
        "stems/z/vocals.wav",
        "stems/in/deep/c/vocals.wav",
    ]


def test_relative_folders() -> None:
    touch("a.wav", "in/b.wav")
    assert found(".") == ["a.wav", "in/b.wav"]
    assert written("./in/../in") == ["stems/b/vocals.wav"]


def test_a_pattern_keeps_the_folders_that_it_matches() -> None:
    touch("songs/a.flac", "songs/in/deep/c.flac", "other/a.flac")
    assert written("songs/**/*.flac") == ["stems/a/vocals.wav", "stems/in/deep/c/vocals.wav"]
    assert written("*/a.flac") == ["stems/other/a/vocals.wav", "stems/songs/a/vocals.wav"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_taken_literally(name: str) -> None:
    touch(name, "x.wav", f"songs/{name}")
    track = name.removesuffix(".wav")
    assert found(name) == [name]
    assert written(name) == [f"stems/{track}/vocals.wav"]
    assert found("songs") == [f"songs/{name}"]
    assert written("songs/**/*.wav") == [f"stems/{track}/vocals.wav"]


def test_names_that_are_not_unicode() -> None:
    name = os.fsdecode(b"\xff\xe9.wav")
    try:
        touch(f"songs/{name}")
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    assert found("songs", "songs/*.wav", f"songs/{name}") == [f"songs/{name}"]
    assert written("songs") == [f"stems/{os.fsdecode(bytes([0xFF, 0xE9]))}/vocals.wav"]


@pytest.mark.parametrize(
    ("name", "track"),
    [
        ("a.b song.wav", "a.b song"),
        ("song.stem.mp4", "song"),
        ("song.STEM.mp4", "song.STEM"),
        ("song.stem.m4a", "song"),
        ("song.stem.wav", "song.stem"),
        (".stem.mp4", ".stem.mp4"),
        ("...wav", "...wav"),
        ("..wav", "..wav"),
        ("song", "song"),
        ("..song", "..song"),
    ],
)
def test_the_track_is_the_name_without_its_suffix(name: str, track: str) -> None:
    touch(name)
    assert written(name) == [f"stems/{track}/vocals.wav"]


def test_the_track_of_a_stem_file(song: Track) -> None:
    assert song.path.name == f"{song.name}.stem.mp4"
    assert written(song.path) == [f"stems/{song.name}/vocals.wav"]


@pytest.mark.parametrize("given", ["songs", "songs/**/*.wav"])
def test_links_in_circles_end(given: str) -> None:
    """Following two of them in one folder would give 2^40 paths."""
    touch("songs/a.wav", "songs/in/b.wav")
    for name in ("again", "back", "in/up"):
        Path("songs", name).symlink_to(Path("songs").resolve())
    assert sorted(found(given)) == ["songs/a.wav", "songs/in/b.wav"]
    assert sorted(written(given)) == ["stems/a/vocals.wav", "stems/in/b/vocals.wav"]


def test_a_link_to_itself_is_a_song_that_fails_later() -> None:
    touch("songs/a.wav")
    Path("songs/loop.wav").symlink_to("loop.wav")
    assert found("songs") == ["songs/a.wav", "songs/loop.wav"]
    assert written("songs/loop.wav") == ["stems/loop/vocals.wav"]


@pytest.mark.parametrize(
    ("inputs", "output"),
    [(["a/song.wav", "b/song.flac"], "stems/song/vocals.wav"), (["a/song.wav", "b"], "stems/song/vocals.wav")],
)
def test_two_songs_with_one_output_are_an_error(inputs: list[str], output: str) -> None:
    touch("a/song.wav", "b/song.flac")
    message = f"a/song.wav and b/song.flac would both write {output}; separate them into two folders"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        written(*inputs)


def test_songs_with_the_same_name_in_two_subfolders() -> None:
    touch("songs/a/song.wav", "songs/b/song.wav")
    assert written("songs") == ["stems/a/song/vocals.wav", "stems/b/song/vocals.wav"]


@pytest.mark.parametrize("linked", [False, True])
def test_an_output_that_is_an_input_is_an_error(linked: bool) -> None:
    touch("stems/song/vocals.wav", "song.wav")
    given = "stems/song/vocals.wav"
    if linked:
        Path("link.wav").symlink_to(given)
        given = "link.wav"
    with pytest.raises(InputError, match=r"^stems/song/vocals\.wav is an input and would be overwritten"):
        written("song.wav", given)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{track}/{stem}.{ext}", "stems/in/song/vocals.wav"),
        ("{track} ({stem}).{ext}", "stems/in/song (vocals).wav"),
        ("{stem}/a/b/{track}.{ext}", "stems/in/vocals/a/b/song.wav"),
        ("{ext}/{{{stem}}} {track:.2}.{ext}", "stems/in/wav/{vocals} so.wav"),
        ("./{stem}.{ext}", "stems/in/vocals.wav"),
    ],
)
def test_templates(template: str, expected: str) -> None:
    touch("songs/in/song.wav")
    assert written("songs", template=template) == [expected]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{title}/{stem}.{ext}", "its fields are {track}, {stem} and {ext}"),
        ("{}/{stem}.{ext}", "its fields are"),
        ("{0}/{stem}.{ext}", "its fields are"),
        ("{track.__class__}/{stem}.{ext}", "its fields are"),
        ("{track[0]}/{stem}.{ext}", "its fields are"),
        ("{track:d}/{stem}.{ext}", "its fields are"),
        ("{track/{stem}.{ext}", "its fields are"),
        ("/tmp/{track}/{stem}.{ext}", "give a path below the output that ends with .{ext}"),
        ("../{track}/{stem}.{ext}", "give a path below the output"),
        ("{track}/../../{stem}.{ext}", "give a path below the output"),
        ("{track}/{stem}.wav", "give a path below the output"),
        ("{track}/{stem}", "give a path below the output"),
        ("", "give a path below the output"),
        ("{track}.{ext}", "because all 2 stems would get one path; add {stem}"),
        ("{track}/{stem:.0}.{ext}", "because all 2 stems would get one path; add {stem}"),
    ],
)
def test_templates_that_cannot_be_used(template: str, reason: str) -> None:
    touch("song.wav")
    with pytest.raises(InputError, match=f"^the template .* cannot be used.*{re.escape(reason)}"):
        written("song.wav", template=template)


def test_one_stem_needs_no_name_in_the_template() -> None:
    touch("song.wav")
    assert written("song.wav", template="{track}.{ext}", stems=["vocals"]) == ["stems/song.wav"]


def test_names_that_windows_reserves_or_changes_are_made_safe(caplog: pytest.LogCaptureFixture) -> None:
    touch("songs/CON/nul.live.wav", "songs/Dr. No. /What . .flac", "songs/com0/console.wav", "songs/Lpt³/aux .wav")
    assert written("songs") == [
        "stems/CON_/nul_.live/vocals.wav",
        "stems/Dr. No. _/What . _/vocals.wav",
        "stems/Lpt³_/aux _/vocals.wav",
        "stems/com0/console/vocals.wav",
    ]
    assert "the name 'CON' is written as 'CON_', which every system can store" in caplog.text
    assert "console" not in caplog.text


@pytest.mark.parametrize(
    ("name", "portable"),
    [
        *[("PRN", "PRN_"), ("con.wav", "con_.wav"), ("NUL .tar.gz", "NUL _.tar.gz"), ("CONOUT$", "CONOUT$_")],
        *[("COM1.x", "COM1_.x"), ("COM10", "COM10"), ("COM", "COM"), ("...", "..._"), (" ", " _"), ("a.", "a._")],
        *[("icon", "icon"), (".con", ".con"), ("con-", "con-"), ("ñ 夜.wav", "ñ 夜.wav")],
    ],
)
def test_portable_names(name: str, portable: str) -> None:
    assert portable_name(name) == portable
    assert portable_name(portable) == portable


def test_two_names_that_become_one_are_an_error() -> None:
    touch("songs/CON.wav", "songs/CON_.wav")
    with pytest.raises(InputError, match="would both write"):
        written("songs")


def test_names_that_become_too_long_are_shortened(caplog: pytest.LogCaptureFixture) -> None:
    long = 80 * "歌"
    touch(f"{long}.wav", f"{long}詞.wav")
    paths = written(f"{long}.wav", f"{long}詞.wav", template="{track} - {track} {stem}.{ext}")
    assert len(set(paths)) == 2
    assert all(200 < len(os.fsencode(Path(path).name)) <= 255 and path.endswith(" vocals.wav") for path in paths)
    assert "is written as" in caplog.text
    assert written(f"{long}.wav") == [f"stems/{long}/vocals.wav"]


@pytest.mark.parametrize(
    "template",
    ["{track}" + 250 * "x" + "/{stem}.{ext}", "{track:>300}/{stem}.{ext}", "{track}/{stem}" + 250 * "x" + ".{ext}"],
)
def test_a_template_of_too_long_names_is_an_error(template: str) -> None:
    touch("song.wav")
    with pytest.raises(InputError, match=r"too long; file systems allow 255 bytes, so shorten it$"):
        written("song.wav", template=template)


def test_the_paths_of_very_many_songs_need_little_memory() -> None:
    """The paths of 20 000 songs, each 400 characters long, would take about 40 MB if they were kept."""
    folder = Path("a" * 200, "b" * 150)
    songs = [SongFile(folder / f"{number}.wav", folder, str(number)) for number in range(20_000)]
    tracemalloc.start()
    paths = StemPaths(songs, Destination(), STEMS, "wav")
    assert sum(len(files) for files in paths.values()) == 40_000
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 16e6
