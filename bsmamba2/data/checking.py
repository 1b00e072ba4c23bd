"""Whether a folder of songs with stems can be trained on, and all that is wrong with it."""

import difflib
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from torch import Tensor
from tqdm import tqdm

from bsmamba2.audio.formats import AUDIO_SUFFIXES
from bsmamba2.audio.reading import AudioInfo, audio_info, read_blocks
from bsmamba2.data.activity import StemScan, write_index
from bsmamba2.data.decoding import DecodedDepth, decode_stem_files
from bsmamba2.data.findings import LOWEST_DB, CheckedTrack, DataReport, Kind, Problem, Severity
from bsmamba2.data.musdb import OFFICIAL_COUNTS, OTHER_MIXTURES, SAMPLE_RATE, STREAMS, official_validation_tracks
from bsmamba2.data.tracks import (
    COMPRESSED_LIMIT_DB,
    ROUNDED_LIMIT_DB,
    SILENT_PEAK,
    STEM_FILE,
    STEM_SUFFIXES,
    Split,
    find_sources,
    track_name,
)
from bsmamba2.errors import InputError
from bsmamba2.model.config import ModelConfig
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS

CHANNELS = 2
SIMILARITY = 0.8


def check_data(
    root: Path,
    decoded: Path | None = None,
    depth: DecodedDepth = "float",
    index: Path | None = None,
    segment_seconds: float = ModelConfig.segment_seconds,
    json: bool = False,
) -> tuple[str, bool]:
    """Returns what is wrong with a folder of songs with stems, and whether it can be trained on.

    Args:
        root: Folder with train/ and perhaps valid/ and test/: {track}.stem.mp4 files, or {track}/{stem}.wav folders.
        decoded: Folder to which stem files are decoded once, as {split}/{track}/{stem}.wav; a run that was stopped
            goes on.
        depth: Sample format of the decoded files; float loses and clips nothing.
        index: File to write the index of active windows of train/ to, for the training's option of that name.
        segment_seconds: Length of a window of that index in seconds; that of the training's segments.
        json: JSON for programs instead of text for people.

    Raises:
        InputError: There is no such folder, or something cannot be written.
    """
    window = round(segment_seconds * SAMPLE_RATE) if math.isfinite(segment_seconds) else 0
    if window < 1:
        raise InputError(f"segment_seconds={segment_seconds} is not allowed; give at least the length of a sample")
    if decoded is not None and decoded.resolve() == root.resolve():
        raise InputError(f"{decoded} is the folder that is decoded, where each track would be twice; give another one")
    report = check_folder(root, window)
    if index is not None:
        report.remarks.append(_write_index(report, index, window))
    if decoded is not None:
        report.remarks.append(_decode(report, decoded, depth))
    return report.to_json() if json else report.text(), report.healthy


def check_folder(root: Path, window: int) -> DataReport:
    """Returns the report on a folder; whatever is wrong with a file is in it and not raised.

    Args:
        root: Folder with train/ and perhaps valid/ and test/.
        window: Length of a window in samples.

    Raises:
        InputError: There is no such folder, or none of the three in it.
    """
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give the one that holds train/, valid/ or test/")
    splits = [split for split in get_args(Split) if (root / split).is_dir()]
    if not splits:
        raise InputError(f"{root} holds none of the folders train/, valid/ and test/; give the folder above them")
    tracks: list[CheckedTrack] = []
    problems = _misplaced(root, root)
    for split in splits:
        found, strays = _find_tracks(root, split)
        tracks += found
        problems += strays
    usual = _usual_names(tracks)
    for track in tqdm(tracks, "checking tracks", unit="track", disable=None):
        _check_track(track, root, usual, window)
    kind = _kind(tracks)
    _check_names_twice(tracks, root)
    _check_audio_twice(tracks, root)
    problems += _sums_of_decoded_files(tracks)
    problems += _missing_tracks(root, kind, tracks)
    problems += _silent_stems(tracks, window)
    problems += [problem for track in tracks for problem in track.problems]
    return DataReport(root, kind, tracks, sorted(problems, key=lambda problem: problem.severity), [])


def _find_tracks(root: Path, split: Split) -> tuple[list[CheckedTrack], list[Problem]]:
    folder = root / split
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        return [], [Problem("error", split, f"cannot be listed ({error.strerror})")]
    paths = [path for path in entries if path.is_dir() or path.name.endswith(STEM_FILE)]
    problems = _misplaced(folder, root)
    if not paths:
        problems.append(Problem("error", split, "holds no track: no {track}.stem.mp4 file and no folder of stems"))
    return [_found_track(path, root) for path in paths], problems


def _found_track(path: Path, root: Path) -> CheckedTrack:
    track = CheckedTrack(path.parent.name, track_name(path), path)
    try:
        track.sources = find_sources(path)
    except (InputError, OSError) as error:
        _add(track, root, "error", str(error))
    return track


def _misplaced(folder: Path, root: Path) -> list[Problem]:
    """Returns the problems of files among the tracks that are none, and of folders in the root that are no split."""
    problems = []
    for path in sorted(folder.iterdir()):
        place, suffix = path.relative_to(root).as_posix(), path.suffix.lower()
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if folder == root and path.name not in get_args(Split) and path.name.lower() in get_args(Split):
                problems.append(Problem("error", place, f"is not read; rename it to {path.name.lower()}"))
        elif folder == root and suffix in AUDIO_SUFFIXES:
            problems.append(Problem("error", place, "is not read; tracks lie in train/, valid/ or test/"))
        elif not path.name.endswith(STEM_FILE) and suffix in (".mp4", ".m4a"):
            stem = path.name[: -len(suffix)].removesuffix(".stem")
            problems.append(Problem("error", place, f"is not read; a stem file is called {stem}{STEM_FILE}"))
        elif not path.name.endswith(STEM_FILE) and suffix in AUDIO_SUFFIXES:
            text = "is not read; a track is a folder with one audio file per stem, or a stem file"
            problems.append(Problem("error", place, text))
        elif not path.exists() and not path.name.endswith(STEM_FILE):
            problems.append(Problem("error", place, "is a link to nothing"))
    return problems


def _usual_names(tracks: Sequence[CheckedTrack]) -> list[str]:
    """Returns the names that more than half of the tracks have, or MUSDB18's where there are none.

    Among two or more of MUSDB18's stems, a name that is nearly one of the others is a slip, however frequent.
    """
    half = sum(bool(track.sources) for track in tracks) / 2
    counts = Counter(name for track in tracks for name in track.sources)
    usual = {name for name, count in counts.items() if count > half or (count == half and name in STREAMS)}
    if len(usual & set(MUSDB_STEMS)) >= 2:
        others = [name for name in STREAMS if name not in usual]
        usual = {next(iter(_similar(name, others)), name) for name in usual}
    return sorted(usual) or list(STREAMS)


def _similar(name: str, names: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name.lower(), names, n=1, cutoff=SIMILARITY)


def _check_track(track: CheckedTrack, root: Path, usual: Sequence[str], window: int) -> None:
    if track.path.is_dir() and not track.problems:
        _check_file_names(track, root, usual)
    infos: dict[str, AudioInfo] = {}
    for name, (path, stream) in track.sources.items():
        try:
            infos[name] = audio_info(path, stream)
        except InputError as error:
            # A stem file that cannot be opened says the same of every stem.
            _add(track, root, "error", str(error), None if stream is not None else name)
    if not infos:
        return
    _check_infos(track, root, infos)
    track.samples = (infos.get(MIXTURE) or min(infos.values(), key=lambda info: info.length)).length
    if track.samples < window:
        _add(track, root, "note", f"is shorter than a segment of {window} samples, so that no excerpt is drawn from it")
    _scan(track, root, infos, window)
    _check_sum(track, root)


def _check_file_names(track: CheckedTrack, root: Path, usual: Sequence[str]) -> None:
    missing = [name for name in usual if name not in track.sources]
    for file in sorted(track.path.iterdir()):
        suffix = file.suffix.lower()
        if file.name.startswith(".") or suffix not in AUDIO_SUFFIXES | set(STEM_SUFFIXES):
            continue
        like = [] if file.stem in usual else _similar(file.stem, missing)
        missing = [name for name in missing if name not in like]
        if suffix not in STEM_SUFFIXES:
            _add(track, root, "error", f"is not read; convert it to one of {', '.join(STEM_SUFFIXES)}", file=file)
        elif like:
            _add(track, root, "error", f"is called {file.stem!r} instead of {like[0]!r}; rename it", file=file)
        elif file.stem not in usual and file.stem not in STREAMS:
            _add(track, root, "error", "is a stem that most tracks lack; all tracks have the same stems", file=file)
    if not track.sources:
        _add(track, root, "error", "holds no stem; a track is a folder with one audio file per stem")
        return
    for name in missing:
        if name == MIXTURE:
            _add(track, root, "note", "has no file of the mixture; the sum of the stems takes its place")
        else:
            _add(track, root, "error", f"lacks the stem {name}, which others have")


def _check_infos(track: CheckedTrack, root: Path, infos: Mapping[str, AudioInfo]) -> None:
    for name, info in infos.items():
        if (info.sample_rate, info.channels) != (SAMPLE_RATE, CHANNELS):
            text = f"has {info.sample_rate} Hz and {info.channels} channels instead of {SAMPLE_RATE} Hz and {CHANNELS}"
            _add(track, root, "error", text, name)
    if MIXTURE in infos:
        expected, whose = infos[MIXTURE].length, "its mixture"
    else:
        expected, whose = max(info.length for info in infos.values()), "the longest stem"
    for name, info in infos.items():
        if info.length < expected:
            severity: Severity = "error" if MIXTURE in infos else "note"
            _add(track, root, severity, f"has {info.length} samples but {whose} {expected}", name)
        elif info.length > expected:
            _add(track, root, "note", f"has {info.length} samples but {whose} {expected}; the rest is not used", name)


def _scan(track: CheckedTrack, root: Path, infos: Mapping[str, AudioInfo], window: int) -> None:
    """Reads all of a track once, its stems side by side."""
    samples = track.samples or 0
    scans = {name: StemScan(samples, window) for name in infos}
    faults: dict[str, str] = {}
    difference = power = 0.0
    comparable = MIXTURE in infos and len(infos) == len(track.sources) and len(infos) > 1
    comparable = comparable and len({(info.sample_rate, info.channels) for info in infos.values()}) == 1
    streams = {name: read_blocks(track.sources[name][0], stream=track.sources[name][1]) for name in infos}
    for pieces in _side_by_side(streams, faults):
        if comparable and len(pieces) == len(scans):
            left = samples - scans[MIXTURE].samples
            doubles = {name: piece[:, :left].double() for name, piece in pieces.items()}
            mixture = doubles.pop(MIXTURE)
            power += mixture.square().sum().item()
            difference += (mixture - sum(doubles.values())).square().sum().item()
        for name, piece in pieces.items():
            scans[name].add(piece)
    for name, fault in faults.items():
        _add(track, root, "error", fault, name)
    for name in [name for name in scans if name not in faults]:
        track.activities[name] = scans[name].activity(track.sources[name])
        if scans[name].peak <= SILENT_PEAK:
            track.silent.add(name)
            _add(track, root, "note", "is silent", name)
    windows = (samples - window) // max(1, window // 2) + 1 if samples >= window else 0
    for name in track.stems:
        if name in track.activities:
            track.active_shares[name] = len(scans[name].starts) / windows if windows else None
    if comparable and not faults and power:
        track.mixture_minus_sum_db = max(LOWEST_DB, 10 * math.log10(max(difference / power, 1e-300)))


def _side_by_side(streams: dict[str, Iterator[Tensor]], faults: dict[str, str]) -> Iterator[dict[str, Tensor]]:
    """Yields the same samples of all streams; one that ends is left out from there, and so is one that fails."""
    waiting: dict[str, Tensor] = {}
    while streams or waiting:
        for name in [name for name in streams if name not in waiting]:
            try:
                waiting[name] = next(streams[name])
            except StopIteration:
                del streams[name]
            except InputError as error:
                faults[name] = str(error)
                del streams[name]
        if not waiting:
            return
        length = min(block.shape[-1] for block in waiting.values())
        yield {name: block[:, :length] for name, block in waiting.items()}
        waiting = {name: block[:, length:] for name, block in waiting.items() if block.shape[-1] > length}


def _check_sum(track: CheckedTrack, root: Path) -> None:
    level = track.mixture_minus_sum_db
    if level is None or level <= COMPRESSED_LIMIT_DB:
        return
    severity: Severity = "note" if track.name in OTHER_MIXTURES else "error"
    text = (
        f"mixture minus sum of the stems is {level:.1f} dB of the mixture (compressed files: below "
        f"{COMPRESSED_LIMIT_DB:g}); a stem is wrong or missing, or the mixture is another"
    )
    _add(track, root, severity, text)


def _sums_of_decoded_files(tracks: Sequence[CheckedTrack]) -> list[Problem]:
    """Returns one note for all of them: of a decoded MUSDB18 it is every track."""
    levels = {
        f"{track.split}/{track.name}": level
        for track in tracks
        if track.path.is_dir()
        and (level := track.mixture_minus_sum_db) is not None
        and ROUNDED_LIMIT_DB < level <= COMPRESSED_LIMIT_DB
    }
    if not levels:
        return []
    worst = max(levels, key=lambda name: levels[name])
    text = (
        f"mixture minus sum of the stems is more than rounding leaves ({ROUNDED_LIMIT_DB:g} dB of the mixture) in "
        f"{len(levels)} tracks, as of files that were compressed; at most {levels[worst]:.1f} dB"
    )
    return [Problem("note", worst, text)]


def _check_names_twice(tracks: Sequence[CheckedTrack], root: Path) -> None:
    same: dict[str, list[CheckedTrack]] = defaultdict(list)
    for track in tracks:
        same[unicodedata.normalize("NFC", track.name).casefold()].append(track)
    for first, *others in same.values():
        for other in others:
            text = f"is the same track as {_place(first, root)} by its name; keep one"
            _add(other, root, "error", text)


def _check_audio_twice(tracks: Sequence[CheckedTrack], root: Path) -> None:
    owners: dict[str, tuple[CheckedTrack, str]] = {}
    for track in tracks:
        same: dict[str, list[str]] = defaultdict(list)
        for name, activity in track.activities.items():
            if name in track.silent:
                continue
            owner, stem = owners.setdefault(activity.hash, (track, name))
            if owner is not track:
                same[_place(owner, root)].append(name)
            elif stem != name and MIXTURE not in (stem, name):
                _add(track, root, "error", f"is the same audio as its stem {stem}", name)
        for place, names in same.items():
            _add(track, root, "error", f"holds the same audio as {place} ({', '.join(names)}); keep one")


def _silent_stems(tracks: Sequence[CheckedTrack], window: int) -> list[Problem]:
    """Returns the problems of stems that no excerpt can be drawn of."""
    train = [track for track in tracks if track.split == "train"]
    heard = {stem for track in train for stem, share in track.active_shares.items() if share}
    known = {stem for track in train for stem in track.active_shares}
    text = f"holds no window of {window} samples in which the stem {{}} is active; use a shorter --segment-seconds"
    return [Problem("error", "train", text.format(stem)) for stem in sorted(known - heard)]


def _missing_tracks(root: Path, kind: Kind, tracks: Sequence[CheckedTrack]) -> list[Problem]:
    problems = []
    counts = Counter("test" if track.split == "test" else "train" for track in tracks)
    if not (root / "train").is_dir():
        problems.append(Problem("error", "train", "is not there, so that there is nothing to train on"))
    if kind != "folders of stems":
        for split, official in OFFICIAL_COUNTS.items():
            if counts[split] < official:
                text = f"holds {counts[split]} tracks; {kind} has {official}"
                problems.append(Problem("note", split, text))
    if (root / "valid").is_dir():
        return problems
    names = {track.name for track in tracks if track.split == "train"}
    missing = [name for name in official_validation_tracks() if name not in names]
    if kind == "folders of stems" or len(missing) == len(official_validation_tracks()):
        text = "is not there, nor are the official validation tracks; name some with validation_tracks for a training"
        problems += [Problem("note", "valid", text)] if missing else []
    else:
        problems += [Problem("note", "train", f"lacks the official validation track {name!r}") for name in missing]
    return problems


def _kind(tracks: Sequence[CheckedTrack]) -> Kind:
    files = sum(not track.path.is_dir() for track in tracks)
    official = sum(
        set(track.sources) == set(STREAMS) and all(path.suffix == ".wav" for path, _ in track.sources.values())
        for track in tracks
    )
    if 2 * files > len(tracks):
        return "MUSDB18"
    return "MUSDB18-HQ" if 2 * official > len(tracks) else "folders of stems"


def _write_index(report: DataReport, index: Path, window: int) -> str:
    """Writes the index of the folder train/ and returns a line about it."""
    tracks = [track for track in report.tracks if track.split == "train"]
    if any(problem.severity == "error" and problem.place.split("/")[0] == "train" for problem in report.problems):
        return f"index: {index} is not written, because there are errors in train/"
    activities = {track.name: {stem: track.activities[stem] for stem in track.stems} for track in tracks}
    write_index(index, activities, window)
    return f"index: {len(activities)} tracks in {index}"


def _decode(report: DataReport, output: Path, depth: DecodedDepth) -> str:
    """Decodes the stem files that can be read whole and returns a line about it."""
    files = [track for track in report.tracks if not track.path.is_dir()]
    whole = [track.path for track in files if set(track.activities) == set(track.sources)]
    if not files:
        return "decoded: nothing, because there is no stem file"
    decoded = decode_stem_files(whole, output, depth)
    clipped = f", {decoded.clipped} samples beyond full scale clipped" if decoded.clipped else ""
    return (
        f"decoded: {len(whole)} of {len(files)} stem files to {output} "
        f"({decoded.written} files written, {decoded.kept} kept{clipped})"
    )


def _add(
    track: CheckedTrack, root: Path, severity: Severity, text: str, stem: str | None = None, file: Path | None = None
) -> None:
    """Adds a problem of a track, of one of its stems, or of a file in its folder."""
    path = file or (track.sources[stem][0] if stem is not None else track.path)
    # Sentences about a file begin with it; the place says it already.
    text = text.removeprefix(f"{path} ")
    if stem is not None and path == track.path:
        text = f"its {'' if stem == MIXTURE else 'stem '}{stem} {text}"
    problem = Problem(severity, path.relative_to(root).as_posix(), text)
    if problem not in track.problems:
        track.problems.append(problem)


def _place(track: CheckedTrack, root: Path) -> str:
    return track.path.relative_to(root).as_posix()
