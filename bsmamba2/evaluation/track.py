"""Scores one track, from its files to its written result."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bsmamba2.audio.spectrograms import loudest_stretch
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import Split
from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError, OutputError
from bsmamba2.evaluation.museval_scores import MusevalScores, museval_medians, score_with_museval
from bsmamba2.evaluation.results import ESTIMATE, TrackResult
from bsmamba2.evaluation.runs import Run
from bsmamba2.evaluation.scores import with_museval
from bsmamba2.evaluation.scoring import check_references, museval_sources, museval_target, needed_stems, score_song
from bsmamba2.evaluation.settings import ScoringSettings
from bsmamba2.evaluation.songs import Song, data_sha256, read_song
from bsmamba2.evaluation.sources import Estimate, Estimated, Source
from bsmamba2.metrics import active_blocks
from bsmamba2.stem_names import MIXTURE
from bsmamba2.system.files import short_name

EXCERPT_SECONDS = 8.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """Why a track has no scores."""

    track: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """How a track is evaluated.

    Args:
        run: Folder of the results, and what they depend on.
        source: Source of the estimates.
        split: Name of the split, in the paths of museval's files.
        stems: The stems that are scored.
        scoring: How they are scored, and what is kept.
        computed: Revision of the code, and device.
    """

    run: Run
    source: Source
    split: Split
    stems: tuple[str, ...]
    scoring: ScoringSettings
    computed: Mapping[str, str]


def evaluate_track(track: Track, plan: Plan, estimate: Estimate) -> TrackResult | Failure:
    """Returns the result of a track, taken from an earlier run if it is still valid; a new one is written.

    Args:
        track: The song's files.
        plan: How it is evaluated.
        estimate: Separates it on the device of this process.
    """
    try:
        return _evaluated(track, plan, estimate)
    except OutputError:
        raise
    except InputError as error:
        log.error("failed: %s: %s", track.name, error)
        return Failure(track.name, str(error))
    # An unexpected error in one track must not stop the others.
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
    # Before the separation, which takes long.
    check_references(song, plan.stems)
    estimated = estimate(song, needed_stems(plan.stems, plan.scoring.protocol))
    notes = [*song.notes, *estimated.notes]
    scores = score_song(song, estimated.rows, plan.stems, plan.scoring.protocol)
    if plan.scoring.museval:
        found_by_museval = _museval(song, estimated, plan.stems, notes)
        if found_by_museval is not None:
            found_by_museval.write(run.museval(plan.split, track.name))
            medians = museval_medians(found_by_museval)
            scores = {
                stem: rows | {ESTIMATE: with_museval(rows[ESTIMATE], medians[museval_target(stem)])}
                for stem, rows in scores.items()
            }
    if plan.scoring.save_estimates:
        for stem in plan.stems:
            audio = estimated.estimates[stem]
            write_audio(run.estimates(track.name) / f"{short_name(stem)}.wav", audio, song.sample_rate, depth="float")
    excerpt, gain = _write_excerpt(song, estimated, plan)
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
        excerpt=excerpt,
        excerpt_gain=gain,
        computed={**plan.computed, "finished": datetime.now(UTC).isoformat(timespec="seconds")},
        trained_on=plan.source.trained_on(track.name),
    )
    result.write(run.record(track.name))
    first = scores[plan.stems[0]][ESTIMATE]
    log.info("%s: %s cSDR %.2f dB, uSDR %.2f dB", track.name, plan.stems[0], first["csdr"], first["usdr"])
    return result


def _museval(song: Song, estimated: Estimated, stems: Sequence[str], notes: list[str]) -> MusevalScores | None:
    """Returns museval's scores; if it refuses a song, returns None and adds the reason to the notes."""
    estimates, references = museval_sources(song, estimated.estimates, stems)
    try:
        return score_with_museval(estimates=estimates, references=references, sample_rate=song.sample_rate)
    except InputError as error:
        log.warning("%s: %s", song.name, error)
        notes.append(str(error))
        return None


def _write_excerpt(song: Song, estimated: Estimated, plan: Plan) -> tuple[tuple[float, float], float]:
    """Writes the seconds in which the first stem is loudest; they do not depend on the estimates.

    Returns:
        The seconds, and the factor by which all samples were multiplied so that none is clipped.
    """
    rate, folder = song.sample_rate, plan.run.excerpts(song.name)
    stretch = loudest_stretch(song.reference(plan.stems[0])[None], round(EXCERPT_SECONDS * rate))
    sounds = {MIXTURE: song.mixture}
    for stem in plan.stems:
        sounds[f"{short_name(stem)}.reference"] = song.reference(stem)
        sounds[f"{short_name(stem)}.estimate"] = estimated.estimates[stem]
    gain = 1 / max(1.0, *(audio[:, stretch].abs().max().item() for audio in sounds.values()))
    for name, audio in sounds.items():
        write_audio(folder / f"{name}.flac", gain * audio[:, stretch], rate, "flac", "24")
    return (stretch.start / rate, stretch.stop / rate), gain
