"""The recordings written as one folder, and that folder packed into little space."""

from pathlib import Path

import soundfile
import soxr
import torch
from tqdm import tqdm

from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import find_tracks
from bsmamba2.errors import InputError
from bsmamba2.stem_names import MUSDB_STEMS, VOCALS
from bsmamba2.system.files import sha256_of
from default_model.sources import ACCOMPANIMENT, Kind, recordings

HASHES = "sha256.txt"
OPUS_RATE = 48000
# Compression level of libsndfile's Opus by kind and stem, from 0, the best, to 1.
LEVELS: dict[tuple[Kind, str], float] = {
    ("train", VOCALS): 0.84,
    ("train", "drums"): 0.90,
    ("train", "bass"): 0.935,
    ("train", "other"): 0.88,
    ("songs", VOCALS): 0.90,
    ("songs", ACCOMPANIMENT): 0.91,
    ("singing", VOCALS): 0.90,
    ("instrumentals", ACCOMPANIMENT): 0.92,
    ("valid", VOCALS): 0.70,
    ("valid", "drums"): 0.80,
    ("valid", "bass"): 0.85,
    ("valid", "other"): 0.80,
}
# How much of a recording is packed, around its middle.
PACKED_SECONDS: dict[Kind, float] = {"songs": 120.0, "instrumentals": 20.0}


def lay_out(sources: Path, root: Path) -> None:
    """Writes `{root}/{kind}/{artist - title}/{stem}.wav`: 16 bit, 44.1 kHz. Existing files are kept.

    Raises:
        InputError: A source is missing, cannot be read or must not be trained on.
    """
    for recording in tqdm(recordings(sources), "laying out"):
        for stem, read in recording.stems.items():
            path = root / recording.kind / recording.name / f"{stem}.wav"
            if not path.exists():
                write_audio(path, read(), SAMPLE_RATE)


def lay_out_muted(songs: Path, root: Path) -> None:
    """Writes the test songs of a dataset again without their vocals, to measure what leaks into the estimates.

    Args:
        songs: Folder that contains test/.
        root: Folder of the dataset to write.
    """
    for track in tqdm(find_tracks(songs, "test"), "muting"):
        for stem in MUSDB_STEMS:
            path = root / "test" / track.name / f"{stem}.wav"
            if not path.exists():
                audio = track.read(stem)
                write_audio(path, torch.zeros_like(audio) if stem == VOCALS else audio, SAMPLE_RATE)


def pack(data: Path, packed: Path) -> None:
    """Writes a laid out folder as Opus, and a list of the files' hashes. Existing files are kept.

    Args:
        data: Folder that `lay_out` wrote.
        packed: Folder to write.
    """
    hashes = {}
    for path in tqdm(sorted(data.glob("*/*/*.wav")), "packing"):
        kind: Kind = path.parents[1].name  # type: ignore[assignment]
        target = (packed / path.relative_to(data)).with_suffix(".opus")
        if not target.exists():
            _write_opus(path, target, LEVELS[kind, path.stem], PACKED_SECONDS.get(kind))
        hashes[target.relative_to(packed).as_posix()] = sha256_of(target)
    (packed / HASHES).write_text(
        "".join(f"{value}  {name}\n" for name, value in sorted(hashes.items())), encoding="utf-8"
    )


def check_pack(packed: Path) -> None:
    """Checks the files of a pack against its list of hashes.

    Raises:
        InputError: A file is missing or differs.
    """
    for line in (packed / HASHES).read_text(encoding="utf-8").splitlines():
        value, _, name = line.partition("  ")
        path = packed / name
        if not path.is_file() or sha256_of(path) != value:
            raise InputError(f"{path} is not the file that {packed / HASHES} lists; pack the data again")


def _write_opus(path: Path, target: Path, level: float, seconds: float | None) -> None:
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if seconds is not None and len(audio) > seconds * rate:
        first = int((len(audio) - seconds * rate) / 2)
        audio = audio[first : first + int(seconds * rate)]
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")
    resampled = soxr.resample(audio, rate, OPUS_RATE)
    soundfile.write(unfinished, resampled, OPUS_RATE, format="OGG", subtype="OPUS", compression_level=level)
    unfinished.replace(target)
