"""Estimates written by another tool: `{folder}/{track}/{stem}.wav`."""

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from bsmamba2.audio.formats import AUDIO_SUFFIXES
from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.data.track_files import VIDEO_SUFFIXES, is_stem_name, stem_name
from bsmamba2.data.tracks import track_name
from bsmamba2.errors import InputError
from bsmamba2.evaluation.songs import Song, files_sha256, fit
from bsmamba2.stem_names import INSTRUMENTAL, MUSDB_STEMS, VOCALS
from bsmamba2.system.files import short_name

ESTIMATE_SUFFIXES = AUDIO_SUFFIXES - set(VIDEO_SUFFIXES)

log = logging.getLogger(__name__)


def read_estimates(folder: Path, song: Song, stems: Sequence[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns estimates (c, n) of stems, with the song's length and channels, and notes on adjustments.

    Longer ones are cut, shorter ones padded with zeros, and mono ones of a stereo song are copied to both channels.
    The names are those of `bsmamba2.data.track_files.stem_name`. Without a file of the instrumental, it is the mixture
    without the estimate of the vocals. If there are files of both and one is asked for, the other is returned too, as
    the estimate of everything else.

    Args:
        folder: Contains a folder for each track, with the track's name, and in it a file for each stem.
        song: The song they are estimates of.
        stems: Names of the stems.

    Raises:
        InputError: A file is missing, ambiguous or cannot be read, or its sampling rate or channels do not fit the
            song.
    """
    files = _files(_track_folder(folder, song.name))
    by_subtraction = INSTRUMENTAL in stems and INSTRUMENTAL not in files and VOCALS in files
    both = (VOCALS, INSTRUMENTAL)
    related = [name for name in both if name in files] if set(both) & set(stems) else []
    names = [name for name in dict.fromkeys([*stems, *related]) if not (by_subtraction and name == INSTRUMENTAL)]
    notes: list[str] = []
    estimates = {}
    for name in names:
        if name not in files:
            raise InputError(
                f"there is no estimate of {name} in {folder / song.name}, only of {', '.join(files) or 'nothing'}; "
                f"add it as {name}.wav, or score other stems"
            )
        estimates[name] = _read(files[name], name, song, notes)
    if by_subtraction:
        estimates[INSTRUMENTAL] = song.mixture - estimates[VOCALS]
        notes.append(f"the estimate of {INSTRUMENTAL} is the mixture without that of {VOCALS}")
    return {name: estimates[name] for name in dict.fromkeys([*stems, *estimates])}, tuple(notes)


def estimates_sha256(folder: Path, track: str) -> str:
    """Returns the SHA-256 of stem names and the bytes of the files of one track, independent of their folder.

    Raises:
        InputError: The folder of this track does not exist, two files are of the same stem, or a file cannot be read.
    """
    return files_sha256(_files(_track_folder(folder, track)))


def stems_in(folder: Path) -> tuple[str, ...]:
    """Returns the stems with an estimate in the folder of every track: in MUSDB18's order, then A to Z.

    Mixtures and residuals are not estimates of a stem. A warning lists stems that some folders lack; a folder without
    any estimate is ignored.

    Raises:
        InputError: The folder does not exist or has no estimates, a track has two files of the same stem, or no stem is
            common to all tracks.
    """
    folders = sorted(folder.iterdir()) if folder.is_dir() else []
    found = {
        path.name: {name for name in _files(path) if is_stem_name(name)}
        for path in folders
        if path.is_dir() and not path.name.startswith(".")
    }
    found = {track: stems for track, stems in found.items() if stems}
    if not found:
        raise InputError(f"there are no estimates in {folder}; put them there as {{track}}/{{stem}}.wav")
    shared = set.intersection(*found.values())
    # Without a file, the instrumental is the mixture without the vocals.
    left_out = set.union(*found.values()) - shared - ({INSTRUMENTAL} if VOCALS in shared else set())
    lacking = [f"{stem} (not of {next(track for track in found if stem not in found[track])!r})" for stem in left_out]
    if not shared:
        raise InputError(
            f"the tracks in {folder} have estimates of no stem in common ({', '.join(sorted(lacking))}); add what is "
            "missing"
        )
    if left_out:
        log.warning("stems left out, because some tracks in %s lack them: %s", folder, ", ".join(sorted(lacking)))
    return (*(name for name in MUSDB_STEMS if name in shared), *sorted(shared - set(MUSDB_STEMS)))


def _track_folder(folder: Path, name: str) -> Path:
    """Returns the folder of a track, whose name may be in a different form of Unicode than that of the song."""
    # `evaluate --save-estimates` shortens a long name.
    given = next((path for path in (folder / name, folder / short_name(name)) if path.is_dir()), None)
    if given or not folder.is_dir():
        return given or folder / name
    return next((path for path in sorted(folder.iterdir()) if track_name(path) == name), folder / name)


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}; put a track's estimates in a folder of its name as {{stem}}.wav"
        )
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in ESTIMATE_SUFFIXES or path.name.startswith("."):
            continue
        name = stem_name(path)
        if name in files:
            raise InputError(f"{files[name]} and {path.name} are both estimates of {name}; keep one")
        files[name] = path
    return files


def _read(path: Path, stem: str, song: Song, notes: list[str]) -> Tensor:
    info = audio_info(path)
    channels, length = song.mixture.shape
    if info.sample_rate != song.sample_rate:
        raise InputError(
            f"{path} has {info.sample_rate} Hz and the song {song.sample_rate}; resample the estimate to "
            f"{song.sample_rate} Hz first"
        )
    if info.channels not in (1, channels):
        raise InputError(
            f"{path} has {info.channels} channels and the song {channels}; mix the estimate down to {channels} first"
        )
    estimate = read_audio(path)
    if info.channels < channels:
        notes.append(f"the estimate of {stem} is mono, copied to both channels")
    if estimate.shape[-1] != length:
        fitted = "cut" if estimate.shape[-1] > length else "padded with zeros"
        notes.append(f"the estimate of {stem} has {estimate.shape[-1]} samples, the song {length}: {fitted}")
    return fit(estimate, channels, length)
