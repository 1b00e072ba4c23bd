"""The songs of a session: which wait, which is separated, what was made; all of it is in the thread of the server."""

import asyncio
import base64
import contextlib
import logging
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from anyio import to_thread

from bsmamba2.errors import InputError
from bsmamba2.printable import printable
from bsmamba2.separation.paths import PAGE
from bsmamba2.server.computer import Computer
from bsmamba2.server.folders import move_to_output, remove_all
from bsmamba2.server.messages import (
    Cancel,
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
from bsmamba2.server.worker import PLAYER_DATA

SongState = Literal["waiting", "separating", "done", "incomplete", "failed", "cancelled"]
ENDED = ("done", "incomplete", "failed", "cancelled")
MOST_SONGS = 1000
# A song that is cancelled ends with a segment of it; one that takes longer is ended with its process.
CANCEL_SECONDS = 4.0

log = logging.getLogger(__name__)


@dataclass(eq=False)
class QueuedSong:
    """A song of the session.

    Args:
        title: Its name.
        file_name: The name of its file, as the user knows it.
        folders: Folders that it was in, which are kept in the output.
        source: Its file.
        uploaded: Whether the file is a copy of the session.
        settings: How it is separated.
        id: Its id.
        state: How far it is.
        remark: A note about its stems, or why there are none.
        progress: How far the current stage is.
        folder: Where its stems are; None until there are all.
        stems: Names of the stems by stage, of the stages that are complete.
        mix: The id and the file of its last mix.
    """

    title: str
    file_name: str
    folders: Sequence[str]
    source: Path
    uploaded: bool
    settings: SongSettings
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    state: SongState = "waiting"
    remark: str = ""
    progress: Progressed | None = None
    folder: Path | None = None
    stems: dict[Stage, tuple[str, ...]] = field(default_factory=dict)
    mix: tuple[str, Path] | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns what a page shows of it."""
        progress = self.progress if self.state == "separating" else None
        left = None
        if progress is not None and progress.share > 0:
            left = progress.seconds * (1 - progress.share) / progress.share
        return {
            "id": self.id,
            "title": self.title,
            "folder": "/".join(self.folders),
            "state": self.state,
            "remark": self.remark,
            "stage": progress.stage if progress else None,
            "share": progress.share if progress else float(self.state in ("done", "incomplete")),
            "seconds_left": left,
            "columns": progress.columns if progress else 0,
            "peaks": {name: base64.b64encode(peaks).decode() for name, peaks in progress.peaks.items()}
            if progress
            else {},
            "preview": self.stems.get("preview", ()),
            "stems": self.stems.get("song", ()),
            "model": ",".join(self.settings.models),
            "format": self.settings.stem_settings.format,
        }


class Session:
    """The songs of a session, in the order in which they were added.

    Args:
        folder: Where files are until they are complete.
        output: Where stems are kept; None if they are temporary.
        defaults: Settings of songs for which nothing else was chosen.

    Attributes:
        songs: The songs by id.
        device: The kind of device that computes; empty until that is known.
        problem: Why nothing can be separated: an error for the user; empty if it can.
    """

    def __init__(self, folder: Path, output: Path | None, defaults: SongSettings) -> None:
        self.folder, self.output, self.defaults = folder, output, defaults
        self.songs: dict[str, QueuedSong] = {}
        self.device = self.problem = ""
        self._current: QueuedSong | None = None
        self._mixes: dict[str, asyncio.Future[Mixed]] = {}
        self._followers: set[Follower] = set()
        self._computer: Computer | None = None
        self._unfollowed_since = time.monotonic()
        self._was_followed = False
        self._ended = False

    def begin(self) -> None:
        """Starts the process that computes; called in the loop of the server."""
        self._computing()

    def end(self) -> None:
        """Ends it, and what follows the session."""
        self.close()
        if self._computer is not None:
            self._computer.end()

    def close(self) -> None:
        """Ends what follows the session."""
        self._ended = True
        for follower in self._followers:
            follower.wake()

    @property
    def is_ended(self) -> bool:
        """Whether the server ends."""
        return self._ended

    def add(self, song: QueuedSong) -> QueuedSong:
        """Adds a song to the queue; one that has failed is only shown.

        Raises:
            InputError: There are too many.
        """
        if len(self.songs) >= MOST_SONGS:
            raise InputError(f"this page has {MOST_SONGS} songs; delete some first, or use `bsmamba2 separate`")
        song.title = printable(song.title.encode("utf-8", "replace").decode())
        self.songs[song.id] = song
        self._changed(song)
        self._next()
        return song

    def cancel(self, song: QueuedSong) -> None:
        """Takes a song out of the queue, or stops it."""
        if song.state in ENDED:
            return
        song.state = "cancelled"
        if song is self._current and self._computer is not None:
            self._computer.send(Cancel(song.id))
            self._end_soon(song)
        self._changed(song)

    def _end_soon(self, song: QueuedSong) -> None:
        """Ends the process if it is still at a cancelled song after a while, and writes no mix."""
        asyncio.get_running_loop().call_later(CANCEL_SECONDS, self._end_cancelled, song)

    def _end_cancelled(self, song: QueuedSong) -> None:
        if song is not self._current or self._computer is None or self._ended:
            return
        if self._mixes:
            self._end_soon(song)
        else:
            self._computer.kill()

    async def delete(self, song: QueuedSong) -> None:
        """Removes a song and its files from the session and the disk, but not a file that was not uploaded."""
        self.cancel(song)
        del self.songs[song.id]
        self._changed(song)
        if self.output is not None:
            await to_thread.run_sync(_remove_written, song, self.output)
        # What is written at this moment is removed once it was stopped.
        if song is not self._current:
            await self._remove(*self._files(song))

    def again(self, song: QueuedSong, settings: SongSettings) -> QueuedSong:
        """Adds a song once more, with different settings.

        Raises:
            InputError: There are too many songs.
        """
        return self.add(QueuedSong(song.title, song.file_name, song.folders, song.source, song.uploaded, settings))

    def stem_file(self, song: QueuedSong, stage: Stage, stem: str) -> Path | None:
        """Returns the file of a stem; None if there is none."""
        folder = self._folder_of(song, stage)
        if folder is None or stem not in song.stems.get(stage, ()):
            return None
        kept = song.settings.stem_settings.format if stage == "song" else "wav"
        return folder / f"{stem}.{kept}"

    def player_data(self, song: QueuedSong, stage: Stage) -> Path | None:
        """Returns the file with the data of the player; None if there is none."""
        path = self._work_folder(song) / f"{stage}-{PLAYER_DATA}"
        return path if stage in song.stems else None

    def _folder_of(self, song: QueuedSong, stage: Stage) -> Path | None:
        return self._work_folder(song) / "preview" if stage == "preview" else song.folder

    def new_file(self) -> Path:
        """Returns where a new upload is written."""
        return self.folder / f"upload-{secrets.token_hex(8)}"

    async def mix(self, song: QueuedSong, gains: Mapping[str, float], seconds: tuple[float, float] | None) -> str:
        """Writes a mix of a song, and returns a remark about it; its file is that of `song.mix` then.

        Args:
            song: A song that is done.
            gains: The factor of each stem.
            seconds: Where the part to write begins and ends in the stems; None for all.

        Raises:
            InputError: There is no such stem, or the mix cannot be written.
        """
        stem_settings = song.settings.stem_settings
        files: dict[Path, float] = {}
        for stem, gain in gains.items():
            file = self.stem_file(song, "song", stem)
            if file is None:
                raise InputError(f"{song.title} has no stem {stem!r}; choose from {', '.join(song.stems['song'])}")
            files[file] = gain
        key = secrets.token_hex(8)
        path = self._work_folder(song) / f"mix-{key}.{stem_settings.format}"
        self._mixes[key] = asyncio.get_running_loop().create_future()
        self._computing().send(Mix(key, files, seconds, path, stem_settings))
        try:
            mixed = await self._mixes[key]
        finally:
            del self._mixes[key]
        if mixed.reason:
            raise InputError(mixed.reason)
        if song.mix is not None:
            self._remove(song.mix[1])
        song.mix = key, path
        return mixed.remark

    @contextlib.contextmanager
    def followed(self, song: QueuedSong | None = None) -> Iterator["Follower"]:
        """Gives what is notified of changes, of one song or of all."""
        follower = Follower(song, self.songs.values() if song is None else [song])
        self._followers.add(follower)
        self._was_followed |= song is None
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            self._unfollowed_since = time.monotonic()

    def seconds_unused(self) -> float | None:
        """Returns how long no page has been open; None if one is, none was yet, or there is something to do."""
        if self._followers or not self._was_followed or any(song.state not in ENDED for song in self.songs.values()):
            return None
        return time.monotonic() - self._unfollowed_since

    def _computing(self) -> Computer:
        """Returns the process that computes, which is started if there is none."""
        if self._computer is None:
            loop = asyncio.get_running_loop()

            def report(message: WorkerReport | None) -> None:
                # The loop may have ended.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._take, message)

            self._computer = Computer(self.defaults, report)
        return self._computer

    def _take(self, report: WorkerReport | None) -> None:
        """Takes a report of the process that computes."""
        if report is None:
            self._take_end()
        elif isinstance(report, Ready):
            self.device, self.problem = report.device, report.problem
            for follower in self._followers:
                follower.wake()
        elif isinstance(report, Mixed):
            if (future := self._mixes.get(report.key)) is not None and not future.done():
                future.set_result(report)
        elif self._current is not None and report.song == self._current.id:
            self._take_song(self._current, report)

    def _take_song(self, song: QueuedSong, report: Progressed | Written | Failed) -> None:
        if isinstance(report, Progressed):
            if report.peaks or song.progress is None or song.progress.stage != report.stage:
                song.progress = report
            else:
                # Waveforms come less often.
                kept = song.progress
                song.progress = Progressed(
                    *(report.song, report.stage, report.share, report.seconds, kept.peaks, kept.columns)
                )
        elif isinstance(report, Failed):
            if song.state != "cancelled":
                song.state, song.remark = "failed", report.reason
                log.error("failed: %s", report.reason)
            self._finish(song)
        else:
            try:
                self._take_written(song, report)
            except InputError as error:
                song.state, song.remark = "failed", str(error)
                self._finish(song)
        self._changed(song)

    def _take_written(self, song: QueuedSong, report: Written) -> None:
        """Takes the results of a stage."""
        if song.state == "cancelled":
            if report.stage == "song":
                self._finish(song)
            return
        folder = self._work_folder(song) / report.stage
        (folder / PLAYER_DATA).replace(self._work_folder(song) / f"{report.stage}-{PLAYER_DATA}")
        if report.stage == "song":
            song.folder = folder
            if self.output is not None:
                song.folder = move_to_output(folder, self.output, song.folders, song.title)
            song.state, song.remark = ("incomplete" if report.damaged else "done"), report.remark
            log.info("%s: %s%s", song.state, song.title, f" -> {song.folder}" if self.output else "")
        song.stems[report.stage] = report.stems
        if report.stage == "song":
            self._finish(song)

    def _take_end(self) -> None:
        """Takes that the process has ended, which it does not by itself; the next song or mix starts a new one."""
        if self._ended or self._computer is None:
            return
        status, self._computer = self._computer.status(), None
        reason = f"the process that separates ended unexpectedly (status {status}), perhaps because memory ran out"
        for key, future in self._mixes.items():
            if not future.done():
                future.set_result(Mixed(key, reason=f"{reason}; try again"))
        if self._current is not None:
            song = self._current
            if song.state == "cancelled":
                # It was ended for that, and the next one is to be ready.
                self._computing()
            else:
                song.state, song.remark = "failed", f"{song.title}: {reason}; try a smaller model"
                log.error("failed: %s", song.remark)
            self._finish(song)
            self._changed(song)

    def _finish(self, song: QueuedSong) -> None:
        """Ends the current song, and begins the next one."""
        self._current = None
        song.progress = None
        if song.id not in self.songs:
            self._remove(*self._files(song))
        elif song.state in ("cancelled", "failed"):
            self._remove(*(self._work_folder(song) / stage for stage in {*get_args(Stage)} - {*song.stems}))
        self._next()

    def _next(self) -> None:
        if self._current is not None or self._ended:
            return
        song = next((song for song in self.songs.values() if song.state == "waiting"), None)
        if song is None:
            return
        self._current, song.state = song, "separating"
        folder = self._work_folder(song)
        folder.mkdir(exist_ok=True)
        self._computing().send(Separate(song.id, song.source, folder, song.title, song.file_name, song.settings))
        self._changed(song)

    def _work_folder(self, song: QueuedSong) -> Path:
        return self.folder / song.id

    def _files(self, song: QueuedSong) -> list[Path]:
        """Returns what is removed with a song."""
        # A song that was separated twice has one file.
        alone = song.uploaded and all(other.source != song.source for other in self.songs.values())
        return [self._work_folder(song), *([song.source] if alone else [])]

    def _remove(self, *paths: Path) -> asyncio.Future[None]:
        """Removes files in the background: to remove some gigabytes takes seconds."""
        return asyncio.get_running_loop().run_in_executor(None, remove_all, paths)

    def _changed(self, song: QueuedSong) -> None:
        for follower in self._followers:
            follower.add(song)


class Follower:
    """What a page has not been sent yet: of each song, only the last state counts.

    Args:
        song: The only song that is followed; None to follow all.
        first: Songs that it begins with.
    """

    def __init__(self, song: QueuedSong | None, first: Iterable[QueuedSong]) -> None:
        self._song = song
        self._changed = {each.id: each for each in first}
        self._event = asyncio.Event()
        self._event.set()

    def add(self, song: QueuedSong) -> None:
        """Takes a song that has changed."""
        if self._song in (None, song):
            self._changed[song.id] = song
            self._event.set()

    def wake(self) -> None:
        """Ends the wait for a change."""
        self._event.set()

    async def changed(self, seconds: float) -> list[QueuedSong]:
        """Returns the songs that have changed since the last call, after some seconds also if none has."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        self._event.clear()
        changed, self._changed = list(self._changed.values()), {}
        return changed


def _remove_written(song: QueuedSong, output: Path) -> None:
    """Removes the files of a song from the output, and the folders around them that are empty then."""
    if song.folder is None:
        return
    for name in (*(f"{stem}.{song.settings.stem_settings.format}" for stem in song.stems["song"]), PAGE):
        (song.folder / name).unlink(missing_ok=True)
    for parent in (song.folder, *song.folder.parents):
        if parent == output:
            return
        try:
            parent.rmdir()
        # Something else is in it.
        except OSError:
            return
