"""The report of one evaluation or several: an HTML page with all that belongs to it inside, and its figures as JSON."""

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import (
    COMPLEX_MASK_ROW,
    ESTIMATE,
    FORMAT,
    MIXTURE_ROW,
    RATIO_MASK_ROW,
    RESULTS,
    RUN,
    SCALE_ROWS,
    Results,
    TrackResult,
    chunk_row,
    to_json,
)
from bsmamba2.evaluation.runs import REPORT
from bsmamba2.evaluation.scores import ACTIVITY_SCORES, MUSEVAL_SCORES, SCORES, SPARSE_SCORES, TRACK_SCORES
from bsmamba2.evaluation.statistics import (
    CONFIDENCE,
    FEWEST_TRACKS,
    Comparison,
    Summary,
    compare,
    compare_csdr,
    count_windows,
    summarise_results,
    windows_by_track,
)
from bsmamba2.report import published
from bsmamba2.report.plots import (
    Plot,
    Series,
    box_plot,
    difference_plot,
    interval_plot,
    shared_limits,
    timeline,
)
from bsmamba2.report.sounds import (
    ESTIMATE_SOUND,
    REFERENCE,
    RESIDUAL_SOUND,
    Excerpt,
    Sound,
    frequency_ticks,
    has_excerpt,
    read_excerpt,
    sounds,
)
from bsmamba2.stem_names import MIXTURE
from bsmamba2.system.files import complete_file

# The columns of the main table behind cSDR and uSDR.
OTHER_SCORES = ("si_sdr", "bleedless", "fullness", *MUSEVAL_SCORES)
TRACK_SCORES_OF_SEVERAL = ("csdr", "usdr", "leakage_dbfs", "false_mute")
ACTIVITY_BINS = ("0-25 %", "25-50 %", "50-75 %", "75-100 %")
# What of a description is told first, in this order: how the names of its values begin.
KEY_FACTS = (
    "protocol", "model", "estimates", "root", "split", "data sha256", "segment", "overlap", "bsmamba2", "revision",
    "device", "processor", "finished", "seconds_per_second",
)  # fmt: skip
# Told among the details only.
DETAILS = ("network",)
# Names that say nothing without that of their section.
SECTION_NAMES, VAGUE_NAMES = ("name", "folder", "path"), ("sha256", "seconds", "parameters", "version")
# Paths on the machine of the evaluation, of which a page to publish tells the last part.
PATH_NAMES = ("root", *SECTION_NAMES)
# Of the page itself.
ANCHORS = ("runs", "reading")


@dataclass(frozen=True)
class ReportedRun:
    """A run as the report shows it.

    Args:
        number: Which of them, from 0.
        letter: Its short name where there are several, else empty.
        name: Its name, unlike any other's.
        folder: Where it lies.
        results: What it found.
        summaries: Over tracks, by stem, row and score.
    """

    number: int
    letter: str
    name: str
    folder: Path
    results: Results
    summaries: Mapping[str, Mapping[str, Mapping[str, Summary]]]

    def fact(self, name: str) -> str:
        """Returns a value of the description, wherever it stands there; empty where it does not."""
        found = (section[name] for section in self.results.description.values() if name in section)
        return str(next(found, ""))

    def estimates(self, stem: str, score: str) -> dict[str, float]:
        """Returns a score of what was to be scored, by track."""
        return self.results.values(stem, ESTIMATE, score)


@dataclass(frozen=True)
class Line:
    """A line of the tables of a stem: one row of one run.

    Args:
        run: The run.
        row: Its row.
        kind: estimate, chunks, or scale.
        series: How it is named and drawn.
        summaries: By score.
        tracks: How many tracks have it.
        windows: How many of their one-second windows are defined, and how many there are.
    """

    run: ReportedRun
    row: str
    kind: str
    series: Series
    summaries: Mapping[str, Summary]
    tracks: int
    windows: tuple[int, int]


def write_report(runs: Sequence[Path], output: Path, audio: bool = True) -> list[Path]:
    """Writes a page (HTML) about evaluations, and beside it their summaries and comparisons (JSON); returns both paths.

    The page needs nothing else: pictures, sounds and program are inside. The same results give the same bytes.

    Args:
        runs: Folders that `bsmamba2 evaluate` wrote; the others are compared with the first.
        output: The page; its name ends in .html.
        audio: Whether excerpts can be listened to, where the runs kept some; else there are pictures of them only.

    Raises:
        InputError: A folder holds no results, the output is no name of a page or would lie among those of an
            evaluation, or cannot be written.
    """
    if not runs:
        raise InputError("no run was given to report on; give folders that `bsmamba2 evaluate` wrote")
    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the report cannot be written to {output}; give a name that ends in .html")
    page, data = output, output.with_suffix(".json")
    evaluation = next((name for name in (RESULTS, RUN) if (output.parent / name).exists()), None)
    if data.name.lower() in (RESULTS, RUN) or (evaluation and output.name != REPORT):
        raise InputError(
            f"the report cannot be written to {output}, where it could replace or be taken for a file of an "
            f"evaluation; give {output.parent / REPORT}, or another folder"
        )
    reported = _read(runs)
    texts = {page: _page(reported, audio), data: to_json(_data(reported))}
    for path, text in texts.items():
        with complete_file(path) as temporary:
            # Bytes of a file name that are not UTF-8 are lone surrogates, which no page can hold.
            temporary.write_bytes(text.encode("utf-8", "replace"))
    return list(texts)


def incomparable(first: ReportedRun, second: ReportedRun) -> str:
    """Returns why the scores of two runs cannot be compared; empty where they can."""
    protocols = first.fact("protocol"), second.fact("protocol")
    if protocols[0] != protocols[1]:
        return f"protocol {protocols[1] or 'unknown'} is not {protocols[0] or 'unknown'}"
    shared = first.results.tracks.keys() & second.results.tracks.keys()
    if not shared:
        return "they have no track in common"
    others = sum(first.results.tracks[name].data_sha256 != second.results.tracks[name].data_sha256 for name in shared)
    if others:
        return f"the audio of {others} of the {len(shared)} tracks that both have is not the same"
    if not set(first.results.stems) & set(second.results.stems):
        return "they have no stem in common"
    return ""


def _read(folders: Sequence[Path]) -> list[ReportedRun]:
    runs: list[ReportedRun] = []
    for number, folder in enumerate(folders):
        results = _publishable(folder, Results.read(folder))
        letter = "" if len(folders) == 1 else chr(ord("A") + number) if number < 26 else str(number + 1)
        given = folder.resolve().name or str(folder)
        name, copies = given, 1
        while name in {run.name for run in runs}:
            copies += 1
            name = f"{given} ({copies})"
        runs.append(ReportedRun(number, letter, name, folder, results, summarise_results(results)))
    return runs


def _publishable(folder: Path, results: Results) -> Results:
    """Returns results without the paths of the machine they are from."""
    if not all(isinstance(section, Mapping) for section in results.description.values()):
        raise InputError(f"the description in {folder / RESULTS} is damaged; evaluate again with --overwrite")
    description = {
        section: {
            name: Path(value).name or value if name in PATH_NAMES and isinstance(value, str) else value
            for name, value in values.items()
        }
        for section, values in results.description.items()
    }
    paths = {
        str(value): description[section][name]
        for section, values in results.description.items()
        for name, value in values.items()
        if value != description[section][name]
    }

    def shortened(text: str) -> str:
        for path in sorted(paths, key=len, reverse=True):
            text = text.replace(path, paths[path])
        return text

    tracks = {name: replace(track, notes=tuple(map(shortened, track.notes))) for name, track in results.tracks.items()}
    return Results(description, tracks, {name: shortened(str(reason)) for name, reason in results.failures.items()})


def _data(runs: Sequence[ReportedRun]) -> dict[str, Any]:
    """Returns what programs read."""
    return {
        "format": FORMAT,
        "confidence": CONFIDENCE,
        "runs": {
            run.name: {
                "description": run.results.description,
                "tracks": len(run.results.tracks),
                "failures": run.results.failures,
                "summaries": {
                    stem: {
                        row: {score: asdict(summary) for score, summary in scores.items()}
                        for row, scores in rows.items()
                    }
                    for stem, rows in run.summaries.items()
                },
                "windows": {
                    stem: {row: dict(zip(("defined", "all"), _windows(run, stem, row), strict=True)) for row in rows}
                    for stem, rows in run.summaries.items()
                },
            }
            for run in runs
        },
        "comparisons": [
            {"first": runs[0].name, "second": run.name, "stem": stem, "score": score, **asdict(comparison)}
            for run in runs[1:]
            for stem in _stems(runs)
            for score, comparison in _comparisons(runs[0], run, stem).items()
        ],
        "not_comparable": {run.name: reason for run in runs[1:] if (reason := incomparable(runs[0], run))},
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
    environment.filters.update(number=_number, clock=_clock, p_value=_p_value, plain=_plain, capital=_capital)
    script = (folder / "page.js").read_text(encoding="utf-8")
    stems = _stems(runs)
    return environment.get_template("page.html").render(
        runs=runs,
        title=", ".join(run.name for run in runs),
        facts={run.name: _facts(run) for run in runs},
        warnings={run.name: reason for run in runs[1:] if (reason := incomparable(runs[0], run))},
        stems=[_stem(runs, stem, anchor, audio) for stem, anchor in _anchors(stems).items()],
        scores=SCORES,
        fewest_tracks=FEWEST_TRACKS,
        museval_scores=MUSEVAL_SCORES,
        shown_scores=[
            score
            for score in SCORES
            if any(score in rows for run in runs for stem in run.summaries.values() for rows in stem.values())
        ],
        published=published,
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # The page itself forbids any request, and any script but its own.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )


def _stems(runs: Sequence[ReportedRun]) -> list[str]:
    return list(dict.fromkeys(stem for run in runs for stem in run.results.stems))


def _facts(run: ReportedRun) -> list[tuple[str, Any]]:
    """Returns name and value of what is told first of a run."""
    found = []
    for section, values in run.results.description.items():
        for name, value in values.items() if section not in DETAILS else ():
            label = section if name in SECTION_NAMES else f"{section} {name}" if name in VAGUE_NAMES else name
            found += [(place, label, value) for place, start in enumerate(KEY_FACTS) if label.startswith(start)][:1]
    facts = [(label, value) for _, label, value in sorted(found, key=lambda fact: fact[0])]
    return [fact for place, fact in enumerate(facts) if fact not in facts[:place]]


def _stem(runs: Sequence[ReportedRun], stem: str, anchor: str, audio: bool) -> dict[str, Any]:
    """Returns all that the page says of one stem."""
    runs = [run for run in runs if stem in run.results.stems]
    lines = _lines(runs, stem)
    defined = {score for line in lines for score in line.summaries}
    return {
        "name": stem,
        "anchor": anchor,
        "runs": runs,
        "series": {run.name: _series(run) for run in runs},
        "lines": lines,
        "columns": [score for score in OTHER_SCORES if score in defined],
        "undefined": _undefined(runs, stem),
        "published_fits": any(map(_fits_published, runs)),
        "published": _beside_published(runs, stem),
        "comparisons": [_comparison(runs[0], run, stem) for run in runs[1:]],
        "boxes": [
            (score, plot)
            for score in ("csdr", "usdr")
            if (plot := box_plot(_title(stem, score, "over tracks"), _axis(score), _values(lines, stem, score)))
            is not None
        ],
        "sparse": [score for score in SPARSE_SCORES if score in defined],
        "activity": [score for score in ACTIVITY_SCORES if score in defined],
        "sparse_plots": _sparse_plots(lines, stem),
        "chunk_plots": _chunk_plots(runs, stem),
        "tracks": _track_table(runs, stem, anchor),
        "timelines": _timelines(runs, stem, anchor),
        "listening": _listening(runs, stem, audio),
        "lost": [
            name
            for name, track in sorted(runs[0].results.tracks.items())
            if track.excerpt is not None and not has_excerpt(runs[0].folder, track, stem)
        ],
    }


def _series(run: ReportedRun, row: str = ESTIMATE) -> Series:
    if not run.letter:
        return Series(row, run.number)
    return Series(f"{run.letter}  {run.name}" if row == ESTIMATE else f"{run.letter}  {row}", run.number)


def _lines(runs: Sequence[ReportedRun], stem: str) -> list[Line]:
    """Returns the rows of all runs; what gives a scale only once for those that can be compared."""
    estimates: list[Line] = []
    chunks: list[Line] = []
    # By row, with the letters of all runs that a line stands for.
    scale: dict[str, list[tuple[ReportedRun, list[str]]]] = {row: [] for row in SCALE_ROWS}
    for run in runs:
        rows = run.results.rows(stem)
        for row in (row for row in rows if row not in SCALE_ROWS):
            line = _line(run, stem, row, "estimate" if row == ESTIMATE else "chunks", _series(run, row))
            (estimates if row == ESTIMATE else chunks).append(line)
        for row in (row for row in SCALE_ROWS if row in rows):
            same = next((letters for other, letters in scale[row] if not incomparable(other, run)), None)
            if same is None:
                scale[row].append((run, [run.letter]))
            else:
                same.append(run.letter)
    # The rows of one run stay together.
    ordered = sorted(
        ((run, row, letters) for row, found in scale.items() for run, letters in found), key=lambda line: line[0].number
    )
    return [
        *estimates,
        *chunks,
        *(
            _line(run, stem, row, "scale", Series(f"{row} ({', '.join(letters)})" if len(scale[row]) > 1 else row))
            for run, row, letters in ordered
        ),
    ]


def _line(run: ReportedRun, stem: str, row: str, kind: str, series: Series) -> Line:
    tracks = sum(row in track.scores.get(stem, {}) for track in run.results.tracks.values())
    return Line(run, row, kind, series, run.summaries[stem][row], tracks, _windows(run, stem, row))


def _values(lines: Sequence[Line], stem: str, score: str) -> dict[Series, list[float]]:
    return {line.series: list(line.run.results.values(stem, line.row, score).values()) for line in lines}


def _undefined(runs: Sequence[ReportedRun], stem: str) -> list[tuple[ReportedRun, str, list[str]]]:
    """Returns run, score and tracks of the main scores that are undefined."""
    found = [
        (run, score, sorted(name for name, value in run.estimates(stem, score).items() if math.isnan(value)))
        for run in runs
        for score in ("csdr", "usdr", *OTHER_SCORES)
        if score in ("csdr", "usdr") or score in run.summaries[stem].get(ESTIMATE, {})
    ]
    return [(run, score, names) for run, score, names in found if names]


def _fits_published(run: ReportedRun) -> bool:
    return run.fact("split") == published.SPLIT and len(run.results.tracks) == published.TEST_TRACKS


def _beside_published(
    runs: Sequence[ReportedRun], stem: str
) -> list[tuple[str, float, float | None, ReportedRun | None]]:
    """Returns system, cSDR and uSDR of publications and of the runs that fit them, in the order of the cSDR."""
    systems: list[tuple[str, float, float | None, ReportedRun | None]] = [
        (system.name, system.csdr, system.usdr, None) for system in published.PUBLISHED_SCORES
    ]
    for run in filter(_fits_published, runs):
        summaries = run.summaries[stem].get(ESTIMATE, {})
        if "csdr" in summaries and "usdr" in summaries:
            systems.append((run.name, summaries["csdr"].median, summaries["usdr"].median, run))
    return sorted(systems, key=lambda system: system[1])


def _comparisons(first: ReportedRun, second: ReportedRun, stem: str) -> dict[str, Comparison]:
    if incomparable(first, second):
        return {}
    found = {}
    for score, meaning in SCORES.items():
        try:
            if score == "csdr":
                found[score] = compare_csdr(*(windows_by_track(run.results, stem) for run in (first, second)))
            else:
                found[score] = compare(first.estimates(stem, score), second.estimates(stem, score), meaning.better)
        except InputError:  # There is no track that both have it of.
            continue
    return found


def _comparison(first: ReportedRun, second: ReportedRun, stem: str) -> dict[str, Any]:
    comparisons = _comparisons(first, second, stem)
    pair = f"{second.letter} − {first.letter}"
    plots = [
        (score, plot)
        for score in ("csdr", "usdr")
        if score in comparisons
        and (
            plot := difference_plot(
                _title(stem, score, f"difference by track, {second.name} minus {first.name}"),
                f"{SCORES[score].label}, {pair}, {SCORES[score].unit}",
                comparisons[score].differences,
                _series(second),
            )
        )
        is not None
    ]
    return {
        "first": first,
        "second": second,
        "reason": incomparable(first, second),
        "scores": comparisons,
        "plots": plots,
    }


def _sparse_plots(lines: Sequence[Line], stem: str) -> list[tuple[str, Plot, list[Series]]]:
    plots: list[tuple[str, Plot | None, list[Series]]] = [
        (
            f"{SCORES[score].label} of every track, {SCORES[score].better} is better.",
            box_plot(_title(stem, score, "over tracks"), _axis(score), _values(lines, stem, score)),
            [],
        )
        for score in ("leakage_dbfs", "leakage_db", "false_mute", "onset_sdr")
    ]
    scale = (MIXTURE_ROW, RATIO_MASK_ROW, COMPLEX_MASK_ROW)
    shown = {
        line.series: [line.summaries.get(score) for score in ACTIVITY_SCORES]
        for line in lines
        if line.kind == "estimate" or line.row in scale
    }
    plot = interval_plot(
        _title(stem, "csdr", "by activity, median over tracks"),
        ("share of ±4 s in which the stem is active", _axis("csdr")),
        ACTIVITY_BINS,
        shown,
    )
    plots.append(("cSDR by activity: medians over tracks with 95 % intervals.", plot, list(shown)))
    return [(name, plot, series) for name, plot, series in plots if plot is not None]


def _chunk_plots(runs: Sequence[ReportedRun], stem: str) -> list[tuple[str, Plot, list[Series]]]:
    seconds = sorted({length for run in runs for row in run.results.rows(stem) if (length := _chunk_seconds(row))})
    if not seconds:
        return []
    plots = []
    for score in ("csdr", "usdr"):
        values = {
            _series(run): [run.summaries[stem].get(row, {}).get(score) for row in [*map(chunk_row, seconds), ESTIMATE]]
            for run in runs
        }
        plot = interval_plot(
            _title(stem, score, "by length of the input, median over tracks"),
            ("what the model is given at a time", _axis(score)),
            [*(f"{length:g} s" for length in seconds), "as evaluated"],
            values,
        )
        if plot is not None:
            plots.append((SCORES[score].label, plot, list(values)))
    return plots


def _chunk_seconds(row: str) -> float | None:
    found = re.search(r"[\d.]+(e[+-]?\d+)?", row)
    try:
        return float(found[0]) if found and chunk_row(float(found[0])) == row else None
    except ValueError:
        return None


def _names(runs: Sequence[ReportedRun]) -> list[str]:
    return sorted({name for run in runs for name in run.results.tracks}, key=lambda name: (name.casefold(), name))


def _anchors(stems: Sequence[str]) -> dict[str, str]:
    """Returns a name in the address of the page for every stem, unlike the others'."""
    anchors: dict[str, str] = {}
    for stem in stems:
        anchor = slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "stem"
        number = 1
        while anchor in (*anchors.values(), *ANCHORS):
            number += 1
            anchor = f"{slug}-{number}"
        anchors[stem] = anchor
    return anchors


def _anchor(stem_anchor: str, place: int) -> str:
    return f"{stem_anchor}-track-{place + 1}"


def _track_table(runs: Sequence[ReportedRun], stem: str, stem_anchor: str) -> dict[str, Any]:
    several = len(runs) > 1
    columns = [
        (run, score)
        for score in (TRACK_SCORES_OF_SEVERAL if several else TRACK_SCORES)
        for run in runs
        if any(not math.isnan(value) for value in run.estimates(stem, score).values())
    ]
    values = {(run.name, score): run.estimates(stem, score) for run, score in columns}
    windows = {run.name: windows_by_track(run.results, stem) for run in runs}
    rows = []
    for place, name in enumerate(_names(runs)):
        track = _track(runs, name)
        active = track.activity.get(stem, ())
        rows.append(
            {
                "name": name,
                "anchor": _anchor(stem_anchor, place),
                "seconds": track.seconds,
                "active": 100 * sum(active) / len(active) if active else math.nan,
                "values": [(score, values[run.name, score].get(name, math.nan)) for run, score in columns],
                "windows": [count_windows([found[name]]) if name in found else None for found in windows.values()],
            }
        )
    notes = [
        (run, name, note) for run in runs for name, track in sorted(run.results.tracks.items()) for note in track.notes
    ]
    failures = [(run, name, reason) for run in runs for name, reason in sorted(run.results.failures.items())]
    return {"columns": columns, "runs": runs, "rows": rows, "notes": notes, "failures": failures}


def _track(runs: Sequence[ReportedRun], name: str) -> TrackResult:
    return next(run.results.tracks[name] for run in runs if name in run.results.tracks)


def _windows(run: ReportedRun, stem: str, row: str) -> tuple[int, int]:
    return count_windows(windows_by_track(run.results, stem, row).values())


def _timelines(runs: Sequence[ReportedRun], stem: str, stem_anchor: str) -> list[dict[str, Any]]:
    found = {run.name: windows_by_track(run.results, stem) for run in runs}
    windows = {name: {_series(run): found[run.name].get(name, ()) for run in runs} for name in _names(runs)}
    limits = shared_limits([value for by_run in windows.values() for values in by_run.values() for value in values])
    return [
        {
            "name": name,
            "anchor": _anchor(stem_anchor, place),
            "scores": [(run, run.estimates(stem, "csdr").get(name, math.nan)) for run in runs],
            "seconds": _track(runs, name).seconds,
            "plot": timeline(
                f"{stem}: SDR of one-second windows over the time of {name}",
                "SDR, dB",
                by_run,
                limits,
                _track(runs, name).activity.get(stem, ()),
            ),
        }
        for place, (name, by_run) in enumerate(windows.items())
    ]


def _listening(runs: Sequence[ReportedRun], stem: str, audio: bool) -> list[dict[str, Any]]:
    """Returns what there is to see and to hear of the worst, the median and the best track of the first run."""
    first = runs[0]
    csdr, usdr = first.estimates(stem, "csdr"), first.estimates(stem, "usdr")
    ranks = {name: usdr[name] if math.isnan(csdr[name]) else csdr[name] for name in csdr}
    kept = [name for name in ranks if has_excerpt(first.folder, first.results.tracks[name], stem)]
    ranked = sorted((name for name in kept if not math.isnan(ranks[name])), key=lambda name: (ranks[name], name))
    ranked = ranked or sorted(kept)[:1]
    if not ranked:
        return []
    places = {"worst": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "best": ranked[-1]}
    chosen: dict[str, list[str]] = {}
    for place, name in places.items():
        chosen.setdefault(name, []).append(place)
    return [
        {
            "name": name,
            "place": "the only track" if len(ranked) == 1 else " and ".join(place),
            "of": len(kept),
            "values": [(score, first.estimates(stem, score)[name]) for score in ("csdr", "usdr")],
            **_heard(runs, stem, name, audio),
        }
        for name, place in chosen.items()
    ]


def _heard(runs: Sequence[ReportedRun], stem: str, name: str, audio: bool) -> dict[str, Any]:
    first = runs[0]
    excerpt: Excerpt | None = None
    columns: list[tuple[ReportedRun | None, list[tuple[str, Sound]]]] = []
    notes: list[tuple[ReportedRun, str]] = []
    for run in runs:
        track = run.results.tracks.get(name)
        if incomparable(first, run) or track is None or not has_excerpt(run.folder, track, stem):
            notes.append((run, "kept no excerpt of the same seconds of the same audio."))
            continue
        try:
            own = read_excerpt(run.folder, track, stem)
        except (InputError, OSError):
            notes.append((run, "has an excerpt that is damaged and cannot be shown; evaluate again."))
            if run is first:
                break
            continue
        excerpt = excerpt or own
        if (own.start, own.end, own.sample_rate) != (excerpt.start, excerpt.end, excerpt.sample_rate):
            notes.append((run, "kept no excerpt of the same seconds of the same audio."))
            continue
        if own.gain_db < 0:
            notes.append((run, f"has its excerpt turned down by {-own.gain_db:.1f} dB, so that nothing is clipped."))
        found = sounds(own, audio)
        if run is first:
            columns.append((None, [(kind, found[kind]) for kind in (MIXTURE, REFERENCE)]))
        columns.append((run, [(kind, found[kind]) for kind in (ESTIMATE_SOUND, RESIDUAL_SOUND)]))
    if excerpt is None:
        return {"start": math.nan, "end": math.nan, "columns": columns, "notes": notes}
    seconds = excerpt.end - excerpt.start
    step = 2 if seconds > 5 else 1 if seconds > 2 else 0.5
    ticks = [(count * step / seconds, _clock(excerpt.start + count * step)) for count in range(int(seconds / step) + 1)]
    return {
        "start": excerpt.start,
        "end": excerpt.end,
        "frequencies": frequency_ticks(excerpt.sample_rate),
        "ticks": ticks,
        "columns": columns,
        "notes": notes,
    }


def _title(stem: str, score: str, what: str) -> str:
    return f"{stem}: {SCORES[score].label} {what}"


def _axis(score: str) -> str:
    return f"{SCORES[score].label}, {SCORES[score].unit}" if SCORES[score].unit else SCORES[score].label


def _number(value: float, digits: int = 2) -> str:
    """Returns a number for people; a dash for NaN."""
    if math.isnan(value):
        return "–"
    text = "∞" if math.isinf(value) else f"{abs(value):.{digits}f}"
    return f"−{text}" if value < 0 and text.strip("0.") else text


def _capital(text: str) -> str:
    """Returns text with a capital at its beginning, and the rest as it is."""
    return text[:1].upper() + text[1:]


def _clock(seconds: float) -> str:
    if math.isnan(seconds):
        return "–"
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}".removesuffix(".0")


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _plain(value: Any) -> str:
    """Returns a value of a description as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_plain(item)}" for name, item in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "–" if value is None else str(value)
