"""Empty files as songs, for tests of what is found and where its stems are written."""

from pathlib import Path

from bsmamba2.separation.inputs import find_song_files


def touch(*names: str) -> None:
    """Makes empty files, and their folders."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def found(*inputs: str | Path, output: str = "stems") -> list[str]:
    """Returns the paths of the songs that inputs lead to."""
    return [song.path.as_posix() for song in find_song_files(inputs, Path(output))]
