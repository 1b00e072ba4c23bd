"""The process that computes: it separates one song at a time, and mixes stems meanwhile.

The server is a process of its own and does not import torch: it answers at once during a computation, and what ends
this process, such as a lack of memory, ends only the song that it is at.
"""

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from bsmamba2.errors import InputError
from bsmamba2.separation.paths import PAGE
from bsmamba2.server.messages import (
    Command,
    Failed,
    Mix,
    Mixed,
    Progressed,
    Ready,
    Separate,
    SongSettings,
    Stage,
    WorkerReport,
    Written,
)
from bsmamba2.server.offers import is_here, is_large
from bsmamba2.system.console import log_shown
from bsmamba2.weights.registry import PUBLISHED_MODELS

if TYPE_CHECKING:
    from bsmamba2.separation.song_separator import SongSeparator

# A preview takes as long to separate, and has a length between these. It is made only of songs of at least a minute.
PREVIEW_TAKES_SECONDS = 5.0
PREVIEW_SECONDS = (8.0, 30.0)
SHORTEST_PREVIEWED_SECONDS = 60.0
# How much of a song is searched for its loudest part: an hour takes some seconds.
LONGEST_SEARCHED_SECONDS = 1800.0
# Seconds of audio that a CPU separates in a second with a model that was not used yet.
ASSUMED_SPEED = 2.0
# How often a waveform is sent.
SENDING_SECONDS = 0.25
# The data of the player among the files of a song.
PLAYER_DATA = "player.json"

log = logging.getLogger(__name__)


class _CancelledError(Exception):
    """A song is not wanted any more."""


def run_worker(connection: Connection, first: SongSettings) -> None:
    """Computes what is asked for on a connection until None comes, or the process at its other end has ended.

    Args:
        connection: Where commands come from and reports are sent to.
        first: Settings whose models are loaded at once.
    """
    # A terminal sends it to all processes, and the server ends this one when it is ready to.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with log_shown("bsmamba2"):
        worker = _Worker(connection)
        threading.Thread(target=worker.separate_all, args=(first,), daemon=True).start()
        threading.Thread(target=worker.mix_all, daemon=True).start()
        worker.listen()
    # Threads of libraries that compute would delay the end.
    os._exit(0)


class _Worker:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._songs: queue.Queue[Separate] = queue.Queue()
        self._mixes: queue.Queue[Mix] = queue.Queue()
        self._cancelled: set[str] = set()
        self._busy = threading.Lock()
        self._models = _Models()

    def listen(self) -> None:
        """Takes commands until nobody is left to send any; the song that is separated is then cancelled."""
        while True:
            try:
                command: Command | None = self._connection.recv()
            except (EOFError, OSError):
                break
            if command is None:
                break
            if isinstance(command, Separate):
                self._songs.put(command)
            elif isinstance(command, Mix):
                self._mixes.put(command)
            else:
                self._cancelled.add(command.song)
        self._cancelled.add("")
        # Its temporary files are removed.
        self._busy.acquire()

    def separate_all(self, first: SongSettings) -> None:
        """Separates songs as they come."""
        device = problem = ""
        try:
            # Imported here, as the connection is read meanwhile.
            from bsmamba2.system.devices import choose_device

            device = choose_device(first.settings.device).type
            # One that has to be downloaded waits until it is needed.
            if all(name not in PUBLISHED_MODELS or is_here(PUBLISHED_MODELS[name]) for name in first.models):
                self._models.separator(first)
        except InputError as error:
            problem = str(error)
        # Songs with a different model may be possible.
        except Exception as error:
            log.exception("the model failed")
            problem = f"the model failed with an unexpected {type(error).__name__}: {error}"
        self.send(Ready(device, problem))
        while True:
            command = self._songs.get()
            with self._busy:
                self.send(self._separated(command))
                self._cancelled.discard(command.song)

    def mix_all(self) -> None:
        """Writes mixes as they come."""
        while True:
            command = self._mixes.get()
            try:
                from bsmamba2.server.mixdown import write_mix

                remark = write_mix(command.path, command.gains, command.stem_settings, command.seconds)
                self.send(Mixed(command.key, remark))
            except InputError as error:
                self.send(Mixed(command.key, reason=str(error)))
            except Exception as error:
                log.exception("a mix failed")
                self.send(
                    Mixed(command.key, reason=f"the mix failed with an unexpected {type(error).__name__}: {error}")
                )

    def send(self, report: WorkerReport) -> None:
        """Sends a report; if nobody is left to read it, it is dropped."""
        with self._sending:
            try:
                self._connection.send(report)
            except OSError:
                self._cancelled.add("")

    def _separated(self, command: Separate) -> WorkerReport:
        """Separates a song, and returns the last report about it."""
        try:
            self._check_wanted(command.song)
            settings = command.settings
            part = self._preview_part(command) if self._wants_preview(settings) else None
            if part is not None:
                self.send(self._stage(replace(command, settings=part), "preview"))
            return self._stage(command, "song")
        except _CancelledError:
            return Failed(command.song, "")
        except InputError as error:
            return Failed(command.song, str(error).replace(str(command.source), command.file_name))
        # An unexpected error in one song must not stop the others.
        except Exception as error:
            from bsmamba2.separation.command import unexpected_failure

            log.exception("failed: %s", command.title)
            return Failed(command.song, unexpected_failure(Path(command.file_name), error))

    def _check_wanted(self, song: str) -> None:
        if self._cancelled & {song, ""}:
            raise _CancelledError

    def _wants_preview(self, settings: SongSettings) -> bool:
        if settings.preview is not None:
            return settings.preview
        from bsmamba2.system.devices import choose_device

        return choose_device(settings.settings.device).type == "cpu" and any(map(is_large, settings.models))

    def _preview_part(self, command: Separate) -> SongSettings | None:
        """Returns the settings of the preview of a song; None if the song is short."""
        from bsmamba2.audio.reading import stated_seconds
        from bsmamba2.server.loudest import loudest_part

        given = command.settings.stem_settings
        seconds = given.seconds_of(stated_seconds(command.source))
        if seconds is None or seconds < SHORTEST_PREVIEWED_SECONDS:
            return None
        shortest, longest = PREVIEW_SECONDS
        length = float(round(min(max(PREVIEW_TAKES_SECONDS * self._models.speed(command.settings), shortest), longest)))
        start = loudest_part(command.source, length, given.start, min(seconds, LONGEST_SEARCHED_SECONDS))
        stem_settings = replace(
            given, start=start, duration=length, format="wav", bit_depth="source", peak="clip", page=None
        )
        return replace(command.settings, stem_settings=stem_settings)

    def _stage(self, command: Separate, stage: Stage) -> Written:
        """Separates a song or a part of it.

        Raises:
            InputError: It cannot be separated.
        """
        from bsmamba2.audio.irregularities import Irregularities
        from bsmamba2.audio.reading import stated_seconds
        from bsmamba2.separation.stems import StemPage, write_stems
        from bsmamba2.server.live_page import LivePage

        settings = command.settings.stem_settings
        separator = self._models.separator(command.settings)
        folder = command.folder / stage
        stems = {name: folder / f"{name}.{settings.format}" for name in settings.names(separator.gives)}
        progress = _Progress(self, command.song, stage)
        also = None
        if settings.page is not None:
            linked = stems if settings.page == "linked" else None
            also = StemPage(folder / PAGE, command.title, linked)
        page = LivePage(
            *(folder / PLAYER_DATA, command.title),
            show=progress.show,
            addresses=lambda name: f"songs/{command.song}/{stage}/{quote(name, safe='')}",
            start_seconds=settings.start,
            also=also,
        )
        found = Irregularities()
        remark = write_stems(separator, command.source, stems, settings, progress, found, page)
        self._models.took(progress.elapsed, settings.seconds_of(stated_seconds(command.source)))
        return Written(command.song, stage, tuple(stems), remark, bool(found.holes))

    def check(self, progress: Progressed) -> None:
        """Sends how far a song is, if it is still wanted."""
        self._check_wanted(progress.song)
        self.send(progress)


class _Progress:
    """Sends how far a stage of a song is; it is called with the share done, and with waveforms from another thread."""

    def __init__(self, worker: _Worker, song: str, stage: Stage) -> None:
        self._worker = worker
        self._began = time.monotonic()
        self._sent = 0.0
        self._last = Progressed(song, stage, 0.0, 0.0)
        worker.check(self._last)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def __call__(self, share: float) -> None:
        self._last = replace(self._last, share=share, seconds=self.elapsed)
        self._worker.check(replace(self._last, peaks={}))

    def show(self, peaks: Mapping[str, bytes], columns: int) -> None:
        if time.monotonic() - self._sent < SENDING_SECONDS:
            return
        self._sent = time.monotonic()
        self._worker.send(replace(self._last, peaks=peaks, columns=columns))


class _Models:
    """The models that were used last, which stay in memory alone."""

    def __init__(self) -> None:
        self._key: object = None
        self._separator: SongSeparator | None = None
        self._speed: float | None = None

    def speed(self, song: SongSettings) -> float:
        """Returns how many seconds of audio the models of a song are expected to separate in a second."""
        from bsmamba2.system.devices import choose_device

        # Those that were used before are of no interest.
        self.separator(song)
        if self._speed is not None:
            return self._speed
        return ASSUMED_SPEED if choose_device(song.settings.device).type == "cpu" else PREVIEW_SECONDS[1]

    def took(self, elapsed: float, seconds: float | None) -> None:
        """Takes how long the models took for some seconds of audio, if those are known."""
        if seconds and elapsed:
            self._speed = seconds / elapsed

    def separator(self, song: SongSettings) -> "SongSeparator":
        """Returns what separates with the models and settings of a song.

        Raises:
            InputError: A model or a setting cannot be used.
        """
        from bsmamba2.separation.models import load_models
        from bsmamba2.system.devices import return_memory

        key = song.models, song.stem_settings.stems, song.settings
        if self._separator is None or key != self._key:
            self._key = self._separator = self._speed = None
            return_memory()
            models = load_models(song.models, None, song.stem_settings.estimated, song.stem_settings.stems)
            models.check(song.settings)
            self._key, self._separator = key, models.separator(song.settings, song.settings.device)
        return self._separator
