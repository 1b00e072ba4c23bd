"""Separates many songs, in one process or several, and returns the outcome of each."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tqdm import tqdm

from bsmamba2.audio.irregularities import Irregularities
from bsmamba2.errors import InputError
from bsmamba2.separation.paths import (
    PAGE,
    STANDARD_INPUT,
    Destination,
    SongFile,
    check_any_exists,
    find_song_files,
    is_pipe,
    piped_inputs,
    stem_paths,
)
from bsmamba2.separation.settings import Combination, SeparationSettings, StemSettings
from bsmamba2.system.files import check_writable
from bsmamba2.system.processes import Processes
from bsmamba2.weights.registry import DEFAULT_MODEL, ModelNames

if TYPE_CHECKING:
    from bsmamba2.separation.song_separator import SongSeparator

State = Literal["done", "incomplete", "skipped", "failed"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a song.

    Args:
        source: Its file.
        state: done, skipped or failed; incomplete if the stems were written, but a part of the song cannot be decoded
            and is silent in them.
        remark: The reason for a failure, or a note about the stems; may be empty.
    """

    source: Path
    state: State
    remark: str = ""


def separate_files(
    inputs: Sequence[str | Path],
    model: ModelNames = DEFAULT_MODEL,
    destination: Destination = Destination(),
    stem_settings: StemSettings = StemSettings(),
    settings: SeparationSettings = SeparationSettings(),
    processes: Processes = Processes(),
    hop_length: int | None = None,
    ensemble: Combination | None = None,
) -> list[Outcome]:
    """Writes the stems of songs, with their sampling rate, length, channels, bit depth, tags and cover.

    A model of vocals also gives `instrumental`: the song without the vocals, so that the two sum to the song. A song
    that fails is logged and returned as an outcome, and the rest continue. With several processes, the first returns
    the outcomes of all songs, the others none.

    Args:
        inputs: Audio or video files, folders, patterns, or - for the standard input.
        model: Name of a published model (`bsmamba2 models` lists them), or a file: a checkpoint or weights; by default
            the packaged small-vocals. Several, given as A,B or one by one, separate together.
        destination: Where the stems are written.
        stem_settings: Which stems are written, and how.
        settings: How to separate.
        processes: How many processes share the songs.
        hop_length: Distance between frames in samples, for a model whose file does not contain it.
        ensemble: How to combine the estimates of several models: their mean (the default), or in each bin of their
            spectra the one with the largest or smallest magnitude (max, min).

    Raises:
        InputError: An option cannot be used; nothing was written.
    """
    if processes.several and any(str(given) == STANDARD_INPUT or is_pipe(Path(given)) for given in inputs):
        raise InputError("several processes cannot share the standard input or another pipe; give files, or one device")
    with piped_inputs(inputs) as spooled:
        songs = find_song_files(inputs, destination.output, spooled)
        check_any_exists(songs)
        # Imported only now: it takes seconds, which the help, a wrong option or a wrong path need not wait for.
        from bsmamba2.separation.models import load_models

        models = load_models(model, ensemble, stem_settings.estimated, stem_settings.stems, hop_length)
        # Here and not only in each process: a wrong setting is reported once, before there is a folder.
        models.check(settings)
        names = stem_settings.names(models.gives)
        all_paths = paths = stem_paths(songs, destination, names, stem_settings.format, stem_settings.page is not None)
        if not destination.overwrite:
            paths = {song: _missing(files, destination, stem_settings) for song, files in paths.items()}
        for path in (path for files in paths.values() for path in files.values()):
            if os.path.isdir(path):
                raise InputError(f"{path} is a folder; remove it, or give another --output")

        def worker(device: str) -> Callable[[SongFile], Outcome]:
            separator = models.separator(settings, device)
            bar = not processes.several
            return lambda song: _separate(separator, song, paths[song], all_paths[song], stem_settings, bar)

        separate = None if processes.several else worker(settings.device)
        check_writable(destination.output)
        if separate is None:
            # Lightning is imported only when it is needed.
            from bsmamba2.system.sharing import share_out

            outcomes = share_out(songs, worker, settings.device, processes)
        else:
            outcomes = []
            try:
                for song in songs:
                    outcomes.append(separate(song))
            except KeyboardInterrupt:
                _log_summary(outcomes)
                raise
    if outcomes:
        _log_summary(outcomes)
    return outcomes


def _missing(files: Mapping[str, Path], destination: Destination, stem_settings: StemSettings) -> dict[str, Path]:
    """Returns the files of a song that do not exist yet."""
    # Not Path.exists, which fails if a name is too long; writing then reports it for this song alone.
    present = [path for path in files.values() if os.path.exists(path)]
    if present and not destination.skip_existing:
        raise InputError(f"{present[0]} already exists; give another --output, or --overwrite or --skip-existing")
    if 0 < len(present) < len(files) and stem_settings.peak != "clip":
        raise InputError(
            f"{present[0]} already exists but other stems of its song do not; with --peak {stem_settings.peak} all are "
            "made together, so give --overwrite"
        )
    return {stem: path for stem, path in files.items() if path not in present}


def _separate(
    separator: "SongSeparator",
    song: SongFile,
    missing: Mapping[str, Path],
    paths: Mapping[str, Path],
    stem_settings: StemSettings,
    bar: bool,
) -> Outcome:
    """Separates a song, of whose files some may be missing only, and returns its outcome."""
    if not missing:
        log.info("skipped: %s: all its stems exist", song.path)
        return Outcome(song.path, "skipped", "all its stems exist")
    from bsmamba2.separation.stems import StemPage, write_stems

    started = time.monotonic()
    found = Irregularities()
    files = {stem: path for stem, path in missing.items() if stem != PAGE}
    page = None
    if PAGE in missing:
        linked = {stem: path for stem, path in paths.items() if stem != PAGE}
        page = StemPage(missing[PAGE], song.track, linked if stem_settings.page == "linked" else None)
    layout = "{desc} {percentage:3.0f}% {bar} {remaining}"
    try:
        with tqdm(total=1.0, desc=song.track, disable=None if bar else True, bar_format=layout) as shown:
            remark = write_stems(separator, song.path, files, stem_settings, partial(_move, shown), found, page)
    except InputError as error:
        log.error("failed: %s", error)
        return Outcome(song.path, "failed", str(error))
    # An unexpected error in one file must not stop the others.
    except Exception as error:
        log.exception("failed: %s", song.path)
        return Outcome(song.path, "failed", f"{song.path} failed with an unexpected {type(error).__name__}: {error}")
    places = ", ".join(str(path) for path in missing.values())
    state: State = "incomplete" if found.holes else "done"
    elapsed = time.monotonic() - started
    log.info("%s: %s -> %s in %.1f s%s", state, song.path, places, elapsed, remark and f"; {remark}")
    return Outcome(song.path, state, remark)


def _move(bar: "tqdm[Any]", done: float) -> None:
    bar.update(done - bar.n)


def _log_summary(outcomes: Sequence[Outcome]) -> None:
    counts = {state: [o for o in outcomes if o.state == state] for state in get_args(State)}
    log.info(
        "%s", ", ".join(f"{state} {len(found)}" for state, found in counts.items() if found or state != "incomplete")
    )
    if len(outcomes) > 1:
        for state, found in counts.items():
            for outcome in found:
                log.info("  %s: %s%s", state, outcome.source, outcome.remark and f" ({outcome.remark})")
