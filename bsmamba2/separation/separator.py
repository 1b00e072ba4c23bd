"""From a network on segments to a separation of audio of any length: the same for training, scores and files."""

import contextlib
import itertools
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from bsmamba2.audio import BLOCK
from bsmamba2.audio.resampling import Resampler
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.scans import Scan, choose_scan
from bsmamba2.separation.overlap_add import overlap_add
from bsmamba2.system.devices import choose_device, out_of_memory, return_memory

OVERLAP = 0.25
# Segments in one pass by kind of device, 1 elsewhere: one is enough to keep the cores of a CPU busy.
BATCH_SIZES = {"cuda": 8}

# How torch.compile says that a C++ compiler, or Triton on a GPU, is missing.
NO_COMPILER = re.compile("InvalidCxxCompiler|TritonMissing|C compiler")

Precision = Literal["float32", "bfloat16", "float16"]
ProgressCallback = Callable[[float], None]
AudioT = TypeVar("AudioT", Tensor, np.ndarray)

log = logging.getLogger(__name__)


class Separator:
    """Separates audio of any length and sampling rate, segment by segment; may be called again and again.

    Args:
        network: Moved to the device.
        segment_seconds: Length of the segments in seconds, by default that of the network's training.
        overlap: Share of a segment that overlaps the next one, from 0 (the published test protocol) to below 1.
        batch_size: Segments in one pass, by default 8 on CUDA and 1 elsewhere; the result does not depend on it. Where
            the memory is too small it is halved.
        device: Where to compute: a torch device, or auto, which is the first of cuda, mps and cpu that is there.
        precision: Of the matrix products: float32, bfloat16 or float16; by default float32, or that of a surrounding
            torch.autocast.
        scan: Which scan of `bsmamba2.model.scans` to run; by itself the best for the device.

    Raises:
        InputError: An argument is out of its range, or there is no such device or scan on this machine.
    """

    def __init__(
        self,
        network: BSMamba2,
        segment_seconds: float | None = None,
        overlap: float = OVERLAP,
        batch_size: int | None = None,
        device: str | torch.device = "auto",
        precision: Precision | None = None,
        scan: Scan = "auto",
    ) -> None:
        seconds = network.config.segment_seconds if segment_seconds is None else segment_seconds
        check_settings(network.config, seconds, overlap, batch_size, precision)
        self.device = choose_device(device)
        self.network = network.to(self.device)
        self.segment_seconds = seconds
        self.overlap = overlap
        self.batch_size = batch_size or BATCH_SIZES.get(self.device.type, 1)
        self.precision = precision
        self.scan = scan
        choose_scan(self.device, scan)

    def __call__(
        self,
        audio: AudioT,
        sample_rate: int,
        *,
        callback: ProgressCallback | None = None,
        precision: Precision | None = None,
    ) -> dict[str, AudioT]:
        """Returns the estimates {stem: (c, n)} of a mixture, of its type, shape, sampling rate and device.

        Args:
            audio: Mixture (c, n), a tensor or an array of floats with full scale at 1; mono, or with the network's
                number of channels. It is not changed.
            sample_rate: Its sampling rate in Hz.
            callback: Called with the share done, from 0 to 1.
            precision: For this call, instead of the separator's own.

        Raises:
            InputError: The audio cannot be used: no floats, empty, not finite, or of another shape; or a segment does
                not fit into the memory.
        """
        if not isinstance(audio, Tensor | np.ndarray) or audio.dtype == np.longdouble:
            raise InputError(f"the audio is a {type(audio).__name__}; give a tensor or array of floats up to 64 bit")
        # Arrays may be read-only, or of another byte order.
        mixture = torch.tensor(audio.astype(audio.dtype.newbyteorder("="))) if isinstance(audio, np.ndarray) else audio
        if not mixture.is_floating_point():
            raise InputError(f"the audio is of type {mixture.dtype}; give floats with full scale at 1")
        if mixture.ndim != 2 or 0 in mixture.shape:
            raise InputError(f"the audio has shape {tuple(mixture.shape)}; give (channels, samples), not empty")
        if not mixture.isfinite().all():
            raise InputError("the audio has samples that are not finite (NaN or infinity); repair it first")
        blocks = mixture.detach().to("cpu", torch.float32).split(BLOCK, dim=-1)
        pieces, done = [], 0
        for part, estimates in self.stream(blocks, sample_rate, precision=precision):
            pieces.append(estimates)
            done += part.shape[-1]
            if callback:
                callback(done / mixture.shape[-1])
        whole = {stem: torch.cat([piece[stem] for piece in pieces], dim=-1) for stem in self.network.config.stems}
        if isinstance(audio, np.ndarray):
            return {stem: estimate.numpy().astype(audio.dtype) for stem, estimate in whole.items()}
        return {stem: estimate.to(mixture) for stem, estimate in whole.items()}

    def stream(
        self,
        blocks: Iterable[Tensor],
        sample_rate: int,
        *,
        precision: Precision | None = None,
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yields parts (c, m) of a mixture with the estimates {stem: (c, m)} of the same samples, in constant memory.

        Args:
            blocks: The mixture (c, n) on the CPU in float32, cut into blocks of any length.
            sample_rate: Its sampling rate in Hz.
            precision: For this call, instead of the separator's own.

        Raises:
            InputError: The mixture has a number of channels that the network does not take, or no samples; or a
                segment does not fit into the memory.
        """
        config = self.network.config
        check_settings(config, self.segment_seconds, self.overlap, self.batch_size, precision)
        blocks = iter(blocks)
        first = next(blocks, None)
        if first is None:
            raise InputError("the audio has no samples; give some")
        channels, taken = first.shape[0], 0
        if channels not in (1, config.channels):
            raise InputError(f"the audio has {channels} channels; the model takes 1 or {config.channels}")
        if not math.isfinite(sample_rate) or sample_rate < 1 or sample_rate % 1:
            raise InputError(f"a sampling rate of {sample_rate} Hz is not allowed; give a whole number of at least 1")
        waiting = first[:, :0]
        to_model = Resampler(sample_rate, config.sample_rate, channels)
        from_model = Resampler(config.sample_rate, sample_rate, len(config.stems) * channels)

        def at_model_rate() -> Iterator[Tensor]:
            nonlocal taken, waiting
            for block in itertools.chain([first], blocks):
                taken += block.shape[-1]
                waiting = torch.cat([waiting, block], dim=-1)
                yield to_model(block).expand(config.channels, -1)
            model_length = max(1, round(taken * config.sample_rate / sample_rate))
            yield to_model.finish(model_length).expand(config.channels, -1)

        def released(estimates: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            nonlocal waiting
            length = min(estimates.shape[-1], waiting.shape[-1])
            part, waiting = waiting[:, :length], waiting[:, length:]
            stems = rearrange(estimates[:, :length], "(s c) n -> s c n", c=channels)
            return part, dict(zip(config.stems, stems, strict=True))

        segment = round(self.segment_seconds * config.sample_rate)
        pieces = overlap_add(
            lambda segments: self._estimates(segments, precision),
            at_model_rate(),
            segment=segment,
            hop=max(1, segment - round(segment * self.overlap)),
            batch_size=self.batch_size,
        )
        for piece in pieces:
            if channels < config.channels:
                piece = piece.mean(dim=1, keepdim=True)
            ready = from_model(piece.flatten(0, 1))
            if ready.shape[-1]:
                yield released(ready)
        if waiting.shape[-1]:
            yield released(from_model.finish(taken))

    def _estimates(self, segments: Tensor, precision: Precision | None) -> Tensor:
        """Returns the estimates (b, s, c, n) of segments (b, c, n), in smaller batches where memory is short."""
        weight = next(self.network.parameters())
        self.network.set_scan(self.scan)
        while True:
            try:
                with torch.inference_mode(), _autocast(self.device, precision or self.precision):
                    estimates = torch.cat(
                        [self.network(part.to(weight)) for part in segments.split(self.batch_size)]
                    ).to(segments)
                break
            except RuntimeError as error:
                if NO_COMPILER.search(str(error)):
                    raise InputError(
                        f"torch.compile finds no compiler for {self.device}; install one, on a CPU a C++ compiler such "
                        "as g++ and on a GPU Triton, or leave compile out"
                    ) from error
                if not out_of_memory(error):
                    raise
                if self.batch_size == 1 or len(segments) == 1:
                    raise InputError(
                        f"a segment of {self.segment_seconds:g} s does not fit into the memory of {self.device}; give "
                        "a smaller segment_seconds, or another device"
                    ) from error
            self.batch_size = min(self.batch_size, len(segments)) // 2
            log.warning("out of memory on %s: going on with batches of %d", self.device, self.batch_size)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return_memory()
        if not estimates.isfinite().all():
            raise InputError(
                "the network gave values that are not finite; choose the precision float32, or check the weights"
            )
        return estimates


def check_settings(
    config: ModelConfig,
    segment_seconds: float | None,
    overlap: float,
    batch_size: int | None,
    precision: Precision | None,
) -> None:
    """Fails unless the settings of a `Separator` are in their ranges.

    Raises:
        InputError: One is not.
    """
    if not 0 <= overlap < 1:
        raise InputError(f"overlap={overlap} is not allowed; give a share of a segment from 0 to below 1")
    seconds = segment_seconds
    if seconds is not None and (not 0 < seconds < math.inf or round(seconds * config.sample_rate) < 1):
        raise InputError(f"segment_seconds={seconds} is not allowed; give a length of at least one sample")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size={batch_size} is not allowed; a batch has at least one segment")
    if precision not in (None, *get_args(Precision)):
        raise InputError(f"precision={precision!r} does not exist; choose {', '.join(get_args(Precision))}")


def _autocast(device: torch.device, precision: Precision | None) -> contextlib.AbstractContextManager[object]:
    if precision is None:
        return contextlib.nullcontext()
    if precision == "float32":
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=getattr(torch, str(precision)))
