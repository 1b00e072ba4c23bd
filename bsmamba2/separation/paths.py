"""Finds the songs to separate and the paths of their stems."""

import contextlib
import glob
import os
import shutil
import stat
import string
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.audio.formats import AUDIO_SUFFIXES, Format
from bsmamba2.audio.probing import check_is_audio
from bsmamba2.errors import InputError

STANDARD_INPUT = "-"
# The page among the files of a song, where stems have their names.
PAGE = "listen.html"


@dataclass(frozen=True)
class Destination:
    """Where stems are written.

    Args:
        output: Folder for the stems; subfolders of a given folder are kept.
        template: Path of a stem below the output, with {track}, {stem} and {ext}.
        overwrite: Replace stems that already exist.
        skip_existing: Write only stems that do not exist yet.

    Raises:
        InputError: overwrite and skip_existing are both set.
    """

    output: Path = Path("stems")
    template: str = "{track}/{stem}.{ext}"
    overwrite: bool = False
    skip_existing: bool = False

    def __post_init__(self) -> None:
        if self.overwrite and self.skip_existing:
            raise InputError("--overwrite and --skip-existing contradict each other; give one of them")


@dataclass(frozen=True)
class SongFile:
    """A file to separate.

    Args:
        path: The file.
        folder: Its folder, relative to the folder that was given; kept in the output.
        track: Its name in the output.
    """

    path: Path
    folder: Path
    track: str


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
    songs: dict[Path, SongFile] = {}
    for given in inputs:
        if not str(given):
            raise InputError("an input is empty; give a file, a folder or a pattern")
        if spooled and str(given) in spooled:
            track = "stdin" if str(given) == STANDARD_INPUT else _track(Path(given))
            found: Iterable[SongFile] = [SongFile(spooled[str(given)], Path(), track)]
        else:
            found = _songs(Path(given), output)
        for song in found:
            songs.setdefault(_real(song.path), song)
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


def stem_paths(
    songs: Sequence[SongFile], destination: Destination, stems: Sequence[str], format: Format, page: bool = False
) -> dict[SongFile, dict[str, Path]]:
    """Returns the file of every stem of every song, and the page of every song by the name PAGE.

    Args:
        songs: The songs to separate.
        destination: Where the stems are written.
        stems: Names of the stems.
        format: File format.
        page: Whether there are pages.

    Raises:
        InputError: The template cannot be used, two files would get one path, or a song would be overwritten.
    """
    output, template = destination.output, destination.template
    _check_template(template, stems)
    names = {stem: {"stem": stem, "ext": format} for stem in stems}
    if page:
        stem, _, ext = PAGE.partition(".")
        names[PAGE] = {"stem": stem, "ext": ext}
    paths = {
        song: {
            name: output / song.folder / template.format(track=song.track, **fields) for name, fields in names.items()
        }
        for song in songs
    }
    sources = {_real(song.path) for song in songs}
    owners: dict[str, SongFile] = {}
    for song, files in paths.items():
        for path in files.values():
            other = owners.setdefault(os.path.normcase(path), song)
            if other is not song:
                raise InputError(
                    f"{other.path} and {song.path} would both write {path}; separate them into two folders"
                )
            if _real(path) in sources:
                raise InputError(f"{path} is an input and would be overwritten; give another --output")
    return paths


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
        yield SongFile(given, Path(), _track(given))
        return
    root = _without_pattern(given)
    # Stems of an earlier run are included only if the pattern begins inside the output or in the same folder.
    stems = _real(output) if _real(root) in _real(output).parents else None
    files = [
        path for path in matches if not os.path.isdir(path) and not (stems and _real(path.parent).is_relative_to(stems))
    ]
    if not files:
        raise InputError(f"the pattern {given} matches only folders or stems; end it with a part such as *.flac")
    for path in sorted(files):
        yield SongFile(path, path.parent.relative_to(root), _track(path))


def _in_folder(root: Path, output: Path) -> Iterator[SongFile]:
    if _real(root) == _real(output):
        raise InputError(f"the folder {root} is also the output; give another --output")
    count = 0
    for folder, files in _walk(root, output):
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                count += 1
                yield SongFile(folder / name, folder.relative_to(root), _track(folder / name))
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
        for folder, _ in _walk(Path(start)):
            yield from _matches(Path(glob.escape(str(folder)), *(parts[place + 1 :] or "*")))


def _walk(root: Path, output: Path | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Yields each folder in root with the names of its files, once, except for the output and hidden folders."""

    def fail(error: OSError) -> None:
        raise InputError(f"the folder {error.filename} cannot be listed ({error.strerror}); check its permissions")

    seen = {_real(output)} if output else set()
    for place, folders, files in os.walk(root, onerror=fail, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        # A link may lead back up, or into the stems of an earlier run.
        if _real(Path(place)) in seen:
            folders.clear()
            continue
        seen.add(_real(Path(place)))
        yield Path(place), files


def _without_pattern(pattern: Path) -> Path:
    """Returns the folder before the first part of a path that is a pattern."""
    parts = pattern.parts
    fixed = next((count for count, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
    return Path(*parts[:fixed])


def _real(path: Path) -> Path:
    """Returns the target of links; a link in a circle, at which Path.resolve fails, is returned unchanged."""
    return Path(os.path.realpath(path))


def _track(path: Path) -> str:
    name = path.stem
    # The stem of `...wav` is `..`, the parent folder.
    if name in (".", "..", ".stem"):
        return path.name
    return name.removesuffix(".stem") if path.suffix.lower() in (".mp4", ".m4a") else name


def _check_template(template: str, stems: Sequence[str]) -> None:
    wrong = f"the template {template!r} cannot be used"
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        examples = [Path(template.format(track="track", stem=stem, ext="wav")) for stem in stems]
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise InputError(f"{wrong}; its fields are {{track}}, {{stem}} and {{ext}}") from error
    if not fields <= {"track", "stem", "ext"}:
        raise InputError(f"{wrong}; its fields are {{track}}, {{stem}} and {{ext}}")
    for path in examples:
        if path.is_absolute() or ".." in path.parts or not template.endswith(".{ext}"):
            raise InputError(f"{wrong}; give a path below the output that ends with .{{ext}}")
    if len(set(examples)) < len(examples):
        raise InputError(f"{wrong}, because all {len(stems)} stems would get one path; add {{stem}}")
