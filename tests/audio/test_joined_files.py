import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bsmamba2.audio.joined_files import second_file
from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.errors import InputError

RATE = 44100
SAMPLES = {
    "a.wav": "WAV",
    "a.rf64": "RF64",
    "a.w64": "W64",
    "a.aiff": "AIFF",
    "a.au": "AU",
    "a.caf": "CAF",
    "a.flac": "FLAC",
}
ENCODED = {"a.m4a": "aac", "a.mov": "alac", "a.wv": "wavpack", "a.tta": "tta", "a.wma": "wmav2"}
READ_THROUGH = {"a.mp3": "libmp3lame", "a.mp2": "mp2", "a.aac": "aac", "a.ac3": "ac3", "a.ogg": "libvorbis"}
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 2))


def made(folder: Path, name: str) -> Path:
    """Returns a file of one second of noise."""
    file = folder / name
    if name in SAMPLES:
        soundfile.write(file, NOISE, RATE, format=SAMPLES[name], subtype="PCM_16")
        return file
    if shutil.which("ffmpeg") is None:
        pytest.skip("there is no ffmpeg program")
    soundfile.write(folder / "source.wav", NOISE, RATE)
    codec = {**ENCODED, **READ_THROUGH}[name]
    options = ["-c:a", codec, "-strict", "-2", str(file)]
    command = ["ffmpeg", "-v", "error", "-i", str(folder / "source.wav"), *options]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("this ffmpeg program writes no such file")
    return file


@pytest.mark.parametrize("name", [*SAMPLES, *ENCODED])
def test_a_second_file_that_players_do_not_read_is_an_error(tmp_path: Path, name: str) -> None:
    file = made(tmp_path, name)
    whole, size = file.read_bytes(), file.stat().st_size
    assert second_file(file) is None
    assert abs(read_audio(file).shape[1] - RATE) < 3000
    file.write_bytes(whole + b"TAG" + bytes(125))
    assert second_file(file) is None
    file.write_bytes(whole + whole)
    with pytest.raises(InputError, match=f"of which the second begins at byte {size}; split it first$"):
        read_audio(file)
    # Training reads parts of files very often, and checks each file once.
    assert read_audio(file, 100, 1000).shape[1] == 1000


def test_a_second_file_behind_other_chunks(tmp_path: Path) -> None:
    file = made(tmp_path, "a.wav")
    content = bytearray(file.read_bytes() + b"LIST\x0c\0\0\0INFOabcdefgh")
    content[4:8] = (len(content) - 8).to_bytes(4, "little")
    file.write_bytes(content)
    assert second_file(file) is None
    file.write_bytes(content + content)
    assert second_file(file) == len(content)


@pytest.mark.parametrize("name", READ_THROUGH)
def test_joined_streams_of_frames_or_pages_are_read_through(tmp_path: Path, name: str) -> None:
    file = made(tmp_path, name)
    length = audio_info(file).length
    file.write_bytes(2 * file.read_bytes())
    assert second_file(file) is None
    assert read_audio(file).shape[1] >= 2 * length


def test_fragments_that_all_begin_with_their_header_are_read_through(tmp_path: Path) -> None:
    made(tmp_path, "a.m4a")
    fragmented = tmp_path / "fragments.mp4"
    flags = ["-movflags", "frag_keyframe+empty_moov+delay_moov", "-frag_duration", "300000"]
    options = ["-c:a", "aac", *flags, str(fragmented)]
    command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "source.wav"), *options]
    assert subprocess.run(command, check=False).returncode == 0
    assert second_file(fragmented) is None
