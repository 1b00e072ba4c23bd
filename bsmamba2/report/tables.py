"""The tables of a stem: scores over tracks, published scores and scores by track."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bsmamba2.evaluation.results import ESTIMATE, SCALE_ROWS, TrackResult
from bsmamba2.evaluation.scores import MUSEVAL_SCORES, SPEECH_SCORES, TRACK_SCORES
from bsmamba2.evaluation.statistics import Summary, count_windows, windows_by_track
from bsmamba2.evaluation.training_songs import NEW_ARTISTS_ROW, of_new_artists
from bsmamba2.report import published
from bsmamba2.report.comparison import incomparable
from bsmamba2.report.facts import ReportedRun
from bsmamba2.report.plots import Series

MAIN_SCORES = ("csdr", "usdr")
# The columns of the main table after cSDR and uSDR.
OTHER_SCORES = ("si_sdr", *SPEECH_SCORES, "bleedless", "fullness", *MUSEVAL_SCORES)
LineKind = Literal["estimate", "new", "chunks", "scale"]
# Plots of tracks over time, of all stems: each takes some 50 kB of the page.
MOST_TIMELINES = 40
# Lines of the table by track that are shown at once.
ROWS_ON_PAGE = 100
TRACK_SCORES_OF_SEVERAL = ("csdr", "usdr", "leakage_dbfs", "false_mute")


@dataclass(frozen=True)
class Line:
    """A line of the tables over tracks: one row of one run.

    Args:
        run: The run.
        row: Its row.
        kind: The estimates, those of artists that the model was not trained on, the model with chunks of a different
            length, or a floor or oracle.
        label: Its name in the tables.
        series: How it is labelled and drawn in plots.
        summaries: Summaries by score.
        tracks: Number of tracks that have the row.
        windows: Number of defined one-second windows, and of all.
        first: Whether it is the first of its kind.
    """

    run: ReportedRun
    row: str
    kind: LineKind
    label: str
    series: Series
    summaries: Mapping[str, Summary]
    tracks: int
    windows: tuple[int, int]
    first: bool = False


@dataclass(frozen=True)
class UndefinedScore:
    """Tracks without a defined score.

    Args:
        run: The run.
        score: The score.
        tracks: Names of the tracks.
    """

    run: ReportedRun
    score: str
    tracks: tuple[str, ...]


@dataclass(frozen=True)
class System:
    """A line of the table of published scores.

    Args:
        name: Name of the system.
        csdr: cSDR in dB.
        usdr: uSDR in dB, or None.
        run: The run it was measured in; None if it was published.
    """

    name: str
    csdr: float
    usdr: float | None = None
    run: ReportedRun | None = None


@dataclass(frozen=True)
class TrackRow:
    """A line of the table by track.

    Args:
        name: Artist and title.
        anchor: Address of its timeline in the page; empty if it is not drawn.
        seconds: Length in seconds.
        active: Percentage of the track in which the stem is active; NaN if that is unknown.
        values: Scores by column.
        windows: Number of defined windows and of all by run; None for a run without the track.
    """

    name: str
    anchor: str
    seconds: float
    active: float
    values: tuple[float, ...]
    windows: tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class TrackTable:
    """The table by track.

    Args:
        columns: Run and score by column.
        runs: The runs.
        rows: Its lines.
        notes: Run, track and text of notes.
        failures: Run, track and reason of failures.
    """

    columns: tuple[tuple[ReportedRun, str], ...]
    runs: tuple[ReportedRun, ...]
    rows: tuple[TrackRow, ...]
    notes: tuple[tuple[ReportedRun, str, str], ...]
    failures: tuple[tuple[ReportedRun, str, str], ...]


def table_lines(runs: Sequence[ReportedRun], stem: str) -> list[Line]:
    """Returns the lines of a stem: estimates, chunks, then floors and oracles once for all comparable runs."""
    estimates: list[Line] = []
    chunks: list[Line] = []
    # By row, runs with different floors and oracles, each with the letters of all runs that have the same.
    scale: dict[str, list[tuple[ReportedRun, list[str]]]] = {row: [] for row in SCALE_ROWS}
    for run in runs:
        for row in run.results.rows(stem):
            if row == ESTIMATE:
                label = run.name if run.letter else row
                estimates.append(_line(run, stem, row, "estimate", label, run.series(row)))
            elif row not in scale:
                chunks.append(_line(run, stem, row, "chunks", row, run.series(row)))
            else:
                same = next((letters for other, letters in scale[row] if not incomparable(other, run)), None)
                if same is None:
                    scale[row].append((run, [run.letter]))
                else:
                    same.append(run.letter)
    floors_and_oracles = []
    for row, found in scale.items():
        for run, letters in found:
            label = f"{row} ({', '.join(letters)})" if len(found) > 1 else row
            floors_and_oracles.append(_line(run, stem, row, "scale", label, Series(label)))
    # The rows of one run stay together.
    floors_and_oracles.sort(key=lambda line: line.run.number)
    return [
        replace(line, first=number == 0)
        for kind in (estimates, chunks, floors_and_oracles)
        for number, line in enumerate(kind)
    ]


def with_new_artists(lines: Sequence[Line], stem: str) -> list[Line]:
    """Returns lines and, after the estimates of a model that was trained on some tracks, those without these tracks."""
    found = []
    for line in lines:
        found.append(line)
        left = of_new_artists(line.run.results) if line.kind == "estimate" else None
        if left is not None and line.row in left.rows(stem):
            found.append(_line(replace(line.run, results=left), stem, line.row, "new", NEW_ARTISTS_ROW, line.series))
    return found


def undefined_scores(runs: Sequence[ReportedRun], stem: str) -> list[UndefinedScore]:
    """Returns which tracks have no cSDR or uSDR, or lack another score of the main table that their run has."""
    found = [
        UndefinedScore(
            run, score, tuple(sorted(name for name, value in run.estimates(stem, score).items() if math.isnan(value)))
        )
        for run in runs
        for score in (*MAIN_SCORES, *OTHER_SCORES)
        if score in MAIN_SCORES or score in run.summaries[stem].get(ESTIMATE, {})
    ]
    return [undefined for undefined in found if undefined.tracks]


def fits_published(run: ReportedRun) -> bool:
    """Returns whether a run scored the tracks that published scores are of."""
    return run.split == published.SPLIT and len(run.results.tracks) == published.TEST_TRACKS


def published_systems(runs: Sequence[ReportedRun], stem: str) -> list[System]:
    """Returns published systems and the runs that scored the same tracks, by rising cSDR."""
    systems = [System(system.name, system.csdr, system.usdr) for system in published.PUBLISHED_SCORES]
    for run in filter(fits_published, runs):
        summaries = run.summaries[stem].get(ESTIMATE, {})
        if all(score in summaries for score in MAIN_SCORES):
            systems.append(System(run.name, summaries["csdr"].median, summaries["usdr"].median, run))
    return sorted(systems, key=lambda system: system.csdr)


def track_table(runs: Sequence[ReportedRun], stem: str, stem_anchor: str) -> TrackTable:
    """Returns the table by track of a stem; `stem_anchor` is the stem's address in the page."""
    columns = tuple(
        (run, score)
        for score in (TRACK_SCORES_OF_SEVERAL if len(runs) > 1 else TRACK_SCORES)
        for run in runs
        if any(not math.isnan(value) for value in run.estimates(stem, score).values())
    )
    values = [run.estimates(stem, score) for run, score in columns]
    windows = [windows_by_track(run.results, stem) for run in runs]
    drawn = tracks_drawn(runs, stem)
    rows = []
    for place, (name, track) in enumerate(tracks_by_name(runs).items()):
        active = track.activity.get(stem, ())
        rows.append(
            TrackRow(
                name=name,
                anchor=track_anchor(stem_anchor, place) if name in drawn else "",
                seconds=track.seconds,
                active=100 * sum(active) / len(active) if active else math.nan,
                values=tuple(by_track.get(name, math.nan) for by_track in values),
                windows=tuple(count_windows([found[name]]) if name in found else None for found in windows),
            )
        )
    notes = tuple(
        (run, name, note) for run in runs for name, track in sorted(run.results.tracks.items()) for note in track.notes
    )
    failures = tuple((run, name, reason) for run in runs for name, reason in sorted(run.results.failures.items()))
    return TrackTable(columns, tuple(runs), tuple(rows), notes, failures)


def tracks_by_name(runs: Sequence[ReportedRun]) -> dict[str, TrackResult]:
    """Returns the tracks of all runs in alphabetical order, each as in the first run that has it."""
    names = {name for run in runs for name in run.results.tracks}
    return {
        name: next(run.results.tracks[name] for run in runs if name in run.results.tracks)
        for name in sorted(names, key=lambda name: (name.casefold(), name))
    }


def tracks_drawn(runs: Sequence[ReportedRun], stem: str) -> set[str]:
    """Returns the tracks whose scores over time are drawn: all, or those of the first run with the lowest cSDR."""
    names = tracks_by_name(runs)
    stems = {stem for run in runs for stem in run.results.stems}
    if len(names) * len(stems) <= MOST_TIMELINES:
        return set(names)
    csdr = {name: value for name, value in runs[0].estimates(stem, "csdr").items() if not math.isnan(value)}
    return set(sorted(csdr, key=lambda name: (csdr[name], name))[: MOST_TIMELINES // len(stems)])


def track_anchor(stem_anchor: str, place: int) -> str:
    """Returns the address in the page of the timeline of a track, by its place in alphabetical order."""
    return f"{stem_anchor}-track-{place + 1}"


def _line(run: ReportedRun, stem: str, row: str, kind: LineKind, label: str, series: Series) -> Line:
    tracks = sum(row in track.scores.get(stem, {}) for track in run.results.tracks.values())
    return Line(run, row, kind, label, series, run.summaries[stem][row], tracks, run.windows(stem, row))
