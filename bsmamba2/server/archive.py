"""Files as one ZIP archive that is made while it is sent."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, cast

ARCHIVE_READ_BYTES = 2**18


class _Sent:
    """A file that can only be written to: what was written is taken from it."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, piece: bytes) -> int:
        self._written += piece
        return len(piece)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


def archive(files: Mapping[str, Path]) -> Iterator[bytes]:
    """Yields an archive, piece by piece, of files by their names in it; audio is not compressed further."""
    sent = _Sent()
    with zipfile.ZipFile(cast(IO[bytes], sent), "w", zipfile.ZIP_STORED) as archived:
        for name, path in files.items():
            about = zipfile.ZipInfo.from_file(path, name)
            with path.open("rb") as file, archived.open(about, "w", force_zip64=True) as entry:
                while piece := file.read(ARCHIVE_READ_BYTES):
                    entry.write(piece)
                    yield sent.take()
    yield sent.take()
