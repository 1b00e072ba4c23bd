"""The evaluation: which songs, whose estimates, by how many processes, and where its results go."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from bsmamba2.data.tracks import Split, Track
from bsmamba2.errors import InputError
from bsmamba2.evaluation.museval_scores import require_museval
from bsmamba2.evaluation.results import FORMAT, Results, TrackResult
from bsmamba2.evaluation.runs import REPORT, Run
from bsmamba2.evaluation.scoring import Protocol, check_protocol, needed_stems
from bsmamba2.evaluation.songs import find_scored_tracks
from bsmamba2.evaluation.sources import FolderSource, ModelSource, Source, chosen_stems
from bsmamba2.evaluation.statistics import summarise_results
from bsmamba2.evaluation.track import Failure, Plan, evaluate_track
from bsmamba2.model.scans import Scan
from bsmamba2.separation.separator import OVERLAP, Precision
from bsmamba2.system import versions
from bsmamba2.system.devices import choose_device
from bsmamba2.system.processes import is_first_process


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
    batch_size: int | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    scan: Scan = "auto",
    compile: bool = False,
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
        batch_size: Segments in one pass, by default 8 on CUDA and 1 elsewhere; halved where the memory is too small.
        device: Where to compute, auto, cpu, cuda, cuda:1 or mps.
        precision: Of the matrix products.
        scan: Which scan to run; by itself the best for the device.
        compile: Whether torch.compile makes kernels of the network: faster after a first minute, and on a CPU it needs
            a C++ compiler.
        devices: Processes on this machine that share the songs, each with a device of its own.
        num_nodes: Machines that share the songs; start the command on each as any Lightning program.
        strategy: Lightning's strategy for several processes.
        no_report: Leave out the page for people; `bsmamba2 report` makes it at any time.
        overwrite: Replace results of other settings that are already there; of the same, an evaluation goes on.

    Raises:
        InputError: A file or an option cannot be used, or no track could be scored.
    """
    if devices < 1 or num_nodes < 1:
        raise InputError(f"devices={devices}, num_nodes={num_nodes} is not allowed; give at least 1 of each")
    several = devices * num_nodes > 1
    if strategy != "auto" and not several:
        raise InputError(f"--strategy {strategy} is for several processes; give --devices or --num-nodes too")
    if split == "test" and (validation_tracks or validation_artists):
        raise InputError("validation tracks and artists are for --split valid or train; leave them out")
    if museval:
        require_museval()
    tracks = find_scored_tracks(root, split, validation_tracks, validation_artists)
    _check_apart(output, root, tracks[0].path.parent)
    source: Source
    if model is not None and estimates is None:
        source = ModelSource(
            model, segment_seconds, chunk_seconds or (), overlap, batch_size, device, precision, scan, compile
        )
        hardware = versions.hardware(choose_device(device))
    elif estimates is not None and model is None:
        _check_no_model(segment_seconds, chunk_seconds, overlap, precision, scan, compile, save_estimates)
        _check_apart(output, estimates, estimates)
        source = FolderSource(estimates)
        hardware = versions.hardware(torch.device("cpu"))
    else:
        raise InputError("give either --model, or --estimates, a folder of what another tool separated")
    names = chosen_stems(stems, source)
    # What a folder lacks of stems that were asked for fails track by track.
    unknown = stems is not None and isinstance(source, FolderSource)
    check_protocol(protocol, names, needed_stems(names, protocol) if unknown else source.stems)
    settings = {"protocol": protocol, "stems": list(names), "museval": museval, "save_estimates": save_estimates}
    version = {"format": FORMAT, "version": versions.package_version("bsmamba2")}
    run = Run(output, {**version, "split": split, **settings, **source.identity})
    computed = {"revision": versions.revision() or "", "device": str(hardware["device"])}
    plan = Plan(run, source, split, names, protocol, museval, save_estimates, computed)

    def worker(device: str) -> Callable[[Track], TrackResult | Failure]:
        estimate = source.on(device)
        return lambda track: evaluate_track(track, plan, estimate)

    with run.opened(overwrite) if not several or is_first_process() else contextlib.nullcontext():
        if several:
            # Lightning is loaded only where it is needed.
            from bsmamba2.system.sharing import share_out

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
            "software": {"revision": _distinct(scored.values(), "revision"), **versions.versions()},
            "hardware": {**hardware, "device": _distinct(scored.values(), "device")},
            "time": {
                "finished": max(track.computed["finished"] for track in scored.values()),
                "seconds_per_second_of_audio": _speed(scored.values()),
            },
        }
        results = Results(description, scored, failures)
        results.write(output, summarise_results(results))
        if not no_report:
            # Drawing is loaded only here.
            from bsmamba2.report import write_report

            write_report([output], output / REPORT)
    return results


def _check_apart(output: Path, given: Path, songs: Path) -> None:
    """Fails if the output would hold what is read, or lie among it."""
    inner = output.resolve()
    if given.resolve().is_relative_to(inner) or inner.is_relative_to(songs.resolve()):
        raise InputError(f"the output {output} and {given} lie inside each other; give an --output elsewhere")


def _check_no_model(
    segment_seconds: float | None,
    chunk_seconds: Sequence[float] | None,
    overlap: float,
    precision: str,
    scan: str,
    compile: bool,
    save_estimates: bool,
) -> None:
    given = {
        "--segment-seconds": segment_seconds is not None,
        "--chunk-seconds": chunk_seconds is not None,
        "--overlap": overlap != OVERLAP,
        "--precision": precision != "float32",
        "--scan": scan != "auto",
        "--compile": compile,
        "--save-estimates": save_estimates,
    }
    named = [name for name, is_given in given.items() if is_given]
    if named:
        raise InputError(
            f"{', '.join(named)} cannot be used with --estimates, which are separated already; leave it out"
        )


def _all_data(tracks: Iterable[TrackResult]) -> str:
    lines = sorted(f"{track.name}\t{track.data_sha256}\n" for track in tracks)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _distinct(tracks: Iterable[TrackResult], name: str) -> str:
    """Returns what the tracks were computed with, which may have been different things."""
    return ", ".join(sorted({track.computed[name] for track in tracks}))


def _speed(tracks: Iterable[TrackResult]) -> float:
    """Returns the computing time per second of audio; NaN where nothing was computed."""
    times = [(track.computing_seconds, track.seconds) for track in tracks]
    return sum(computing for computing, _ in times) / sum(seconds for _, seconds in times)
