"""Writes voices and music without voices as recordings of speech and noise, 16 kHz mono, as in docs/speech.md.

    python scripts/lay_out_voices.py SOURCES VOICES

The voices are those of SOURCES/singing-2, the music is that of SOURCES/instrumental-cc. VOICES gets train/, valid/ and
test/ with {singer} - {clip}/speech.wav and noise.wav; no singer and no artist of the music is in two of them. The music
is scaled to a ratio of 0 to 15 dB, drawn at random, which training replaces by its own. Existing files are kept.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor
from tqdm import tqdm

from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import Split
from bsmamba2.errors import InputError
from bsmamba2.stem_names import NOISE, SPEECH
from exit_status import exit_status

SINGING, INSTRUMENTALS = "singing-2", "instrumental-cc"
SAMPLE_RATE = 16000
# In each group of five singers, or five artists of music, three are for training, one validates and one tests.
SPLITS: tuple[Split, ...] = ("train", "train", "valid", "train", "test")
RATIO_DB = (0.0, 15.0)
# Leaves room for the sum of both.
PEAK = 0.45


def lay_out_voices(sources: Path, root: Path) -> None:
    """Writes the recordings.

    Args:
        sources: Folder with both sources.
        root: Folder of the dataset to write.

    Raises:
        InputError: A source is missing or cannot be read.
    """
    voices = _by_artist(sources / SINGING, "clips.csv", "singer")
    music = _by_artist(sources / INSTRUMENTALS, "tracks.csv", "artist")
    pieces = {split: [path for part, paths in music if part == split for path in paths] for split in SPLITS}
    clips = [(split, path) for split, paths in voices for path in paths]
    for number, (split, path) in enumerate(tqdm(clips, "laying out")):
        folder = root / split / f"{path.parent.name} - {path.stem}"
        if (folder / f"{NOISE}.wav").exists():
            continue
        random = np.random.default_rng(number)
        speech = _mono(path)
        noise = _part(_mono(pieces[split][random.integers(len(pieces[split]))]), speech.shape[1], random)
        ratio_db = random.uniform(*RATIO_DB)
        noise *= (speech.square().sum() / noise.square().sum()).sqrt() * 10 ** (-ratio_db / 20)
        gain = min(1.0, PEAK / max(speech.abs().max().item(), noise.abs().max().item()))
        write_audio(folder / f"{SPEECH}.wav", gain * speech, SAMPLE_RATE)
        write_audio(folder / f"{NOISE}.wav", gain * noise, SAMPLE_RATE)


def _by_artist(folder: Path, table: str, column: str) -> list[tuple[Split, list[Path]]]:
    """Returns the split of each artist and the files, from a table of a source."""
    try:
        with (folder / table).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(
            f"{folder / table} cannot be read ({error.strerror}); give the folder of the sources"
        ) from error
    artists = sorted({row[column] for row in rows})
    return [
        (SPLITS[number % len(SPLITS)], [folder / row["file"] for row in rows if row[column] == artist])
        for number, artist in enumerate(artists)
    ]


def _mono(path: Path) -> Tensor:
    """Returns the audio (1, n) of a file."""
    resampled = soxr.resample(read_audio(path).mean(0).numpy(), audio_info(path).sample_rate, SAMPLE_RATE)
    return torch.from_numpy(resampled)[None]


def _part(audio: Tensor, length: int, random: np.random.Generator) -> Tensor:
    """Returns a random part of audio (1, n), which is repeated if it is too short."""
    repeated = audio.repeat(1, -(-length // audio.shape[1]))
    start = random.integers(repeated.shape[1] - length + 1)
    return repeated[:, start : start + length].clone()


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the recordings and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="lay_out_voices.py", description="Lays out voices and music as speech and noise."
    )
    parser.add_argument("sources", type=Path, help="folder with the sources")
    parser.add_argument("root", type=Path, help="folder of the dataset to write")
    options = parser.parse_args(arguments)
    return exit_status(parser.prog, lambda: lay_out_voices(**vars(options)))


if __name__ == "__main__":
    sys.exit(main())
