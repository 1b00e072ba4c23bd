"""Several models that separate the same song together: their estimates are combined into one of each stem."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bsmamba2.audio.sample_queue import SampleQueue
from bsmamba2.errors import InputError
from bsmamba2.separation.settings import Combination
from bsmamba2.separation.song_separator import Gives, SongSeparator
from bsmamba2.separation.spectral_choice import SpectralChoice


@dataclass(frozen=True)
class CommonStems:
    """What each of several models gives, as an estimate or as the song without its estimates.

    Attributes:
        stems: The common stems that the first model estimates; also those that it only gives as a difference, if that
            is not the song without other common stems.
        differences: The other common stems, each with those that the song is without.
        channels: The largest number of channels that all models take.
    """

    stems: tuple[str, ...]
    differences: Mapping[str, tuple[str, ...]]
    channels: int

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
        return cls(stems, differences, min(gives.channels for _, gives in models))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The stems, and what the song is without all of them if that is common too."""
        return (*self.stems, *(name for name, parts in self.differences.items() if set(parts) == set(self.stems)))


def stems_of_each(models: Sequence[tuple[str, Gives]]) -> str:
    """Returns a clause with the stems that each model gives, from the names of the models and what they give."""
    return ", and ".join(f"{name} gives {', '.join([*gives.stems, *gives.differences])}" for name, gives in models)


class Ensemble(SongSeparator):
    """Separates with several models, which may have any segments and sampling rates, and combines their estimates.

    A stem that a model does not estimate is the song without the stems that it does. All networks are on their devices
    at the same time; apart from that, memory does not depend on the length of the song.

    Args:
        separators: The models.
        combination: How estimates are combined: the mean of their samples, or in each bin of their spectra the one with
            the largest or smallest magnitude.

    Attributes:
        separators: The models.
        combination: How estimates are combined.

    Raises:
        InputError: The models have no stem in common.
    """

    def __init__(self, separators: Sequence[SongSeparator], combination: Combination = "mean") -> None:
        self.separators = tuple(separators)
        self.combination = combination
        self._gives = CommonStems.of(
            [(f"number {number}", separator.gives) for number, separator in enumerate(separators, 1)]
        )

    @property
    def gives(self) -> CommonStems:
        """The stems that all models give."""
        return self._gives

    def stream(self, blocks: Iterable[Tensor], sample_rate: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Yields parts of a mixture with their estimates; see `SongSeparator.stream`."""
        feeds = _feeds(blocks, len(self.separators))
        streams = [one.stream(feed, sample_rate) for one, feed in zip(self.separators, feeds, strict=True)]
        # Models give their estimates in parts of different lengths.
        mixture, waiting = SampleQueue(), [SampleQueue() for _ in streams]
        choice: SpectralChoice | None = None

        def with_mixture(estimates: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return mixture.take(estimates.shape[-1]), dict(zip(self.gives.stems, estimates, strict=True))

        while True:
            # The model that has given least continues, so that none waits long for another.
            behind = min(range(len(streams)), key=lambda number: waiting[number].appended)
            following = next(streams[behind], None)
            if following is None:
                break
            part, estimates = following
            waiting[behind].append(self._stems(self.separators[behind].gives, part, estimates))
            if behind == 0:
                mixture.append(part)
            length = min(map(len, waiting))
            if length:
                together = torch.stack([queue.take(length) for queue in waiting])
                if self.combination == "mean":
                    combined = together.mean(0)
                else:
                    choice = choice or SpectralChoice(self.combination, sample_rate)
                    combined = choice(together)
                if combined.shape[-1]:
                    yield with_mixture(combined)
        if choice is not None:
            yield with_mixture(choice.finish())

    def _stems(self, gives: Gives, part: Tensor, estimates: Mapping[str, Tensor]) -> Tensor:
        """Returns the common stems (s, c, m) of a part (c, m) of the mixture from the estimates of one model."""
        return torch.stack(
            [
                part - torch.stack([estimates[other] for other in gives.differences[stem]]).sum(0)
                if stem in gives.differences
                else estimates[stem]
                for stem in self.gives.stems
            ]
        )


def _feeds(blocks: Iterable[Tensor], count: int) -> list[Iterator[Tensor]]:
    """Returns iterators over the same blocks; each block is kept only until all of them have given it."""
    source = iter(blocks)
    waiting: list[deque[Tensor]] = [deque() for _ in range(count)]

    def feed(own: deque[Tensor]) -> Iterator[Tensor]:
        while True:
            if not own:
                block = next(source, None)
                if block is None:
                    return
                for queue in waiting:
                    queue.append(block)
            yield own.popleft()

    return [feed(queue) for queue in waiting]
