"""Results as a table for people at a terminal."""

import math
from collections.abc import Iterable, Mapping, Sequence

from bsmamba2.evaluation.results import ESTIMATE, Results
from bsmamba2.evaluation.scores import ACTIVITY_SCORES, MUSEVAL_SCORES, SCORES, SPARSE_SCORES, TRACK_SCORES
from bsmamba2.evaluation.statistics import Summary, count_windows, summarise_results, windows_by_track

NAME_WIDTH = 40
# Of the table over tracks: median, interval and mean of cSDR and of uSDR, tracks without a cSDR, windows.
WIDTHS = (8, 18, 8, 8, 18, 8, 11, 16)


def results_table(results: Results) -> str:
    """Returns the scores by track and over tracks; a dash is a score that is not defined.

    Windows are those of the cSDR that are defined, of all.
    """
    summaries = summarise_results(results)
    settings = results.description["settings"]
    blocks = []
    for stem in results.stems:
        count = len(results.tracks)
        blocks += [
            f"{printable(stem)}, protocol {settings['protocol']}, {count} tracks",
            _by_track(results, stem),
            _over_tracks(results, stem, summaries[stem]),
            _medians("sparse regions, median over tracks", (*SPARSE_SCORES, *ACTIVITY_SCORES), summaries[stem]),
        ]
        if any(score in summaries[stem].get(ESTIMATE, {}) for score in MUSEVAL_SCORES):
            only = {ESTIMATE: summaries[stem][ESTIMATE]}
            # Longer than a name: a line of its own.
            heading = "museval, scored stems and everything else as sources, median over tracks"
            blocks.append(f"{heading}\n{_medians('', MUSEVAL_SCORES, only)}")
    notes = [printable(f"note: {track.name}: {note}") for track in results.tracks.values() for note in track.notes]
    failures = [printable(f"failed: {name}: {reason}") for name, reason in results.failures.items()]
    speed = results.description["time"]["seconds_per_second_of_audio"]
    if speed is not None and math.isfinite(speed):
        notes.append(f"{speed:.3g} s of computing per second of audio")
    return "\n\n".join([*blocks, *(["\n".join(notes + failures)] if notes or failures else [])])


def printable(text: str) -> str:
    """Returns text with a replacement character for each that would break a line, move the cursor or is no Unicode."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def _by_track(results: Results, stem: str) -> str:
    widths = (*(max(len(_heading(score)) + 2, 8) for score in TRACK_SCORES), WIDTHS[-1])
    lines = [_line("track", [*map(_heading, TRACK_SCORES), "windows"], widths)]
    for name, track in results.tracks.items():
        scores = track.scores[stem][ESTIMATE]
        cells = [_number(getattr(scores, score)) for score in TRACK_SCORES]
        lines.append(_line(name, [*cells, _windows([scores.windows])], widths))
    return "\n".join(lines)


def _over_tracks(results: Results, stem: str, rows: Mapping[str, Mapping[str, Summary]]) -> str:
    lines = [
        _line(
            "over tracks, median [95 % interval]",
            ["cSDR dB", "", "mean", "uSDR dB", "", "mean", "undefined", "windows"],
            WIDTHS,
        )
    ]
    for row, scores in rows.items():
        cells = []
        for score in ("csdr", "usdr"):
            summary = scores.get(score)
            if summary is None:
                cells += ["-", "", "-"]
            else:
                interval = "" if math.isnan(summary.low) else f"[{_number(summary.low)}, {_number(summary.high)}]"
                cells += [_number(summary.median), interval, _number(summary.mean)]
        csdr = scores.get("csdr")
        cells.append(str(csdr.undefined) if csdr else "all")
        cells.append(_windows(windows_by_track(results, stem, row).values()))
        lines.append(_line(row, cells, WIDTHS))
    return "\n".join(lines)


def _medians(title: str, names: tuple[str, ...], rows: Mapping[str, Mapping[str, Summary]]) -> str:
    shown = [score for score in names if any(score in scores for scores in rows.values())]
    if not shown:
        return f"{title}: none in these tracks"
    widths = tuple(max(len(_heading(score)) + 2, 8) for score in shown)
    lines = [_line(title, [_heading(score) for score in shown], widths)]
    for row, scores in rows.items():
        cells = [_number(scores[score].median) if score in scores else "-" for score in shown]
        lines.append(_line(row, cells, widths))
    return "\n".join(lines)


def _heading(score: str) -> str:
    return f"{SCORES[score].label} {SCORES[score].unit}".strip()


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _windows(windows: Iterable[Sequence[float]]) -> str:
    defined, every = count_windows(windows)
    return f"{defined} of {every}"


def _line(name: str, cells: list[str], widths: tuple[int, ...]) -> str:
    name = printable(name)
    shown = name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…"
    return f"{shown:{NAME_WIDTH}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
