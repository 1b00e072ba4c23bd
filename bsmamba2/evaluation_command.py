"""The evaluation: which songs, whose estimates, by how many processes, and where its results go."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from bsmamba2 import machine
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import MIXTURE
from bsmamba2.data.tracks import Split, Track
from bsmamba2.errors import InputError
from bsmamba2.evaluation.museval_scores import museval_medians, require_museval, score_with_museval
from bsmamba2.evaluation.results import ESTIMATE, FORMAT, Results, TrackResult
from bsmamba2.evaluation.runs import REPORT, Run
from bsmamba2.evaluation.scores import StemScores, with_museval
from bsmamba2.evaluation.scoring import Protocol, check_protocol, museval_sources, needed_stems, score_song
from bsmamba2.evaluation.songs import Song, data_sha256, find_songs, read_song
from bsmamba2.evaluation.sources import Estimate, Estimated, FolderSource, ModelSource, Source, chosen_stems
from bsmamba2.evaluation.statistics import summarise_results
from bsmamba2.listening import loudest_stretch
from bsmamba2.metrics import active_blocks
from bsmamba2.model.ssd import Scan
from bsmamba2.separation import BATCH_SIZE, OVERLAP, Precision, choose_device

EXCERPT_SECONDS = 8.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """Why a track has no scores."""

    track: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What is done with every track.

    Args:
        run: Where results go, and what they hold for.
        source: Whose estimates.
        split: Name of the split, in the paths of museval's files.
        stems: Which are scored.
        protocol: Which sources share undefined windows.
        museval: Whether museval scores them too.
        save_estimates: Whether estimates are kept.
    """

    run: Run
    source: Source
    split: Split
    stems: tuple[str, ...]
    protocol: Protocol
    museval: bool
    save_estimates: bool


def evaluate(
    root: Path,
    output: Path,
    model: str | Path | None = None,
    estimates: Path | None = None,
    split: Split = "test",
    validation_tracks: list[str] | None = None,
    validation_artists: list[str] | None = None,
    stems: Sequence[str] | None = None,
    protocol: Protocol = "single",
    chunk_seconds: Sequence[float] | None = None,
    museval: bool = False,
    save_estimates: bool = False,
    segment_seconds: float | None = None,
    overlap: float = OVERLAP,
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    precision: Precision = "float32",
    scan: Scan = "auto",
    devices: int = 1,
    num_nodes: int = 1,
    strategy: str = "auto",
    no_report: bool = False,
    overwrite: bool = False,
) -> Results:
    """Scores a model, or the estimates of any other tool, on songs with stems, and writes what it finds to a folder.

    An evaluation that was stopped goes on when it is given again. Tracks that fail are logged and listed in the
    results. Of several processes all but the first one end here.

    Args:
        root: Folder with test/, or with train/ and perhaps valid/ for the other splits, or the tracks themselves.
        output: Folder for the results.
        model: Name of a published model (`bsmamba2 models` lists them), or a file: a checkpoint or weights.
        estimates: Instead of a model, a folder of what another tool separated, as {track}/{stem}.wav.
        split: Which tracks.
        validation_tracks: With split valid or train, names of the validation tracks, instead of the official 14.
        validation_artists: With split valid or train, artists whose tracks are the validation tracks.
        stems: Which are scored, of those there are estimates of, or instrumental (everything but the vocals); by
            default all but that.
        protocol: Which sources share the undefined windows of the cSDR; only the stem (single, as published for
            BSMamba2), the stem and everything else (pair), or the four stems of MUSDB18 (four).
        chunk_seconds: Separate in segments of these lengths in seconds too, for a score against the length.
        museval: Compute museval's SDR, ISR, SIR and SAR too, and write its files; slow, and needs an ffmpeg program.
        save_estimates: Keep the estimates in OUTPUT/estimates, as WAV in float.
        segment_seconds: Length of the segments in seconds, by default that of the model's training.
        overlap: Share of a segment that overlaps the next one; 0 is the published test protocol.
        batch_size: Segments in one pass; halved by itself where the memory of a GPU is too small.
        device: Where to compute, auto, cpu, cuda, cuda:1 or mps.
        precision: Of the matrix products.
        scan: Which scan to run; by itself the best for the device.
        devices: Processes on this machine that share the songs, each with a device of its own.
        num_nodes: Machines that share the songs; start the command on each as any Lightning program.
        strategy: Lightning's strategy for several processes.
        no_report: Leave out the page for people; `bsmamba2 report` makes it at any time.
        overwrite: Replace results of other settings that are already there.

    Raises:
        InputError: A file or an option cannot be used, or no track could be scored.
    """
    if devices < 1 or num_nodes < 1:
        raise InputError(f"devices={devices}, num_nodes={num_nodes} is not allowed; give at least 1 of each")
    if strategy != "auto" and devices * num_nodes == 1:
        raise InputError(f"--strategy {strategy} is for several processes; give --devices or --num-nodes too")
    if museval:
        require_museval()
    tracks = find_songs(root, split, validation_tracks, validation_artists)
    source: Source
    if model is not None and estimates is None:
        source = ModelSource(model, segment_seconds, chunk_seconds or (), overlap, batch_size, device, precision, scan)
    elif estimates is not None and model is None:
        if chunk_seconds or segment_seconds or save_estimates:
            raise InputError(
                "--chunk-seconds, --segment-seconds and --save-estimates are for a model; leave them out with "
                "--estimates"
            )
        source = FolderSource(estimates)
    else:
        raise InputError("give either --model, or --estimates, a folder of what another tool separated")
    names = chosen_stems(stems, source)
    check_protocol(protocol, names, source.stems)
    settings = {
        "protocol": protocol,
        "stems": list(names),
        "museval": museval,
        "save_estimates": save_estimates,
    }
    version = {"format": FORMAT, "version": machine.package_version("bsmamba2")}
    run = Run(output, {**version, "split": split, **settings, **source.identity})
    run.open(overwrite)
    plan = Plan(run, source, split, names, protocol, museval, save_estimates)
    started, start = datetime.now(UTC), time.monotonic()

    def worker(device: str) -> Callable[[Track], TrackResult | Failure]:
        estimate = source.on(device)
        return lambda track: _tried(track, plan, estimate)

    if devices * num_nodes > 1:
        # Lightning is loaded only where it is needed.
        from bsmamba2.sharing import share_out

        outcomes = share_out(tracks, worker, device, devices, num_nodes, strategy)
        if not outcomes:
            raise SystemExit(0)  # The first process speaks for all.
    else:
        work = worker(device)
        outcomes = [work(track) for track in tqdm(tracks, "evaluating", unit="track", disable=None)]
    scored = {outcome.name: outcome for outcome in outcomes if isinstance(outcome, TrackResult)}
    failures = {outcome.track: outcome.reason for outcome in outcomes if isinstance(outcome, Failure)}
    if not scored:
        raise InputError(f"no track could be scored; the first failed so: {next(iter(failures.values()))}")
    description = {
        **source.description,
        "data": {"root": str(root), "split": split, "tracks": len(scored), "sha256": _all_data(scored.values())},
        "settings": settings,
        "software": {"revision": machine.revision(), **machine.versions()},
        "hardware": {**machine.hardware(choose_device(device)), "processes": devices * num_nodes},
        "time": {
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - start, 1),
            "computing_seconds_per_second": _speed(scored.values()),
        },
    }
    results = Results(description, scored, failures)
    results.write(output, summarise_results(results))
    if not no_report:
        report([output], output / REPORT, overwrite=True)
    return results


def _tried(track: Track, plan: Plan, estimate: Estimate) -> TrackResult | Failure:
    try:
        return _evaluated(track, plan, estimate)
    except InputError as error:
        log.error("failed: %s: %s", track.name, error)
        return Failure(track.name, str(error))
    # Whatever one file brings a library to: the others go on.
    except Exception as error:
        log.exception("failed: %s", track.name)
        return Failure(track.name, f"an unexpected {type(error).__name__}: {error}")


def _evaluated(track: Track, plan: Plan, estimate: Estimate) -> TrackResult:
    run = plan.run
    data = data_sha256(track)
    key = run.key(f"{data} {plan.source.sha256(track.name)}")
    found = run.found(track.name, key)
    if found is not None:
        log.info("%s: already scored", track.name)
        return found
    song = read_song(track)
    estimated = estimate(song, needed_stems(plan.stems, plan.protocol))
    notes = [*song.notes, *estimated.notes]
    scores = score_song(song, estimated.rows, plan.stems, plan.protocol)
    if plan.museval:
        try:
            scores = _with_museval(scores, song, estimated, plan)
        except InputError as error:
            log.warning("%s: %s", track.name, error)
            notes.append(str(error))
    if plan.save_estimates:
        for stem in plan.stems:
            audio = estimated.rows[ESTIMATE][stem]
            write_audio(run.estimates(track.name) / f"{stem}.wav", audio, song.sample_rate, depth="float")
    references = {stem: song.reference(stem) for stem in plan.stems}
    activity = {
        stem: tuple(active_blocks(reference=reference, sample_rate=song.sample_rate).int().tolist())
        for stem, reference in references.items()
    }
    result = TrackResult(
        name=track.name,
        key=key,
        data_sha256=data,
        seconds=song.mixture.shape[-1] / song.sample_rate,
        computing_seconds=estimated.computing_seconds,
        notes=tuple(notes),
        activity=activity,
        scores=scores,
        excerpt=_write_excerpt(song, estimated, plan),
    )
    result.write(run.record(track.name))
    first = scores[plan.stems[0]][ESTIMATE]
    log.info("%s: %s cSDR %.2f dB, uSDR %.2f dB", track.name, plan.stems[0], first.csdr, first.usdr)
    return result


def _with_museval(
    scores: dict[str, dict[str, StemScores]], song: Song, estimated: Estimated, plan: Plan
) -> dict[str, dict[str, StemScores]]:
    """Returns the scores with museval's of the first row, and writes museval's file."""
    estimates, references = museval_sources(song, estimated.rows[ESTIMATE], plan.stems)
    found = score_with_museval(estimates=estimates, references=references, sample_rate=song.sample_rate)
    found.write(plan.run.museval(plan.split, song.name))
    medians = museval_medians(found)
    return {stem: rows | {ESTIMATE: with_museval(rows[ESTIMATE], medians[stem])} for stem, rows in scores.items()}


def _write_excerpt(song: Song, estimated: Estimated, plan: Plan) -> tuple[float, float]:
    """Writes the seconds in which the first stem is loudest, the same whoever separated it, and returns which."""
    rate, folder = song.sample_rate, plan.run.excerpts(song.name)
    stretch = loudest_stretch(song.reference(plan.stems[0])[None], round(EXCERPT_SECONDS * rate))
    sounds = {MIXTURE: song.mixture}
    for stem in plan.stems:
        sounds[f"{stem}.reference"] = song.reference(stem)
        sounds[f"{stem}.estimate"] = estimated.rows[ESTIMATE][stem]
    for name, audio in sounds.items():
        write_audio(folder / f"{name}.flac", audio[:, stretch], rate, "flac", "24")
    return stretch.start / rate, stretch.stop / rate


def _all_data(tracks: Iterable[TrackResult]) -> str:
    lines = sorted(f"{track.name}\t{track.data_sha256}\n" for track in tracks)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _speed(tracks: Iterable[TrackResult]) -> float:
    """Returns the computing time per second of audio; NaN where nothing was computed."""
    times = [(track.computing_seconds, track.seconds) for track in tracks]
    return sum(computing for computing, _ in times) / sum(seconds for _, seconds in times)


def report(
    runs: Sequence[Path], output: Path = Path(REPORT), no_audio: bool = False, overwrite: bool = False
) -> list[Path]:
    """Shows one evaluation, or several side by side, on a page that opens anywhere; returns it and its data in JSON.

    Args:
        runs: Folders that `bsmamba2 evaluate` wrote; the others are compared with the first.
        output: The page, a name that ends in .html; the data lie beside it.
        no_audio: Pictures of the excerpts alone, nothing to listen to.
        overwrite: Replace a page that is already there.

    Raises:
        InputError: A folder holds no results, or the page is already there or cannot be written.
    """
    # Drawing is loaded only where it is needed.
    from bsmamba2.report import write_report

    there = next((path for path in (output, output.with_suffix(".json")) if path.exists()), None)
    if there and not overwrite:
        raise InputError(f"{there} is already there; give another --output, or --overwrite")
    return write_report(runs, output, audio=not no_audio)
