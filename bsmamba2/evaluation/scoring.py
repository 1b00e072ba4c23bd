"""All scores of one song: of its estimates, and of floors and oracles for comparison."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.evaluation.oracles import scale_estimates
from bsmamba2.evaluation.scores import ACTIVITY_SCORES, StemScores
from bsmamba2.evaluation.settings import Protocol, ScoringSettings
from bsmamba2.evaluation.songs import Song
from bsmamba2.metrics import (
    active_blocks,
    bleedless_fullness,
    csdr_by_activity,
    defined_median,
    false_mute,
    is_silent,
    leakage,
    onset_sdr,
    pesq,
    si_sdr,
    stoi,
    usdr,
    windowed_sdr,
)
from bsmamba2.metrics.speech import SPEECH_PACKAGES, missing_packages
from bsmamba2.stem_names import INSTRUMENTAL, MUSDB_STEMS, SPEECH, VOCALS

# Everything but the stem that is scored.
REST = "everything else"
# Museval's name of that, and of the instrumental.
ACCOMPANIMENT = "accompaniment"
# Stems that are everything else of each other.
RESTS = {VOCALS: INSTRUMENTAL, INSTRUMENTAL: VOCALS}

# Audio (c, n) by stem.
Estimates = Mapping[str, Tensor]


def score_song(
    song: Song, rows: Iterable[tuple[str, Estimates]], stems: Sequence[str], protocol: Protocol
) -> dict[str, dict[str, StemScores]]:
    """Returns the scores of a song by stem and row: its estimates first, then floors and oracles.

    Args:
        song: Mixture and references.
        rows: Names of rows, each with estimates (c, n) by stem; none is held when the next one is asked for.
        stems: Stems to score.
        protocol: Which sources share undefined windows: the stem alone, the stem and everything else, or the four.

    Raises:
        InputError: The song or an estimate lacks a stem, or a sample is not finite.
    """
    scores: dict[str, dict[str, StemScores]] = {stem: {} for stem in stems}
    active = {stem: active_blocks(reference=song.reference(stem), sample_rate=song.sample_rate) for stem in stems}
    for row, estimates in rows:
        for stem in stems:
            references = source_references(song, stem, protocol)
            named = {source: source_estimate(song, estimates, stem, source) for source in references}
            scores[stem][row] = _score(song, named, references, stem, active[stem])
        # Not held while the next ones are computed.
        del estimates, named
    for stem in stems:
        references = source_references(song, stem, protocol)
        for row, estimate in _scale(song, stem):
            # The other sources count as perfect: they are silent exactly where their references are.
            scores[stem][row] = _score(song, references | {stem: estimate}, references, stem, active[stem])
    return scores


def check_references(song: Song, stems: Sequence[str]) -> None:
    """Checks that a song has the stems to score.

    Raises:
        InputError: It lacks one; those that it has are named.
    """
    missing = [stem for stem in stems if stem not in song.references]
    if missing:
        left = [stem for stem in stems if stem not in missing]
        raise InputError(
            f"the track {song.name!r} has no stem {missing[0]!r}, only {', '.join(song.stems)}; add it, or score "
            + (f"those it has with --stems {','.join(left)}" if left else "another")
        )


def needed_stems(stems: Sequence[str], protocol: Protocol) -> tuple[str, ...]:
    """Returns the stems whose estimates are needed: all four for the protocol "four", else only the scored ones."""
    return MUSDB_STEMS if protocol == "four" else tuple(stems)


def computed_stems(stems: Sequence[str], scoring: ScoringSettings, estimated: Sequence[str]) -> tuple[str, ...]:
    """Returns the stems that a model computes: those that are needed, and the estimates of everything else in scores.

    Args:
        stems: Stems to score.
        scoring: How they are scored.
        estimated: The stems that the model estimates.
    """
    uses_rest = scoring.museval or scoring.protocol == "pair"
    rests = [RESTS[stem] for stem in stems if uses_rest and RESTS.get(stem) in estimated]
    return tuple(dict.fromkeys([*needed_stems(stems, scoring.protocol), *rests]))


def source_references(song: Song, stem: str, protocol: Protocol) -> dict[str, Tensor]:
    """Returns the references (c, n) of the stem and of the sources that share its undefined windows, in this order.

    Raises:
        InputError: The song lacks one of them.
    """
    if protocol == "four":
        return {source: song.reference(source) for source in (stem, *(other for other in MUSDB_STEMS if other != stem))}
    references = {stem: song.reference(stem)}
    return references if protocol == "single" else references | {REST: song.rest(stem)}


def source_estimate(song: Song, estimates: Estimates, stem: str, source: str) -> Tensor:
    """Returns the estimate (c, n) of a source.

    The rest of the vocals is the instrumental, and the reverse; if that was estimated, the estimate is used. In all
    other cases the rest is the mixture minus the estimate of the stem.
    """
    if source != REST:
        return estimates[source]
    rest = RESTS.get(stem)
    return song.mixture - estimates[stem] if rest is None or rest not in estimates else estimates[rest]


def museval_sources(song: Song, estimates: Estimates, stems: Sequence[str]) -> tuple[Estimates, Estimates]:
    """Returns estimates and references (c, n) for museval: the stems and, unless they are complete, everything else.

    They have the names of museval's own files; `museval_target` returns the name of a stem.

    Raises:
        InputError: The song lacks a stem.
    """
    references = {museval_target(stem): song.reference(stem) for stem in stems}
    named = {museval_target(stem): estimates[stem] for stem in stems}
    covered = set(song.stems) - {VOCALS} if INSTRUMENTAL in stems else set()
    rest = [song.stems[name] for name in song.stems if name not in covered | set(stems)]
    if not rest and len(stems) == 1:
        rest = [song.rest(stems[0])]
    if rest:
        name = VOCALS if INSTRUMENTAL in stems else ACCOMPANIMENT
        references[name] = torch.stack(rest).sum(0)
        if INSTRUMENTAL in stems or len(stems) == 1:
            stem = INSTRUMENTAL if INSTRUMENTAL in stems else stems[0]
            named[name] = source_estimate(song, estimates, stem, REST)
        else:
            named[name] = song.mixture - torch.stack(list(named.values())).sum(0)
    return named, references


def museval_target(stem: str) -> str:
    """Returns the name of a stem in museval's files."""
    return ACCOMPANIMENT if stem == INSTRUMENTAL else stem


def check_protocol(protocol: Protocol, stems: Sequence[str], estimated: Sequence[str]) -> None:
    """Checks that stems can be scored by a protocol.

    Args:
        protocol: Its name.
        stems: Stems to score.
        estimated: Stems with estimates.

    Raises:
        InputError: The protocol does not exist, or needs stems that are not estimated or scores only others.
    """
    if protocol not in get_args(Protocol):
        raise InputError(f"protocol={protocol!r} does not exist; choose {', '.join(get_args(Protocol))}")
    if protocol == "four" and not set(MUSDB_STEMS) <= set(estimated):
        raise InputError(
            f"protocol='four' needs estimates of {', '.join(MUSDB_STEMS)}; these are of {', '.join(estimated)}"
        )
    if protocol == "four" and not set(stems) <= set(MUSDB_STEMS):
        raise InputError(
            f"protocol='four' scores {', '.join(MUSDB_STEMS)}; stems={','.join(stems)} has a different one"
        )


def speech_scores(estimate: Tensor, reference: Tensor, sample_rate: int) -> dict[str, float]:
    """Returns the scores of speech (c, n) whose packages are installed, by name."""
    measures = {"stoi": stoi, "pesq": pesq}
    missing = missing_packages()
    return {
        score: measures[score](estimate=estimate, reference=reference, sample_rate=sample_rate)
        for score, package in SPEECH_PACKAGES.items()
        if package not in missing
    }


def _scale(song: Song, stem: str) -> Iterator[tuple[str, Tensor]]:
    return scale_estimates(mixture=song.mixture, reference=song.reference(stem), others=song.others(stem))


def _score(song: Song, estimates: Estimates, references: Estimates, stem: str, active: Tensor) -> StemScores:
    """Returns all scores of a stem; the other sources only determine which windows are defined."""
    estimate, reference, rate = estimates[stem], references[stem], song.sample_rate
    windows = windowed_sdr(
        estimate=torch.stack([estimates[source] for source in references]),
        reference=torch.stack(list(references.values())),
        sample_rate=rate,
    )[list(references).index(stem)]
    if is_silent(reference):
        windows = torch.full_like(windows, torch.nan)
    leaked = leakage(estimate=estimate, reference=reference, mixture=song.mixture, sample_rate=rate)
    bleedless, fullness = bleedless_fullness(estimate=estimate, reference=reference, sample_rate=rate)
    by_activity = csdr_by_activity(windows=windows, active=active, sample_rate=rate)
    values = {
        **(speech_scores(estimate, reference, rate) if stem == SPEECH else {}),
        "csdr": defined_median(windows),
        "usdr": usdr(estimate=estimate, reference=reference),
        "si_sdr": si_sdr(estimate=estimate, reference=reference),
        "bleedless": bleedless,
        "fullness": fullness,
        "leakage_dbfs": leaked.dbfs,
        "leakage_dbfs_95": leaked.dbfs_95,
        "leakage_db": leaked.relative_db,
        "leakage_db_95": leaked.relative_db_95,
        "false_mute": false_mute(estimate=estimate, reference=reference, sample_rate=rate),
        "onset_sdr": onset_sdr(estimate=estimate, reference=reference, sample_rate=rate),
        **dict(zip(ACTIVITY_SCORES, by_activity, strict=True)),
    }
    return StemScores(values, tuple(windows.tolist()))
