from pathlib import Path

import pytest

from bsmamba2.errors import InputError
from bsmamba2.separation.manifest import read_manifest
from bsmamba2.separation.settings import StemSettings

HEADER = "path,name,stems,start,duration\n"


def manifest(text: str | bytes) -> Path:
    Path("lists").mkdir(exist_ok=True)
    path = Path("lists/songs.csv")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_row_has_its_own_settings_and_the_defaults_for_the_rest() -> None:
    text = f'{HEADER}a.wav,,,,\n\n/b/c.stem.mp4,x/y/z,"vocals, bass",1.5,2\n../d.wav,,drums;bass,,3\n'
    one, two, three = read_manifest(manifest(text), StemSettings(["vocals"], "flac", start=4))
    assert (one.number, one.path, one.song.path, one.name) == (1, "a.wav", Path("lists/a.wav"), "a")
    assert one.stem_settings == StemSettings(("vocals",), "flac", start=4)
    assert (two.number, two.song.path, two.name) == (2, Path("/b/c.stem.mp4"), "x/y/z")
    assert (two.song.folder, two.song.track) == (Path("x/y"), "z")
    assert two.stem_settings == StemSettings(("vocals", "bass"), "flac", start=1.5, duration=2)
    assert (three.song.path, three.name) == (Path("lists/../d.wav"), "d")
    assert three.stem_settings == StemSettings(("drums", "bass"), "flac", start=4, duration=3)


def test_a_manifest_of_a_spreadsheet() -> None:
    """It begins with a mark, has the ends of lines of Windows, and columns in any order."""
    rows = read_manifest(manifest(b'\xef\xbb\xbfduration,path\r\n2,"one, two.wav"\r\n,\xff.wav\r\n'), StemSettings())
    assert [row.path for row in rows] == ["one, two.wav", "\udcff.wav"]
    assert [row.stem_settings.duration for row in rows] == [2, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            r"^the first line of lists/songs\.csv must name path, and any of name, stems, start, .*, each once$",
        ),
        ("path,path\na,b\n", "must name path, .*, each once$"),
        ("name\na\n", "must name path"),
        ("path,nmae\na,b\n", r"^the manifest lists/songs\.csv has a column 'nmae'; did you mean name\?$"),
        ("path,gain\na,b\n", "has a column 'gain'; .*$"),
        ("path\n", "contains no song; give each a row below the names of the columns$"),
        ("path,name\na,b\n,c\n", r"^row 2 of lists/songs\.csv: its path is missing; give the file of the song$"),
        ("path,start\na,\nb,soon\n", r"^row 2 of .*: its start 'soon' is not a number; give seconds$"),
        ("path,duration\na,0:30\n", r"^row 1 of .*: its duration '0:30' is not a number; give seconds$"),
        ("path,duration\na,0\n", r"^row 1 of .*: duration=0\.0 is not allowed; give seconds above 0$"),
        ("path,start\na,nan\n", r"^row 1 of .*: start=nan is not allowed; give seconds of at least 0$"),
        ("path\nx/a.wav\nb.wav\ny/a.mp3\n", r"^row 3 of .*: its output name 'a' is that of row 1; give each its own"),
        ("path,name\na,x/b\nb,x//b\n", r"^row 2 of .*: its output name 'x/b' is that of row 1; give each its own"),
        ("path,name\na,../b\n", r"^row 1 of .*: the name '\.\./b' is not allowed; give one below the output, such as"),
        ("path,name\na,/b\n", r"^row 1 of .*: the name '/b' is not allowed"),
        ("path,name\na,.\n", r"^row 1 of .*: the name '\.' is not allowed"),
        ("path\nthis, that.wav\n", r"^row 1 of .*: it has 2 cells, and there are 1 columns; quote cells with commas$"),
        ("path,name\na\n", r"^row 1 of .*: it has 1 cells, and there are 2 columns"),
        ('path\n"a\n', "is not a CSV file .*; quote cells with commas or quotes$"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_manifest(manifest(text), StemSettings())


def test_a_manifest_that_cannot_be_read() -> None:
    with pytest.raises(InputError, match=r"^the manifest songs\.csv cannot be read \(No such file or directory\)"):
        read_manifest(Path("songs.csv"), StemSettings())
