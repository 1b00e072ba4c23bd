"""What to evaluate: which songs, which scores, and which of the files to keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bsmamba2.data.musdb import Split
from bsmamba2.errors import InputError
from bsmamba2.separation.settings import Combination

# Which sources make a cSDR window undefined when one of them is silent.
Protocol = Literal["single", "pair", "four"]


@dataclass(frozen=True)
class Selection:
    """Songs of a dataset to score.

    Args:
        split: Tracks to score.
        validation_tracks: With split valid or train, names of the validation tracks, instead of the official 14.
        validation_artists: With split valid or train, artists whose tracks are the validation tracks.

    Raises:
        InputError: Validation tracks or artists are given for the test split.
    """

    split: Split = "test"
    validation_tracks: Sequence[str] | None = None
    validation_artists: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.split == "test" and (self.validation_tracks or self.validation_artists):
            raise InputError("validation tracks and artists are for --split valid or train; leave them out")


@dataclass(frozen=True)
class SourceSettings:
    """Source of the estimates, if not a model whose file contains all that is needed.

    Args:
        estimates: Instead of a model, a folder with the estimates of another tool, as {track}/{stem}.wav.
        hop_length: Distance between frames in samples, for a model whose file does not contain it.
        ensemble: How to combine the estimates of several models: their mean (the default), or in each bin of their
            spectra the one with the largest or smallest magnitude (max, min).

    Raises:
        InputError: Estimates are given together with an option for models.
    """

    estimates: Path | None = None
    hop_length: int | None = None
    ensemble: Combination | None = None

    def __post_init__(self) -> None:
        for name in ("hop_length", "ensemble"):
            if self.estimates is not None and getattr(self, name) is not None:
                raise InputError(f"--{name.replace('_', '-')} is for a --model; leave it out with --estimates")


@dataclass(frozen=True)
class ScoringSettings:
    """Scores to compute, and files to keep.

    Args:
        stems: Stems to score; by default those of the songs that the model estimates, or that the folder has estimates
            of except instrumental (all but the vocals). If the file of a model does not name its stems, these are their
            names, in the order of the model.
        protocol: Sources whose silence makes a cSDR window undefined: only the stem (single, as published for
            BSMamba2), the stem and everything else (pair), or the four stems of MUSDB18 (four).
        chunk_seconds: Also separate in segments of these lengths in seconds, and score each length.
        museval: Also compute museval's SDR, ISR, SIR and SAR and write its files; slow, and needs an ffmpeg program.
        save_estimates: Keep the estimates in OUTPUT/estimates, as WAV in float.
        overwrite: Replace existing results with other settings; with the same settings, an evaluation resumes.

    Raises:
        InputError: A length of chunks is given twice.
    """

    stems: Sequence[str] | None = None
    protocol: Protocol = "single"
    chunk_seconds: Sequence[float] | None = None
    museval: bool = False
    save_estimates: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.chunk_seconds and len(set(self.chunk_seconds)) < len(self.chunk_seconds):
            raise InputError(f"chunk_seconds={list(self.chunk_seconds)} is not allowed; give each length only once")
