"""Comparisons of runs with the first run of a report."""

from collections.abc import Mapping
from dataclasses import dataclass

from bsmamba2.errors import InputError
from bsmamba2.evaluation.scores import SCORES
from bsmamba2.evaluation.statistics import Comparison, compare, compare_csdr, windows_by_track
from bsmamba2.report.facts import ReportedRun
from bsmamba2.report.plots import CaptionedPlot, difference_plot
from bsmamba2.report.texts import score_title


@dataclass(frozen=True)
class RunComparison:
    """The comparison of a run with the first one for one stem.

    Args:
        first: The first run.
        second: The run that is compared with it.
        reason: Why they cannot be compared; empty if they can.
        scores: Comparisons by score.
        plots: Differences by track.
    """

    first: ReportedRun
    second: ReportedRun
    reason: str
    scores: Mapping[str, Comparison]
    plots: tuple[CaptionedPlot, ...]


def incomparable(first: ReportedRun, second: ReportedRun) -> str:
    """Returns why the scores of two runs cannot be compared; empty if they can."""
    if first.protocol != second.protocol:
        return f"protocol {second.protocol} is not {first.protocol}"
    shared = first.results.tracks.keys() & second.results.tracks.keys()
    if not shared:
        return "they have no track in common"
    others = sum(first.results.tracks[name].data_sha256 != second.results.tracks[name].data_sha256 for name in shared)
    if others:
        return f"the audio of {others} of the {len(shared)} tracks that both have is not the same"
    if not set(first.results.stems) & set(second.results.stems):
        return "they have no stem in common"
    return ""


def compare_scores(first: ReportedRun, second: ReportedRun, stem: str) -> dict[str, Comparison]:
    """Returns the comparison of every score that both runs have; empty if they cannot be compared."""
    if incomparable(first, second):
        return {}
    found = {}
    for score, meaning in SCORES.items():
        try:
            if score == "csdr":
                found[score] = compare_csdr(*(windows_by_track(run.results, stem) for run in (first, second)))
            else:
                found[score] = compare(first.estimates(stem, score), second.estimates(stem, score), meaning.better)
        except InputError:  # No track has this score in both.
            continue
    return found


def compare_runs(first: ReportedRun, second: ReportedRun, stem: str) -> RunComparison:
    """Returns the comparison of a run with the first one for one stem."""
    scores = compare_scores(first, second, stem)
    plots = []
    for score in ("csdr", "usdr"):
        if score not in scores:
            continue
        label, unit = SCORES[score].label, SCORES[score].unit
        plot = difference_plot(
            score_title(stem, score, f"difference by track, {second.name} minus {first.name}"),
            f"{label}, {second.letter} − {first.letter}, {unit}",
            scores[score].differences,
            second.series(),
        )
        if plot is not None:
            caption = f"{label} by track: {second.letter} minus {first.letter}; to the right {second.letter} is better."
            plots.append(CaptionedPlot(plot, caption))
    return RunComparison(first, second, incomparable(first, second), scores, tuple(plots))
