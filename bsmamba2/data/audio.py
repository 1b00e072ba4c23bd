"""Audio files in and out: soundfile for WAV and FLAC, PyAV for one stream of a stem file. Audio is (c, n) float32."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.files import complete_file

INTEGER_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}


@dataclass(frozen=True)
class AudioInfo:
    """What a file says of its audio.

    Args:
        length: Samples per channel.
        sample_rate: Sampling rate in Hz.
        channels: Number of channels.
        subtype: Sample format in soundfile's names, such as PCM_16; empty for a stream of a stem file.
    """

    length: int
    sample_rate: int
    channels: int
    subtype: str


def audio_info(path: Path, stream: int | None = None) -> AudioInfo:
    """Returns length, rate, channels and sample format of a file, or of one audio stream of a stem file.

    Raises:
        InputError: The file is missing, empty, not audio, without samples, or lacks the stream.
    """
    if stream is None:
        with _sound(path) as sound:
            info = AudioInfo(sound.frames, sound.samplerate, sound.channels, sound.subtype)
    else:
        with _stream(path, stream) as (_, source):
            length = int((source.duration or 0) * _samples_per_tick(source))
            info = AudioInfo(length, source.sample_rate, source.channels, "")
    if not info.length:
        raise InputError(f"{path} has no samples; give a file with audio in it")
    return info


def read_audio(path: Path, start: int = 0, length: int | None = None, stream: int | None = None) -> Tensor:
    """Returns audio (c, n) of a file, or of one audio stream of a stem file, straight from its position.

    Args:
        path: The file.
        start: First sample.
        length: Number of samples; None for all up to the end.
        stream: Number of the audio stream in a stem file.

    Raises:
        InputError: The file cannot be read, is truncated, or has a sample that is not finite.
    """
    audio = _read_sound(path, start, length) if stream is None else _read_stream(path, stream, start, length)
    expected = audio_info(path, stream).length - start if length is None else length
    if audio.shape[-1] < max(1, expected):
        raise InputError(f"{path} ends before its sample {start + max(1, expected)}; it is truncated or empty")
    if not audio.isfinite().all():
        raise InputError(f"{path} has samples that are not finite (NaN or infinity); repair or leave out this file")
    return audio


def write_audio(path: Path, audio: Tensor, sample_rate: int, subtype: str) -> None:
    """Writes audio (c, n) to a file that is there only once it is complete; see `write_together`."""
    write_together({path: audio}, sample_rate, subtype)


def write_together(outputs: dict[Path, Tensor], sample_rate: int, subtype: str) -> None:
    """Writes audio (c, n) to files of one format, which are there only once all are complete.

    Integer formats hold what `quantise` returns.

    Raises:
        InputError: A file cannot be written, or its format cannot hold this rate, depth or number of channels.
    """
    with contextlib.ExitStack() as stack:
        for path, audio in outputs.items():
            temporary = stack.enter_context(complete_file(path))
            format_name = path.suffix.removeprefix(".").upper()
            samples: np.ndarray = audio.mT.contiguous().numpy()
            if subtype in INTEGER_BITS:
                samples = (quantise(audio.double(), subtype).mT * 2**31).numpy().astype(np.int32)
            try:
                soundfile.write(temporary, samples, sample_rate, subtype=subtype, format=format_name)
            except (soundfile.LibsndfileError, ValueError) as error:
                raise InputError(
                    f"{path} cannot be written as {format_name} {subtype} at {sample_rate} Hz ({_reason(error)})"
                ) from error


def quantise(audio: Tensor, subtype: str) -> Tensor:
    """Returns audio as a sample format holds it: rounded to its steps and limited to full scale where it is integer."""
    if subtype not in INTEGER_BITS:
        return audio
    steps = 2 ** (INTEGER_BITS[subtype] - 1)
    return ((audio.double() * steps).round().clamp(-steps, steps - 1) / steps).to(audio)


@contextlib.contextmanager
def _sound(path: Path) -> Iterator[soundfile.SoundFile]:
    _check_file(path)
    try:
        sound = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError) as error:
        raise InputError(f"{path} is not audio that can be read ({_reason(error)}); give a WAV or FLAC file") from error
    with sound:
        yield sound


def _read_sound(path: Path, start: int, length: int | None) -> Tensor:
    with _sound(path) as sound:
        try:
            sound.seek(min(start, sound.frames))
            samples = sound.read(-1 if length is None else length, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise InputError(f"{path} is damaged and cannot be read whole ({_reason(error)})") from error
    return torch.from_numpy(np.ascontiguousarray(samples.T))


@contextlib.contextmanager
def _stream(path: Path, stream: int) -> Iterator[tuple[av.container.InputContainer, av.AudioStream]]:
    _check_file(path)
    try:
        with av.open(str(path)) as container:
            count = len(container.streams.audio)
            if stream >= count:
                raise InputError(f"{path} has {count} audio streams; a MUSDB18 stem file has 5")
            yield container, container.streams.audio[stream]
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged or no stem file ({_reason(error)})") from error


def _read_stream(path: Path, stream: int, start: int, length: int | None) -> Tensor:
    stop = None if length is None else start + length
    pieces: list[np.ndarray] = []
    with _stream(path, stream) as (container, source):
        samples_per_tick = _samples_per_tick(source)
        # AAC frames overlap: the first one decoded after a jump is incomplete, so begin some frames earlier.
        runway = 4 * (source.codec_context.frame_size or 1024)
        if start > runway:
            container.seek(int((start - runway) / samples_per_tick), stream=source)
        for frame in container.decode(source):
            position = round((frame.pts or 0) * samples_per_tick)
            if stop is not None and position >= stop:
                break
            samples = frame.to_ndarray()
            if not frame.format.is_planar:
                samples = samples.reshape(-1, source.channels).T
            pieces.append(samples[:, max(0, start - position) : None if stop is None else stop - position])
        channels = source.channels
    audio = np.concatenate([np.empty((channels, 0), np.float32), *pieces], axis=1)
    return torch.from_numpy(audio.astype(np.float32, copy=False))


def _samples_per_tick(source: av.AudioStream) -> Fraction:
    return (source.time_base or Fraction(1, source.sample_rate)) * source.sample_rate


def _check_file(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give an audio file")
    if not path.stat().st_size:
        raise InputError(f"{path} is an empty file; give a file with audio in it")


def _reason(error: Exception) -> str:
    return getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
