import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.separation.paths import Destination, SongFile, find_song_files, piped_inputs, stem_paths

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


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def found(*inputs: str | Path, output: str = "stems") -> list[str]:
    return [song.path.as_posix() for song in find_song_files(inputs, Path(output))]


def written(*inputs: str | Path, template: str = Destination.template, stems: Sequence[str] = STEMS) -> list[str]:
    """Returns the paths of the first stem."""
    destination = Destination(template=template)
    paths = stem_paths(find_song_files(inputs, destination.output), destination, stems, "wav")
    return [files[stems[0]].as_posix() for files in paths.values()]


def test_files_keep_their_order_whatever_they_are_called() -> None:
    touch("b.wav", "a.xyz", "c")
    assert found("b.wav", Path("a.xyz"), "c", "missing.wav") == ["b.wav", "a.xyz", "c", "missing.wav"]


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


def test_hidden_files_and_folders_are_left_out_unless_they_are_given() -> None:
    touch("songs/a.wav", "songs/.b.wav", "songs/.trash/c.wav", ".hidden/d.wav")
    assert found("songs") == found("songs/**/*.wav") == ["songs/a.wav"]
    assert found(".hidden", "songs/.b.wav") == [".hidden/d.wav", "songs/.b.wav"]


@pytest.mark.parametrize("given", [".", "**/*.wav", "*/*.wav", "*/*/*.wav"])
def test_the_stems_of_an_earlier_run_are_left_out(given: str) -> None:
    touch("songs/a.wav", "songs/in/b.wav", "stems/a/vocals.wav", "stems/c.wav")
    expected = {"*/*.wav": ["songs/a.wav"], "*/*/*.wav": ["songs/in/b.wav"]}
    assert found(given) == expected.get(given, ["songs/a.wav", "songs/in/b.wav"])


def test_stems_are_separated_if_they_are_given() -> None:
    touch("stems/a/vocals.wav")
    assert found("stems/a") == found("stems/*/*.wav") == found("stems/a/vocals.wav") == ["stems/a/vocals.wav"]


def test_a_pattern_beside_its_stems() -> None:
    touch("a.wav", "a/vocals.wav")
    assert found("*.wav", output=".") == ["a.wav"]


def test_an_output_that_is_the_folder_itself() -> None:
    touch("songs/a.wav")
    with pytest.raises(InputError, match=r"^the folder songs is also the output; give another --output$"):
        found("songs", output="in/../songs")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("songs/*.flac", ["songs/a.flac"]),
        ("songs/**/*.flac", ["songs/a.flac", "songs/in/deep/c.flac"]),
        ("**/deep/*", ["songs/in/deep/c.flac"]),
        ("songs/**", ["songs/a.flac", "songs/b.wav", "songs/in/deep/c.flac"]),
        ("songs/**/in/**/*.flac", ["songs/in/deep/c.flac"]),
        ("songs/[ab].*", ["songs/a.flac", "songs/b.wav"]),
        ("songs/?.wav", ["songs/b.wav"]),
    ],
)
def test_patterns(pattern: str, expected: list[str], folder: Path) -> None:
    touch("songs/a.flac", "songs/b.wav", "songs/in/deep/c.flac")
    assert found(pattern) == expected
    assert found(folder / pattern) == [str(folder / path) for path in expected]


def test_a_pattern_keeps_the_folders_that_it_matches() -> None:
    touch("songs/a.flac", "songs/in/deep/c.flac", "other/a.flac")
    assert written("songs/**/*.flac") == ["stems/a/vocals.wav", "stems/in/deep/c/vocals.wav"]
    assert written("*/a.flac") == ["stems/other/a/vocals.wav", "stems/songs/a/vocals.wav"]


def test_a_pattern_that_matches_only_folders_is_an_error() -> None:
    touch("songs/in/a.wav")
    with pytest.raises(InputError, match=r"^the pattern songs/\* matches only folders or stems"):
        found("songs/*")


def test_a_pattern_without_a_match_is_a_missing_file() -> None:
    assert found("*.wav") == ["*.wav"]


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


def test_a_file_is_taken_once_however_many_links_lead_to_it() -> None:
    touch("songs/a.wav")
    Path("link.wav").symlink_to("songs/a.wav")
    Path("place").symlink_to("songs")
    Path("songs/other.wav").symlink_to("a.wav")
    assert found("songs/a.wav", "./songs/../songs/a.wav", "link.wav", "place", "songs", "songs/*") == ["songs/a.wav"]
    assert found("link.wav", "songs") == ["link.wav"]


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


def test_a_link_to_stems_is_not_followed() -> None:
    touch("songs/a.wav", "stems/a/vocals.wav")
    Path("songs/results").symlink_to(Path("stems").resolve())
    assert found("songs") == ["songs/a.wav"]


@pytest.mark.parametrize("content", [[], ["notes.txt"], [".a.wav"]])
def test_a_folder_without_audio_is_an_error(content: list[str]) -> None:
    Path("songs").mkdir()
    touch(*(f"songs/{name}" for name in content))
    with pytest.raises(InputError, match=r"^the folder songs contains no audio file"):
        found("songs")


@pytest.mark.usefixtures("permissions_matter")
def test_a_folder_that_cannot_be_listed_is_an_error() -> None:
    touch("songs/a.wav", "songs/closed/b.wav")
    Path("songs/closed").chmod(0)
    with pytest.raises(InputError, match=r"^the folder songs/closed cannot be listed"):
        found("songs")
    Path("songs/closed").chmod(0o700)


def test_an_empty_input_is_not_the_current_folder() -> None:
    touch("a.wav")
    with pytest.raises(InputError, match=r"^an input is empty"):
        found("")


def test_a_name_that_is_too_long_is_a_song_that_fails_later() -> None:
    name = 300 * "a" + ".wav"
    assert found(name) == [name]


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


def test_without_a_hyphen_the_standard_input_stays_unread() -> None:
    with piped_inputs(["a.wav", "./-"]) as spooled:
        assert spooled == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="only Unix has named pipes")
def test_a_named_pipe_is_read_like_the_standard_input() -> None:
    os.mkfifo("radio.mp3")
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(Path("radio.mp3").write_bytes, b"a song")
        with piped_inputs(["a.wav", "radio.mp3"]) as spooled:
            [song] = find_song_files(["radio.mp3"], Path("stems"), spooled)
            assert (song.path.read_bytes(), song.track) == (b"a song", "radio")
        assert written.result(60) == 6
    assert not song.path.exists()


def test_the_song_from_a_pipe_is_called_stdin() -> None:
    touch("spooled")
    assert find_song_files(["-", "a.wav", "-"], Path("stems"), {"-": Path("spooled")}) == [
        SongFile(Path("spooled"), Path(), "stdin"),
        SongFile(Path("a.wav"), Path(), "a"),
    ]


@pytest.mark.parametrize("closed", [False, True])
def test_no_wait_if_nothing_is_piped_in(monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
    if closed:
        monkeypatch.setattr("sys.stdin", None)
        terminal = None
    else:
        pty = pytest.importorskip("pty", reason="only Unix has pseudo-terminals")
        _, other_end = pty.openpty()
        terminal = os.fdopen(other_end)
        monkeypatch.setattr("sys.stdin", terminal)
    with pytest.raises(InputError, match="nothing is piped into it"), piped_inputs(["-"]):
        pass
    if terminal:
        terminal.close()
