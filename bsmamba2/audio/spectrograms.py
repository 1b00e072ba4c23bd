"""The loudest stretch of a song, and spectrograms as images."""

import math

import torch
from torch import Tensor

from bsmamba2.model.stft import stft

N_FFT = 4096
COLUMNS = 800
ROWS = 160
LOWEST_HZ = 40.0
SHOWN_RANGE_DB = 80.0
TICKS_HZ = {100: "100", 300: "300", 1000: "1k", 3000: "3k", 10000: "10k"}
# From quiet to loud: black, violet, red, orange, light yellow.
COLOURS = ((0, 0, 8), (72, 18, 120), (200, 45, 85), (250, 150, 40), (255, 255, 200))


def loudest_stretch(stems: Tensor, length: int) -> slice:
    """Returns the stretch of at most length samples in which stems (s, c, n) have the most energy."""
    energy = torch.cat([torch.zeros(1, dtype=torch.float64), stems.double().square().sum((0, 1)).cumsum(0)])
    length = min(length, stems.shape[-1])
    start = int((energy[length:] - energy[: len(energy) - length]).argmax())
    return slice(start, start + length)


def spectrograms(audio: Tensor, sample_rate: int) -> Tensor:
    """Returns an 8-bit image (3, height, width) of the spectrograms of audio (k, n), one above the other.

    White lines separate them. Colours and frequencies are as in `single_spectrograms`.
    """
    images = single_spectrograms(audio, sample_rate)
    line = images.new_full((3, 4, images.shape[-1]), 255)
    parts = [part for image in images for part in (line, image)]
    return torch.cat(parts[1:], dim=1)


def single_spectrograms(audio: Tensor, sample_rate: int) -> Tensor:
    """Returns an 8-bit image (k, 3, height, width) of the spectrogram of each audio (k, n).

    Colours span the 80 dB below the peak of the first one; frequency rises from 40 Hz to half the sampling rate (Hz),
    linearly at first and then logarithmically (mel).
    """
    hop = max(1, math.ceil(audio.shape[-1] / COLUMNS))
    power = stft(audio, n_fft=N_FFT, window_length=N_FFT // 2, hop_length=hop).abs().square()
    rows = mel_rows(sample_rate, power.dtype).to(power) @ power
    peak = rows[0].max().clamp(min=torch.finfo(rows.dtype).tiny)
    level = (1 + 10 / SHOWN_RANGE_DB * (rows / peak).clamp(min=1e-30).log10()).clamp(0, 1)
    return _coloured(level.flip(-2))


def mel_rows(sample_rate: int, dtype: torch.dtype) -> Tensor:
    """Returns weights (row, bin) that average the power of the bins covered by each row, in proportion to the overlap.

    Rows rise from 40 Hz to half the sampling rate (Hz) on the mel scale; bins are those of N_FFT.
    """
    highest = math.log1p(sample_rate / 2 / 700)
    mels = torch.linspace(math.log1p(LOWEST_HZ / 700), highest, ROWS + 1, dtype=torch.float32, device="cpu")
    # Bin b extends from b - 1/2 to b + 1/2.
    edges = (700 * mels.expm1() * N_FFT / sample_rate + 0.5).to(dtype)
    bins = torch.arange(N_FFT // 2 + 1, dtype=dtype, device="cpu")
    shared = torch.minimum(edges[1:, None], bins + 1) - torch.maximum(edges[:-1, None], bins)
    shared = shared.clamp(min=0)
    return shared / shared.sum(1, keepdim=True)


def frequency_ticks(sample_rate: int) -> dict[str, float]:
    """Returns the distance of some frequencies from the top of a spectrogram, from 0 to 1, by their labels."""
    edges = torch.tensor([LOWEST_HZ, *TICKS_HZ, sample_rate / 2], dtype=torch.float64)
    low, *ticks, high = torch.log1p(edges / 700).tolist()
    return {
        name: (high - tick) / (high - low) for name, tick in zip(TICKS_HZ.values(), ticks, strict=True) if tick < high
    }


def _coloured(level: Tensor) -> Tensor:
    """Returns 8-bit colours (k, 3, h, w) for levels (k, h, w) from 0 to 1."""
    colours = torch.tensor(COLOURS, dtype=level.dtype, device=level.device)
    position = level * (len(COLOURS) - 1)
    lower = position.long().clamp(max=len(COLOURS) - 2)
    mixed = torch.lerp(colours[lower], colours[lower + 1], (position - lower)[..., None])
    return mixed.round().to(torch.uint8).movedim(-1, 1)
