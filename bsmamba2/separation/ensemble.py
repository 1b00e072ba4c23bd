"""Several models that separate the same song together: their estimates are combined into one of each stem."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from bsmamba2.audio.sample_queue import SampleQueue
from bsmamba2.separation.common_stems import CommonStems, Gives
from bsmamba2.separation.settings import Combination
from bsmamba2.separation.song_separator import SongSeparator, without
from bsmamba2.separation.spectral_choice import SpectralChoice


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
                without(part, (estimates[other] for other in gives.differences[stem]))
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
