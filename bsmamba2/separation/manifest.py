"""Manifests: CSV files of the songs of a catalogue, each with its own name, stems, start and duration."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from bsmamba2.errors import InputError
from bsmamba2.separation.inputs import SongFile, song_name
from bsmamba2.separation.settings import StemSettings
from bsmamba2.suggestions import meant
from bsmamba2.system.remote_files import file_name_of, is_url

MANIFEST_COLUMNS = ("path", "name", "stems", "start", "duration")


@dataclass(frozen=True, slots=True)
class CatalogueRow:
    """A song of a catalogue.

    Args:
        number: Its row, from 1 behind the header.
        path: Its file or URL as the manifest gives it.
        song: Its file, and its name in the output.
        stem_settings: Which of its stems are written, and how.
    """

    number: int
    path: str
    song: SongFile
    stem_settings: StemSettings

    @property
    def name(self) -> str:
        """Its name in the output, with its folder there."""
        return (self.song.folder / self.song.track).as_posix()


def read_manifest(manifest: Path, defaults: StemSettings) -> list[CatalogueRow]:
    """Returns the rows of a manifest.

    Paths are relative to its folder, or URLs. A cell that is empty has the default.

    Args:
        manifest: A CSV file, whose first line names its columns: path, and any of name, stems, start and duration.
        defaults: Settings of rows that have no others.

    Raises:
        InputError: The file cannot be read, a column does not exist, or a row cannot be used.
    """
    shared = replace(defaults, stems=defaults.stems and tuple(defaults.stems))
    rows: list[CatalogueRow] = []
    numbers: dict[str, int] = {}
    for number, cells in enumerate(_cells(manifest), 1):
        try:
            row = _row(number, cells, manifest.parent, shared)
            other = numbers.setdefault(os.path.normcase(row.name), number)
            if other != number:
                raise InputError(f"its output name {row.name!r} is that of row {other}; give each its own name")
        except InputError as error:
            raise in_row(number, manifest, error) from error
        rows.append(row)
    if not rows:
        raise InputError(f"the manifest {manifest} contains no song; give each a row below the names of the columns")
    return rows


def in_row(number: int, manifest: Path, error: InputError) -> InputError:
    """Returns an error about a row with the number of the row."""
    return InputError(f"row {number} of {manifest}: {error}")


def _cells(manifest: Path) -> Iterator[dict[str, str]]:
    """Yields the cells of the rows by their columns."""
    try:
        # With the mark that spreadsheets put first. The names of files may be in any encoding.
        with manifest.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = (line for line in csv.reader(file, strict=True) if line)
            columns = [column.strip() for column in next(lines, [])]
            _check_columns(columns, manifest)
            for number, line in enumerate(lines, 1):
                if len(line) != len(columns):
                    reason = f"it has {len(line)} cells, and there are {len(columns)} columns; quote cells with commas"
                    raise in_row(number, manifest, InputError(reason))
                yield dict(zip(columns, map(str.strip, line), strict=True))
    except OSError as error:
        raise InputError(f"the manifest {manifest} cannot be read ({error.strerror}); check the path") from error
    except csv.Error as error:
        raise InputError(
            f"the manifest {manifest} is not a CSV file ({error}); quote cells with commas or quotes"
        ) from error


def _check_columns(columns: Sequence[str], manifest: Path) -> None:
    for column in columns:
        if column not in MANIFEST_COLUMNS:
            raise InputError(f"the manifest {manifest} has a column {column!r}; {meant(column, MANIFEST_COLUMNS)}")
    if "path" not in columns or len(set(columns)) < len(columns):
        raise InputError(
            f"the first line of {manifest} must name path, and any of {', '.join(MANIFEST_COLUMNS[1:])}, each once"
        )


def _row(number: int, cells: dict[str, str], folder: Path, defaults: StemSettings) -> CatalogueRow:
    path = cells["path"]
    if not path or "\0" in path:
        raise InputError("its path is missing; give the file of the song")
    url = path if is_url(path) else None
    name = cells.get("name") or song_name(Path(path if url is None else file_name_of(url)))
    below = PurePosixPath(name)
    if below.is_absolute() or not below.name or ".." in below.parts or "\0" in name:
        raise InputError(f"the name {name!r} is not allowed; give one below the output, such as album/song")
    own: dict[str, Any] = {key: _number(key, cells[key]) for key in ("start", "duration") if cells.get(key)}
    if cells.get("stems"):
        own["stems"] = tuple(stem.strip() for stem in re.split("[,;]", cells["stems"]))
    settings = replace(defaults, **own) if own else defaults
    return CatalogueRow(number, path, SongFile(folder / path, Path(below.parent), below.name, url), settings)


def _number(column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"its {column} {text!r} is not a number; give seconds") from None
