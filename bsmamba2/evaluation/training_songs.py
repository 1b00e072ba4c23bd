"""Songs that a model was trained on among those it is scored on: found by their names, and what their scores mean."""

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bsmamba2.data.tracks import track_artist
from bsmamba2.evaluation.results import Results, TrackResult, TrainedOn

# The row of the estimates without the songs of artists that the model was trained on.
NEW_ARTISTS_ROW = "new artists only"
# More names would not be read; each row of the tables has its mark.
MOST_NAMED = 10


@dataclass(frozen=True)
class TrainingSongs:
    """The songs that a model was trained on, as far as they are known.

    Names are compared in one form of Unicode, without regard to case and to repeated spaces: file systems and archives
    change all of them.

    Attributes:
        songs: Names of the songs in the form in which they are compared.
        artists: Names of their artists in the same form.
    """

    songs: frozenset[str]
    artists: frozenset[str]

    @classmethod
    def named(cls, names: Iterable[str]) -> "TrainingSongs":
        """Returns the songs with some names, each of artist and title."""
        names = list(names)
        return cls(frozenset(map(_compared, names)), frozenset(map(_artist, names)))

    def match(self, name: str) -> TrainedOn | None:
        """Returns whether a song is among them, or only its artist; None if neither is."""
        if _compared(name) in self.songs:
            return "song"
        artist = _artist(name)
        return "artist" if artist and artist in self.artists else None


def training_warnings(tracks: Mapping[str, TrackResult]) -> list[str]:
    """Returns sentences about the tracks that a model was trained on; none if it is known of no track."""
    names: dict[TrainedOn, list[str]] = {"song": [], "artist": []}
    for name, track in tracks.items():
        if track.trained_on:
            names[track.trained_on].append(name)
    songs, by_artists = names["song"], names["artist"]
    of = f"of {len(tracks)} {'song' if len(tracks) == 1 else 'songs'}"
    warnings = []
    if songs:
        were, their = ("was", "its") if len(songs) == 1 else ("were", "their")
        warnings.append(
            f"{len(songs)} {of} {were} in the model's training data, so {their} scores do not show how the model "
            f"separates new music{_listed(songs, len(tracks))}."
        )
    if by_artists:
        are, their = ("is by an artist", "its") if len(by_artists) == 1 else ("are by artists", "their")
        warnings.append(
            f"{len(by_artists)} {of} {are} with other songs in the model's training data, so {their} scores may be "
            f"higher than for new artists{_listed(by_artists, len(tracks))}."
        )
    count = len(songs) + len(by_artists)
    if 0 < count < len(tracks):
        warnings.append(f'The row "{NEW_ARTISTS_ROW}" is without {"this song" if count == 1 else "these songs"}.')
    return warnings


def of_new_artists(results: Results) -> Results | None:
    """Returns results without the tracks of artists that the model was trained on; None if these are none or all."""
    tracks = {name: track for name, track in results.tracks.items() if track.trained_on is None}
    return replace(results, tracks=tracks) if 0 < len(tracks) < len(results.tracks) else None


def _listed(names: list[str], tracks: int) -> str:
    """Returns names to end a sentence with; none if they are those of all tracks."""
    if len(names) == tracks > 1:
        return ""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f": {'; '.join(names[:MOST_NAMED])}{more}"


def _compared(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name.casefold()).split())


def _artist(name: str) -> str:
    # The compared form can contain separators of paths, so it comes last.
    return _compared(track_artist(Path(name)))
