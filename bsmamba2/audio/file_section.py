"""A part of a file that is read like a file."""

import io
import os
from collections.abc import Mapping
from pathlib import Path

# No file system has larger files than it can seek in; damaged headers state larger positions.
LARGEST_POSITION = 2**43


class FileSection(io.RawIOBase):
    """The bytes of a file from one position to another, with other bytes in some places.

    Args:
        path: The file.
        begin: Position of the first byte.
        end: Position behind the last byte, by default that of the file.
        corrections: Bytes to read in place of those in the file, by their position in the file.
    """

    def __init__(
        self, path: Path, begin: int = 0, end: int | None = None, corrections: Mapping[int, bytes] | None = None
    ) -> None:
        self._file = path.open("rb")
        self._begin = begin
        self._end = self._file.seek(0, os.SEEK_END) if end is None else end
        self._corrections = corrections or {}
        self._file.seek(begin)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves to a position in the section and returns it; -1, which FFmpeg expects, if there is no such position."""
        base = {os.SEEK_SET: self._begin, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}[whence]
        target = base + offset
        return self._file.seek(target) - self._begin if self._begin <= target < LARGEST_POSITION else -1

    def read(self, size: int = -1, /) -> bytes:
        """Returns so many bytes, or fewer at the end."""
        left = max(0, self._end - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left)) if not self._corrections else super().read(size)

    def tell(self) -> int:
        """Returns the position in the section."""
        return self._file.tell() - self._begin

    def readinto(self, buffer, /) -> int:  # type: ignore[no-untyped-def]
        """Fills a buffer as far as the section goes, and returns the number of bytes."""
        begin = self._file.tell()
        view = memoryview(buffer).cast("B")
        count = self._file.readinto(view[: max(0, self._end - begin)])
        for place, content in self._corrections.items():
            for offset, value in enumerate(content, place - begin):
                if 0 <= offset < count:
                    view[offset] = value
        return count

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """Its position can be changed."""
        return True

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()
