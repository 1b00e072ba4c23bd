"""Files that a browser sends: written to the disk as they come, within limits."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from bsmamba2.errors import InputError
from bsmamba2.server.folders import free_bytes, remove_all

LARGEST_UPLOAD_BYTES = 4 * 2**30
# What stays free of the disk that uploads are written to.
FREE_BYTES = 2**29
MOST_FIELDS, LONGEST_FIELD_BYTES = 24, 4096
MOST_FILES = 100
# What a form has besides its files, at most.
LARGEST_FORM_BYTES = 2**20
# Written in parts of this size, so that few of them wait for the disk.
UPLOAD_PART_BYTES = 2**20


class UploadError(InputError):
    """An upload is refused.

    Args:
        message: The error for the user.
        status: The status of the answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Upload:
    """What a request has sent.

    Args:
        files: The files, each with the name that the browser gave it.
        fields: The other fields.
    """

    files: Mapping[Path, str]
    fields: Mapping[str, str]


def check_upload_fits(size_bytes: int, folder: Path) -> None:
    """Checks that a request may be read.

    Args:
        size_bytes: What it states as its size.
        folder: Where its files are written.

    Raises:
        UploadError: It is too large, or the disk is too full.
    """
    if size_bytes > LARGEST_UPLOAD_BYTES + LARGEST_FORM_BYTES:
        raise UploadError(
            f"the upload has more than {LARGEST_UPLOAD_BYTES // 2**30} GiB; send several files one by one, and give a "
            "larger one to `bsmamba2 separate`, or split it first",
            413,
        )
    _check_space(size_bytes, folder)


def _check_space(to_come_bytes: int, folder: Path) -> None:
    if to_come_bytes + FREE_BYTES > free_bytes(folder):
        raise UploadError("the disk is nearly full; free some space, or delete songs of this page", 507)


async def receive(stream: AsyncIterator[bytes], content_type: str, new_file: Callable[[], Path]) -> Upload:
    """Returns the files and fields of a form, of which no file is left if it is refused.

    Args:
        stream: The body of the request.
        content_type: Its type.
        new_file: Returns where the next file is written.

    Raises:
        UploadError: It is no form, or exceeds a limit.
    """
    form = _Form(content_type, new_file)
    try:
        waiting = bytearray()
        async for piece in stream:
            waiting += piece
            if len(waiting) >= UPLOAD_PART_BYTES:
                await to_thread.run_sync(form.write, bytes(waiting))
                waiting.clear()
        await to_thread.run_sync(form.write, bytes(waiting))
        form.finish()
    # A browser that has gone away ends the request by an exception that is none of ours.
    except BaseException:
        await asyncio.get_running_loop().run_in_executor(None, form.discard)
        raise
    return Upload(form.files, form.fields)


class _Form:
    def __init__(self, content_type: str, new_file: Callable[[], Path]) -> None:
        boundary = re.search(r'boundary="?([^";,]+)"?', content_type)
        if not content_type.startswith("multipart/form-data") or not boundary:
            raise UploadError("send the song as a form (multipart/form-data) with a file", 415)
        self.files: dict[Path, str] = {}
        self.fields: dict[str, str] = {}
        self._new_file = new_file
        self._open: BinaryIO | None = None
        self._size_bytes = 0
        self._text = bytearray()
        self._name = ""
        self._header, self._value = bytearray(), bytearray()
        self._headers = Message()
        self._ended = False
        self._parser = MultipartParser(
            boundary[1].encode("latin-1"),
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._start,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finished,
            },
        )

    def write(self, piece: bytes) -> None:
        if self._open is not None:
            _check_space(len(piece), Path(self._open.name).parent)
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise UploadError(f"the form cannot be read: {error}", 400) from error
        except OSError as error:
            raise UploadError(
                f"the upload cannot be written ({error.strerror}); free some space, or delete songs of this page", 507
            ) from error

    def finish(self) -> None:
        if not self._ended:
            raise UploadError("the upload broke off; try again", 400)

    def discard(self) -> None:
        if self._open is not None:
            self._open.close()
        remove_all(self.files)

    def _begin(self) -> None:
        self._headers = Message()
        self._header, self._value, self._text = bytearray(), bytearray(), bytearray()

    def _end_header(self) -> None:
        self._headers[self._header.decode("latin-1")] = self._value.decode("utf-8", "replace")
        self._header, self._value = bytearray(), bytearray()

    def _start(self) -> None:
        # As in RFC 2183, in the form that browsers write: a quote in a name is %22.
        disposition = self._headers.get("content-disposition", "")
        found = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', disposition))
        self._name = found.get("name", "")
        self._open = None
        if "filename" in found:
            if len(self.files) == MOST_FILES:
                raise UploadError(f"one request has more than {MOST_FILES} files; send them one by one", 413)
            file = self._new_file()
            self.files[file] = found["filename"].replace("%22", '"').replace("\\", "/").rpartition("/")[2]
            self._open = file.open("xb")
            self._size_bytes = 0
        elif len(self.fields) == MOST_FIELDS:
            raise UploadError(f"one request has more than {MOST_FIELDS} fields", 413)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._open is None:
            if len(self._text) + end - start > LONGEST_FIELD_BYTES:
                raise UploadError(f"the field {self._name} has more than {LONGEST_FIELD_BYTES} bytes", 413)
            self._text += data[start:end]
            return
        self._size_bytes += end - start
        if self._size_bytes > LARGEST_UPLOAD_BYTES:
            raise UploadError(
                f"the file has more than {LARGEST_UPLOAD_BYTES // 2**30} GiB; give it to `bsmamba2 separate`, or split "
                "it first",
                413,
            )
        self._open.write(data[start:end])

    def _end(self) -> None:
        if self._open is None:
            self.fields[self._name] = self._text.decode("utf-8", "replace")
        else:
            self._open.close()
            self._open = None

    def _finished(self) -> None:
        self._ended = True
