"""What is shown of a song while it is separated, and the data of its player afterwards."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from bsmamba2.audio.reading import AudioInfo
from bsmamba2.audio.tags import Tags
from bsmamba2.player.drawing import Peaks
from bsmamba2.player.page import SongPage, WriteSong, page_writer
from bsmamba2.separation.stems import StemPage, Subtracted

# A waveform that grows has this width for songs of any length, and is drawn for the first stems only.
GROWING_COLUMNS = 600
MOST_GROWING_STEMS = 6

# Takes the waveforms so far by stem, and how many columns the whole song has.
ShowPeaks = Callable[[Mapping[str, bytes], int], None]


@dataclass(frozen=True)
class LivePage(StemPage):
    """The data of the player of a song; while it is separated, its waveforms are shown.

    Args:
        show: Takes the waveforms after each part.
        addresses: Address of each stem file for the player.
        start_seconds: Where the stems begin in the song.
        also: A page to write too, as the command line does; None for none.
    """

    show: ShowPeaks = lambda peaks, columns: None
    addresses: Callable[[str], str] = str
    start_seconds: float = 0.0
    also: StemPage | None = None

    @contextlib.contextmanager
    def writer(self, path: Path, tags: Tags, subtracted: Subtracted, info: AudioInfo) -> Iterator[WriteSong]:
        """Gives what writes it."""
        stretch = max(1, math.ceil(info.length / GROWING_COLUMNS))
        columns = math.ceil(info.length / stretch)
        growing = {name: Peaks(stretch) for name in list(subtracted)[:MOST_GROWING_STEMS]}
        drawn = dict.fromkeys(growing, b"")
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(self._data_writer(path, tags, subtracted, info))]
            if self.also is not None:
                writers.append(stack.enter_context(self.also.writer(self.also.path, tags, subtracted, info)))

            def write(mixture: Tensor, stems: Mapping[str, Tensor]) -> None:
                for each in writers:
                    each(mixture, stems)
                for name, peaks in growing.items():
                    drawn[name] += peaks(stems[name])
                self.show(dict(drawn), columns)

            yield write

    def shown(self, tags: Tags, subtracted: Subtracted) -> SongPage:
        """Returns what the player shows."""
        links = {name: self.addresses(name) for name in subtracted}
        return replace(super().shown(tags, subtracted), links=links, start_seconds=self.start_seconds)

    def _data_writer(
        self, path: Path, tags: Tags, subtracted: Subtracted, info: AudioInfo
    ) -> contextlib.AbstractContextManager[WriteSong]:
        return page_writer(path, self.shown(tags, subtracted), info.sample_rate, info.channels, info.length)
