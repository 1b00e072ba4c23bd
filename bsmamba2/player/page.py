"""The page of a separated song: the player and nothing else, in one file that needs no network."""

import contextlib
import html
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.player.recording import Recording
from bsmamba2.player.song_data import PlayerSong, PlayerSound
from bsmamba2.player.source_files import player_script, player_style, source, source_hash
from bsmamba2.stem_names import MIXTURE

# By channels. Two stems in stereo, as text and with what is drawn of them, take less than 2 MB a minute.
BITS_PER_SECOND = {1: 48_000, 2: 80_000}
PAGE_STYLE = """
body { margin: 0 auto; max-width: 160rem; padding: 1.25rem clamp(0.75rem, 2vw, 2rem) 3rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 var(--fonts); overflow-wrap: anywhere; -webkit-text-size-adjust: 100%; }
h1 { margin: 0; font-size: 1.5rem; line-height: 1.25; }
header { margin-bottom: 1rem; }
header p { margin: 0.15rem 0 0; color: var(--muted); }
"""
# For a file with the data of the player, for a page that has the player already.
DATA_SUFFIX = ".json"
# Blocks of samples: the song (c, n), and its stems (c, n) by name.
WriteSong = Callable[[Tensor, Mapping[str, Tensor]], None]


@dataclass(frozen=True)
class SongPage:
    """What a page shows of a song besides its sound.

    Args:
        title: Its name.
        about: Artist and album, or nothing.
        stems: Names of the stems.
        links: Addresses of the stem files relative to the page, if those are played; None to have the sound inside.
        sums: Whether the stems sum to the song; otherwise the song is inside too, to be compared with them.
        start_seconds: Where the stems begin in the song.
    """

    title: str
    about: str
    stems: Sequence[str]
    links: Mapping[str, str] | None
    sums: bool
    start_seconds: float = 0.0


@contextlib.contextmanager
def page_writer(path: Path, page: SongPage, sample_rate: int, channels: int, length: int) -> Iterator[WriteSong]:
    """Gives a function that takes the next samples of a song; the page is written when the context ends.

    Args:
        path: The page, or a file with a different ending for the data of the player alone, as JSON.
        page: What it shows.
        sample_rate: Sampling rate in Hz.
        channels: Number of channels.
        length: Approximate number of samples.

    Raises:
        InputError: There are more than two channels.
    """
    bits_per_second = BITS_PER_SECOND.get(channels)
    if bits_per_second is None:
        raise InputError(f"a page plays one or two channels, and the song has {channels}; leave --page out")
    with contextlib.ExitStack() as stack:
        record = partial(Recording, sample_rate, channels, length / sample_rate, folder=path.parent)
        inside = None if page.links else bits_per_second
        recordings = {name: stack.enter_context(contextlib.closing(record(inside))) for name in page.stems}
        whole = None if page.sums else stack.enter_context(contextlib.closing(record(bits_per_second)))

        def write(mixture: Tensor, stems: Mapping[str, Tensor]) -> None:
            for name, recording in recordings.items():
                recording(stems[name])
            if whole is not None:
                whole(mixture)

        yield write
        sounds = [PlayerSound(name, each, (page.links or {}).get(name)) for name, each in recordings.items()]
        if whole is not None:
            sounds.append(PlayerSound(MIXTURE, whole, is_mixture=True))
        for sound in sounds:
            sound.recording.finish()
        song = PlayerSong(page.title, sounds, start_seconds=page.start_seconds)
        if path.suffix == DATA_SUFFIX:
            with path.open("w", encoding="ascii") as file:
                file.writelines(song.json())
        else:
            _write_page(path, page, song)


def _write_page(path: Path, page: SongPage, song: PlayerSong) -> None:
    script, style = player_script(), player_style() + PAGE_STYLE
    policy = [
        "default-src 'none'",
        f"script-src {source_hash(script)}",
        f"style-src {source_hash(style)}",
        "img-src data:",
        *(["connect-src 'self'"] if page.links else []),
        "base-uri 'none'",
        "form-action 'none'",
    ]
    before, after = (
        string.Template(part).substitute(
            policy="; ".join(policy),
            title=html.escape(page.title),
            about=f"<p>{html.escape(page.about)}</p>\n" if page.about else "",
            style=style,
            script=script,
        )
        for part in source("listen.html").split("$data")
    )
    # Bytes of a file name that are not UTF-8 are lone surrogates, which a page cannot contain.
    with path.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        file.write(before)
        file.writelines(song.json())
        file.write(after)
