"""Bands of equal width on the mel scale, overlapping by half, as in Mel-Band RoFormer (arXiv:2310.01809, section 2)."""

import math


def mel_bands(count: int, n_fft: int, sample_rate: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the first bins and the widths in bins of triangular bands on Slaney's mel scale.

    A band contains the bins strictly between the ends of its triangle; the first also has bin 0, and the last the
    highest bin.

    Args:
        count: How many bands.
        n_fft: Length of the Fourier transform in samples.
        sample_rate: Sampling rate in Hz.
    """
    highest_mel = _mel(sample_rate / 2)
    edges = [_frequency(highest_mel * i / (count + 1)) * n_fft / sample_rate for i in range(count + 2)]
    starts = [math.floor(edge) + 1 for edge in edges[:-2]]
    ends = [math.ceil(edge) for edge in edges[2:]]
    starts[0], ends[-1] = 0, n_fft // 2 + 1
    return tuple(starts), tuple(end - start for start, end in zip(starts, ends, strict=True))


def _mel(frequency: float) -> float:
    return 3 * frequency / 200 if frequency < 1000 else 15 + 27 * math.log(frequency / 1000) / math.log(6.4)


def _frequency(mel: float) -> float:
    return 200 * mel / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)
