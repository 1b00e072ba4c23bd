"""Scores by the package museval (BSS Eval version 4), and its files.

museval is slow and cannot be imported without an ffmpeg program, so it is used on request only.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.metrics import defined_median
from bsmamba2.system.files import complete_file

METRICS = ("SDR", "ISR", "SIR", "SAR")
WINDOW_SECONDS = 1.0

# By target and metric, in dB.
Medians = dict[str, dict[str, float]]


@dataclass(frozen=True)
class MusevalScores:
    """Scores of one track by museval.

    Args:
        json: Content of museval's file: targets, frames and metrics to five decimals. NaN, which strict JSON lacks, is
            a frame in which a source is silent, or a perfect or infinite score.
    """

    json: str

    def write(self, path: Path) -> None:
        """Writes museval's file, completely or not at all."""
        with complete_file(path) as temporary:
            temporary.write_text(self.json, encoding="utf-8")


def require_museval() -> None:
    """Checks that museval can be used.

    Raises:
        InputError: It is not installed, or the ffmpeg program is missing, without which it cannot be imported.
    """
    try:
        import museval  # noqa: F401
    except (ImportError, RuntimeError) as error:
        raise InputError(
            f"museval cannot be used ({error}); it needs the programs ffmpeg and ffprobe on the PATH and the package: "
            "install ffmpeg (apt, brew or winget install ffmpeg) and `pip install museval`, or evaluate without it"
        ) from error


def score_with_museval(
    *, estimates: Mapping[str, Tensor], references: Mapping[str, Tensor], sample_rate: int
) -> MusevalScores:
    """Returns museval's SDR, ISR, SIR and SAR of each source in every one-second window.

    The scores depend on which sources are given together: these define interference, and a window in which one is
    silent is undefined for all.

    Args:
        estimates: Separated sources (c, n) by name.
        references: True sources of the same names and shape, at least two.
        sample_rate: Sampling rate in Hz.

    Raises:
        InputError: museval cannot be used, or not on these sources: there are fewer than two, they do not match, one
            has samples that are not finite, is silent over the whole track, or is a copy of another one.
    """
    require_museval()
    import museval

    names = list(references)
    _check(estimates, references)
    # museval takes (sources, samples, channels).
    audio = [torch.stack([sources[name].mT for name in names]).double().numpy() for sources in (references, estimates)]
    window = int(WINDOW_SECONDS * sample_rate)
    try:
        # A window too quiet for its energy to be a number scores minus infinity, which museval stores as NaN.
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = museval.evaluate(*audio, win=window, hop=window, mode="v4")
    except (np.linalg.LinAlgError, AttributeError) as error:
        # museval 0.4.1 refers to LinAlgError by a name that numpy no longer has.
        if not any(isinstance(found, np.linalg.LinAlgError) for found in (error, error.__context__)):
            raise
        raise InputError(
            f"museval cannot distinguish the sources {', '.join(names)}, because one is a copy or filtered version of "
            "others; give other sources, or evaluate without museval"
        ) from error
    store = museval.TrackStore(track_name="", win=WINDOW_SECONDS, hop=WINDOW_SECONDS)
    for number, name in enumerate(names):
        store.add_target(
            name, {metric: values[number].tolist() for metric, values in zip(METRICS, scores, strict=True)}
        )
    store.validate()
    return MusevalScores(store.json)


def museval_medians(scores: MusevalScores) -> Medians:
    """Returns the median over the defined frames by target and metric in dB, NaN where no frame is defined."""
    return {
        target["name"]: {
            metric: defined_median(
                torch.tensor([float(frame["metrics"][metric]) for frame in target["frames"]], dtype=torch.float64)
            )
            for metric in METRICS
        }
        for target in json.loads(scores.json)["targets"]
    }


def _check(estimates: Mapping[str, Tensor], references: Mapping[str, Tensor]) -> None:
    if len(references) < 2 or set(estimates) != set(references):
        raise InputError(
            f"museval was given estimates of {', '.join(estimates) or 'nothing'} and references of "
            f"{', '.join(references) or 'nothing'}; it scores at least two sources together, such as vocals and "
            "accompaniment, and needs both of each"
        )
    sources = [
        (f"the {kind} of {name}", audio)
        for kind, given in (("estimate", estimates), ("reference", references))
        for name, audio in given.items()
    ]
    shapes = sorted({tuple(audio.shape) for _, audio in sources})
    if len(shapes) > 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        raise InputError(
            f"museval was given sources of shape {', '.join(map(str, shapes))}; all are (channels, samples) of the "
            "same size, not empty"
        )
    for source, audio in sources:
        if not audio.isfinite().all():
            raise InputError(f"{source} has samples that are not finite, which museval cannot score; fix the source")
        # To museval, channels that cancel each other are silent too.
        if not audio.double().sum(0).any():
            raise InputError(
                f"{source} is silent over the whole track, which museval cannot score; leave the track or source out"
            )
