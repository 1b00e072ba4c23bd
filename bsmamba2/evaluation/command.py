"""Scores of a model on the tracks of a MUSDB18 folder."""

import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from bsmamba2.checkpoint import load_model
from bsmamba2.data.musdb import MIXTURE, SAMPLE_RATE, STEMS
from bsmamba2.data.tracks import Split, find_tracks
from bsmamba2.errors import InputError
from bsmamba2.files import check_writable, complete_file
from bsmamba2.metrics import defined_median, usdr, windowed_sdr
from bsmamba2.model import ModelConfig
from bsmamba2.model.ssd import Scan, choose_scan
from bsmamba2.separation import BATCH_SIZE, OVERLAP, Separator

Protocol = Literal["single", "pair", "four"]
REST = "everything but the stem"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackScores:
    """Scores of one estimated stem of one track in dB; csdr is NaN where no window is defined.

    Args:
        csdr: Median signal-to-distortion ratio of the defined one-second windows.
        usdr: Signal-to-distortion ratio over the whole track.
    """

    csdr: float
    usdr: float


@dataclass(frozen=True)
class Evaluation:
    """Scores over tracks, with all that is needed to read them.

    Args:
        settings: Model, data, protocol and how the tracks were separated.
        tracks: Scores of the model by track.
        mixtures: Scores of the mixture taken as the estimate, by track: the floor.
        failures: Why tracks have no scores, by track.
        seconds_per_second: Computing time per second of audio.
    """

    settings: dict[str, Any]
    tracks: dict[str, TrackScores]
    mixtures: dict[str, TrackScores]
    failures: dict[str, str]
    seconds_per_second: float

    def summary(self, scores: dict[str, TrackScores]) -> dict[str, float]:
        """Returns median and mean over tracks in dB; tracks without a defined window are left out of the cSDR."""
        csdr = torch.tensor([score.csdr for score in scores.values()], dtype=torch.float64)
        usdr = torch.tensor([score.usdr for score in scores.values()], dtype=torch.float64)
        return {
            "csdr_median": defined_median(csdr),
            "csdr_mean": csdr.nanmean().item(),
            "usdr_median": defined_median(usdr),
            "usdr_mean": usdr.mean().item(),
            "tracks_without_csdr": int(csdr.isnan().sum()),
        }

    def to_json(self) -> str:
        """Returns everything, unrounded, as JSON; undefined scores are null."""
        content = asdict(self) | {"summary": self.summary(self.tracks), "mixture_summary": self.summary(self.mixtures)}
        return json.dumps(_nan_to_null(content), indent=2, ensure_ascii=False) + "\n"

    def table(self) -> str:
        """Returns the scores as a table for people."""
        settings = self.settings
        lines = [
            f"{settings['stem']}, protocol {settings['protocol']}, overlap {settings['overlap']:g}, "
            f"segments {settings['segment_seconds']:g} s, scan {settings['scan']} on {settings['device']}",
            f"{'dB':44} {'cSDR':>8} {'uSDR':>8}   {'mixture:':>9} {'cSDR':>8} {'uSDR':>8}",
        ]
        for name, score in self.tracks.items():
            lines.append(_row(name, score.csdr, score.usdr, self.mixtures[name].csdr, self.mixtures[name].usdr))
        model, mixture = self.summary(self.tracks), self.summary(self.mixtures)
        for kind in ("median", "mean"):
            rows = [summary[f"{score}_{kind}"] for summary in (model, mixture) for score in ("csdr", "usdr")]
            lines.append(_row(f"{kind} over {len(self.tracks)} tracks", *rows))
        if model["tracks_without_csdr"]:
            lines.append(f"{model['tracks_without_csdr']} tracks have no defined window and are left out of the cSDR")
        lines.append(f"{self.seconds_per_second:.3g} s of computing per second of audio")
        return "\n".join(lines)


def evaluate(
    model: str | Path,
    root: Path,
    output: Path,
    split: Split = "test",
    validation_tracks: list[str] | None = None,
    validation_artists: list[str] | None = None,
    stem: str | None = None,
    protocol: Protocol = "single",
    segment_seconds: float | None = None,
    overlap: float = OVERLAP,
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    scan: Scan = "auto",
    overwrite: bool = False,
) -> Evaluation:
    """Separates the tracks of a MUSDB18 folder, scores one stem and writes OUTPUT/results.json.

    Args:
        model: Name of a published model (`bsmamba2 models` lists them), or a file: a checkpoint or weights.
        root: Folder with test/, or with train/ and perhaps valid/ for the other splits.
        output: Folder for the results.
        split: Which tracks.
        validation_tracks: With split valid or train: names of the validation tracks, instead of the official 14.
        validation_artists: With split valid or train: artists whose tracks are the validation tracks.
        stem: Which stem is scored; by default vocals where the model has them, else its first.
        protocol: Which sources share the undefined windows of the cSDR: only the stem (single, as published for
            BSMamba2), the stem and everything else (pair), or the four stems (four, for a model of all of them).
        segment_seconds: Length of the segments in seconds, by default that of the model's training.
        overlap: Share of a segment that overlaps the next one; 0 is the published test protocol.
        batch_size: Segments in one pass.
        device: Where to compute: auto, cpu, cuda, cuda:1, mps.
        scan: Which scan to run; by itself the best for the device.
        overwrite: Whether results that are already there are replaced.

    Raises:
        InputError: A file or an option cannot be used, or a track could not be scored; the scores of the others are
            written all the same.
    """
    results_path = output / "results.json"
    if results_path.exists() and not overwrite:
        raise InputError(f"{results_path} is already there; give another --output, or --overwrite")
    tracks = find_tracks(
        root, split, validation_tracks=validation_tracks, validation_artists=validation_artists, shared_artists=True
    )
    network = load_model(model)
    config = network.config
    stem = stem or ("vocals" if "vocals" in config.stems else config.stems[0])
    _check(config, stem, protocol)
    check_writable(output)
    separator = Separator(network, segment_seconds, overlap, batch_size, device, scan=scan)
    scores, mixtures, failures = {}, {}, {}
    audio_seconds = computing_seconds = 0.0
    for track in tqdm(tracks, "evaluating", unit="track", disable=None):
        try:
            audio = {name: track.read(name) for name in (MIXTURE, *STEMS)}
            mixture = audio.pop(MIXTURE)
            started = time.monotonic()
            named = separator(mixture, SAMPLE_RATE)
            computing_seconds += time.monotonic() - started
            audio_seconds += mixture.shape[-1] / SAMPLE_RATE
            references = {name: reference[:, : mixture.shape[-1]] for name, reference in audio.items()}
            references[REST] = torch.stack([references[name] for name in STEMS if name != stem]).sum(0)
            scored = _score(named | {REST: mixture - named[stem]}, references, stem, protocol)
            mixtures[track.name] = _score(dict.fromkeys(references, mixture), references, stem, protocol)
            scores[track.name] = scored
        except InputError as error:
            failures[track.name] = str(error)
            log.error("failed: %s: %s", track.name, error)
        else:
            log.info("%s: cSDR %.2f dB, uSDR %.2f dB", track.name, scored.csdr, scored.usdr)
    if not scores:
        raise InputError(f"no track could be scored; the first failed so: {next(iter(failures.values()))}")
    settings = {
        "model": str(model),
        "root": str(root),
        "split": split,
        "stem": stem,
        "protocol": protocol,
        "segment_seconds": separator.segment_seconds,
        "overlap": overlap,
        "device": str(separator.device),
        "scan": choose_scan(separator.device, scan),
        "network": asdict(config),
    }
    evaluation = Evaluation(settings, scores, mixtures, failures, computing_seconds / audio_seconds)
    with complete_file(results_path) as temporary:
        temporary.write_text(evaluation.to_json(), encoding="utf-8")
    if failures:
        raise InputError(
            f"{len(failures)} of {len(tracks)} tracks could not be scored, the others are in {results_path}; "
            f"the first: {next(iter(failures))}: {next(iter(failures.values()))}"
        )
    return evaluation


def _check(config: ModelConfig, stem: str, protocol: Protocol) -> None:
    if stem not in config.stems:
        raise InputError(f"stem={stem!r} cannot be scored; the model gives {', '.join(config.stems)}")
    if stem not in STEMS:
        raise InputError(f"stem={stem!r} cannot be scored; MUSDB18 has {', '.join(STEMS)}")
    if protocol == "four" and set(config.stems) != set(STEMS):
        raise InputError(
            f"protocol='four' needs a model of {', '.join(STEMS)}; this one gives {', '.join(config.stems)}"
        )
    if config.sample_rate != SAMPLE_RATE or config.channels != 2:
        raise InputError(
            f"the model works at {config.sample_rate} Hz on {config.channels} channels and MUSDB18 has {SAMPLE_RATE} "
            "Hz and 2; use another model"
        )


def _score(estimates: dict[str, Tensor], references: dict[str, Tensor], stem: str, protocol: Protocol) -> TrackScores:
    """Scores one stem; the other sources of the protocol only decide which windows are defined."""
    others = {"single": [], "pair": [REST], "four": [name for name in STEMS if name != stem]}[protocol]
    estimate, reference = (torch.stack([audio[name] for name in [stem, *others]]) for audio in (estimates, references))
    windows = windowed_sdr(estimate=estimate, reference=reference, sample_rate=SAMPLE_RATE)[0]
    return TrackScores(csdr=defined_median(windows), usdr=usdr(estimate=estimate[0], reference=reference[0]))


def _row(name: str, *scores: float) -> str:
    model_csdr, model_usdr, mixture_csdr, mixture_usdr = (f"{score:8.2f}" for score in scores)
    return f"{name[:44]:44} {model_csdr} {model_usdr}   {'':9} {mixture_csdr} {mixture_usdr}"


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_null(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
