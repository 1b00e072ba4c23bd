"""Results as tables for a terminal."""

import math
from collections.abc import Iterable, Mapping, Sequence

from bsmamba2.evaluation.results import ESTIMATE, Results
from bsmamba2.evaluation.scores import (
    ACTIVITY_SCORES,
    MUSEVAL_SCORES,
    SCORES,
    SPARSE_SCORES,
    SPEECH_SCORES,
    TRACK_SCORES,
)
from bsmamba2.evaluation.statistics import Summary, count_windows, summarise_results, windows_by_track
from bsmamba2.evaluation.training_songs import NEW_ARTISTS_ROW, of_new_artists, training_warnings
from bsmamba2.printable import printable
from bsmamba2.text_table import text_table


def results_table(results: Results) -> str:
    """Returns the scores by track and over tracks; a dash is an undefined score.

    The column of windows shows how many windows of the cSDR are defined, out of all. Tracks that the model was trained
    on are marked and listed.
    """
    summaries = summarise_results(results)
    settings = results.description["settings"]
    blocks = []
    for stem in results.stems:
        count = len(results.tracks)
        blocks += [
            printable(f"{stem}, protocol {settings['protocol']}, {count} tracks"),
            _by_track(results, stem),
            _over_tracks(results, stem, summaries[stem]),
            _medians("sparse regions, median over tracks", (*SPARSE_SCORES, *ACTIVITY_SCORES), summaries[stem]),
        ]
        if any(score in scores for scores in summaries[stem].values() for score in SPEECH_SCORES):
            columns = ("si_sdr", *SPEECH_SCORES)
            blocks.append(_medians("speech, median over tracks", columns, summaries[stem]))
        if any(score in summaries[stem].get(ESTIMATE, {}) for score in MUSEVAL_SCORES):
            only = {ESTIMATE: summaries[stem][ESTIMATE]}
            heading = "museval, scored stems and everything else as sources, median over tracks"
            blocks.append(f"{heading}\n{_medians('', MUSEVAL_SCORES, only)}")
    blocks += [printable(f"warning: {warning}") for warning in training_warnings(results.tracks)]
    notes = [printable(f"note: {track.name}: {note}") for track in results.tracks.values() for note in track.notes]
    failures = [printable(f"failed: {name}: {reason}") for name, reason in results.failures.items()]
    speed = results.description["time"]["seconds_per_second_of_audio"]
    if speed is not None and math.isfinite(speed):
        notes.append(f"{speed:.3g} s of computing per second of audio")
    return "\n\n".join([*blocks, *(["\n".join(notes + failures)] if notes or failures else [])])


def _by_track(results: Results, stem: str) -> str:
    tracks = results.tracks
    marked = any(track.trained_on for track in tracks.values())
    rows = [["track", *map(_heading, TRACK_SCORES), "windows", *(["trained on"] if marked else [])]]
    for name, track in tracks.items():
        scores = track.scores[stem][ESTIMATE]
        mark = [track.trained_on or ""] if marked else []
        rows.append([name, *(_number(scores[score]) for score in TRACK_SCORES), _windows([scores.windows]), *mark])
    return text_table(rows)


def _over_tracks(results: Results, stem: str, summaries: Mapping[str, Mapping[str, Summary]]) -> str:
    heading = "over tracks, median [95 % interval]"
    rows = [[heading, "cSDR dB", "", "mean", "uSDR dB", "", "mean", "undefined cSDR, uSDR", "windows"]]
    left = of_new_artists(results)
    for row, scores in summaries.items():
        rows.append([row, *_of_row(results, stem, row, scores)])
        if left and row == ESTIMATE:
            rows.append([NEW_ARTISTS_ROW, *_of_row(left, stem, row, summarise_results(left)[stem][row])])
    return text_table(rows)


def _of_row(results: Results, stem: str, row: str, scores: Mapping[str, Summary]) -> list[str]:
    csdr = scores.get("csdr")
    undefined = ", ".join(str(scores[score].undefined) if score in scores else "all" for score in ("csdr", "usdr"))
    windows = _windows(windows_by_track(results, stem, row).values())
    return [*_summary(csdr), *_summary(scores.get("usdr")), undefined, windows]


def _summary(summary: Summary | None) -> tuple[str, str, str]:
    """Returns median, interval and mean."""
    if summary is None:
        return "-", "", "-"
    interval = "" if math.isnan(summary.low) else f"[{_number(summary.low)}, {_number(summary.high)}]"
    return _number(summary.median), interval, _number(summary.mean)


def _medians(title: str, names: tuple[str, ...], summaries: Mapping[str, Mapping[str, Summary]]) -> str:
    shown = [score for score in names if any(score in scores for scores in summaries.values())]
    if not shown:
        return f"{title}: none in these tracks"
    rows = [[title, *map(_heading, shown)]]
    for row, scores in summaries.items():
        rows.append([row, *(_number(scores[score].median) if score in scores else "-" for score in shown)])
    return text_table(rows)


def _heading(score: str) -> str:
    return f"{SCORES[score].label} {SCORES[score].unit}".strip()


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _windows(windows: Iterable[Sequence[float]]) -> str:
    defined, every = count_windows(windows)
    return f"{defined} of {every}"
