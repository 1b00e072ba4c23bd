"""Separates the songs of a manifest, each once, so that a run can be killed at any moment and resumed."""

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsmamba2.errors import InputError, OutputError, UsageError
from bsmamba2.separation.catalogue_results import CatalogueResults, ResultWriter
from bsmamba2.separation.command import Outcome, State, each_song, failed, files_to_write, log_summary, separate_song
from bsmamba2.separation.common_stems import Gives, given_by
from bsmamba2.separation.inputs import check_any_audio, check_any_exists
from bsmamba2.separation.manifest import CatalogueRow, in_row, read_manifest
from bsmamba2.separation.paths import PAGE, Destination, StemPaths
from bsmamba2.separation.progress import RunProgress
from bsmamba2.separation.settings import Combination, SeparationSettings, StemSettings
from bsmamba2.system.files import check_can_be_made, fresh_folder, remove_files, sha256_of, sha256_of_text
from bsmamba2.system.processes import Processes, is_first_process
from bsmamba2.system.remote_files import fetch_file, file_name_of, is_url, remote_size_bytes, upload_file
from bsmamba2.weights.headers import known_configs
from bsmamba2.weights.registry import DEFAULT_MODEL, ModelNames, check_models_exist

if TYPE_CHECKING:
    from bsmamba2.separation.song_separator import SongSeparator

# Enough of a hash to distinguish options.
OPTIONS_CHARACTERS = 16
# Folder of the one song that a process has fetched, and how much of the ending of a name is kept there.
FETCHED_SUFFIX = ".fetched"
LONGEST_SUFFIX = 10
# The results list the rest.
LISTED: tuple[State, ...] = ("incomplete", "failed")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalogue:
    """Many songs to separate.

    Args:
        manifest: CSV file with a row for each song.
        retry_failed: Separate only the songs that failed in an earlier run.
        upload: URL of a folder to which the stems are uploaded; they are then removed from the output.

    Raises:
        UsageError: Nothing can be uploaded to the URL.
    """

    manifest: Path
    retry_failed: bool = False
    upload: str | None = None

    def __post_init__(self) -> None:
        if self.upload is not None and (not is_url(self.upload) or self.upload.lower().startswith("http")):
            raise UsageError(f"nothing can be uploaded to {self.upload}; give a folder such as s3://bucket/stems")


def separate_catalogue(
    catalogue: Catalogue,
    model: ModelNames = DEFAULT_MODEL,
    destination: Destination = Destination(),
    stem_settings: StemSettings = StemSettings(),
    settings: SeparationSettings = SeparationSettings(),
    processes: Processes = Processes(),
    hop_length: int | None = None,
    ensemble: Combination | None = None,
) -> list[Outcome]:
    """Writes the stems of the songs of a manifest as `separate_files` does, and a result of each.

    The results are JSON lines in a folder next to the output, whose name ends with `.results`. The same call resumes:
    songs whose files are there as their results state are skipped.

    Args:
        catalogue: The songs.
        model: As of `separate_files`; the same model for all songs.
        destination: Where the stems are written.
        stem_settings: Which stems are written, and how, unless a row states its own.
        settings: How to separate.
        processes: How many processes share the songs.
        hop_length: As of `separate_files`.
        ensemble: As of `separate_files`.

    Raises:
        InputError: An option or a row cannot be used; nothing was written.
    """
    if catalogue.upload is not None and destination.skip_existing:
        raise UsageError("--skip-existing looks for stems in the output, not where they are uploaded; leave it out")
    names = check_models_exist(model, ensemble)
    rows = read_manifest(catalogue.manifest, stem_settings)
    songs = [row.song for row in rows]
    # What is at URLs shows when it is fetched.
    any_remote = any(song.url is not None for song in songs)

    @functools.cache
    def options_of(stem_settings: StemSettings) -> str:
        changing = (names, ensemble, hop_length, settings.segment_seconds, settings.overlap, destination.template)
        return sha256_of_text(repr((*changing, stem_settings)))[:OPTIONS_CHARACTERS]

    results = CatalogueResults(catalogue.manifest, destination.output, lambda row: options_of(row.stem_settings))
    if not any_remote:
        check_any_exists(songs)

    def planned(gives: Gives) -> CataloguePlan:
        return CataloguePlan(catalogue, rows, destination, gives, results)

    configs = known_configs(names)
    if configs is not None:
        plan = planned(given_by(names, configs, stem_settings.stems))
        # Not asked for all uploaded files, one by one, before work begins.
        finished = [outcome for row in rows if not catalogue.upload and (outcome := plan.skipped(row))]
        if len(finished) == len(rows):
            outcomes = finished if is_first_process() else []
            log_summary(outcomes, LISTED)
            return outcomes
    if not any_remote:
        check_any_audio(songs)
    check_can_be_made(destination.output)
    # Imported only now: it takes seconds, which a wrong row need not wait for.
    from bsmamba2.separation.models import load_models
    from bsmamba2.system.devices import choose_device

    if not processes.several:
        choose_device(settings.device)
    # The stems of all rows are estimated by one network, whose weights are not read before the rows are checked.
    models = load_models(
        names, ensemble, lambda gives: planned(gives).estimated(gives), stem_settings.stems, hop_length
    )
    models.check(settings)
    plan = planned(models.gives)
    run = RunProgress([song.path for song in songs], shown=not processes.several)
    with contextlib.ExitStack() as stack:

        def worker(device: str) -> Callable[[CatalogueRow], Outcome]:
            separator = models.separator(settings, device)
            number = _process_number(processes)
            writer = stack.enter_context(results.writer(number))
            fetched = stack.enter_context(fresh_folder(results.file(number, FETCHED_SUFFIX)))
            return lambda row: _separate_row(separator, row, plan, writer, fetched, run)

        outcomes = each_song(rows, worker, settings.device, processes, destination.output)
    if outcomes:
        log_summary(outcomes, LISTED)
        log.info("the results are in %s", results.folder)
    return outcomes


class CataloguePlan:
    """Which rows of a catalogue are separated, and into which files.

    Args:
        catalogue: The catalogue.
        rows: Its rows.
        destination: Where the stems are written.
        gives: The stems that the model gives.
        results: The results of earlier runs.

    Raises:
        InputError: Stems of a row cannot be given, or a file may not be written.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        rows: Sequence[CatalogueRow],
        destination: Destination,
        gives: Gives,
        results: CatalogueResults,
    ) -> None:
        self._catalogue, self._rows = catalogue, rows
        self._destination, self._results = destination, results
        self._stems: dict[Sequence[str] | None, tuple[str, ...]] = {}
        for row in rows:
            if row.stem_settings.stems not in self._stems:
                with self._named(row):
                    self._stems[row.stem_settings.stems] = row.stem_settings.names(gives)
        everything = list(dict.fromkeys(stem for stems in self._stems.values() for stem in stems))
        shared = rows[0].stem_settings
        songs = [row.song for row in rows]
        self._paths = StemPaths(songs, destination, everything, shared.format, shared.page is not None)
        for row in rows:
            with self._named(row):
                files_to_write(self.files(row), self.destination(row), row.stem_settings)

    @contextlib.contextmanager
    def _named(self, row: CatalogueRow) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise in_row(row.number, self._catalogue.manifest, error) from error

    def estimated(self, gives: Gives) -> list[str]:
        """Returns the estimates that the stems of all rows are made of."""
        distinct = {row.stem_settings.stems: row.stem_settings for row in self._rows}.values()
        return list(dict.fromkeys(stem for settings in distinct for stem in settings.estimated(gives)))

    def files(self, row: CatalogueRow) -> dict[str, Path]:
        """Returns the files of a row by stem, its page included."""
        named = (*self._stems[row.stem_settings.stems], PAGE)
        return {stem: path for stem, path in self._paths[row.song].items() if stem in named}

    def destination(self, row: CatalogueRow) -> Destination:
        """Returns how a row is written: its own files of an earlier run are replaced."""
        if self._results.is_begun(row):
            return replace(self._destination, overwrite=True, skip_existing=False)
        return self._destination

    def skipped(self, row: CatalogueRow) -> Outcome | None:
        """Returns the outcome of a row that need not be separated; None if it is to be.

        Raises:
            InputError: The sizes of uploaded files cannot be asked for.
        """
        if self._catalogue.retry_failed:
            return None if self._results.is_failed(row) else Outcome(row.song.source, "skipped", "it has not failed")
        if not self._results.is_finished(row, lambda: self._sizes(row)):
            return None
        return Outcome(row.song.source, "skipped", "an earlier run has finished it")

    def _sizes(self, row: CatalogueRow) -> dict[str, int | None]:
        uploaded = self._catalogue.upload is not None
        return {
            self._below(path): remote_size_bytes(self._url(path)) if uploaded else _size_bytes(path)
            for path in self.files(row).values()
        }

    def written(self, row: CatalogueRow) -> list[dict[str, Any]]:
        """Returns what there is to state about each file of a row that exists."""
        return [
            {"path": self._below(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for path in self.files(row).values()
            if os.path.exists(path)
        ]

    def check_upload(self, row: CatalogueRow) -> None:
        """Checks that no file is replaced where those of a row are uploaded.

        Raises:
            InputError: A file exists and may not be replaced, or this cannot be asked for.
        """
        if self._catalogue.upload is not None and not self.destination(row).overwrite:
            for url in map(self._url, self.files(row).values()):
                if remote_size_bytes(url) is not None:
                    raise InputError(f"{url} already exists; give another --upload, or --overwrite")

    def upload(self, row: CatalogueRow) -> None:
        """Uploads the files of a row, if they are to be, and removes them from the output in any case.

        Raises:
            InputError: They cannot be uploaded.
        """
        if self._catalogue.upload is None:
            return
        paths = [path for path in self.files(row).values() if os.path.exists(path)]
        try:
            for path in paths:
                upload_file(path, self._url(path))
        finally:
            remove_files(paths, self._destination.output)

    def _below(self, path: Path) -> str:
        return path.relative_to(self._destination.output).as_posix()

    def _url(self, path: Path) -> str:
        return f"{(self._catalogue.upload or '').rstrip('/')}/{self._below(path)}"


def _separate_row(
    separator: "SongSeparator",
    row: CatalogueRow,
    plan: CataloguePlan,
    writer: ResultWriter,
    folder: Path,
    run: RunProgress,
) -> Outcome:
    """Separates a row, which is fetched to a folder if it is at a URL, writes its result and returns its outcome."""
    began, song = time.monotonic(), row.song
    facts: dict[str, Any] = {"audio_seconds": None, "files": []}
    try:
        skipped = plan.skipped(row)
        if skipped is not None:
            run.skip()
            return skipped
        plan.check_upload(row)
        writer.begin(row)
        if song.url is not None:
            song = replace(song, path=folder / f"song{Path(file_name_of(song.url)).suffix[:LONGEST_SUFFIX]}")
            fetch_file(row.path, song.path)
        outcome = separate_song(separator, song, plan.files(row), plan.destination(row), row.stem_settings, run)
        # A row that has failed may have files of an earlier run, of which nothing is known.
        if outcome.state != "failed":
            facts = {"audio_seconds": _seconds(plan.files(row)), "files": plan.written(row)}
            plan.upload(row)
    except OutputError:
        raise
    except InputError as error:
        if not facts["files"]:
            run.skip()
        outcome, facts["files"] = failed(song, error, run.place), []
    finally:
        if song.url is not None:
            song.path.unlink(missing_ok=True)
    seconds = round(time.monotonic() - began, 3)
    writer.finish(row, {"status": outcome.state, "remark": outcome.remark, "seconds_taken": seconds, **facts})
    return outcome


def _seconds(files: Mapping[str, Path]) -> float | None:
    """Returns the length of the stems of a song in seconds, if there are any."""
    from bsmamba2.audio.reading import stated_seconds

    return next((stated_seconds(path) for stem, path in files.items() if stem != PAGE and os.path.exists(path)), None)


def _size_bytes(path: Path) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _process_number(processes: Processes) -> int:
    """Returns the number of this process among those that share the songs, from 0."""
    if not processes.several:
        return 0
    from torch import distributed

    return distributed.get_rank()
