"""Separates many songs, in one process or several, and returns the outcome of each."""

import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

from bsmamba2.audio.irregularities import Irregularities
from bsmamba2.errors import InputError, OccupiedError, UsageError
from bsmamba2.separation.common_stems import Gives, given_by
from bsmamba2.separation.inputs import (
    STANDARD_INPUT,
    SongFile,
    check_any_audio,
    check_any_exists,
    find_song_files,
    is_pipe,
    piped_inputs,
)
from bsmamba2.separation.paths import PAGE, Destination, StemPaths
from bsmamba2.separation.progress import RunProgress
from bsmamba2.separation.settings import Combination, SeparationSettings, StemSettings
from bsmamba2.system.files import check_can_be_made, check_writable
from bsmamba2.system.outputs import remove_leftovers
from bsmamba2.system.processes import Processes, is_first_process
from bsmamba2.weights.headers import known_configs
from bsmamba2.weights.registry import DEFAULT_MODEL, ModelNames, check_models_exist

if TYPE_CHECKING:
    from bsmamba2.separation.song_separator import SongSeparator

AnySong = TypeVar("AnySong")
State = Literal["done", "incomplete", "skipped", "failed"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a song.

    Args:
        source: Its file, or URL.
        state: done, skipped or failed; incomplete if the stems were written, but a part of the song cannot be decoded
            and is silent in them.
        remark: The reason for a failure, or a note about the stems; may be empty.
    """

    source: Path | str
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
        raise UsageError("several processes cannot share the standard input or another pipe; give files, or one device")
    names = check_models_exist(model, ensemble)
    with piped_inputs(inputs) as spooled:
        songs = find_song_files(inputs, destination.output, spooled)
        check_any_exists(songs)
        # Checked before and after the model is read, which usually gives the same stems.
        paths_of = functools.cache(functools.partial(_paths, songs, destination, stem_settings))
        configs = known_configs(names)
        if configs is not None:
            paths = paths_of(stem_settings.names(given_by(names, configs, stem_settings.stems)))
            if songs and not any(files_to_write(files, destination, stem_settings) for files in paths.values()):
                outcomes = [_finished(song, paths[song]) for song in songs] if is_first_process() else []
                log_summary(outcomes)
                return outcomes
        check_any_audio(songs)
        check_can_be_made(destination.output)
        # Imported only now: it takes seconds, which the help, a wrong option or a wrong path need not wait for.
        from bsmamba2.separation.models import load_models
        from bsmamba2.system.devices import choose_device

        if not processes.several:
            choose_device(settings.device)

        def estimated(gives: Gives) -> list[str]:
            # Before the weights are read.
            paths_of(stem_settings.names(gives))
            return stem_settings.estimated(gives)

        models = load_models(names, ensemble, estimated, stem_settings.stems, hop_length)
        # Here and not only in each process: a wrong setting is reported once, before there is a folder.
        models.check(settings)
        paths = paths_of(stem_settings.names(models.gives))
        run = RunProgress([song.path for song in songs], shown=not processes.several)

        def worker(device: str) -> Callable[[SongFile], Outcome]:
            separator = models.separator(settings, device)
            return lambda song: separate_song(separator, song, paths[song], destination, stem_settings, run)

        outcomes = each_song(songs, worker, settings.device, processes, destination.output)
    if outcomes:
        log_summary(outcomes)
    return outcomes


def each_song(
    songs: Sequence[AnySong],
    worker: Callable[[str], Callable[[AnySong], Outcome]],
    device: str,
    processes: Processes,
    output: Path,
) -> list[Outcome]:
    """Returns the outcomes of all songs in the first process, and an empty list in the others.

    Args:
        songs: The songs; each is separated by one of the processes.
        worker: Given the name of a device, returns the function from a song to its outcome.
        device: Device, or kind of device if there are several processes.
        processes: How many processes.
        output: Folder of the stems.

    Raises:
        InputError: The devices cannot be used, or the folder cannot be written to.
    """
    separate = None if processes.several else worker(device)
    check_writable(output)
    if separate is None:
        # Lightning is imported only when it is needed.
        from bsmamba2.system.sharing import share_out

        return share_out(songs, worker, device, processes)
    outcomes = []
    try:
        for song in songs:
            outcomes.append(separate(song))
    except KeyboardInterrupt:
        log_summary(outcomes)
        raise
    return outcomes


def _paths(
    songs: Sequence[SongFile], destination: Destination, stem_settings: StemSettings, stems: tuple[str, ...]
) -> StemPaths:
    """Returns the files of every song: its stems, and its page if there is one.

    Raises:
        InputError: A file may not be written.
    """
    with_page = stem_settings.page is not None
    paths = StemPaths(songs, destination, stems, stem_settings.format, with_page)
    for files in paths.values():
        files_to_write(files, destination, stem_settings)
    return paths


def files_to_write(files: Mapping[str, Path], destination: Destination, stem_settings: StemSettings) -> dict[str, Path]:
    """Returns the files of a song to write by stem: all, or those that do not exist yet.

    Raises:
        InputError: One is a folder, or exists and may not be replaced.
    """
    # Not Path.exists, which fails if a name is too long; writing then reports it for this song alone.
    present = [path for path in files.values() if os.path.exists(path)]
    for path in present:
        if os.path.isdir(path):
            raise InputError(f"{path} is a folder; remove it, or give another --output")
    if destination.overwrite:
        return dict(files)
    if present and not destination.skip_existing:
        raise InputError(f"{present[0]} already exists; give another --output, or --overwrite or --skip-existing")
    if 0 < len(present) < len(files) and stem_settings.peak != "clip":
        raise InputError(
            f"{present[0]} already exists but other stems of its song do not; with --peak {stem_settings.peak} all are "
            "made together, so give --overwrite"
        )
    return {stem: path for stem, path in files.items() if path not in present}


def separate_song(
    separator: "SongSeparator",
    song: SongFile,
    files: Mapping[str, Path],
    destination: Destination,
    stem_settings: StemSettings,
    run: RunProgress,
) -> Outcome:
    """Separates a song, of whose files some may be missing only, and returns its outcome.

    Args:
        separator: Separates the song.
        song: The song.
        files: All its files by stem.
        destination: Which of them may be replaced or are kept.
        stem_settings: Which stems are written, and how.
        run: The progress through all songs.
    """
    from bsmamba2.audio.reading import stated_seconds
    from bsmamba2.separation.stems import StemPage, write_stems

    found = Irregularities()
    try:
        # Once more, because another process may have written them meanwhile.
        missing = files_to_write(files, destination, stem_settings)
        if not missing:
            run.skip()
            return _finished(song, files, run.place)
        stems = {stem: path for stem, path in missing.items() if stem != PAGE}
        page = None
        if PAGE in missing:
            linked = {stem: path for stem, path in files.items() if stem != PAGE}
            page = StemPage(missing[PAGE], song.track, linked if stem_settings.page == "linked" else None)
        with run.song(song.track, stem_settings.seconds_of(stated_seconds(song.path))) as progress:
            remark = write_stems(
                *(separator, song.path, stems, stem_settings, progress, found, page, destination.overwrite)
            )
    except OccupiedError as error:
        # Two processes that share songs in this way leave each other's to each other.
        if destination.skip_existing:
            return _skipped(song, str(error), run.place)
        return failed(song, error, run.place)
    except InputError as error:
        return failed(song, error, run.place)
    # An unexpected error in one file must not stop the others.
    except Exception as error:
        log.exception("%sfailed: %s", run.place, song.source)
        return Outcome(song.source, "failed", unexpected_failure(song.source, error))
    # If all files are in one folder, only the first is given with its folder.
    folders = {path.parent for path in missing.values()}
    first, *rest = missing.values()
    places = ", ".join([str(first), *(path.name if len(folders) == 1 else str(path) for path in rest)])
    state: State = "incomplete" if found.holes else "done"
    took = f"{progress.summary()}{remark and f'; {remark}'}"
    log.info("%s%s: %s -> %s in %s", run.place, state, song.source, places, took)
    return Outcome(song.source, state, remark)


def unexpected_failure(source: Path | str, error: Exception) -> str:
    """Returns the sentence about an error in a song that nothing else explains."""
    return f"{source} failed with an unexpected {type(error).__name__}: {error}"


def _finished(song: SongFile, files: Mapping[str, Path], place: str = "") -> Outcome:
    """Returns the outcome of a song whose files all exist, and removes what killed runs left of them."""
    remove_leftovers(files.values())
    return _skipped(song, "all its stems exist", place)


def _skipped(song: SongFile, reason: str, place: str) -> Outcome:
    log.info("%sskipped: %s: %s", place, song.source, reason)
    return Outcome(song.source, "skipped", reason)


def failed(song: SongFile, error: InputError, place: str) -> Outcome:
    """Logs a song that failed, with its place among the songs, and returns its outcome."""
    # A fetched file is one that the user does not know.
    sentence = str(error).replace(str(song.path), str(song.source))
    log.error("%sfailed: %s", place, sentence)
    return Outcome(song.source, "failed", sentence)


def log_summary(outcomes: Sequence[Outcome], listed: Sequence[State] = get_args(State)) -> None:
    """Logs how many songs have each state, and if there are several, which have one of those listed."""
    counts = {state: [o for o in outcomes if o.state == state] for state in get_args(State)}
    log.info(
        "%s", ", ".join(f"{state} {len(found)}" for state, found in counts.items() if found or state != "incomplete")
    )
    if len(outcomes) > 1:
        for state in listed:
            for outcome in counts[state]:
                # Each song is named once; most reasons begin with its name.
                named = outcome.remark.startswith(f"{outcome.source} ")
                noted = f"{outcome.source} ({outcome.remark})" if outcome.remark else str(outcome.source)
                log.info("  %s: %s", state, outcome.remark if named else noted)
