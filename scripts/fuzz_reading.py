"""Separates damaged files of many kinds, and counts what comes out; the ffmpeg program makes the files.

    python scripts/fuzz_reading.py --files 1000 --seed 0

It fails if a file crashes the reader or takes too long, if stems are shorter than those of the whole file without a
word about it, or if anything but stems is left in the output.
"""

import argparse
import collections
import multiprocessing
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import soundfile
import torch

from bsmamba2.audio.kinds import KINDS, file_kind
from bsmamba2.audio.reading import AudioInfo, audio_info, read_audio
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.separation.command import separate_files
from bsmamba2.separation.paths import Destination
from bsmamba2.separation.settings import StemSettings
from bsmamba2.weights.checkpoint import save_model

RATE = 44100
SECONDS = 2.0
# Options of the ffmpeg program by the suffix of the file.
SOURCES = {
    "16.wav": "-c:a pcm_s16le", "float.wav": "-c:a pcm_f32le", "adpcm.wav": "-c:a adpcm_ima_wav",
    "w64": "-c:a pcm_s16le", "aiff": "-c:a pcm_s16be", "au": "-c:a pcm_s16be", "pcm.caf": "-c:a pcm_s16le",
    "alac.caf": "-c:a alac", "flac": "-c:a flac", "xing.mp3": "-c:a libmp3lame", "vbr.mp3": "-c:a libmp3lame -q:a 4",
    "plain.mp3": "-c:a libmp3lame -write_xing 0", "mp2": "-c:a mp2", "aac": "-c:a aac", "ac3": "-c:a ac3",
    "dts": "-c:a dca -strict -2", "vorbis.ogg": "-c:a libvorbis", "opus.ogg": "-c:a libopus",
    "flac.ogg": "-c:a flac", "m4a": "-c:a aac", "clock.m4a": "-c:a aac -movie_timescale 44100", "alac.m4a": "-c:a alac",
    "fast.mp4": "-c:a aac -movflags +faststart", "fragments.mp4": "-c:a aac -movflags +frag_keyframe+empty_moov",
    "mka": "-c:a aac", "flac.mka": "-c:a flac", "webm": "-c:a libopus", "wma": "-c:a wmav2", "avi": "-c:a libmp3lame",
    "flv": "-c:a aac", "ts": "-c:a aac", "mpg": "-c:a mp2", "nut": "-c:a aac", "wv": "-c:a wavpack", "tta": "-c:a tta",
    "voc": "-c:a pcm_s16le",
}  # fmt: skip
# Seconds for one file, and how many files a process separates before the next takes over.
LIMIT_SECONDS = 60
BATCH = 50


@dataclass(frozen=True)
class Case:
    """A damaged file: its number, the suffix of its source, what was done to it, and its bytes."""

    number: int
    suffix: str
    change: str
    path: Path


@dataclass(frozen=True)
class Verdict:
    """What became of a case, in one word, and the reason if there is one."""

    case: Case
    result: str
    reason: str = ""


def cut(content: bytes, random: np.random.Generator) -> bytes:
    """Returns the beginning."""
    return content[: int(random.integers(1, len(content)))]


def overwrite_with_zeros(content: bytes, random: np.random.Generator) -> bytes:
    """Returns zeros in place of a part."""
    begin, end = _part(content, random)
    return content[:begin] + bytes(end - begin) + content[end:]


def overwrite_with_noise(content: bytes, random: np.random.Generator) -> bytes:
    """Returns noise in place of a part."""
    begin, end = _part(content, random)
    return content[:begin] + random.bytes(end - begin) + content[end:]


def flip_bits(content: bytes, random: np.random.Generator) -> bytes:
    """Returns some bytes with a wrong bit, a third of the time near the beginning."""
    changed = bytearray(content)
    end = min(len(content), 2048) if random.random() < 0.33 else len(content)
    for place in random.integers(0, end, int(random.integers(1, 20))):
        changed[place] ^= 1 << int(random.integers(8))
    return bytes(changed)


def leave_out(content: bytes, random: np.random.Generator) -> bytes:
    """Returns it without a part."""
    begin, end = _part(content, random)
    return content[:begin] + content[end:]


def insert(content: bytes, random: np.random.Generator) -> bytes:
    """Returns it with noise or zeros in between."""
    begin, end = _part(content, random)
    added = random.bytes(end - begin) if random.random() < 0.5 else bytes(end - begin)
    return content[:begin] + added + content[begin:]


def repeat(content: bytes, random: np.random.Generator) -> bytes:
    """Returns it with a part twice."""
    begin, end = _part(content, random)
    return content[:end] + content[begin:]


def append(content: bytes, random: np.random.Generator) -> bytes:
    """Returns it with noise, zeros or itself behind it."""
    return content + (random.bytes(5000), bytes(20_000), content)[int(random.integers(3))]


def set_number(content: bytes, random: np.random.Generator) -> bytes:
    """Returns it with an extreme number near the beginning."""
    place = int(random.integers(0, min(len(content) - 4, 1024)))
    number = (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1")[int(random.integers(4))]
    return content[:place] + number + content[place + 4 :]


CHANGES: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (
    cut, overwrite_with_zeros, overwrite_with_noise, flip_bits, leave_out, insert, repeat, append, set_number,
)  # fmt: skip


def _part(content: bytes, random: np.random.Generator) -> tuple[int, int]:
    begin = int(random.integers(0, len(content)))
    return begin, min(len(content), begin + int(random.integers(1, max(2, len(content) // 8))))


def make_sources(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of the whole files by suffix; formats that this ffmpeg program lacks are left out."""
    time_seconds = np.arange(round(SECONDS * RATE)) / RATE
    tones = 0.2 * np.sin(2 * np.pi * time_seconds[:, None] * (220 + 300 * time_seconds[:, None] + np.array([0, 3])))
    noise = np.random.default_rng(0).normal(0, 0.05, tones.shape)
    soundfile.write(folder / "source.wav", tones + noise, RATE, "FLOAT")
    made = {}
    for suffix, options in SOURCES.items():
        path = folder / f"whole.{suffix}"
        command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(folder / "source.wav"), *options.split(), str(path)]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            made[suffix] = path.read_bytes()
    return made


def make_model(path: Path) -> None:
    """Writes the weights of a tiny network that is not trained."""
    config = ModelConfig(
        dim=8, depth=1, d_state=4, expand=2, headdim=4, mask_expand=1, n_fft=512, window_length=512, hop_length=128,
        bands=(57, 100, 100), segment_seconds=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    save_model(BSMamba2(config), path)


def damaged_files(sources: dict[str, bytes], count: int, seed: int, folder: Path) -> Iterator[Case]:
    """Writes damaged files and yields them."""
    random = np.random.default_rng(seed)
    suffixes = sorted(sources)
    for number in range(count):
        suffix, change = suffixes[number % len(suffixes)], CHANGES[int(random.integers(len(CHANGES)))]
        path = folder / f"{number}.{suffix}"
        path.write_bytes(change(sources[suffix], random))
        yield Case(number, suffix, change.__name__, path)


def separate(
    cases: list[Case], model: Path, output: Path, results: "multiprocessing.Queue[tuple[int, str, str, int]]"
) -> None:
    """Separates files, and puts number, state, remark and the length of the shortest stem."""
    torch.set_num_threads(1)
    for case in cases:
        try:
            [outcome] = separate_files(
                [case.path], model, Destination(output / str(case.number)), StemSettings(downmix=True)
            )
        except InputError as error:
            # No input is audio.
            results.put((case.number, "failed", str(error), 0))
            continue
        stems = list((output / str(case.number)).rglob("*.wav"))
        lengths = [soundfile.info(stem).frames for stem in stems]
        results.put((case.number, outcome.state, outcome.remark, min(lengths, default=0)))


def judge(case: Case, state: str, remark: str, length: int, wholes: dict[str, AudioInfo]) -> Verdict:
    """Returns what became of a case."""
    if state == "failed":
        unexpected = "unexpected" in remark
        return Verdict(case, "an unexpected error" if unexpected else "refused in a sentence", remark)
    if state == "incomplete":
        return Verdict(case, "separated with holes that are reported", remark)
    whole, found = wholes[case.suffix], audio_info(case.path)
    if (found.sample_rate, found.channels, found.depth) != (whole.sample_rate, whole.channels, whole.depth):
        return Verdict(case, "separated as what its header now states", remark)
    if length >= whole.length:
        return Verdict(case, "separated whole", remark)
    if remark:
        return Verdict(case, "separated short, which is reported", remark)
    if case.change in ("cut", "leave_out", "repeat") and _ends_anywhere(case.path):
        return Verdict(case, "cut where the format cannot show it")
    return Verdict(case, "short without a word", f"{length} of {whole.length} samples")


def _ends_anywhere(path: Path) -> bool:
    """Whether a truncated file of this kind cannot be recognised."""
    with path.open("rb") as file, path.open("rb") as checked, av.open(file) as container:
        stream = container.streams.audio[0]
        kind = file_kind(container.format.name, stream.codec_context.name, checked, stream.sample_rate)
        return kind in KINDS and "cannot be recognised" in kind.truncation + kind.remark


def run(cases: list[Case], model: Path, output: Path, wholes: dict[str, AudioInfo]) -> Iterator[Verdict]:
    """Yields the verdicts, each case in a process that may crash or hang."""
    context = multiprocessing.get_context("spawn")
    waiting = list(cases)
    while waiting:
        batch = waiting[:BATCH]
        results = context.Queue()
        process = context.Process(target=separate, args=(batch, model, output, results))
        process.start()
        done = 0
        while done < len(batch):
            case, started = batch[done], time.monotonic()
            answer = None
            while answer is None and time.monotonic() - started < LIMIT_SECONDS:
                try:
                    answer = results.get(timeout=1)
                except queue.Empty:
                    if not process.is_alive() and results.empty():
                        break
            if answer is None:
                yield Verdict(case, "hung" if process.is_alive() else "crashed", f"exit code {process.exitcode}")
                process.kill()
                done += 1
                break
            _, state, remark, length = answer
            yield judge(case, state, remark, length, wholes)
            done += 1
        process.join(10)
        waiting = waiting[done:]


BAD = ("an unexpected error", "short without a word", "hung", "crashed")


def main() -> int:
    """Runs the fuzzing and returns the exit status: 1 if a result is bad."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000, help="number of damaged files")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage")
    parser.add_argument("--keep", type=Path, help="folder for the files with a bad result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bsmamba2-") as name:
        folder = Path(name)
        for part in ("whole", "damaged", "output"):
            (folder / part).mkdir()
        sources = make_sources(folder / "whole")
        paths = {suffix: folder / "whole" / f"whole.{suffix}" for suffix in sources}
        wholes = {
            suffix: replace(audio_info(path), length=read_audio(path).shape[-1]) for suffix, path in paths.items()
        }
        make_model(folder / "tiny.safetensors")
        cases = list(damaged_files(sources, options.files, options.seed, folder / "damaged"))
        verdicts = list(run(cases, folder / "tiny.safetensors", folder / "output", wholes))
        counts = collections.Counter(verdict.result for verdict in verdicts)
        print(f"{len(verdicts)} damaged files of {len(sources)} kinds, seed {options.seed}:")
        for result, count in counts.most_common():
            print(f"  {count:5} {result}")
        for verdict in verdicts:
            if verdict.result in BAD:
                case = verdict.case
                print(f"  bad: {case.path.name}, {case.change}: {verdict.result}: {verdict.reason}")
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / case.path.name).write_bytes(case.path.read_bytes())
        written = list((folder / "output").rglob("*"))
        left = [path for path in written if path.is_file() and (path.suffix != ".wav" or path.name.startswith("."))]
        print(f"  {len(left):5} leftovers")
    return int(bool(left) or any(counts[result] for result in BAD))


if __name__ == "__main__":
    sys.exit(main())
