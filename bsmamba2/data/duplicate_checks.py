"""Tracks and stems that a dataset contains twice."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence

from bsmamba2.data.findings import CheckedTrack, Problem
from bsmamba2.stem_names import MIXTURE


def repeated_names(tracks: Sequence[CheckedTrack]) -> Iterator[Problem]:
    """Yields the problems of tracks with the name of an earlier one, ignoring case and Unicode form."""
    named: dict[str, CheckedTrack] = {}
    for track in tracks:
        first = named.setdefault(unicodedata.normalize("NFC", track.name).casefold(), track)
        if first is not track:
            yield track.problem("error", f"has the same name as the track {first.place}; keep one")


def repeated_audio(tracks: Sequence[CheckedTrack]) -> Iterator[Problem]:
    """Yields the problems of tracks and stems with the audio of an earlier one; silence does not count.

    The mixture of a track may be the same as its only stem.
    """
    owners: dict[str, tuple[CheckedTrack, str]] = {}
    for track in tracks:
        same: dict[str, list[str]] = defaultdict(list)
        for name, activity in track.activities.items():
            if name in track.silent:
                continue
            owner, stem = owners.setdefault(activity.hash, (track, name))
            if owner is not track:
                same[owner.place].append(name)
            elif stem != name and MIXTURE not in (stem, name):
                yield track.problem("error", f"is the same audio as its stem {stem}", name)
        for place, names in same.items():
            yield track.problem("error", f"has the same audio as {place} ({', '.join(names)}); keep one")
