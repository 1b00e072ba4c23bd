"""The excerpts of a stem to look at and listen to."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bsmamba2.errors import InputError
from bsmamba2.player.song_data import PlayerSong, PlayerSound
from bsmamba2.report.comparison import incomparable
from bsmamba2.report.facts import ReportedRun
from bsmamba2.report.sounds import (
    ESTIMATE_SOUND,
    REFERENCE,
    RESIDUAL_SOUND,
    Excerpt,
    has_excerpt,
    read_excerpt,
    record,
)
from bsmamba2.report.tables import MAIN_SCORES
from bsmamba2.stem_names import MIXTURE

SOUNDS_OF_RUN = (ESTIMATE_SOUND, RESIDUAL_SOUND)
SOUNDS_OF_FIRST = (MIXTURE, REFERENCE, *SOUNDS_OF_RUN)


@dataclass(frozen=True)
class ShownExcerpt:
    """The excerpt of a track in all runs that kept the same seconds.

    Args:
        start: Its start in the track, in seconds.
        end: Its end, in seconds.
        song: What the player reads: mixture and reference, then estimate and residual of each run, as JSON.
    """

    start: float
    end: float
    song: str


@dataclass(frozen=True)
class ShownTrack:
    """A track of which an excerpt is shown.

    Args:
        name: Artist and title.
        rank: Its rank by score: worst, median or best.
        candidates: Number of tracks with an excerpt, among which it was chosen.
        values: Scores of the first run by their names.
        excerpt: The excerpt; None if its files are damaged.
        notes: Runs with remarks on their excerpts.
    """

    name: str
    rank: str
    candidates: int
    values: Mapping[str, float]
    excerpt: ShownExcerpt | None
    notes: tuple[tuple[ReportedRun, str], ...]


def shown_tracks(runs: Sequence[ReportedRun], stem: str, audio: bool) -> list[ShownTrack]:
    """Returns excerpts of the worst, the median and the best track of the first run.

    Args:
        runs: The runs, of which the first one ranks the tracks by cSDR, or by uSDR if that is undefined.
        stem: The stem.
        audio: Whether there are players besides the spectrograms.
    """
    first = runs[0]
    csdr, usdr = first.estimates(stem, "csdr"), first.estimates(stem, "usdr")
    values = {name: usdr[name] if math.isnan(csdr[name]) else csdr[name] for name in csdr}
    kept = [name for name in values if has_excerpt(first.folder, first.results.tracks[name], stem)]
    ranked = sorted((name for name in kept if not math.isnan(values[name])), key=lambda name: (values[name], name))
    ranked = ranked or sorted(kept)[:1]
    if not ranked:
        return []
    ranks: dict[str, list[str]] = {}
    for rank, place in (("worst", 0), ("median", (len(ranked) - 1) // 2), ("best", -1)):
        ranks.setdefault(ranked[place], []).append(rank)
    found = []
    for name, names in ranks.items():
        excerpt, notes = _shown_excerpt(runs, stem, name, audio)
        rank = "the only track" if len(ranked) == 1 else " and ".join(names)
        scores = {score: first.estimates(stem, score)[name] for score in MAIN_SCORES}
        found.append(ShownTrack(name, rank, len(kept), scores, excerpt, notes))
    return found


def lost_excerpts(run: ReportedRun, stem: str) -> list[str]:
    """Returns the tracks whose excerpts were kept but have no files any more."""
    return [
        name
        for name, track in sorted(run.results.tracks.items())
        if track.excerpt is not None and not has_excerpt(run.folder, track, stem)
    ]


def _shown_excerpt(
    runs: Sequence[ReportedRun], stem: str, name: str, audio: bool
) -> tuple[ShownExcerpt | None, tuple[tuple[ReportedRun, str], ...]]:
    """Returns the excerpt of a track, None if that of the first run is damaged, and notes on those of some runs."""
    first = runs[0]
    shown: Excerpt | None = None
    sounds: list[PlayerSound] = []
    notes: list[tuple[ReportedRun, str]] = []
    with contextlib.ExitStack() as stack:
        for run in runs:
            track = run.results.tracks.get(name)
            if incomparable(first, run) or track is None or not has_excerpt(run.folder, track, stem):
                notes.append((run, "kept no excerpt of the same seconds of the same audio."))
                continue
            try:
                excerpt = read_excerpt(run.folder, track, stem)
            except (InputError, OSError):
                notes.append((run, "has an excerpt that is damaged and cannot be shown; evaluate again."))
                if run is first:
                    break
                continue
            shown = shown or excerpt
            if (excerpt.start, excerpt.end, excerpt.sample_rate) != (shown.start, shown.end, shown.sample_rate):
                notes.append((run, "kept no excerpt of the same seconds of the same audio."))
                continue
            if excerpt.gain_db < 0:
                notes.append((run, f"has its excerpt turned down by {-excerpt.gain_db:.1f} dB to prevent clipping."))
            badge = (run.letter, run.css_class) if run.letter else None
            for kind in SOUNDS_OF_FIRST if run is first else SOUNDS_OF_RUN:
                recording = stack.enter_context(contextlib.closing(record(excerpt, kind, audio)))
                of_run = badge if kind in SOUNDS_OF_RUN else None
                sounds.append(PlayerSound(kind, recording, is_mixture=kind == MIXTURE, badge=of_run))
        if shown is None:
            return None, tuple(notes)
        song = "".join(PlayerSong(name, sounds, "one", shown.start).json())
    return ShownExcerpt(shown.start, shown.end, song), tuple(notes)
