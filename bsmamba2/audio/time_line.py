"""Where the samples of a stream are while it is read, and what is found on the way."""

from pathlib import Path

from bsmamba2.audio.irregularities import Hole, Irregularities, describe_holes
from bsmamba2.errors import InputError


class TimeLine:
    """Where the samples are: those wanted, and those so far; and where to report what is found on the way.

    Attributes:
        start: First sample that is wanted.
        position: Sample that follows.
        expected: Where the time stamps continue, in samples; None before the first.
        left_out: Samples of pauses and jumps in the time stamps that were left out.
        lag: By how many samples the audio is shorter than the time stamps.
        has_holes: Whether something cannot be decoded.
        has_skipped: Whether bytes that are not audio were skipped.

    Args:
        path: The file, for messages.
        sample_rate: Sampling rate in Hz.
        start: First sample that is wanted.
        stop: Sample behind the last that is wanted; None for all.
        found: Where holes and notes are added; None if a hole is an error.
    """

    def __init__(
        self, path: Path, sample_rate: int, start: int, stop: int | None, found: Irregularities | None
    ) -> None:
        self._path, self._sample_rate = path, sample_rate
        self.start, self._stop, self._found = start, stop, found
        self.position = 0
        self.expected: float | None = None
        self.left_out = 0
        self.lag = 0
        self.has_holes = self.has_skipped = False

    def advance(self, count: int) -> None:
        """Moves on by a number of samples."""
        self.position += count

    def is_over(self) -> bool:
        """Whether all that is wanted was read."""
        return self._stop is not None and self.position >= self._stop

    def add_hole(self, length: int) -> None:
        """Reports that so many samples from here on cannot be decoded, as far as they are wanted.

        Raises:
            InputError: A hole is an error.
        """
        self.has_holes = True
        begin, end = max(self.position, self.start), self.position + length
        end = end if self._stop is None else min(end, self._stop)
        if begin >= end:
            return
        hole = Hole(begin, end - begin)
        if self._found is None:
            places = describe_holes([hole], self._sample_rate)
            raise InputError(f"{self._path} is damaged: {places}; get a copy that is whole")
        self._found.holes.append(hole)

    def add_note(self, note: str) -> None:
        """Reports something else, unless all that is wanted was read."""
        if self._found is not None and not self.is_over():
            self._found.notes.append(note)
