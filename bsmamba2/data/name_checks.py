"""Which tracks and stems a dataset has by the names of its files, and what is wrong with these names."""

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from bsmamba2.audio.formats import AUDIO_SUFFIXES
from bsmamba2.data.findings import CheckedTrack, Kind, Problem
from bsmamba2.data.musdb import OFFICIAL_COUNTS, OFFICIAL_VALIDATION_TRACKS, STREAMS, Split
from bsmamba2.data.track_files import STEM_FILE, STEM_SUFFIXES
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS

# Names at least this similar (difflib's ratio, from 0 to 1) are taken for a misspelling.
MISSPELLING_RATIO = 0.8


def found_tracks(split: Path) -> list[Path]:
    """Returns the stem files and track folders of a split; none if it cannot be listed."""
    try:
        return [path for path in _visible(split) if path.is_dir() or path.name.endswith(STEM_FILE)]
    except OSError:
        return []


def unlisted_or_empty(split: Path) -> Iterator[Problem]:
    """Yields the problem of a split that cannot be listed or has no track."""
    try:
        _visible(split)
    except OSError as error:
        yield Problem("error", split.name, f"cannot be listed ({error.strerror})")
        return
    if not found_tracks(split):
        yield Problem("error", split.name, "has no track: no {track}.stem.mp4 file and no folder of stems")


def misplaced_files(folder: Path, root: Path) -> Iterator[Problem]:
    """Yields the problems of files next to the tracks of a split, and of files and folders next to the splits."""
    try:
        paths = _visible(folder)
    except OSError:
        return
    for path in paths:
        text = _misplaced_in_root(path) if folder == root else _misplaced_in_split(path)
        if text:
            yield Problem("error", path.relative_to(root).as_posix(), text)


def _misplaced_in_root(path: Path) -> str | None:
    if path.is_dir():
        split = path.name.lower()
        return f"is not read; rename it to {split}" if split != path.name and split in get_args(Split) else None
    if path.suffix.lower() in AUDIO_SUFFIXES:
        return "is not read; tracks belong in train/, valid/ or test/"
    return _broken_link(path)


def _misplaced_in_split(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if path.is_dir() or path.name.endswith(STEM_FILE):
        return None
    if suffix in (".mp4", ".m4a"):
        stem = path.name[: -len(suffix)].removesuffix(".stem")
        return f"is not read; rename it to {stem}{STEM_FILE} if it is a stem file"
    if suffix in AUDIO_SUFFIXES:
        return "is not read; a track is a folder with one audio file per stem, or a stem file"
    return _broken_link(path)


def _broken_link(path: Path) -> str | None:
    return None if path.exists() else "is a broken link"


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def usual_stems(tracks: Sequence[CheckedTrack]) -> list[str]:
    """Returns the names, mixture included, that more than half of the tracks have, or MUSDB18's if there are none.

    If two or more of MUSDB18's stems are among them, a name similar to another one of these is a misspelling, however
    frequent it is.
    """
    half = sum(bool(track.sources) for track in tracks) / 2
    counts = Counter(name for track in tracks for name in track.sources)
    usual = {name for name, count in counts.items() if count > half or (count == half and name in STREAMS)}
    if len(usual & set(MUSDB_STEMS)) >= 2:
        missing = [name for name in STREAMS if name not in usual]
        usual = {_similar(name, missing) or name for name in usual}
    return sorted(usual) or list(STREAMS)


def wrong_file_names(track: CheckedTrack, usual: Sequence[str]) -> Iterator[Problem]:
    """Yields the problems of files that are not used, misspelled or unusual, and of stems that are missing."""
    if not track.path.is_dir() or (track.faults and not track.sources):
        return
    for file, reason in track.unused.items():
        yield track.problem("note", reason, file=file)
    missing = [name for name in usual if name not in track.sources]
    for name, (file, _) in sorted(track.sources.items(), key=lambda source: source[1][0].name):
        if name in usual or name in STREAMS:
            continue
        meant = _similar(name, missing)
        missing = [other for other in missing if other != meant]
        if meant:
            yield track.problem("error", f"is called {name!r} instead of {meant!r}; rename it", file=file)
        else:
            text = "is a stem that most tracks lack; all tracks need the same stems"
            yield track.problem("error", text, file=file)
    if not track.sources:
        yield track.problem("error", "has no stem; a track is a folder with one audio file per stem")
        return
    for name in missing:
        if name == MIXTURE:
            yield track.problem("note", "has no file of the mixture; the sum of the stems is used instead")
        else:
            yield track.problem("error", f"lacks the stem {name}, which others have")


def _similar(name: str, names: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name.lower(), names, n=1, cutoff=MISSPELLING_RATIO)), None)


def formats_to_decode(tracks: Sequence[CheckedTrack]) -> Iterator[Problem]:
    """Yields one note on all tracks with stems in formats that cannot be read from any position."""
    slow = {track.place: files for track in tracks if (files := _files_to_decode(track))}
    if slow:
        place, files = next(iter(slow.items()))
        text = (
            f"has stems in formats that cannot be read from any position ({', '.join(files)}), as have {len(slow)} "
            "tracks in all; a training run decodes them once to its cache, or --decoded does now"
        )
        yield Problem("note", place, text)


def _files_to_decode(track: CheckedTrack) -> list[str]:
    files = [file for file, stream in track.sources.values() if stream is None]
    return [file.name for file in files if file.suffix.lower() not in STEM_SUFFIXES]


def kind_of(tracks: Sequence[CheckedTrack]) -> Kind:
    """Returns what most tracks are: stem files, folders with the WAV files of MUSDB18-HQ, or other folders."""
    files = sum(not track.path.is_dir() for track in tracks)
    official = sum(
        set(track.sources) == set(STREAMS) and all(path.suffix == ".wav" for path, _ in track.sources.values())
        for track in tracks
    )
    if 2 * files > len(tracks):
        return "MUSDB18"
    return "MUSDB18-HQ" if 2 * official > len(tracks) else "folders of stems"


def missing_tracks(root: Path, tracks: Sequence[CheckedTrack]) -> Iterator[Problem]:
    """Yields the problems of a dataset without training or validation tracks, or with fewer than MUSDB18."""
    kind = kind_of(tracks)
    if not (root / "train").is_dir():
        yield Problem("error", "train", "does not exist, so there is nothing to train on")
    if kind != "folders of stems":
        counts = Counter("test" if track.split == "test" else "train" for track in tracks)
        for split, official in OFFICIAL_COUNTS.items():
            if counts[split] < official:
                yield Problem("note", split, f"has {counts[split]} tracks; {kind} has {official}")
    if (root / "valid").is_dir():
        return
    names = {track.name for track in tracks if track.split == "train"}
    missing = [name for name in OFFICIAL_VALIDATION_TRACKS if name not in names]
    if missing and (kind == "folders of stems" or len(missing) == len(OFFICIAL_VALIDATION_TRACKS)):
        text = "does not exist, and train/ lacks official validation tracks; name some in validation_tracks to train"
        yield Problem("note", "valid", text)
    else:
        for name in missing:
            yield Problem("note", "train", f"lacks the official validation track {name!r}")
