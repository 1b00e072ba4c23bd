"""Evaluates a model or the estimates of another tool on songs with stems, in one process or several."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bsmamba2.errors import InputError, UsageError
from bsmamba2.evaluation.runs import check_no_other_files
from bsmamba2.evaluation.settings import ScoringSettings, Selection, SourceSettings
from bsmamba2.separation.settings import SeparationSettings
from bsmamba2.stem_names import SPEECH
from bsmamba2.system.console import progress_bar
from bsmamba2.system.files import check_can_be_made, sha256_of_text
from bsmamba2.system.processes import Processes, is_first_process
from bsmamba2.version import __version__
from bsmamba2.weights.registry import ModelNames, check_models_exist

if TYPE_CHECKING:
    from bsmamba2.data.tracks import Track
    from bsmamba2.evaluation.results import Results, TrackResult
    from bsmamba2.evaluation.sources import Source
    from bsmamba2.evaluation.track import Failure

log = logging.getLogger(__name__)


def evaluate(
    root: Path,
    output: Path,
    model: ModelNames | None = None,
    source_settings: SourceSettings = SourceSettings(),
    selection: Selection = Selection(),
    scoring: ScoringSettings = ScoringSettings(),
    settings: SeparationSettings = SeparationSettings(),
    processes: Processes = Processes(),
) -> "Results":
    """Scores a model, or the estimates of any other tool, on songs with stems, and writes the results to a folder.

    An evaluation that was stopped resumes when the command is run again. A track that fails is logged and listed among
    the failures, and the rest continue; results without any scored track are returned but not written. With several
    processes, the first returns the results of all tracks, the others results without tracks and failures.

    Args:
        root: Folder with test/, or with train/ and perhaps valid/ for the other splits, or the tracks themselves.
        output: Folder for the results.
        model: Name of a published model (`bsmamba2 models` lists them), or a file: a checkpoint or weights. Several,
            given as A,B, separate together.
        source_settings: A folder with estimates instead of a model, or what the file of the model does not contain.
        selection: Songs to score.
        scoring: Scores to compute, and files to keep.
        settings: How to separate; only the device is used with estimates.
        processes: How many processes share the songs.

    Raises:
        InputError: A file or an option cannot be used.
    """
    if source_settings.estimates is not None:
        _check_no_model(settings, scoring)
    _check_given(root, output, model, source_settings)
    # Imported only now: it takes seconds, which the help, a wrong option or a wrong path need not wait for.
    from bsmamba2.evaluation.museval_scores import require_museval
    from bsmamba2.evaluation.results import FORMAT, Results
    from bsmamba2.evaluation.runs import Run
    from bsmamba2.evaluation.scoring import check_protocol, needed_stems
    from bsmamba2.evaluation.songs import find_scored_tracks, stems_in_tracks
    from bsmamba2.evaluation.sources import FolderSource, chosen_stems, load_source
    from bsmamba2.evaluation.statistics import summarise_results
    from bsmamba2.evaluation.track import Plan, evaluate_track
    from bsmamba2.system import versions
    from bsmamba2.system.devices import choose_device

    if scoring.museval:
        require_museval()
    tracks = find_scored_tracks(root, selection.split, selection.validation_tracks, selection.validation_artists)
    _check_apart(output, root, tracks[0].path.parent)
    found = stems_in_tracks(tracks)
    source: Source
    if source_settings.estimates is not None:
        source, device = FolderSource(source_settings.estimates), choose_device("cpu")
        names = chosen_stems(scoring.stems, source.default_stems if scoring.stems is None else (), found)
        # A requested stem that the folder lacks fails track by track.
        available = source.stems if scoring.stems is None else needed_stems(names, scoring.protocol)
        check_protocol(scoring.protocol, names, available)
    elif model is not None:
        device = choose_device(settings.device)
        source, names = load_source(model, settings, scoring, source_settings, found)
    scored = {
        "protocol": scoring.protocol,
        "stems": list(names),
        "museval": scoring.museval,
        "save_estimates": scoring.save_estimates,
    }
    if SPEECH in names:
        scored["speech_scores"] = _speech_scores()
    version = {"format": FORMAT, "version": __version__}
    run = Run(output, {**version, "split": selection.split, **scored, **source.identity})
    hardware = versions.hardware(device)
    computed = {"revision": versions.revision() or "", "device": str(hardware["device"])}
    plan = Plan(run, source, selection.split, names, scoring, computed)

    def worker(device: str) -> "Callable[[Track], TrackResult | Failure]":
        estimate = source.on(device)
        return lambda track: evaluate_track(track, plan, estimate)

    with run.opened(scoring.overwrite) if not processes.several or is_first_process() else contextlib.nullcontext():
        if processes.several:
            # Lightning is imported only when it is needed.
            from bsmamba2.system.sharing import share_out

            outcomes = share_out(tracks, worker, settings.device, processes)
            if not outcomes:
                return Results({}, {}, {})
        else:
            work = worker(settings.device)
            outcomes = [work(track) for track in progress_bar(tracks, "evaluating", unit="track")]
        description = {**source.description, "data": {"root": str(root), "split": selection.split}, "settings": scored}
        results = _gathered(outcomes, description, hardware)
        if results.tracks:
            results.write(output, summarise_results(results))
    return results


def _speech_scores() -> list[str]:
    """Returns the scores of speech that are computed, and warns about others, whose packages are missing."""
    from bsmamba2.metrics.speech import SPEECH_PACKAGES, missing_packages

    missing = missing_packages()
    if missing:
        log.warning(
            "scores of speech whose package is not installed are left out; run pip install %s to include them",
            " ".join(missing),
        )
    return [score for score, package in SPEECH_PACKAGES.items() if package not in missing]


def _gathered(
    outcomes: "Sequence[TrackResult | Failure]",
    description: Mapping[str, Mapping[str, Any]],
    hardware: Mapping[str, Any],
) -> "Results":
    """Returns the results of all tracks, with what the tracks add to the description."""
    from bsmamba2.evaluation.results import Results, TrackResult
    from bsmamba2.evaluation.track import Failure
    from bsmamba2.system import versions

    tracks = {outcome.name: outcome for outcome in outcomes if isinstance(outcome, TrackResult)}
    failures = {outcome.track: outcome.reason for outcome in outcomes if isinstance(outcome, Failure)}
    scored = tracks.values()
    completed = {
        **description,
        "data": {**description["data"], "tracks": len(scored), "sha256": _all_data(scored)},
        "software": {"revision": _distinct(scored, "revision"), **versions.versions()},
        "hardware": {**hardware, "device": _distinct(scored, "device")},
        "time": {
            "finished": max((track.computed["finished"] for track in scored), default=""),
            "seconds_per_second_of_audio": _speed(scored),
        },
    }
    return Results(completed, tracks, failures)


def _check_given(root: Path, output: Path, model: ModelNames | None, source_settings: SourceSettings) -> None:
    """Fails if what was given cannot be used, as far as that is known before anything is read."""
    estimates = source_settings.estimates
    if (model is None) == (estimates is None):
        raise UsageError("give either --model, or --estimates, a folder with the estimates of another tool")
    if model is not None:
        check_models_exist(model, source_settings.ensemble)
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give one that contains test/, or tracks with stems")
    if estimates is not None and not estimates.is_dir():
        raise InputError(f"there is no folder {estimates}; give the one that contains {{track}}/{{stem}}.wav")
    _check_apart(output, root)
    if estimates is not None:
        _check_apart(output, estimates, estimates)
    check_no_other_files(output)
    check_can_be_made(output)


def _check_apart(output: Path, given: Path, songs: Path | None = None) -> None:
    """Fails if the output would contain what is read, or be inside the songs."""
    inner = output.resolve()
    if given.resolve().is_relative_to(inner) or (songs is not None and inner.is_relative_to(songs.resolve())):
        raise InputError(f"the output {output} and {given} are inside each other; give an --output elsewhere")


def _check_no_model(settings: SeparationSettings, scoring: ScoringSettings) -> None:
    """Fails if an option is given that only a model uses."""
    given = {field.name: getattr(settings, field.name) != field.default for field in fields(settings)}
    # The device also chooses how several processes share the songs.
    given |= {"device": False, "chunk_seconds": bool(scoring.chunk_seconds), "save_estimates": scoring.save_estimates}
    named = [f"--{name.replace('_', '-')}" for name, is_given in given.items() if is_given]
    if named:
        raise UsageError(
            f"{', '.join(named)} cannot be used with --estimates, which are separated already; leave it out"
        )


def _all_data(tracks: "Iterable[TrackResult]") -> str:
    lines = sorted(f"{track.name}\t{track.data_sha256}\n" for track in tracks)
    return sha256_of_text("".join(lines))


def _distinct(tracks: "Iterable[TrackResult]", name: str) -> str:
    """Returns what the tracks were computed with, separated by commas if that differs between tracks."""
    return ", ".join(sorted({track.computed[name] for track in tracks}))


def _speed(tracks: "Iterable[TrackResult]") -> float:
    """Returns the computing time per second of audio; NaN if nothing was computed."""
    times = [(track.computing_seconds, track.seconds) for track in tracks]
    return sum(computing for computing, _ in times) / sum(seconds for _, seconds in times) if times else math.nan
