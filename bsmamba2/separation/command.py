"""Many songs: which, where to, by how many processes, and what became of each."""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from bsmamba2.audio.formats import Format
from bsmamba2.errors import InputError
from bsmamba2.model.scans import Scan
from bsmamba2.separation.paths import STANDARD_INPUT, TEMPLATE, SongFile, find_song_files, standard_input, stem_paths
from bsmamba2.separation.separator import OVERLAP, Precision, Separator, check_settings
from bsmamba2.separation.stems import BitDepth, Peak, StemSettings, write_stems
from bsmamba2.stem_names import INSTRUMENTAL, RESIDUAL
from bsmamba2.system.files import check_writable
from bsmamba2.weights.checkpoint import load_model
from bsmamba2.weights.registry import DEFAULT_MODEL

State = Literal["done", "skipped", "failed"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a song.

    Args:
        source: Its file.
        state: done, skipped or failed.
        remark: Why it failed, or what there is to know about its stems; empty where there is nothing.
    """

    source: Path
    state: State
    remark: str = ""


def separate_files(
    inputs: Sequence[str | Path],
    model: str | Path = DEFAULT_MODEL,
    output: Path = Path("stems"),
    stems: Sequence[str] | None = None,
    format: Format = StemSettings.format,
    bit_depth: BitDepth = StemSettings.bit_depth,
    peak: Peak = StemSettings.peak,
    template: str = TEMPLATE,
    start: float = StemSettings.start_seconds,
    duration: float | None = StemSettings.duration_seconds,
    downmix: bool = False,
    overwrite: bool = False,
    skip_existing: bool = False,
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
) -> list[Outcome]:
    """Writes the stems of songs, with their sampling rate, length, channels, bit depth, tags and cover.

    With a model of vocals there is `instrumental` too: the song without them, so that the two sum to the song.

    Args:
        inputs: Audio or video files, folders, patterns, or - for the standard input.
        model: Name of a published model (`bsmamba2 models` lists them), or a file: a checkpoint or weights. By default
            the small one in the package.
        output: Folder for the stems; the folders inside a given folder are kept.
        stems: Which to write: stems of the model, instrumental (the song without the vocals), or residual (the song
            without the other stems that are written). By default those of a model, with instrumental if it is one of
            vocals alone.
        format: File format of the stems: wav, flac, mp3 (320 kbit/s), ogg (Vorbis) or m4a (AAC).
        bit_depth: Sample format in wav and flac. A source that has none, such as MP3, gives float in wav and 24 bit in
            flac.
        peak: What becomes of samples beyond full scale in an integer format: clip them, rescale all stems of the song
            by one factor, or write its stems in float.
        template: Path of a stem below the output.
        start: Seconds to leave out at the beginning of each song.
        duration: Seconds of each song to separate, by default all.
        downmix: Mix songs of more than two channels down to stereo; otherwise they are an error.
        overwrite: Replace stems that are already there.
        skip_existing: Write only stems that are not there yet.
        segment_seconds: Length of the segments in seconds, by default that of the model's training.
        overlap: Share of a segment that overlaps the next one; 0 is the published test protocol.
        batch_size: Segments in one pass, by default 8 on CUDA and 1 elsewhere; halved where the memory is too small.
        device: Where to compute: auto, cpu, cuda, cuda:1, mps.
        precision: Of the matrix products.
        scan: Which scan to run; by itself the best for the device.
        compile: Whether torch.compile makes kernels of the network: faster after a first minute, and on a CPU it needs
            a C++ compiler.
        devices: Processes on this machine that share the songs, each with a device of its own.
        num_nodes: Machines that share the songs; start the command on each as any Lightning program.
        strategy: Lightning's strategy for several processes.

    Raises:
        InputError: An option cannot be used, and nothing was written; or songs failed, and the stems of all others
            are there.
    """
    if overwrite and skip_existing:
        raise InputError("--overwrite and --skip-existing contradict each other; give one of them")
    if devices < 1 or num_nodes < 1:
        raise InputError(f"devices={devices}, num_nodes={num_nodes} is not allowed; give at least 1 of each")
    several = devices * num_nodes > 1
    if strategy != "auto" and not several:
        raise InputError(f"--strategy {strategy} is for several processes; give --devices or --num-nodes too")
    if several and STANDARD_INPUT in map(str, inputs):
        raise InputError("several processes cannot share the standard input; give files, or one device")
    network = load_model(model, compile)
    # Said here, once and before there is a folder, not by each process.
    check_settings(network.config, segment_seconds, overlap, batch_size, precision)
    names = _chosen(stems, network.config.stems)
    settings = StemSettings(names, format, bit_depth, peak, start, duration, downmix)
    with standard_input(inputs) as spooled:
        songs = find_song_files(inputs, output, spooled)
        paths = stem_paths(songs, output, template, names, format)
        if not overwrite:
            paths = {song: _missing(files, skip_existing, peak) for song, files in paths.items()}
        for path in (path for files in paths.values() for path in files.values()):
            if os.path.isdir(path):
                raise InputError(f"{path} is a folder; remove it, or give another --output")

        def worker(device: str) -> Callable[[SongFile], Outcome]:
            separator = Separator(network, segment_seconds, overlap, batch_size, device, precision, scan)
            log.info(
                "%s · segments %g s, %d in a pass · overlap %g %%",
                *(precision, separator.segment_seconds, separator.batch_size, 100 * overlap),
            )
            return lambda song: _separate(separator, song, paths[song], settings, bar=not several)

        separate = None if several else worker(device)
        check_writable(output)
        if separate is None:
            # Lightning is loaded only where it is needed.
            from bsmamba2.system.sharing import share_out

            outcomes = share_out(songs, worker, device, devices, num_nodes, strategy)
        else:
            outcomes = []
            try:
                for song in songs:
                    outcomes.append(separate(song))
            except KeyboardInterrupt:
                _log_summary(outcomes)
                raise
    if outcomes:
        _log_summary(outcomes)
    failures = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failures:
        raise InputError(
            f"{len(failures)} of {len(outcomes)} files could not be separated; the first: {failures[0].remark}"
        )
    return outcomes


def _chosen(stems: Sequence[str] | None, estimated: Sequence[str]) -> tuple[str, ...]:
    if stems is None:
        return (*estimated, INSTRUMENTAL) if tuple(estimated) == ("vocals",) else tuple(estimated)
    allowed = [*estimated, *([INSTRUMENTAL] if "vocals" in estimated else []), RESIDUAL]
    for stem in stems:
        if stem not in allowed:
            raise InputError(f"the stem {stem!r} cannot be written; with this model choose {', '.join(allowed)}")
    if not stems or len(set(stems)) < len(stems):
        raise InputError(f"stems={list(stems)} is not allowed; give at least one, each only once")
    if RESIDUAL in stems and not set(stems) & set(estimated):
        raise InputError(f"{RESIDUAL} is the song without the other stems; choose one of {', '.join(estimated)} too")
    return tuple(stems)


def _missing(files: Mapping[str, Path], skip_existing: bool, peak: Peak) -> dict[str, Path]:
    # Not Path.exists, which fails at a name that is too long; writing then says so, of this one song.
    present = [path for path in files.values() if os.path.exists(path)]
    if present and not skip_existing:
        raise InputError(f"{present[0]} is already there; give another --output, or --overwrite or --skip-existing")
    if 0 < len(present) < len(files) and peak != "clip":
        raise InputError(
            f"{present[0]} is already there and other stems of its song are not; with --peak {peak} all are made "
            "together, give --overwrite"
        )
    return {stem: path for stem, path in files.items() if path not in present}


def _separate(
    separator: Separator, song: SongFile, paths: Mapping[str, Path], settings: StemSettings, bar: bool
) -> Outcome:
    if not paths:
        log.info("skipped: %s: its stems are all there", song.path)
        return Outcome(song.path, "skipped", "its stems are all there")
    started = time.monotonic()
    layout = "{desc} {percentage:3.0f}% {bar} {remaining}"
    try:
        with tqdm(total=1.0, desc=song.track, disable=None if bar else True, bar_format=layout) as shown:
            remark = write_stems(separator, song.path, paths, settings, partial(_move, shown))
    except InputError as error:
        log.error("failed: %s", error)
        return Outcome(song.path, "failed", str(error))
    # Whatever one file brings a library to: the others go on.
    except Exception as error:
        log.exception("failed: %s", song.path)
        return Outcome(song.path, "failed", f"{song.path} failed with an unexpected {type(error).__name__}: {error}")
    places = ", ".join(str(path) for path in paths.values())
    log.info("done: %s -> %s in %.1f s%s", song.path, places, time.monotonic() - started, remark and f"; {remark}")
    return Outcome(song.path, "done", remark)


def _move(bar: "tqdm[Any]", done: float) -> None:
    bar.update(done - bar.n)


def _log_summary(outcomes: Sequence[Outcome]) -> None:
    counts = {state: [o for o in outcomes if o.state == state] for state in ("done", "skipped", "failed")}
    log.info("%s", ", ".join(f"{state} {len(found)}" for state, found in counts.items()))
    if len(outcomes) > 1:
        for state, found in counts.items():
            for outcome in found:
                log.info("  %s: %s%s", state, outcome.source, outcome.remark and f" ({outcome.remark})")
