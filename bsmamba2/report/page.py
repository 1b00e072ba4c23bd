"""The report of one or more evaluations: a self-contained HTML page, and its numbers as JSON."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import FORMAT, RESULTS, RUN, to_json
from bsmamba2.evaluation.runs import REPORT
from bsmamba2.evaluation.scores import ACTIVITY_SCORES, MUSEVAL_SCORES, SCORES, SPARSE_SCORES
from bsmamba2.evaluation.statistics import CONFIDENCE, FEWEST_TRACKS
from bsmamba2.player.source_files import player_script, player_style, source_hash
from bsmamba2.report import published, texts
from bsmamba2.report.comparison import RunComparison, compare_runs, compare_scores, incomparable
from bsmamba2.report.facts import ReportedRun, read_runs
from bsmamba2.report.figures import Timeline, chunk_figures, sparse_figures, spread_figures, timelines
from bsmamba2.report.listening import ShownTrack, lost_excerpts, shown_tracks
from bsmamba2.report.page_names import check_page_name
from bsmamba2.report.plots import CaptionedPlot
from bsmamba2.report.tables import (
    MAIN_SCORES,
    OTHER_SCORES,
    ROWS_ON_PAGE,
    Line,
    System,
    TrackTable,
    UndefinedScore,
    fits_published,
    published_systems,
    table_lines,
    track_table,
    undefined_scores,
    with_new_artists,
)
from bsmamba2.system.files import complete_file

# Addresses in the page that are not of stems.
ANCHORS = ("runs", "reading")


@dataclass(frozen=True)
class StemSection:
    """The section of a stem.

    Args:
        name: Name of the stem.
        anchor: Its address in the page.
        runs: Runs that scored it.
        lines: Lines of the tables over tracks.
        columns: Scores of the main table after cSDR and uSDR.
        sparse_columns: Scores of the table of sparse regions.
        undefined: Tracks without some scores.
        systems: Published scores; empty for a stem without any.
        fits_published: Whether a run can be compared with them.
        comparisons: Comparisons with the first run.
        spread: Figures of the spread over tracks.
        sparse: Figures of sparse regions.
        chunks: Figures of the length of the input.
        tracks: The table by track.
        timelines: Scores over time by track.
        listening: Excerpts.
        lost: Tracks whose excerpts are lost.
    """

    name: str
    anchor: str
    runs: list[ReportedRun]
    lines: list[Line]
    columns: list[str]
    sparse_columns: list[str]
    undefined: list[UndefinedScore]
    systems: list[System]
    fits_published: bool
    comparisons: list[RunComparison]
    spread: list[CaptionedPlot]
    sparse: list[CaptionedPlot]
    chunks: list[CaptionedPlot]
    tracks: TrackTable
    timelines: list[Timeline]
    listening: list[ShownTrack]
    lost: list[str]


def write_report(runs: Sequence[Path], output: Path, audio: bool = True) -> list[Path]:
    """Writes a page (HTML) about evaluations and next to it their summaries and comparisons (JSON); returns both paths.

    The page is self-contained: images, sounds and program are embedded. The same results give the same bytes.

    Args:
        runs: Folders that `bsmamba2 evaluate` wrote; all are compared with the first.
        output: The page; its name ends in .html.
        audio: Whether kept excerpts can be played; otherwise only their spectrograms are shown.

    Raises:
        InputError: A folder has no results; or the output has a different suffix, would be among the files of an
            evaluation or cannot be written.
    """
    if not runs:
        raise InputError("no run was given to report on; give folders that `bsmamba2 evaluate` wrote")
    check_page_name(output)
    page, data = output, output.with_suffix(".json")
    evaluation = next((name for name in (RESULTS, RUN) if (output.parent / name).exists()), None)
    if data.name.lower() in (RESULTS, RUN) or (evaluation and output.name != REPORT):
        raise InputError(
            f"the report cannot be written to {output}, where it could replace or be taken for a file of an "
            f"evaluation; give {output.parent / REPORT}, or another folder"
        )
    reported = read_runs(runs)
    contents = {page: _page(reported, audio), data: to_json(_data(reported))}
    for path, text in contents.items():
        with complete_file(path) as temporary:
            # Bytes of a file name that are not UTF-8 are lone surrogates, which a page cannot contain.
            temporary.write_bytes(text.encode("utf-8", "replace"))
    return list(contents)


def _data(runs: Sequence[ReportedRun]) -> dict[str, Any]:
    """Returns the numbers of the page for programs."""
    first, *others = runs
    return {
        "format": FORMAT,
        "confidence": CONFIDENCE,
        "runs": {
            run.name: {
                "description": run.results.description,
                "tracks": len(run.results.tracks),
                "failures": run.results.failures,
                "trained_on": {
                    name: track.trained_on for name, track in run.results.tracks.items() if track.trained_on
                },
                "summaries": run.summaries,
                "windows": {
                    stem: {row: dict(zip(("defined", "all"), run.windows(stem, row), strict=True)) for row in rows}
                    for stem, rows in run.summaries.items()
                },
            }
            for run in runs
        },
        "comparisons": [
            {"first": first.name, "second": run.name, "stem": stem, "score": score, **asdict(comparison)}
            for run in others
            for stem in _stems(runs)
            for score, comparison in compare_scores(first, run, stem).items()
        ],
        "not_comparable": _not_comparable(runs),
    }


def _page(runs: Sequence[ReportedRun], audio: bool) -> str:
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        number=texts.number,
        sort_key=texts.sort_key,
        clock=texts.clock,
        p_value=texts.p_value,
        capital=texts.capital,
    )
    script = player_script() + (folder / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        runs=runs,
        title=", ".join(run.name for run in runs),
        warnings=_not_comparable(runs),
        stems=[_section(runs, stem, anchor, audio) for stem, anchor in _anchors(_stems(runs)).items()],
        scores=SCORES,
        main_scores=MAIN_SCORES,
        museval_scores=MUSEVAL_SCORES,
        rows_on_page=ROWS_ON_PAGE,
        shown_scores=[
            score
            for score in SCORES
            if any(score in rows for run in runs for stem in run.summaries.values() for rows in stem.values())
        ],
        fewest_tracks=FEWEST_TRACKS,
        published=published,
        style=Markup(player_style() + (folder / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # The page forbids itself any request, and any script but its own.
        script_hash=Markup(source_hash(script)),
    )


def _section(all_runs: Sequence[ReportedRun], stem: str, anchor: str, audio: bool) -> StemSection:
    runs = [run for run in all_runs if stem in run.results.stems]
    lines = table_lines(runs, stem)
    defined = {score for line in lines for score in line.summaries}
    return StemSection(
        name=stem,
        anchor=anchor,
        runs=runs,
        lines=with_new_artists(lines, stem),
        columns=[score for score in OTHER_SCORES if score in defined],
        sparse_columns=[score for score in (*SPARSE_SCORES, *ACTIVITY_SCORES) if score in defined],
        undefined=undefined_scores(runs, stem),
        systems=published_systems(runs, stem) if stem == published.STEM else [],
        fits_published=any(map(fits_published, runs)),
        comparisons=[compare_runs(runs[0], run, stem) for run in runs[1:]],
        spread=spread_figures(lines, stem),
        sparse=sparse_figures(lines, stem),
        chunks=chunk_figures(runs, stem),
        tracks=track_table(runs, stem, anchor),
        timelines=timelines(runs, stem, anchor),
        listening=shown_tracks(runs, stem, audio),
        lost=lost_excerpts(runs[0], stem),
    )


def _stems(runs: Sequence[ReportedRun]) -> list[str]:
    return list(dict.fromkeys(stem for run in runs for stem in run.results.stems))


def _not_comparable(runs: Sequence[ReportedRun]) -> dict[str, str]:
    """Returns why runs cannot be compared with the first, by their names."""
    return {run.name: reason for run in runs[1:] if (reason := incomparable(runs[0], run))}


def _anchors(stems: Sequence[str]) -> dict[str, str]:
    """Returns a unique address in the page for each stem."""
    anchors: dict[str, str] = {}
    for stem in stems:
        anchor = slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "stem"
        number = 1
        while anchor in (*anchors.values(), *ANCHORS):
            number += 1
            anchor = f"{slug}-{number}"
        anchors[stem] = anchor
    return anchors
