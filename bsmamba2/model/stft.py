"""Short-time Fourier transform and its inverse: periodic Hann window, centred, one-sided, unnormalised, any length."""

import torch
from torch import Tensor
from torch.nn import functional as F


def stft(audio: Tensor, *, n_fft: int, window_length: int, hop_length: int) -> Tensor:
    """Returns the complex spectrum (..., f, t) of audio (..., n), in at least single precision.

    The ends are reflected; audio too short for that (n <= n_fft / 2) is zero-padded first. A window shorter than
    n_fft is centred in it. Lengths are in samples.
    """
    leading, length = audio.shape[:-1], audio.shape[-1]
    audio = audio.to(torch.promote_types(audio.dtype, torch.float32)).reshape(-1, length)
    audio = F.pad(audio, (0, max(0, n_fft // 2 + 1 - length)))
    window = torch.hann_window(window_length, dtype=audio.dtype, device=audio.device)
    spectrum = torch.stft(
        audio, n_fft, hop_length, window_length, window, center=True, pad_mode="reflect", return_complex=True
    )
    return spectrum.reshape(*leading, *spectrum.shape[-2:])


def istft(spectrum: Tensor, *, length: int, n_fft: int, window_length: int, hop_length: int) -> Tensor:
    """Returns the audio (..., n) with n = length samples of a spectrum (..., f, t) made by `stft`."""
    leading = spectrum.shape[:-2]
    window = torch.hann_window(window_length, dtype=spectrum.real.dtype, device=spectrum.device)
    audio = torch.istft(
        spectrum.reshape(-1, *spectrum.shape[-2:]),
        n_fft,
        hop_length,
        window_length,
        window,
        center=True,
        length=max(length, n_fft // 2 + 1),
    )
    return audio[:, :length].reshape(*leading, length)
