"""What to separate, and how, with any model: choices made at run time, which no checkpoint stores."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Literal, get_args

from bsmamba2.audio.formats import SUBTYPES, Format, output_depth
from bsmamba2.errors import InputError
from bsmamba2.model.config import ModelConfig
from bsmamba2.model.scan_names import Scan
from bsmamba2.separation.common_stems import Gives
from bsmamba2.stem_names import RESIDUAL
from bsmamba2.system.device_names import check_device_name

if TYPE_CHECKING:
    from bsmamba2.model import Network

BitDepth = Literal["source", "16", "24", "float"]
Peak = Literal["clip", "rescale", "float"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
# Where a page has its sound: inside it, or in the stem files next to it.
Page = Literal["inside", "linked"]
# How the estimates of several models are combined.
Combination = Literal["mean", "max", "min"]


@dataclass(frozen=True)
class SeparationSettings:
    """How to separate.

    Args:
        segment_seconds: Length of the segments in seconds, by default that used in the model's training.
        overlap: Share of a segment that overlaps the next one, from 0 (the published test protocol) to below 1.
        batch_size: Segments in one pass, by default 8 on CUDA and 1 elsewhere; halved when memory runs out.
        device: Where to compute: auto (the first available of cuda, mps and cpu), cpu, cuda, cuda:1, mps.
        precision: Precision of the matrix products: auto is bfloat16 where the device has units for products of it, and
            float32 elsewhere; None in Python is that of a surrounding torch.autocast.
        scan: Scan to run; auto chooses the fastest for the device.
        compile: Compile the network with torch.compile; faster after about a minute of compilation. It needs a C++
            compiler on a CPU and Triton on a GPU.

    Raises:
        InputError: A value is not allowed.
    """

    segment_seconds: float | None = None
    overlap: float = 0.25
    batch_size: int | None = None
    device: str = "auto"
    precision: Precision | None = "float32"
    scan: Scan = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        # A torch.device is accepted too.
        object.__setattr__(self, "device", str(self.device))
        check_device_name(self.device)
        _check_numbers(self, "overlap", "batch_size", "segment_seconds")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap={self.overlap} is not allowed; give a share of a segment from 0 to below 1")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch_size={self.batch_size} is not allowed; a batch has at least one segment")
        if self.precision not in (None, *get_args(Precision)):
            raise InputError(f"precision={self.precision!r} does not exist; choose {', '.join(get_args(Precision))}")
        if self.scan not in get_args(Scan):
            raise InputError(f"scan={self.scan!r} does not exist; choose {', '.join(get_args(Scan))}")

    def check_for(self, network: "Network") -> None:
        """Checks what depends on the network.

        Raises:
            InputError: A segment is shorter than one sample, or no mixer of the network runs the scan.
        """
        self.segment(network.config)
        network.check_scan(self.scan)

    def segment(self, config: ModelConfig) -> int:
        """Returns the length of a segment in samples at the sampling rate of a network.

        Raises:
            InputError: It is shorter than one sample or not finite.
        """
        seconds = config.segment_seconds if self.segment_seconds is None else self.segment_seconds
        if not 0 < seconds < math.inf or round(seconds * config.sample_rate) < 1:
            raise InputError(f"segment_seconds={seconds} is not allowed; give a length of at least one sample")
        return round(seconds * config.sample_rate)


@dataclass(frozen=True)
class StemSettings:
    """Which stems of a song are written, and how.

    Args:
        stems: Stems to write: those of the model, instrumental (the song without the vocals), the rest of the song if
            the model has a name for it, such as reverb, or residual (the song without the other stems that are
            written). By default those of the model and its rest. If the file of a model does not name its stems, these
            are their names, in the order of the model.
        format: File format of the stems: wav, flac, mp3 (320 kbit/s), ogg (Vorbis) or m4a (AAC).
        bit_depth: Sample format in wav and flac. A source that has none, such as MP3, gives float in wav and 24 bit in
            flac.
        peak: How to treat samples beyond full scale in an integer format: clip them, rescale all stems of the song by
            one factor, or write its stems in float.
        start: Seconds to leave out at the beginning of each song.
        duration: Seconds of each song to separate, by default all.
        downmix: Mix songs of more than two channels down to stereo; otherwise they are an error.
        page: Also write a page to listen to the stems: with the sound inside it, or linked to the stem files.

    Raises:
        InputError: Two settings contradict each other, or one is out of its range.
    """

    stems: Sequence[str] | None = None
    format: Format = "wav"
    bit_depth: BitDepth = "source"
    peak: Peak = "clip"
    start: float = 0.0
    duration: float | None = None
    downmix: bool = False
    page: Page | None = None

    def __post_init__(self) -> None:
        _check_numbers(self, "start", "duration")
        if not 0 <= self.start < math.inf:
            raise InputError(f"start={self.start} is not allowed; give seconds of at least 0")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise InputError(f"duration={self.duration} is not allowed; give seconds above 0")
        if self.bit_depth != "source":
            output_depth(self.format, self.bit_depth, None)
        if self.peak != "clip" and self.format not in SUBTYPES:
            raise InputError(f"{self.format} is lossy and clips nothing; leave --peak {self.peak} out")
        if self.peak == "float" and "float" not in SUBTYPES[self.format]:
            raise InputError(
                f"{self.format} does not support float samples; give --peak clip or rescale, or the format wav"
            )

    def names(self, gives: Gives) -> tuple[str, ...]:
        """Returns the names of the stems to write with a model or an ensemble.

        Raises:
            InputError: A stem cannot be written with it, is given twice, or none is given.
        """
        if self.stems is None:
            return gives.outputs
        allowed = [*gives.stems, *gives.differences, RESIDUAL]
        for stem in self.stems:
            if stem not in allowed:
                raise InputError(f"the stem {stem!r} cannot be written; with this model choose {', '.join(allowed)}")
        if not self.stems or len(set(self.stems)) < len(self.stems):
            raise InputError(f"stems={list(self.stems)} is not allowed; give at least one, each only once")
        if RESIDUAL in self.stems and not set(self.stems) & set(gives.stems):
            raise InputError(
                f"{RESIDUAL} is the song without the other stems; choose one of {', '.join(gives.stems)} too"
            )
        return tuple(self.stems)

    def seconds_of(self, seconds: float | None) -> float | None:
        """Returns how many seconds of a song are separated, from its length in seconds; None if that is not known."""
        if seconds is None:
            return self.duration
        return min(max(0.0, seconds - self.start), math.inf if self.duration is None else self.duration)

    def estimated(self, gives: Gives) -> list[str]:
        """Returns the estimates that the stems to write are made of; raises as `names`."""
        names = [name for name in self.names(gives) if name != RESIDUAL]
        return [stem for name in names for stem in gives.differences.get(name, (name,))]


def _check_numbers(settings: object, *names: str) -> None:
    """Checks that settings are numbers, which programs may have read as text."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not isinstance(value, Real):
            raise InputError(f"{name}={value!r} is not a number; give one")
