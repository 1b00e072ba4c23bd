"""Finds the songs to separate: files, folders, patterns and pipes."""

import contextlib
import errno
import glob
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.audio.formats import AUDIO_SUFFIXES
from bsmamba2.audio.probing import check_is_audio
from bsmamba2.errors import InputError

STANDARD_INPUT = "-"
# What identifies a file under any of its paths.
FileIdentity = tuple[int, int, str] | tuple[str]


@dataclass(frozen=True, slots=True)
class SongFile:
    """A file to separate.

    Args:
        path: The file.
        folder: Its folder, relative to the folder that was given; kept in the output.
        track: Its name in the output.
        url: Where it is fetched from, if it is; the path is then that of the fetched file.
    """

    path: Path
    folder: Path
    track: str
    url: str | None = None

    @property
    def source(self) -> Path | str:
        """What it is called in messages."""
        return self.path if self.url is None else self.url


def find_song_files(
    inputs: Sequence[str | Path], output: Path, spooled: Mapping[str, Path] | None = None
) -> list[SongFile]:
    """Returns the songs of files, folders and patterns in order, each file once even if several links lead to it.

    Folders are searched recursively, except for the output and hidden files and folders.

    Args:
        inputs: Files, folders, patterns such as `songs/**/*.flac`, or `-` for the standard input.
        output: Folder of the stems.
        spooled: Files with what was read from the inputs that are pipes.

    Raises:
        InputError: A folder cannot be listed, contains no song or is the output; or a pattern matches only folders.
    """
    songs: dict[FileIdentity, SongFile] = {}
    for given in inputs:
        if not str(given):
            raise InputError("an input is empty; give a file, a folder or a pattern")
        if spooled and str(given) in spooled:
            track = "stdin" if str(given) == STANDARD_INPUT else song_name(Path(given))
            found: Iterable[SongFile] = [SongFile(spooled[str(given)], Path(), track)]
        else:
            found = _songs(Path(given), output)
        for song in found:
            songs.setdefault(identity(song.path), song)
    return list(songs.values())


def check_any_exists(songs: Sequence[SongFile]) -> None:
    """Checks that not all songs are missing; a missing one among others fails alone.

    Raises:
        InputError: All are.
    """
    # Not Path.exists, which fails if a name is too long.
    if songs and not any(os.path.lexists(song.path) for song in songs):
        first = songs[0].path
        raise InputError(
            f"{first} does not exist; check the path"
            if len(songs) == 1
            else f"none of the {len(songs)} songs exists, the first of which is {first}; check the paths"
        )


def check_any_audio(songs: Sequence[SongFile]) -> None:
    """Checks that not all songs are something else than audio; one among others fails alone.

    Raises:
        InputError: All are.
    """
    problems = []
    for song in songs:
        try:
            check_is_audio(song.path)
        except InputError as error:
            problems.append(error)
        else:
            return
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise InputError(f"none of the {len(songs)} songs can be read; the first: {problems[0]}")


def identity(path: Path) -> FileIdentity:
    """Returns what a file is known by, the same for every link to it: its folder and its name there.

    A file in no folder that exists is known by its path.
    """
    # Resolving every folder of a path would take too long in very deep ones.
    target = os.path.realpath(path) if os.path.islink(path) else os.fspath(path)
    folder, name = os.path.split(target)
    try:
        state = os.stat(folder or os.curdir)
    except (OSError, ValueError):
        return (os.path.abspath(target),)
    return state.st_dev, state.st_ino, name


@contextlib.contextmanager
def piped_inputs(inputs: Sequence[str | Path]) -> Iterator[dict[str, Path]]:
    """Gives files with the contents of the inputs that are pipes while the block runs, by the inputs as given.

    Those are `-`, the standard input, and paths such as /dev/stdin, a named pipe or a process substitution.

    Raises:
        InputError: Nothing is piped in.
    """
    names = [name for name in dict.fromkeys(map(str, inputs)) if name == STANDARD_INPUT or is_pipe(Path(name))]
    if not names:
        yield {}
        return
    if STANDARD_INPUT in names and (sys.stdin is None or sys.stdin.isatty()):
        raise InputError("the input - is the standard input, but nothing is piped into it; give a file instead")
    with tempfile.TemporaryDirectory(prefix="bsmamba2-") as folder:
        spooled = {name: Path(folder) / str(number) for number, name in enumerate(names)}
        for name, path in spooled.items():
            try:
                with contextlib.ExitStack() as stack:
                    source = sys.stdin.buffer if name == STANDARD_INPUT else stack.enter_context(open(name, "rb"))
                    shutil.copyfileobj(source, stack.enter_context(path.open("wb")))
            except OSError as error:
                shown = "standard input" if name == STANDARD_INPUT else f"pipe {name}"
                raise InputError(
                    f"the {shown} does not fit into {folder} ({error.strerror}); free some space, or set TMPDIR to "
                    "another folder"
                ) from error
        yield spooled


def is_pipe(path: Path) -> bool:
    """Whether a path leads to a pipe, which can be read once and has no size."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _songs(given: Path, output: Path) -> Iterator[SongFile]:
    if os.path.isdir(given):
        yield from _in_folder(given, output)
        return
    matches = [] if os.path.exists(given) or not glob.has_magic(str(given)) else list(_matches(given))
    if not matches:
        yield SongFile(given, Path(), song_name(given))
        return
    root = _without_pattern(given)
    # Stems of an earlier run are included only if the pattern begins inside the output or in the same folder.
    stems = _real(output) if _real(root) in _real(output).parents else None
    folders = {path.parent for path in matches}
    left_out = {folder for folder in folders if stems and _real(folder).is_relative_to(stems)}
    files = [path for path in matches if path.parent not in left_out and not os.path.isdir(path)]
    if not files:
        raise InputError(f"the pattern {given} matches only folders or stems; end it with a part such as *.flac")
    for path in sorted(files):
        yield SongFile(path, path.parent.relative_to(root), song_name(path))


def _in_folder(root: Path, output: Path) -> Iterator[SongFile]:
    stems = _folder_identity(_real(output)) if _real(output).is_dir() else None
    if _folder_identity(root) == stems:
        raise InputError(f"the folder {root} is also the output; give another --output")
    count = 0
    for folder, files in _walk(root, stems):
        inside = folder.relative_to(root)
        if files is None:
            # It fails as a song, so that it is reported and the rest continues.
            files, folder, inside = [folder.name], folder.parent, inside.parent
        else:
            files = [name for name in files if Path(name).suffix.lower() in AUDIO_SUFFIXES]
        for name in files:
            if not name.startswith("."):
                count += 1
                yield SongFile(folder / name, inside, song_name(Path(name)))
    if not count:
        raise InputError(f"the folder {root} contains no audio file; give one that does, or give the files")


def _matches(pattern: Path) -> Iterator[Path]:
    """Yields what a pattern matches; `**` is walked here because glob follows links that lead back up in circles."""
    parts = pattern.parts
    if "**" not in parts:
        yield from map(Path, glob.glob(str(pattern)))
        return
    place = parts.index("**")
    for start in glob.glob(str(Path(*parts[:place]))):
        for folder, files in _walk(Path(start)):
            if files is None:
                yield folder
            else:
                yield from _matches(Path(glob.escape(str(folder)), *(parts[place + 1 :] or "*")))


def _walk(root: Path, left_out: tuple[int, int] | None = None) -> Iterator[tuple[Path, list[str]] | tuple[Path, None]]:
    """Yields each folder in root with the sorted names of its files, once, except for one folder and hidden ones.

    The files of a folder whose path is too long for the system are None.
    """
    # A link may lead back up, or into the stems of an earlier run.
    seen = {left_out}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            known = _folder_identity(folder)
            if known in seen:
                continue
            seen.add(known)
            with os.scandir(folder) as scanned:
                entries = sorted((entry.name, _is_folder(entry)) for entry in scanned)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                reason = f"the folder {folder} cannot be listed ({error.strerror}); check its permissions"
                raise InputError(reason) from error
            yield folder, None
            continue
        waiting += [folder / name for name, is_folder in reversed(entries) if is_folder and not name.startswith(".")]
        yield folder, [name for name, is_folder in entries if not is_folder]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    # A link in a circle, for example, is a song that fails later.
    except OSError:
        return False


def _real(path: Path) -> Path:
    """Returns the target of links; a link in a circle, at which Path.resolve fails, is returned unchanged."""
    return Path(os.path.realpath(path))


def _folder_identity(folder: Path) -> tuple[int, int]:
    """Returns the device of a folder and its number there, the same for every link to it."""
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def _without_pattern(pattern: Path) -> Path:
    """Returns the folder before the first part of a path that is a pattern."""
    parts = pattern.parts
    fixed = next((count for count, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:fixed])


def song_name(path: Path) -> str:
    """Returns the name of a song from that of its file."""
    name = path.stem
    # The stem of `...wav` is `..`, the parent folder.
    if name in (".", "..", ".stem"):
        return path.name
    return name.removesuffix(".stem") if path.suffix.lower() in (".mp4", ".m4a") else name
