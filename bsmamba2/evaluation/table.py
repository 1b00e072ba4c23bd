"""Results as a table for people at a terminal."""

import math
from collections.abc import Mapping

from bsmamba2.evaluation.results import ESTIMATE, Results
from bsmamba2.evaluation.scores import ACTIVITY_SCORES, SCORES
from bsmamba2.evaluation.statistics import Summary, summarise_results

TRACK_SCORES = ("csdr", "usdr", "si_sdr", "bleedless", "fullness", "leakage_db", "false_mute")
SPARSE_SCORES = ("leakage_dbfs", "leakage_db", "leakage_db_95", "false_mute", "onset_sdr", *ACTIVITY_SCORES)
MUSEVAL_SCORES = ("museval_sdr", "museval_isr", "museval_sir", "museval_sar")
NAME_WIDTH = 40


def results_table(results: Results) -> str:
    """Returns the scores by track and over tracks; a dash is a score that is not defined."""
    summaries = summarise_results(results)
    settings = results.description["settings"]
    blocks = []
    for stem in results.stems:
        count = len(results.tracks)
        blocks += [
            f"{stem}, protocol {settings['protocol']}, {count} tracks",
            _by_track(results, stem),
            _over_tracks(summaries[stem]),
            _medians("sparse regions, median over tracks", SPARSE_SCORES, summaries[stem]),
        ]
        if any(score in summaries[stem].get(ESTIMATE, {}) for score in MUSEVAL_SCORES):
            only = {ESTIMATE: summaries[stem][ESTIMATE]}
            blocks.append(_medians("museval, median over tracks", MUSEVAL_SCORES, only))
    notes = [f"note: {track.name}: {note}" for track in results.tracks.values() for note in track.notes]
    failures = [f"failed: {name}: {reason}" for name, reason in results.failures.items()]
    speed = results.description["time"]["seconds_per_second_of_audio"]
    if speed is not None and math.isfinite(speed):
        notes.append(f"{speed:.3g} s of computing per second of audio")
    return "\n\n".join([*blocks, *(["\n".join(notes + failures)] if notes or failures else [])])


def _by_track(results: Results, stem: str) -> str:
    lines = [_line("track", [_heading(score) for score in TRACK_SCORES])]
    for name, track in results.tracks.items():
        scores = track.scores[stem][ESTIMATE]
        lines.append(_line(name, [_number(getattr(scores, score)) for score in TRACK_SCORES]))
    return "\n".join(lines)


def _over_tracks(rows: Mapping[str, Mapping[str, Summary]]) -> str:
    lines = [
        _line(
            "over tracks, median [95 % interval]",
            ["cSDR dB", "", "mean", "uSDR dB", "", "mean", "undefined"],
            (8, 18, 8, 8, 18, 8, 10),
        )
    ]
    for row, scores in rows.items():
        cells = []
        for score in ("csdr", "usdr"):
            summary = scores.get(score)
            if summary is None:
                cells += ["-", "", "-"]
            else:
                interval = f"[{_number(summary.low)}, {_number(summary.high)}]"
                cells += [_number(summary.median), interval, _number(summary.mean)]
        csdr = scores.get("csdr")
        cells.append(str(csdr.undefined) if csdr else "all")
        lines.append(_line(row, cells, (8, 18, 8, 8, 18, 8, 10)))
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


def _line(name: str, cells: list[str], widths: tuple[int, ...] | None = None) -> str:
    widths = widths or tuple(max(len(_heading(score)) + 2, 8) for score in TRACK_SCORES)
    shown = name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…"
    return f"{shown:{NAME_WIDTH}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
