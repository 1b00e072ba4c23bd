"""Separates audio of any length with a network on segments; training, evaluation and the command line all use it."""

import contextlib
import itertools
import logging
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from bsmamba2.audio.resampling import Resampler
from bsmamba2.audio.sample_queue import SampleQueue
from bsmamba2.errors import DivergedError, InputError
from bsmamba2.model import ModelConfig, Network
from bsmamba2.separation.overlap_add import overlap_add
from bsmamba2.separation.settings import Precision, SeparationSettings
from bsmamba2.separation.song_separator import SongSeparator
from bsmamba2.system.devices import (
    allow_forks,
    check_not_forked,
    choose_device,
    multiplies_bfloat16,
    out_of_memory,
    return_memory,
)
from bsmamba2.weights.checkpoint import load_model

# Segments in one pass by kind of device, 1 elsewhere: one is enough to keep the cores of a CPU busy.
BATCH_SIZES = {"cuda": 8}

# Messages of torch.compile when a C++ compiler, or Triton on a GPU, is missing.
NO_COMPILER = re.compile("InvalidCxxCompiler|TritonMissing|C compiler")

log = logging.getLogger(__name__)


class Separator(SongSeparator):
    """Separates audio of any length and sampling rate, segment by segment; it can be called repeatedly.

    Args:
        network: The network, or the name or file of a model; it is moved to the device, and compiled if the settings
            ask for it.
        settings: How to separate, by default `SeparationSettings()`.
        **choices: Fields of `SeparationSettings` that replace those of settings, such as `overlap=0.5`.

    Attributes:
        device: The torch device.
        segment: Length of a segment in samples at the network's sampling rate.
        hop: Distance between the starts of segments in samples.
        batch_size: Segments in one pass; halved when memory runs out. The result does not depend on it.
        precision: Precision of the matrix products on the device; None is that of a surrounding torch.autocast.

    Raises:
        InputError: A setting is out of its range, or this machine lacks the device or the scan.
        TypeError: A choice is not a field of `SeparationSettings`.
    """

    def __init__(
        self, network: Network | str | Path, settings: SeparationSettings | None = None, **choices: Any
    ) -> None:
        self.settings = settings = replace(settings or SeparationSettings(), **choices)
        network = network if isinstance(network, Network) else load_model(network)
        settings.check_for(network)
        self.segment = settings.segment(network.config)
        self.hop = max(1, self.segment - round(self.segment * settings.overlap))
        allow_forks()
        self.device = choose_device(settings.device)
        self.precision = precision_on(self.device, settings.precision)
        network.scan_on(self.device, settings.scan)
        self.batch_size = settings.batch_size or BATCH_SIZES.get(self.device.type, 1)
        self.network = network.to(self.device)
        if settings.compile:
            network.compile()

    def __repr__(self) -> str:
        config = self.network.config
        return f"<Separator: {', '.join(config.stems)}; {config.sample_rate} Hz, on {self.device}>"

    @property
    def segment_seconds(self) -> float:
        """Length of a segment in seconds."""
        return self.segment / self.network.config.sample_rate

    @property
    def gives(self) -> ModelConfig:
        """The stems that it gives."""
        return self.network.config

    def stream(self, blocks: Iterable[Tensor], sample_rate: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yields parts of a mixture with their estimates; see `SongSeparator.stream`."""
        config = self.network.config
        blocks = iter(blocks)
        first = next(blocks, None)
        if first is None:
            raise InputError("the audio has no samples; give some")
        channels = first.shape[0]
        width = channels if config.channelwise else config.channels
        if channels not in (1, width) or channels > config.most_channels:
            raise InputError(f"the audio has {channels} channels; the model takes 1 or {config.most_channels}")
        number = isinstance(sample_rate, Real) and math.isfinite(sample_rate)
        if not number or sample_rate < 1 or sample_rate % 1:
            raise InputError(f"a sampling rate of {sample_rate!r} Hz is not allowed; give a whole number of at least 1")
        # The samples whose estimates are not complete yet.
        waiting = SampleQueue()
        to_model = Resampler(sample_rate, config.sample_rate, channels)
        from_model = Resampler(config.sample_rate, sample_rate, len(config.stems) * channels)

        def at_model_rate() -> Iterator[Tensor]:
            for block in itertools.chain([first], blocks):
                waiting.append(block)
                yield to_model(block).expand(width, -1)
            length = max(1, round(waiting.appended * config.sample_rate / sample_rate))
            yield to_model.finish(length).expand(width, -1)

        def with_mixture(estimates: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            part = waiting.take(min(estimates.shape[-1], len(waiting)))
            stems = rearrange(estimates[:, : part.shape[-1]], "(s c) n -> s c n", c=channels)
            return part, dict(zip(config.stems, stems, strict=True))

        for piece in overlap_add(
            self._estimates, at_model_rate(), segment=self.segment, hop=self.hop, batch_size=self.batch_size
        ):
            if channels < width:
                piece = piece.mean(dim=1, keepdim=True)
            ready = from_model(piece.flatten(0, 1))
            if ready.shape[-1]:
                yield with_mixture(ready)
        if len(waiting):
            yield with_mixture(from_model.finish(waiting.appended))

    def _estimates(self, segments: Tensor) -> Tensor:
        """Returns the estimates (b, s, c, n) of segments (b, c, n), in smaller batches where memory is short."""
        weight = next(self.network.parameters())
        self.network.set_scan(self.settings.scan)
        while True:
            try:
                with torch.inference_mode(), _autocast(self.device, self.precision):
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
                check_not_forked(error)
                if not out_of_memory(error):
                    raise
                if self.batch_size == 1 or len(segments) == 1:
                    raise InputError(
                        f"a segment of {self.segment_seconds:g} s does not fit into the memory of {self.device}; give "
                        "a smaller segment_seconds, or another device"
                    ) from error
            self.batch_size = min(self.batch_size, len(segments)) // 2
            log.warning("out of memory on %s: the batch size is reduced to %d", self.device, self.batch_size)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return_memory()
        if not estimates.isfinite().all():
            raise DivergedError(
                "the network returned values that are not finite; choose the precision float32, or check the weights"
            )
        return estimates


def precision_on(device: torch.device, precision: Precision | None) -> Precision | None:
    """Returns the precision that a setting means on a device: what auto chooses there, or the setting."""
    if precision == "auto":
        return "bfloat16" if multiplies_bfloat16(device) else "float32"
    return precision


def _autocast(device: torch.device, precision: Precision | None) -> contextlib.AbstractContextManager[object]:
    if precision is None:
        return contextlib.nullcontext()
    if precision == "float32":
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=getattr(torch, precision))
