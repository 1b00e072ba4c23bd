"""The stems that a model gives, and those that several models give together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bsmamba2.errors import InputError
from bsmamba2.stem_names import RESIDUAL


class Gives(Protocol):
    """The stems that a model or an ensemble gives."""

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems that it estimates."""

    @property
    def differences(self) -> Mapping[str, tuple[str, ...]]:
        """What can be made of the song and the estimates: names, each with the stems that the song is without."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """The stems that are written by default."""

    @property
    def most_channels(self) -> int:
        """The largest number of audio channels that it takes; it also takes one."""


@dataclass(frozen=True)
class CommonStems:
    """What each of several models gives, as an estimate or as the song without its estimates.

    Attributes:
        stems: The common stems that the first model estimates; also those that it only gives as a difference, if that
            is not the song without other common stems.
        differences: The other common stems, each with those that the song is without.
        most_channels: The largest number of channels that all models take.
    """

    stems: tuple[str, ...]
    differences: Mapping[str, tuple[str, ...]]
    most_channels: int

    @classmethod
    def of(cls, models: Sequence[tuple[str, Gives]]) -> "CommonStems":
        """Returns what all models give.

        Args:
            models: Names of the models, and what each gives.

        Raises:
            InputError: They have no stem in common.
        """
        first = models[0][1]
        available = [(*gives.stems, *gives.differences) for _, gives in models]
        common = [stem for stem in available[0] if all(stem in names for names in available)]
        if not common:
            raise InputError(f"the models have no stem in common: {stems_of_each(models)}; choose others")
        differences = {
            stem: first.differences[stem]
            for stem in common
            if stem in first.differences and set(first.differences[stem]) <= set(common)
        }
        stems = tuple(stem for stem in common if stem not in differences)
        return cls(stems, differences, min(gives.most_channels for _, gives in models))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The stems, and what the song is without all of them if that is common too."""
        return (*self.stems, *(name for name, parts in self.differences.items() if set(parts) == set(self.stems)))


def given_by(names: Sequence[str], models: Sequence[Gives], asked: Sequence[str] | None = None) -> Gives:
    """Returns what one or several models give.

    Args:
        names: Names of the models.
        models: What each gives.
        asked: The stems that are asked for.

    Raises:
        InputError: Several models have no stem in common, or not one that is asked for.
    """
    if len(models) == 1:
        return models[0]
    named = list(zip(names, models, strict=True))
    common = CommonStems.of(named)
    available = [*common.stems, *common.differences, RESIDUAL]
    missing = [stem for stem in asked or () if stem not in available]
    if missing:
        raise InputError(
            f"the stem {missing[0]!r} is not common to the models: {stems_of_each(named)}; choose "
            f"{', '.join(available)}, or other models"
        )
    return common


def stems_of_each(models: Sequence[tuple[str, Gives]]) -> str:
    """Returns a clause with the stems that each model gives, from the names of the models and what they give."""
    return ", and ".join(f"{name} gives {', '.join([*gives.stems, *gives.differences])}" for name, gives in models)
