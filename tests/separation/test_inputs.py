import errno
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bsmamba2.errors import InputError
from bsmamba2.separation.inputs import SongFile, find_song_files, piped_inputs
from tests.separation.empty_songs import found, touch


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes an empty folder the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_keep_their_order_whatever_they_are_called() -> None:
    touch("b.wav", "a.xyz", "c")
    assert found("b.wav", Path("a.xyz"), "c", "missing.wav") == ["b.wav", "a.xyz", "c", "missing.wav"]


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


def test_a_pattern_that_matches_only_folders_is_an_error() -> None:
    touch("songs/in/a.wav")
    with pytest.raises(InputError, match=r"^the pattern songs/\* matches only folders or stems"):
        found("songs/*")


def test_a_pattern_without_a_match_is_a_missing_file() -> None:
    assert found("*.wav") == ["*.wav"]


def test_a_file_is_taken_once_however_many_links_lead_to_it() -> None:
    touch("songs/a.wav")
    Path("link.wav").symlink_to("songs/a.wav")
    Path("place").symlink_to("songs")
    Path("songs/other.wav").symlink_to("a.wav")
    assert found("songs/a.wav", "./songs/../songs/a.wav", "link.wav", "place", "songs", "songs/*") == ["songs/a.wav"]
    assert found("link.wav", "songs") == ["link.wav"]


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


def test_a_very_deep_folder_is_searched() -> None:
    """Its path is about as long as the system allows."""
    place = Path(*["songs", *["d"] * 900])
    for folder in (*reversed(place.parents[:-1]), place):
        folder.mkdir()
    (place / "a.wav").touch()
    assert [song.path for song in find_song_files(["songs"], Path("stems"))] == [place / "a.wav"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows makes no such folders")
def test_a_folder_whose_path_is_too_long_is_a_song_that_fails_later(folder: Path) -> None:
    touch("songs/a.wav", "songs/z/z.wav")
    try:
        os.chdir("songs")
        for _ in range(30):
            os.mkdir(200 * "d")
            os.chdir(200 * "d")
        Path("unreachable.wav").touch()
    finally:
        os.chdir(folder)
    first, too_deep, last = find_song_files(["songs"], Path("stems"))
    assert (first.track, last.track) == ("a", "z")
    with pytest.raises(OSError, match="too long") as failure:
        too_deep.path.stat()
    assert failure.value.errno == errno.ENAMETOOLONG
