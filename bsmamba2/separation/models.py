"""The models of a command: one, or several that separate together."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bsmamba2.model import ModelConfig, Network
from bsmamba2.separation.common_stems import Gives, given_by
from bsmamba2.separation.ensemble import Ensemble
from bsmamba2.separation.separator import Separator
from bsmamba2.separation.settings import Combination, SeparationSettings
from bsmamba2.separation.song_separator import SongSeparator
from bsmamba2.weights.checkpoint import WeightsFile
from bsmamba2.weights.registry import ModelNames, check_models_exist

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedModels:
    """Models in memory.

    Args:
        names: Their names as given.
        files: Their files.
        networks: Their networks, with the mask heads that are needed.
        combination: How the estimates of several models are combined.
    """

    names: tuple[str, ...]
    files: tuple[WeightsFile, ...] = field(repr=False)
    networks: tuple[Network, ...] = field(repr=False)
    combination: Combination

    @property
    def gives(self) -> Gives:
        """The stems that they give together."""
        return given_by(self.names, [network.config for network in self.networks])

    def check(self, settings: SeparationSettings) -> None:
        """Checks settings for each network; raises as `SeparationSettings.check_for`."""
        for network in self.networks:
            settings.check_for(network)

    def separator(self, settings: SeparationSettings, device: str) -> SongSeparator:
        """Returns what separates with all of them on a device, and logs how."""
        separators = [Separator(network, settings, device=device) for network in self.networks]
        for separator in separators:
            log.info(
                "%s · segments %g s, %d in a pass · overlap %g %%",
                *(separator.precision, separator.segment_seconds, separator.batch_size, 100 * settings.overlap),
            )
        if len(separators) == 1:
            return separators[0]
        log.info("%s of %d models", self.combination, len(separators))
        return Ensemble(separators, self.combination)


def load_models(
    models: ModelNames,
    ensemble: Combination | None = None,
    estimated: Callable[[Gives], Sequence[str]] = lambda gives: gives.stems,
    stems: Sequence[str] | None = None,
    hop_length: int | None = None,
) -> LoadedModels:
    """Returns the networks of models with only the mask heads that are needed.

    Args:
        models: Names of published models or files.
        ensemble: How the estimates of several models are combined, by default their mean.
        estimated: Returns which of the stems that the models give are estimated; by default all.
        stems: The stems that are asked for; see `WeightsFile.fields_of`.
        hop_length: Distance between frames in samples, for files that do not contain it.

    Raises:
        InputError: A model cannot be used, the models have no stem in common or not those that are asked for, or one
            model is to be combined.
    """
    names = check_models_exist(models, ensemble)
    files = [WeightsFile.find(name) for name in names]
    fields = [file.fields_of(stems, hop_length) for file in files]
    configs = [file.architecture(**given) for file, given in zip(files, fields, strict=True)]
    gives = given_by(names, configs, stems)
    heads: dict[str, Any] = {"part": partial(ModelConfig.only, names=estimated(gives))}
    networks = [file.network(**heads, **given) for file, given in zip(files, fields, strict=True)]
    return LoadedModels(tuple(names), tuple(files), tuple(networks), ensemble or "mean")
