import math

import pytest
import torch
from torch import Tensor

from bsmamba2.audio.spectrograms import spectrograms
from bsmamba2.data.musdb import SAMPLE_RATE


def tone(hertz: float, seconds: float = 0.5) -> Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


def test_frequencies_rise_from_the_bottom() -> None:
    """The lowest row is at 40 Hz, the highest at half the sampling rate; rows are equal steps on the mel scale."""
    rows = []
    for hertz in (100.0, 1000.0, 10000.0):
        brightness = spectrograms(tone(hertz)[None], SAMPLE_RATE).float().sum((0, 2))
        low, high, mel = (math.log1p(f / 700) for f in (40, SAMPLE_RATE / 2, hertz))
        assert int(brightness.argmax()) == pytest.approx(160 * (high - mel) / (high - low), abs=2.5)
        rows.append(int(brightness.argmax()))
    assert rows == sorted(rows, reverse=True)


def test_colours_span_80_db_below_the_first_spectrogram() -> None:
    """40 dB below its peak has the middle of the five colours; 80 dB and silence have the darkest."""
    mixture = tone(1000)
    peaks = []
    for gain in (1, 1e-2, 1e-4, 0):
        picture = spectrograms(torch.stack([mixture, gain * mixture]), SAMPLE_RATE)[:, 164:]
        column = picture[:, :, picture.shape[-1] // 2].int()
        peaks.append(column[:, column.sum(0).argmax()].tolist())
    assert peaks == [pytest.approx(colour, abs=3) for colour in ((255, 255, 200), (200, 45, 85), (0, 0, 8), (0, 0, 8))]
    assert spectrograms(torch.zeros(3, 1000), SAMPLE_RATE).flatten(1)[:, 0].tolist() == [0, 0, 8]
