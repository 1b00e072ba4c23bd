"""Paths of the stems of songs."""

import functools
import logging
import os
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bsmamba2.audio.formats import Format
from bsmamba2.errors import InputError
from bsmamba2.file_names import is_device
from bsmamba2.separation.inputs import FileIdentity, SongFile, identity
from bsmamba2.system.files import short_name

log = logging.getLogger(__name__)

# What file systems allow.
LONGEST_FILE_NAME_BYTES = 255
# Shorter names would not distinguish tracks.
SHORTEST_TRACK_BYTES = 20
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


class StemPaths(Mapping[SongFile, dict[str, Path]]):
    """The file of every stem of every song, made when it is asked for: there can be very many.

    Args:
        songs: The songs to separate.
        destination: Where the stems are written.
        stems: Names of the stems.
        format: File format.
        page: Whether there is a page for every song, by the name PAGE.

    Raises:
        InputError: The template cannot be used, two files would get one path, or a song would be overwritten.
    """

    def __init__(
        self,
        songs: Sequence[SongFile],
        destination: Destination,
        stems: Sequence[str],
        format: Format,
        page: bool = False,
    ) -> None:
        self._songs, self._output, self._template = songs, destination.output, destination.template
        # What the template is filled with, apart from the name of the track.
        self._fields = {stem: {"stem": stem, "ext": str(format)} for stem in stems}
        if page:
            stem, _, ext = PAGE.partition(".")
            self._fields[PAGE] = {"stem": stem, "ext": ext}
        _check_template(self._template, stems)
        self._track_bytes = self._longest_track_bytes()
        self._check()

    def __getitem__(self, song: SongFile) -> dict[str, Path]:
        return {name: self._output / self._portable(song, name) for name in self._fields}

    def __iter__(self) -> Iterator[SongFile]:
        return iter(self._songs)

    def __len__(self) -> int:
        return len(self._songs)

    def _given(self, song: SongFile, stem: str) -> str:
        """Returns the path of a stem below the output as the template gives it."""
        track = short_name(song.track, self._track_bytes)
        return os.path.join(song.folder, self._template.format(track=track, **self._fields[stem]))

    def _portable(self, song: SongFile, stem: str) -> str:
        """Returns the path of a stem below the output."""
        return os.path.join(*map(portable_name, _names(self._given(song, stem))))

    def _longest_track_bytes(self) -> int:
        """Returns the length to which the template limits the names of tracks."""
        longest = LONGEST_FILE_NAME_BYTES
        for fields in self._fields.values():
            without, with_one = (self._template.format(track=track, **fields) for track in ("", "x"))
            for shorter, longer in zip(without.split("/"), with_one.split("/"), strict=True):
                left, count = LONGEST_FILE_NAME_BYTES - len(os.fsencode(shorter)), len(longer) - len(shorter)
                longest = min(longest, left // count if count else longest if left >= 0 else 0)
        if longest < SHORTEST_TRACK_BYTES:
            raise InputError(
                f"the template {self._template!r} makes names that are too long; file systems allow "
                f"{LONGEST_FILE_NAME_BYTES} bytes, so shorten it"
            )
        return longest

    def _check(self) -> None:
        # By hash, because the paths themselves may not fit into memory.
        owners: dict[int, int] = {}
        sources: set[FileIdentity] | None = None
        changed: dict[str, str] = {}
        for number, song in enumerate(self._songs):
            if (short := short_name(song.track, self._track_bytes)) != song.track:
                changed[song.track] = short
            for stem in self._fields:
                names = _names(self._given(song, stem))
                changed.update((name, portable_name(name)) for name in names if portable_name(name) != name)
                below = os.path.join(*map(portable_name, names))
                other = owners.setdefault(hash(os.path.normcase(below)), number)
                path = self._output / below
                if other != number:
                    first = self._songs[other].source
                    raise InputError(
                        f"{first} and {song.source} would both write {path}; separate them into two folders"
                    )
                if os.path.lexists(path):
                    sources = sources or {identity(song.path) for song in self._songs}
                    if identity(path) in sources:
                        raise InputError(f"{path} is an input and would be overwritten; give another --output")
        for old, new in changed.items():
            log.warning("the name %r is written as %r, which every system can store", old, new)


def _names(path: str) -> list[str]:
    return [name for name in path.replace(os.sep, "/").split("/") if name not in ("", os.curdir)]


@functools.lru_cache(maxsize=4096)
def portable_name(name: str) -> str:
    """Returns a name of a file or folder that Windows neither reserves nor changes."""
    if is_device(name):
        base, dot, rest = name.partition(".")
        return f"{base}_{dot}{rest}"
    # It leaves dots and spaces at the end out.
    return f"{name}_" if name.endswith((".", " ")) else name


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
