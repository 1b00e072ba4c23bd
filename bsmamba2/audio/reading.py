"""Reading audio files: soundfile for formats that libsndfile reads exactly, PyAV for everything else.

Audio is (c, n) float32, full scale at 1.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
import soundfile
import torch
from torch import Tensor

from bsmamba2.audio import BLOCK
from bsmamba2.audio.decoded_stream import DecodedStream
from bsmamba2.audio.file_section import FileSection
from bsmamba2.audio.formats import DEPTHS, Depth
from bsmamba2.audio.irregularities import Hole, Irregularities
from bsmamba2.audio.joined_files import second_file
from bsmamba2.audio.ogg import OggPages, ogg_pages
from bsmamba2.audio.probing import OPTIONS, check_is_file, not_audio, reason, unreadable
from bsmamba2.audio.sample_files import TRUNCATED, open_samples
from bsmamba2.errors import InputError


@dataclass(frozen=True)
class AudioInfo:
    """Format and length of an audio file.

    Args:
        length: Samples per channel. It is approximate if a container rounds its length to its own clock (Matroska) or a
            lossy file does not state the padding of its last frame; reading to the end then gives a few more or less.
        sample_rate: Sampling rate in Hz.
        channels: Number of channels.
        depth: Sample format; None for lossy audio, which has none.
    """

    length: int
    sample_rate: int
    channels: int
    depth: Depth | None


def audio_info(path: Path, stream: int | None = None) -> AudioInfo:
    """Returns length, rate, channels and sample format of a file, or of one audio stream of a stem file.

    A file that does not state its length is decoded once to count its samples, with those of its holes.

    Raises:
        InputError: The file is missing, empty, truncated, not audio, without samples, or lacks the stream.
    """
    with _opened(path, stream) as source:
        length = source.length
        if length is None:
            length = sum(block.shape[-1] for block in source.blocks(0, None, Irregularities()))
        info = AudioInfo(length, source.sample_rate, source.channels, source.depth)
    if not info.length:
        raise InputError(f"{path} has no samples; give a file with audio in it")
    return info


def stated_seconds(path: Path) -> float | None:
    """Returns the length in seconds that a file states; None if it states none or cannot be read."""
    try:
        with _opened(path, None) as source:
            return None if source.length is None else source.length / source.sample_rate
    except InputError:
        return None


def read_audio(path: Path, start: int = 0, length: int | None = None, stream: int | None = None) -> Tensor:
    """Returns audio (c, n) of a file, or of one audio stream of a stem file; see `read_blocks`."""
    return torch.cat(list(read_blocks(path, start, length, stream)), dim=-1)


def read_blocks(
    path: Path,
    start: int = 0,
    length: int | None = None,
    stream: int | None = None,
    found: Irregularities | None = None,
) -> Iterator[Tensor]:
    """Yields audio (c, n) of a file, or of one audio stream of a stem file, block by block.

    The encoder's delay is skipped if the file states it, so that the first sample is the first of the song. In a film
    the first sample is at its beginning, and pauses of the sound are silent.

    Args:
        path: The file.
        start: First sample.
        length: Number of samples; None to read to the end.
        stream: Number of the audio stream, by default the first.
        found: Where holes, which are silent, and notes are added as they are found. If None, a hole is an error.

    Raises:
        InputError: The file cannot be read, is truncated, changes during reading, or has a sample that is not finite.
    """
    with _opened(path, stream) as source:
        if length is None and (place := second_file(path)) is not None:
            raise InputError(
                f"{path} is several files joined end to end, of which the second begins at byte {place}; split it first"
            )
        before, count = file_state(path), 0
        for block in source.blocks(start, length, found):
            # An extreme is not finite if any sample is not, and is found many times faster.
            if not torch.stack(block.aminmax()).isfinite().all():
                raise InputError(
                    f"{path} has samples that are not finite (NaN or infinity); repair or leave out this file"
                )
            count += block.shape[-1]
            yield block
        if file_state(path) != before:
            raise InputError(f"{path} changed while it was read; try again when nothing writes to it")
        if count < (length or 1):
            raise InputError(f"{path} ends before its sample {start + (length or 1)}; it is truncated or empty")


class _Sound:
    """A file open in libsndfile."""

    def __init__(self, path: Path, sound: soundfile.SoundFile, length: int, note: str) -> None:
        self.path, self.sound, self._note = path, sound, note
        self.length: int | None = length
        self._end = length
        self.sample_rate, self.channels = sound.samplerate, sound.channels
        self.depth: Depth | None = DEPTHS[sound.subtype]

    def blocks(self, start: int, length: int | None, found: Irregularities | None) -> Iterator[Tensor]:
        """Yields audio (c, n) from sample start on."""
        if found is not None and self._note:
            found.notes.append(self._note)
        try:
            start = min(start, self._end)
            self.sound.seek(start)
            left = self._end - start if length is None else min(length, self._end - start)
            while left and (samples := self.sound.read(min(BLOCK, left), dtype="float32", always_2d=True)).size:
                left -= len(samples)
                yield torch.from_numpy(np.ascontiguousarray(samples.T))
        except soundfile.LibsndfileError as error:
            raise InputError(f"{self.path} is damaged and cannot be read to its end ({reason(error)})") from error


class _Songs:
    """An Ogg file of several songs one after another, each a section of the file; they are read through."""

    length: int | None = None

    def __init__(self, path: Path, pages: OggPages) -> None:
        self.path, self._pages = path, pages
        with _song(path, pages, 0) as song:
            self.sample_rate, self.channels, self.depth = song.sample_rate, song.channels, song.depth

    def blocks(self, start: int, length: int | None, found: Irregularities | None) -> Iterator[Tensor]:
        """Yields audio (c, n) from sample start on."""
        passed, stop = 0, None if length is None else start + length
        for number in range(len(self._pages.songs)):
            inside = None if found is None else Irregularities()
            with _song(self.path, self._pages, number) as song:
                if (song.sample_rate, song.channels) != (self.sample_rate, self.channels):
                    raise InputError(
                        f"{self.path} changes its sampling rate or channels midway; convert it to WAV first"
                    )
                begin = passed
                for block in song.blocks(0, None, inside):
                    piece = block[:, max(0, start - passed) : None if stop is None else max(0, stop - passed)]
                    passed += block.shape[-1]
                    if piece.shape[-1]:
                        yield piece
                    if stop is not None and passed >= stop:
                        break
            if found is not None and inside is not None:
                found.holes += [Hole(begin + hole.start, hole.length) for hole in inside.holes]
                found.notes += inside.notes
            if stop is not None and passed >= stop:
                return


@contextlib.contextmanager
def _song(path: Path, pages: OggPages, number: int) -> Iterator[DecodedStream]:
    section = pages.songs[number]
    with (
        FileSection(path, *section) as file,
        FileSection(path, *section) as checked,
        av.open(file, "r", options=OPTIONS) as container,
    ):
        yield DecodedStream(path, container, 0, cast(BinaryIO, checked), pages)


@contextlib.contextmanager
def _opened(path: Path, stream: int | None) -> Iterator["_Sound | _Songs | DecodedStream"]:
    try:
        check_is_file(path)
        opened = open_samples(path) if stream is None else None
        if opened is not None:
            sound, length, note = opened
            with sound:
                yield _Sound(path, sound, length, note)
            return
        # Opened here, so that no name is taken for a URL.
        with (
            FileSection(path) as file,
            path.open("rb") as checked,
            av.open(file, "r", options=OPTIONS) as container,
        ):
            count = len(container.streams.audio)
            if not count:
                raise InputError(f"{path} has no audio in it; give a file with an audio track")
            if (stream or 0) >= count:
                raise InputError(f"{path} has {count} audio streams; a MUSDB18 stem file has 5")
            pages = ogg_pages(checked) if container.format.name == "ogg" else None
            if pages is not None and not pages.whole:
                raise InputError(f"{path} {TRUNCATED}")
            if pages is not None and len(pages.songs) > 1:
                yield _Songs(path, pages)
            else:
                yield DecodedStream(path, container, stream or 0, checked, pages)
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise not_audio(path, error) from error
    except OSError as error:
        raise unreadable(path, error) from error


def channel_layout(path: Path) -> str | None:
    """Returns FFmpeg's name of a file's channel layout, such as 5.1, or None if it states none."""
    try:
        with FileSection(path) as file, av.open(file, "r", options=OPTIONS) as container:
            name: str = container.streams.audio[0].layout.name
    except (av.FFmpegError, IndexError, ValueError):
        return None
    return None if "channels" in name else name


def file_state(path: Path) -> tuple[int, int, int]:
    """Returns inode, size and modification time, which change when a file is written to."""
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns
