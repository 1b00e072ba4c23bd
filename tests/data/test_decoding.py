import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bsmamba2.audio.formats import DecodedDepth
from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.audio.writing import quantise, write_audio
from bsmamba2.data.decoding import decode_tracks
from bsmamba2.data.musdb import SAMPLE_RATE, STREAMS
from bsmamba2.data.tracks import Track, find_tracks
from bsmamba2.errors import InputError
from tests import programs
from tests.conftest import PATIENCE_SECONDS

resource = pytest.importorskip("resource", reason="Windows has no limits for the size of a file")
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)


@pytest.fixture
def stem_files(song: Track, tmp_path: Path) -> list[Path]:
    """Returns three stem files of a folder train/."""
    files = [tmp_path / "root" / "train" / f"A - {number}.stem.mp4" for number in range(3)]
    files[0].parent.mkdir(parents=True)
    for file in files:
        shutil.copyfile(song.path, file)
    return files


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Limits the size of files in bytes."""
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        signal.signal(signal.SIGXFSZ, previous)


def test_a_decoded_track_is_the_same_track(stem_files: list[Path], tmp_path: Path) -> None:
    """All samples are equal, including those beyond full scale."""
    decoded = decode_tracks(stem_files[:1], tmp_path / "decoded")
    assert (decoded.written, decoded.kept, decoded.clipped) == (5, 0, 0)
    (before,), (after,) = (
        find_tracks(tmp_path / root, "train", validation_tracks=[], shared_artists=True)[:1]
        for root in ("root", "decoded")
    )
    assert (after.name, after.length, list(after.sources)) == (before.name, before.length, list(STREAMS))
    loudest = 0.0
    for stem in STREAMS:
        audio = before.read(stem, 0, before.length)
        assert after.read(stem).equal(audio)
        loudest = max(loudest, audio.abs().max().item())
    assert loudest > 1


@pytest.mark.parametrize("depth", ["16", "24"])
def test_integer_files_are_rounded_and_clipped_samples_counted(
    stem_files: list[Path], tmp_path: Path, depth: DecodedDepth
) -> None:
    decoded = decode_tracks(stem_files[:1], tmp_path, depth)
    beyond = 0
    for stem, stream in STREAMS.items():
        path = tmp_path / "train" / "A - 0" / f"{stem}.wav"
        info = audio_info(path)
        audio = read_audio(stem_files[0], 0, info.length, stream)
        assert info.depth == depth
        assert read_audio(path).equal(quantise(audio, depth))
        scaled = (audio.double() * 2 ** (int(depth) - 1)).round()
        beyond += int(((scaled >= 2 ** (int(depth) - 1)) | (scaled < -(2 ** (int(depth) - 1)))).sum())
    assert decoded.clipped == beyond > 0


def test_only_complete_files_of_the_same_format_are_kept(stem_files: list[Path], tmp_path: Path) -> None:
    decode_tracks(stem_files[:1], tmp_path)
    folder = tmp_path / "train" / "A - 0"
    whole = read_audio(folder / "bass.wav")
    (folder / "mixture.wav").unlink()
    (folder / "drums.wav").write_bytes((folder / "drums.wav").read_bytes()[:-1000])
    write_audio(folder / "bass.wav", whole[:, :-1], SAMPLE_RATE, depth="float")
    write_audio(folder / "other.wav", whole, SAMPLE_RATE, depth="16")
    (folder / f".{'0a' * 16}.wav").write_bytes(b"unfinished")
    kept = (folder / "vocals.wav").stat().st_mtime_ns
    decoded = decode_tracks(stem_files[:1], tmp_path)
    assert (decoded.written, decoded.kept) == (4, 1)
    assert read_audio(folder / "bass.wav").equal(whole)
    assert {audio_info(path).length for path in folder.iterdir()} == {whole.shape[-1]}
    assert sorted(path.stem for path in folder.iterdir()) == sorted(STREAMS)
    assert (folder / "vocals.wav").stat().st_mtime_ns == kept


KILLED_AFTER_DRUMS = """
import os, signal, sys
from pathlib import Path
from bsmamba2.data.decoding import decode_tracks

replace = Path.replace

def replace_and_die(path, target):
    replace(path, target)
    if Path(target).name == "drums.wav":
        os.kill(os.getpid(), signal.SIGKILL)

Path.replace = replace_and_die
decode_tracks([Path(file) for file in sys.argv[2:]], Path(sys.argv[1]))
"""


def test_a_killed_run_resumes(stem_files: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "decoded"
    command = [sys.executable, "-c", KILLED_AFTER_DRUMS, str(output), *map(str, stem_files)]
    process = programs.run(command, stderr=subprocess.PIPE, timeout=PATIENCE_SECONDS, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr
    finished = {path: path.stat().st_mtime_ns for path in output.glob("*/*/[!.]*.wav")}
    decoded = decode_tracks(stem_files, output)
    assert decoded.kept == len(finished) >= 2
    assert decoded.written == 15 - len(finished) > 0
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())
    files = list(output.glob("*/*/*"))
    assert len(files) == 15
    lengths = {audio_info(stem_files[0], stream).length for stream in STREAMS.values()}
    assert {audio_info(path).length for path in files} == lengths


def test_a_full_disk_is_one_sentence_and_leaves_no_partial_file(stem_files: list[Path], tmp_path: Path) -> None:
    with full_disk(500_000), pytest.raises(InputError, match=r"mixture\.wav cannot be written .*free some space"):
        decode_tracks(stem_files[:1], tmp_path / "decoded")
    assert list((tmp_path / "decoded" / "train" / "A - 0").iterdir()) == []
