"""The sources of the estimates that are scored: a model, or a folder written by another tool."""

import functools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.evaluation.estimates import estimates_sha256, read_estimates, stems_in
from bsmamba2.evaluation.results import ESTIMATE, TrainedOn, chunk_row
from bsmamba2.evaluation.scoring import check_protocol, computed_stems
from bsmamba2.evaluation.settings import ScoringSettings, SourceSettings
from bsmamba2.evaluation.songs import Song
from bsmamba2.evaluation.training_songs import TrainingSongs
from bsmamba2.separation.common_stems import Gives
from bsmamba2.separation.models import LoadedModels, load_models
from bsmamba2.separation.separator import precision_on
from bsmamba2.separation.settings import SeparationSettings
from bsmamba2.separation.song_separator import SongSeparator, without
from bsmamba2.stem_names import INSTRUMENTAL, VOCALS
from bsmamba2.system.devices import choose_device
from bsmamba2.system.files import sha256_of
from bsmamba2.weights.registry import ModelNames

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimated:
    """The estimates of a song.

    Args:
        estimates: Audio (c, n) by stem.
        computing_seconds: Time they took; NaN if nothing was computed.
        notes: What had to be adjusted.
        further: Further rows of the results, each with its audio by stem, computed one by one when they are asked for.
    """

    estimates: Mapping[str, Tensor]
    computing_seconds: float = math.nan
    notes: tuple[str, ...] = ()
    further: Iterable[tuple[str, Mapping[str, Tensor]]] = ()

    @property
    def rows(self) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """The rows of the results, each with its audio by stem; this can be read once."""
        yield ESTIMATE, self.estimates
        yield from self.further


Estimate = Callable[[Song, Sequence[str]], Estimated]


class Source(Protocol):
    """Gives estimates of songs."""

    @property
    def identity(self) -> dict[str, Any]:
        """What its estimates depend on besides the track and `sha256`."""

    @property
    def description(self) -> dict[str, dict[str, Any]]:
        """A description of it in sections, to show."""

    def sha256(self, track: str) -> str:
        """Returns a hash of what its estimates of one track depend on besides the track."""

    def trained_on(self, track: str) -> TrainedOn | None:
        """Returns whether it was trained on a track or on others of its artist; None if neither is known."""

    def on(self, device: str) -> Estimate:
        """Returns the function that separates songs into stems on a device."""


@dataclass(frozen=True)
class ModelSource:
    """A model or an ensemble, and how it separates.

    Args:
        models: Its model or models, perhaps with only some of their mask heads.
        settings: How to separate.
        chunk_seconds: Lengths of segments for further rows.
        hop_length: Distance between frames in samples, if given.

    Raises:
        InputError: The file or an option cannot be used.
    """

    models: LoadedModels
    settings: SeparationSettings = SeparationSettings()
    chunk_seconds: Sequence[float] = ()
    hop_length: int | None = None

    def __post_init__(self) -> None:
        for settings in self._rows.values():
            self.models.check(settings)

    @property
    def _rows(self) -> dict[str, SeparationSettings]:
        """The settings by row of the results."""
        chunks = {chunk_row(s): replace(self.settings, segment_seconds=s) for s in sorted(self.chunk_seconds)}
        return {ESTIMATE: self.settings, **chunks}

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """The hashes of the files of its models, and how it separates."""
        settings, networks = self.settings, self.models.networks
        device = choose_device(settings.device)
        combined = {} if len(networks) == 1 else {"ensemble": self.models.combination}
        return {
            "model": _one_or_all([sha256_of(file.path) for file in self.models.files]),
            **combined,
            **({"hop_length": self.hop_length} if self.hop_length else {}),
            "segment_seconds": settings.segment_seconds
            or _one_or_all([network.config.segment_seconds for network in networks]),
            "chunk_seconds": sorted(self.chunk_seconds),
            "overlap": settings.overlap,
            "device": device.type,
            "precision": precision_on(device, settings.precision),
            "scan": _one_or_all([network.scan_on(device, settings.scan) for network in networks]),
        }

    @property
    def description(self) -> dict[str, dict[str, Any]]:
        """Its models, their architectures, and how it separates."""
        separation = {name: value for name, value in self.identity.items() if name != "device"}
        networks = self.models.networks
        model = {
            "name": _one_or_all(self.models.names),
            "sha256": separation.pop("model"),
            "parameters": sum(parameter.numel() for network in networks for parameter in network.parameters()),
        }
        if self._training_songs.songs:
            model["training_songs"] = len(self._training_songs.songs)
        configs = {"network" if n == 1 else f"network {n}": asdict(one.config) for n, one in enumerate(networks, 1)}
        return {"model": model, "separation": separation, **configs}

    @functools.cached_property
    def _training_songs(self) -> TrainingSongs:
        return TrainingSongs.named(sorted({song for file in self.models.files for song in file.training_songs}))

    def sha256(self, track: str) -> str:
        """Returns nothing: the identity covers everything."""
        return ""

    def trained_on(self, track: str) -> TrainedOn | None:
        """Returns what the files of its models reveal about a track."""
        return self._training_songs.match(track)

    def on(self, device: str) -> Estimate:
        """Returns the function that separates songs on a device."""
        separators = {row: self.models.separator(settings, device) for row, settings in self._rows.items()}

        def estimate(song: Song, stems: Sequence[str]) -> Estimated:
            started = time.monotonic()
            estimates = _separated(separators[ESTIMATE], song, stems)
            seconds = time.monotonic() - started
            further = ((row, _separated(separators[row], song, stems)) for row in separators if row != ESTIMATE)
            return Estimated(estimates, seconds, further=further)

        return estimate


@dataclass(frozen=True)
class FolderSource:
    """Estimates in files; see `bsmamba2.evaluation.estimates`.

    Args:
        folder: The folder that contains them.
    """

    folder: Path

    @functools.cached_property
    def stems(self) -> tuple[str, ...]:
        """The stems that every track has, and the instrumental if vocals are among them.

        Raises:
            InputError: There are none.
        """
        stems = stems_in(self.folder)
        return (*stems, INSTRUMENTAL) if VOCALS in stems and INSTRUMENTAL not in stems else stems

    @property
    def default_stems(self) -> tuple[str, ...]:
        """The stems except the instrumental, unless it is the only one."""
        return tuple(stem for stem in self.stems if stem != INSTRUMENTAL) or self.stems

    @property
    def identity(self) -> dict[str, Any]:
        """The path of the folder."""
        return {"estimates": str(self.folder.resolve())}

    @property
    def description(self) -> dict[str, dict[str, Any]]:
        """The folder."""
        return {"estimates": {"folder": str(self.folder)}}

    def sha256(self, track: str) -> str:
        """Returns the hash of the files of a track."""
        return estimates_sha256(self.folder, track)

    def trained_on(self, track: str) -> TrainedOn | None:
        """Returns None: nothing is known about the tool that wrote the estimates."""
        return None

    def on(self, device: str) -> Estimate:
        """Returns the function that reads the estimates; the device is not used."""

        def estimate(song: Song, stems: Sequence[str]) -> Estimated:
            estimates, notes = read_estimates(self.folder, song, stems)
            return Estimated(estimates, notes=notes)

        return estimate


def _separated(separate: SongSeparator, song: Song, stems: Sequence[str]) -> dict[str, Tensor]:
    """Returns the estimates (c, n) of a song by stem, also of the stems that are the song without others."""
    estimates = separate(song.mixture, song.sample_rate)
    differences = separate.gives.differences
    asked = [stem for stem in stems if stem in differences]
    return estimates | {
        stem: without(song.mixture, (estimates[other] for other in differences[stem])) for stem in asked
    }


def _one_or_all(values: Sequence[Any]) -> Any:
    """Returns the value of one model, or the list of those of several."""
    return values[0] if len(values) == 1 else list(values)


def load_source(
    model: ModelNames,
    settings: SeparationSettings,
    scoring: ScoringSettings,
    source_settings: SourceSettings,
    found: Sequence[str],
) -> tuple[ModelSource, tuple[str, ...]]:
    """Returns a model or an ensemble with only the mask heads that the scores need, and the stems to score.

    Args:
        model: Name or file of the model, or those of several.
        settings: How to separate.
        scoring: How the songs are scored.
        source_settings: What the file of the model does not contain.
        found: The stems that the songs have.

    Raises:
        InputError: The model or an option cannot be used, or it gives none of the stems.
    """
    names: tuple[str, ...] = ()

    def computed(gives: Gives) -> tuple[str, ...]:
        nonlocal names
        available = (*gives.stems, *gives.differences)
        names = chosen_stems(scoring.stems, gives.stems, found, available)
        check_protocol(scoring.protocol, names, available)
        return computed_stems(names, scoring, gives.stems)

    hop_length = source_settings.hop_length
    models = load_models(model, source_settings.ensemble, computed, scoring.stems, hop_length)
    return ModelSource(models, settings, scoring.chunk_seconds or (), hop_length), names


def chosen_stems(
    asked: Sequence[str] | None, given: Sequence[str], found: Sequence[str], available: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Returns the stems to score: those that are asked for, or those given that some song has.

    Args:
        asked: The stems that are asked for.
        given: The stems that are scored by default if the songs have them.
        found: The stems that the songs have.
        available: All stems that can be asked for; None if that differs between songs.

    Raises:
        InputError: One that is asked for is not available or asked for twice, or no song has one of the default ones.
    """
    if asked is None:
        names = tuple(stem for stem in given if stem in found)
        # Songs without any stem are reported one by one.
        if found and not names:
            raise InputError(
                f"the songs have none of the stems {', '.join(given)}, only {', '.join(found)}; rename their files, or "
                "choose with --stems"
            )
        if len(names) < len(given):
            log.info("the songs have %s of the %d stems; only these are scored", ", ".join(names), len(given))
        return names or tuple(given)
    for stem in asked:
        if available is not None and stem not in available:
            raise InputError(f"the stem {stem!r} cannot be scored; the model gives {', '.join(available)}")
    if not asked or len(set(asked)) < len(asked):
        raise InputError(f"stems={list(asked)} is not allowed; give at least one, each only once")
    return tuple(asked)
