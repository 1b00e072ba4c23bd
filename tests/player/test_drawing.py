import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bsmamba2.audio.spectrograms import ROWS, frequency_ticks
from bsmamba2.player.drawing import IMAGE_COLUMNS, Peaks, SpectrogramImages, columns_per_second

RATE = 44100


def cut(audio: Tensor, seed: int) -> list[Tensor]:
    """Returns audio (c, n) in blocks of lengths from a seed, some of them empty."""
    generator = torch.Generator().manual_seed(seed)
    cuts = torch.randint(0, audio.shape[-1], (20,), generator=generator).sort().values.tolist()
    return [audio[:, start:stop] for start, stop in zip([0, 0, *cuts], [0, *cuts, audio.shape[-1]], strict=True)]


def pixels(image: bytes) -> np.ndarray:
    """Returns the brightness (row, column) of an image file."""
    return np.asarray(Image.open(io.BytesIO(image)).convert("L")).astype(int)


def spectrogram(blocks: list[Tensor], hop: int) -> tuple[list[bytes], int]:
    images = SpectrogramImages(RATE, hop)
    found = [image for block in blocks for image in images(block)]
    return [*found, *images.finish()], images.loudest


@pytest.mark.parametrize("length", [1, 99, 100, 101, 12_345])
def test_peaks_are_the_extremes_of_all_channels(length: int) -> None:
    audio = 2 * torch.rand(2, length, generator=torch.Generator().manual_seed(0)) - 1
    for seed in range(3):
        peaks = Peaks(100)
        found = b"".join([*map(peaks, cut(audio, seed)), peaks.finish()])
        expected = [
            round(127 * extreme)
            for start in range(0, length, 100)
            for part in [audio[:, start : start + 100]]
            for extreme in (part.min().item(), part.max().item())
        ]
        assert np.frombuffer(found, np.int8).tolist() == expected


def test_samples_beyond_full_scale_are_peaks_of_full_scale() -> None:
    peaks = Peaks(2)
    assert peaks(torch.tensor([[1.5, -3.0]])) == bytes([256 - 127, 127])


@pytest.mark.parametrize("hop", [551, 2205, 4000])
def test_images_show_a_tone_where_and_when_it_is(hop: int) -> None:
    """Also if the windows overlap, or leave samples out."""
    seconds = 2 * IMAGE_COLUMNS * hop / RATE + 1
    time = torch.arange(round(seconds * RATE)) / RATE
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * time)
    start, stop = round(0.3 * len(tone)), round(0.6 * len(tone))
    tone[:start] = tone[stop:] = 0
    images, loudest = spectrogram(cut(tone.expand(2, -1), 0), hop)
    shown = np.concatenate([pixels(image) for image in images], axis=1)
    assert [pixels(image).shape[1] for image in images[:-1]] == [IMAGE_COLUMNS] * 2
    assert shown.shape == (ROWS, -(-len(tone) // hop))
    bright = np.flatnonzero(shown.max(0) > 100)
    assert bright[0] == pytest.approx(start / hop, abs=1 + 1100 / hop)
    assert bright[-1] == pytest.approx(stop / hop, abs=1 + 1100 / hop)
    row = shown[:, bright[5:-5]].mean(1).argmax()
    assert row / ROWS == pytest.approx(frequency_ticks(RATE)["1k"], abs=2 / ROWS)
    # A tone of half of full scale has -6 dB, less what is spread over the bins of its row.
    assert loudest == pytest.approx(255 * (1 - 6 / 100), abs=10)
    assert shown.max() == pytest.approx(loudest, abs=15)


def test_blocks_do_not_matter() -> None:
    audio = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0))
    assert spectrogram(cut(audio, 1), 1000) == spectrogram([audio], 1000)


def test_a_sound_shorter_than_a_column_has_one() -> None:
    (image,), _ = spectrogram([torch.ones(1, 3)], 2000)
    assert pixels(image).shape == (ROWS, 1)
    assert spectrogram([torch.ones(1, 0)], 2000)[0] == []


def test_short_songs_are_drawn_finer() -> None:
    assert [columns_per_second(seconds) for seconds in (0, 10, 32, 100, 36000)] == [80, 80, 50, 20, 20]
