"""How far a separation of several songs is, for people: in a bar on a terminal, and in the lines of a log."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bsmamba2.system.console import progress_bar

LONGEST_TITLE = 30


class RunProgress:
    """The progress of a run through its songs, one after another.

    Args:
        songs: Their files.
        shown: Whether there may be a bar, if the standard error is a terminal.
    """

    def __init__(self, songs: Sequence[Path], shown: bool = True) -> None:
        # Not decoded to find their lengths: sizes are nearly as good, because songs of an album have one format.
        self._sizes = [os.path.getsize(song) if os.path.isfile(song) else 0 for song in songs]
        self._shown = shown
        self._began = time.monotonic()
        self._number = 0
        self._bytes_done, self._seconds_spent = 0, 0.0

    @contextlib.contextmanager
    def song(self, title: str, seconds: float | None) -> Iterator["SongProgress"]:
        """Gives the progress of the next song while the block runs.

        Args:
            title: Its name.
            seconds: Its length in seconds, if known.
        """
        self._number += 1
        progress = SongProgress(self, title, seconds)
        try:
            with progress.bar(self._shown):
                yield progress
        finally:
            self._bytes_done += self._sizes[self._number - 1]
            self._seconds_spent += progress.elapsed

    def skip(self) -> None:
        """Passes over the next song, which takes no time."""
        self._sizes[self._number] = 0
        self._number += 1

    @property
    def place(self) -> str:
        """Which song is the current one, as `song 2 of 12: `; empty for one song, or songs that processes share."""
        several = len(self._sizes) > 1 and self._shown
        return f"song {self._number} of {len(self._sizes)}: " if several else ""

    @property
    def elapsed(self) -> float:
        """Seconds since the first song."""
        return time.monotonic() - self._began

    def left(self, share: float, elapsed: float) -> float | None:
        """Returns the seconds that the rest will take, if that is known.

        Args:
            share: Share of the current song that is done, from 0 to 1.
            elapsed: Seconds since it began.
        """
        current = self._sizes[self._number - 1] if self._number else 0
        done = self._bytes_done + share * current
        rest = sum(self._sizes[self._number :]) + (1 - share) * current
        return (self._seconds_spent + elapsed) * rest / done if done else None


class SongProgress:
    """The progress of one song; it can be called with the share done, from 0 to 1.

    Args:
        run: The songs of the run.
        title: Name of the song.
        seconds: Its length in seconds, if known.
    """

    def __init__(self, run: RunProgress, title: str, seconds: float | None) -> None:
        self._run, self._seconds = run, seconds
        self._title = title if len(title) <= LONGEST_TITLE else f"{title[: LONGEST_TITLE - 1]}…"
        self._began = time.monotonic()
        self._bar: Any = None

    @property
    def elapsed(self) -> float:
        """Seconds since the song began."""
        return time.monotonic() - self._began

    @contextlib.contextmanager
    def bar(self, shown: bool) -> Iterator[None]:
        """Shows a bar on a terminal while the block runs."""
        layout = "{desc} {percentage:3.0f}%{postfix} {bar}"
        hidden: dict[str, Any] = {} if shown else {"disable": True}
        title = f"{self._run.place}{self._title}"
        with progress_bar(None, title, total=1.0, bar_format=layout, leave=False, **hidden) as self._bar:
            yield

    def __call__(self, share: float) -> None:
        """Takes the share done."""
        left = self._run.left(share, self.elapsed)
        parts = [
            f"{hours_and_minutes(self._run.elapsed)} elapsed",
            *([f"{hours_and_minutes(left)} left"] if left is not None else []),
            *([speed] if (speed := self.speed(share)) else []),
        ]
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        self._bar.update(share - self._bar.n)
        if share >= 1:
            self._bar.refresh()

    def speed(self, share: float = 1.0) -> str:
        """Returns how fast the song is separated, as `3.1 × real time`; empty if its length is not known."""
        return f"{share * self._seconds / self.elapsed:.2g} × real time" if self._seconds and share else ""

    def summary(self) -> str:
        """Returns what the finished song took, and how long the rest will take, as `12.3 s (3.1 × real time)`."""
        speed = self.speed()
        left = self._run.left(1.0, self.elapsed) if self._run.place else None
        return (
            f"{self.elapsed:.1f} s"
            + (f" ({speed})" if speed else "")
            + (f", about {hours_and_minutes(left)} left" if left is not None and left >= 0.5 else "")
        )


def hours_and_minutes(seconds: float) -> str:
    """Returns a time as `1:05` or `2:03:04`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
