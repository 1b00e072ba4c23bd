"""What separates songs: one model (`Separator`), or several together (`Ensemble`)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from bsmamba2.audio import BLOCK
from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.errors import InputError
from bsmamba2.separation.common_stems import Gives
from bsmamba2.separation.separated_song import SeparatedSong

ProgressCallback = Callable[[float], None]
AudioT = TypeVar("AudioT", Tensor, np.ndarray)


def without(mixture: Tensor, parts: Iterable[Tensor]) -> Tensor:
    """Returns a mixture (c, n) without some parts of it (c, n), at least one."""
    return mixture - torch.stack(list(parts)).sum(0)


class SongSeparator(ABC):
    """Separates audio of any length and sampling rate; it can be called repeatedly."""

    @property
    @abstractmethod
    def gives(self) -> Gives:
        """The stems that it gives."""

    @abstractmethod
    def stream(self, blocks: Iterable[Tensor], sample_rate: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yields parts (c, m) of a mixture with the estimates {stem: (c, m)} of the same samples, in constant memory.

        Args:
            blocks: The mixture (c, n) on the CPU in float32, cut into blocks of any length; a part may share memory
                with them.
            sample_rate: Its sampling rate in Hz.

        Raises:
            InputError: The mixture has a number of channels that a network does not take, or no samples; or a segment
                does not fit into memory.
        """

    def __call__(
        self, audio: AudioT, sample_rate: int, *, callback: ProgressCallback | None = None
    ) -> dict[str, AudioT]:
        """Returns the estimates {stem: (c, n)} of a mixture, with its type, shape, sampling rate and device.

        Args:
            audio: Mixture (c, n), a tensor or an array of floats with full scale at 1; mono, or with the network's
                number of channels. It is not changed.
            sample_rate: Its sampling rate in Hz.
            callback: Called with the share done, from 0 to 1.

        Raises:
            InputError: The audio cannot be used: no floats, empty, not finite, or of another shape; or a segment does
                not fit into memory.
        """
        if not isinstance(audio, Tensor | np.ndarray) or audio.dtype == np.longdouble:
            raise InputError(f"the audio is a {type(audio).__name__}; give a tensor or array of floats up to 64 bit")
        # Arrays may be read-only, or of another byte order.
        native = audio.astype(audio.dtype.newbyteorder("=")) if isinstance(audio, np.ndarray) else audio
        mixture = torch.from_numpy(native) if isinstance(native, np.ndarray) else native
        if not mixture.is_floating_point():
            raise InputError(f"the audio is of type {mixture.dtype}; give floats with full scale at 1")
        if mixture.ndim != 2 or 0 in mixture.shape:
            raise InputError(f"the audio has shape {tuple(mixture.shape)}; give (channels, samples), not empty")
        most = self.gives.most_channels
        if mixture.shape[0] > max(most, mixture.shape[1]) and mixture.shape[1] <= most:
            raise InputError(
                f"the audio has shape {tuple(mixture.shape)}, which is (samples, channels); give (channels, samples), "
                "such as audio.T"
            )
        if not mixture.isfinite().all():
            raise InputError("the audio has samples that are not finite (NaN or infinity); repair it first")
        blocks = mixture.detach().to("cpu", torch.float32).split(BLOCK, dim=-1)
        # Filled piece by piece: pieces that are joined at the end would need the memory of all stems twice.
        whole = {stem: torch.empty_like(mixture) for stem in self.gives.stems}
        done = 0
        for part, estimates in self.stream(blocks, sample_rate):
            for stem, estimate in estimates.items():
                whole[stem][:, done : done + part.shape[-1]] = estimate
            done += part.shape[-1]
            if callback:
                callback(done / mixture.shape[-1])
        if isinstance(audio, np.ndarray):
            return {stem: estimate.numpy().astype(audio.dtype, copy=False) for stem, estimate in whole.items()}
        return whole

    def separate_file(self, path: str | Path, *, callback: ProgressCallback | None = None) -> SeparatedSong:
        """Returns a song with the stems that `bsmamba2 separate` writes by default, whole in memory.

        Args:
            path: An audio or video file.
            callback: Called with the share done, from 0 to 1.

        Raises:
            InputError: The file cannot be read or separated.
        """
        path = Path(path)
        sample_rate, song = audio_info(path).sample_rate, read_audio(path)
        estimates = self(song, sample_rate, callback=callback)
        gives = self.gives
        stems = {
            name: estimates[name]
            if name in estimates
            else without(song, (estimates[stem] for stem in gives.differences[name]))
            for name in gives.outputs
        }
        return SeparatedSong(path.stem, stems, sample_rate)
