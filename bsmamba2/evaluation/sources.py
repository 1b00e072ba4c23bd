"""Whose estimates are scored: a model's, or those another tool left in a folder."""

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.evaluation.estimates import estimates_sha256, read_estimates, stems_in
from bsmamba2.evaluation.results import ESTIMATE, chunk_row
from bsmamba2.evaluation.songs import Song
from bsmamba2.model import BSMamba2
from bsmamba2.model.scans import Scan, choose_scan
from bsmamba2.separation.separator import OVERLAP, Precision, Separator, check_settings
from bsmamba2.stem_names import INSTRUMENTAL, VOCALS
from bsmamba2.system.devices import choose_device
from bsmamba2.system.files import sha256_of
from bsmamba2.weights.checkpoint import WeightsFile
from bsmamba2.weights.store import find_model


@dataclass(frozen=True)
class Estimated:
    """What a song was separated into.

    Args:
        rows: By row of the results and stem: audio (c, n).
        computing_seconds: Time the first row took; NaN where nothing was computed.
        notes: What had to be adjusted.
    """

    rows: Mapping[str, Mapping[str, Tensor]]
    computing_seconds: float = math.nan
    notes: tuple[str, ...] = ()


Estimate = Callable[[Song, Sequence[str]], Estimated]


class Source(Protocol):
    """Gives estimates of songs."""

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems it gives."""

    @property
    def identity(self) -> dict[str, Any]:
        """What its estimates depend on besides the track and `sha256`."""

    @property
    def description(self) -> dict[str, dict[str, Any]]:
        """What it is, for people, in sections."""

    def sha256(self, track: str) -> str:
        """Returns a hash of what its estimates of one track depend on besides the track."""

    def on(self, device: str) -> Estimate:
        """Returns the function that separates songs into stems on a device."""


@dataclass(frozen=True)
class ModelSource:
    """A model, with how it separates; see `bsmamba2.separation.separator.Separator`.

    Args:
        model: Name of a published model or a file.
        segment_seconds: Length of the segments, by default that of its training.
        chunk_seconds: Lengths of segments for further rows.
        overlap: Share of a segment that overlaps the next one.
        batch_size: Segments in one pass; None for that of the device.
        device: Kind of device.
        precision: Of the matrix products.
        scan: Which scan.
        compile: Whether torch.compile makes kernels of the network.

    Raises:
        InputError: The file or an option cannot be used.
    """

    model: str | Path
    segment_seconds: float | None = None
    chunk_seconds: Sequence[float] = ()
    overlap: float = OVERLAP
    batch_size: int | None = None
    device: str = "auto"
    precision: Precision = "float32"
    scan: Scan = "auto"
    compile: bool = False
    network: BSMamba2 = field(init=False)
    sha256_of_file: str = field(init=False)

    def __post_init__(self) -> None:
        path = find_model(self.model)
        network = WeightsFile.read(path).network()
        if self.compile:
            network.compile()
        if len(set(self.chunk_seconds)) < len(self.chunk_seconds):
            raise InputError(f"chunk_seconds={list(self.chunk_seconds)} is not allowed; give each length only once")
        for seconds in (self.segment_seconds, *self.chunk_seconds):
            check_settings(network.config, seconds, self.overlap, self.batch_size, self.precision)
        object.__setattr__(self, "network", network)
        object.__setattr__(self, "sha256_of_file", sha256_of(path))

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems of the model, and everything but its vocals."""
        stems = self.network.config.stems
        return (*stems, INSTRUMENTAL) if VOCALS in stems else stems

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """The hash of the model's file, and how it separates."""
        device = choose_device(self.device)
        return {
            "model": self.sha256_of_file,
            "segment_seconds": self.segment_seconds or self.network.config.segment_seconds,
            "chunk_seconds": sorted(self.chunk_seconds),
            "overlap": self.overlap,
            "device": device.type,
            "precision": self.precision,
            "scan": choose_scan(device, self.scan),
        }

    @property
    def description(self) -> dict[str, dict[str, Any]]:
        """The model, its architecture, and how it separates."""
        separation = {name: value for name, value in self.identity.items() if name != "device"}
        model = {
            "name": str(self.model),
            "sha256": separation.pop("model"),
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
        }
        return {"model": model, "separation": separation, "network": asdict(self.network.config)}

    def sha256(self, track: str) -> str:
        """Returns nothing: the description tells all."""
        return ""

    def on(self, device: str) -> Estimate:
        """Returns the function that separates songs on a device."""

        def separator(seconds: float | None) -> Separator:
            return Separator(self.network, seconds, self.overlap, self.batch_size, device, self.precision, self.scan)

        separators = {ESTIMATE: separator(self.segment_seconds)}
        separators |= {chunk_row(seconds): separator(seconds) for seconds in sorted(self.chunk_seconds)}

        def estimate(song: Song, stems: Sequence[str]) -> Estimated:
            rows, times = {}, []
            for row, separate in separators.items():
                started = time.monotonic()
                estimates = separate(song.mixture, song.sample_rate)
                times.append(time.monotonic() - started)
                if INSTRUMENTAL in stems:
                    estimates[INSTRUMENTAL] = song.mixture - estimates[VOCALS]
                rows[row] = estimates
            return Estimated(rows, times[0])

        return estimate


@dataclass(frozen=True)
class FolderSource:
    """Estimates in files; see `bsmamba2.evaluation.estimates`.

    Args:
        folder: Where they lie.
    """

    folder: Path

    @functools.cached_property
    def stems(self) -> tuple[str, ...]:
        """The stems that every track has, and everything but the vocals.

        Raises:
            InputError: There are none.
        """
        stems = stems_in(self.folder)
        return (*stems, INSTRUMENTAL) if VOCALS in stems and INSTRUMENTAL not in stems else stems

    @property
    def identity(self) -> dict[str, Any]:
        """Where the folder lies."""
        return {"estimates": str(self.folder.resolve())}

    @property
    def description(self) -> dict[str, dict[str, Any]]:
        """The folder."""
        return {"estimates": {"folder": str(self.folder)}}

    def sha256(self, track: str) -> str:
        """Returns the hash of the files of a track."""
        return estimates_sha256(self.folder, track)

    def on(self, device: str) -> Estimate:
        """Returns the function that reads them; no device is needed."""

        def estimate(song: Song, stems: Sequence[str]) -> Estimated:
            estimates, notes = read_estimates(self.folder, song, stems)
            return Estimated({ESTIMATE: estimates}, notes=notes)

        return estimate


def chosen_stems(stems: Sequence[str] | None, source: Source) -> tuple[str, ...]:
    """Returns the stems to score: those asked for, else those the source gives of itself.

    Raises:
        InputError: A model does not give one, or one is named twice; what a folder lacks fails track by track.
    """
    if stems is None:
        return tuple(stem for stem in source.stems if stem != INSTRUMENTAL) or source.stems
    wrong = [stem for stem in stems if stem not in source.stems] if isinstance(source, ModelSource) else []
    if wrong:
        raise InputError(f"the stem {wrong[0]!r} cannot be scored; the model gives {', '.join(source.stems)}")
    if not stems or len(set(stems)) < len(stems):
        raise InputError(f"stems={list(stems)} is not allowed; give at least one, each only once")
    return tuple(stems)
