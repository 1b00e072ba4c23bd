"""How to separate with any model: choices made at run time, which no checkpoint stores."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.scans import Scan

Precision = Literal["float32", "bfloat16", "float16"]
# Of the estimates of several models.
Combination = Literal["mean", "max", "min"]


@dataclass(frozen=True)
class SeparationSettings:
    """How to separate.

    Args:
        segment_seconds: Length of the segments in seconds, by default that used in the model's training.
        overlap: Share of a segment that overlaps the next one, from 0 (the published test protocol) to below 1.
        batch_size: Segments in one pass, by default 8 on CUDA and 1 elsewhere; halved when memory runs out.
        device: Where to compute: auto (the first available of cuda, mps and cpu), cpu, cuda, cuda:1, mps.
        precision: Precision of the matrix products; None in Python is that of a surrounding torch.autocast.
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
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap={self.overlap} is not allowed; give a share of a segment from 0 to below 1")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch_size={self.batch_size} is not allowed; a batch has at least one segment")
        if self.precision not in (None, *get_args(Precision)):
            raise InputError(f"precision={self.precision!r} does not exist; choose {', '.join(get_args(Precision))}")
        if self.scan not in get_args(Scan):
            raise InputError(f"scan={self.scan!r} does not exist; choose {', '.join(get_args(Scan))}")

    def check_for(self, network: BSMamba2) -> None:
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
