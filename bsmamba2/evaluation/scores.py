"""Which scores an estimate gets, their labels and units, and which direction is better."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

NAN = float("nan")


@dataclass(frozen=True)
class Score:
    """What a reader needs to understand a score.

    Args:
        label: Its name in tables and figures.
        unit: Its unit; empty if it has none.
        better: Which direction is better.
        meaning: What it measures, in one sentence.
    """

    label: str
    unit: str
    better: Literal["higher", "lower"]
    meaning: str


# The only list of scores: a score that is added here is stored, summarised, compared and explained in reports.
SCORES: dict[str, Score] = {
    "csdr": Score("cSDR", "dB", "higher", "Median signal-to-distortion ratio of the defined one-second windows."),
    "usdr": Score("uSDR", "dB", "higher", "Signal-to-distortion ratio over the whole track."),
    "si_sdr": Score("SI-SDR", "dB", "higher", "Signal-to-distortion ratio, independent of the level of the estimate."),
    "stoi": Score("STOI", "", "higher", "Short-time objective intelligibility of speech, up to 1."),
    "pesq": Score("PESQ", "", "higher", "Perceptual evaluation of speech quality, wide band, up to 4.64."),
    "bleedless": Score("bleedless", "", "higher", "How little the estimate adds to the reference, up to 100 (MSST)."),
    "fullness": Score("fullness", "", "higher", "How little of the reference is missing, up to 100 (MSST)."),
    "leakage_dbfs": Score("leakage", "dBFS", "lower", "Median level of the estimate where the reference is silent."),
    "leakage_dbfs_95": Score("leakage 95 %", "dBFS", "lower", "Level exceeded in 5 % of silent blocks."),
    "leakage_db": Score("leakage / mixture", "dB", "lower", "Median leakage relative to the mixture there."),
    "leakage_db_95": Score("leakage / mixture 95 %", "dB", "lower", "Relative level exceeded in 5 % of silent blocks."),
    "false_mute": Score("false mute", "%", "lower", "Share of active blocks over 20 dB below the reference."),
    "onset_sdr": Score("onset", "dB", "higher", "SDR of the first second after a pause of at least two seconds."),
    "csdr_activity_0": Score("cSDR 0-25 %", "dB", "higher", "cSDR of windows with less than a quarter of ±4 s active."),
    "csdr_activity_25": Score("cSDR 25-50 %", "dB", "higher", "cSDR of windows with a quarter to half of ±4 s active."),
    "csdr_activity_50": Score("cSDR 50-75 %", "dB", "higher", "cSDR of windows with half to three quarters active."),
    "csdr_activity_75": Score("cSDR 75-100 %", "dB", "higher", "cSDR of windows with at least three quarters active."),
    "museval_sdr": Score("museval SDR", "dB", "higher", "Signal-to-distortion ratio by the package museval."),
    "museval_isr": Score("museval ISR", "dB", "higher", "Distortion of the stereo image, by museval."),
    "museval_sir": Score("museval SIR", "dB", "higher", "Leakage of other sources, by museval."),
    "museval_sar": Score("museval SAR", "dB", "higher", "Remaining artefacts, by museval."),
}
# By rising share of active blocks.
ACTIVITY_SCORES = ("csdr_activity_0", "csdr_activity_25", "csdr_activity_50", "csdr_activity_75")
SPARSE_SCORES = ("leakage_dbfs", "leakage_dbfs_95", "leakage_db", "leakage_db_95", "false_mute", "onset_sdr")
MUSEVAL_SCORES = ("museval_sdr", "museval_isr", "museval_sir", "museval_sar")
# Only of a stem called speech, each if its package is installed.
SPEECH_SCORES = ("stoi", "pesq")
# The columns of tables of single tracks.
TRACK_SCORES = ("csdr", "usdr", "si_sdr", "bleedless", "fullness", "leakage_dbfs", "false_mute", "onset_sdr")


@dataclass(frozen=True)
class StemScores:
    """Scores of one estimate of one stem of one track.

    Args:
        values: Scores by their names in `SCORES`. All of these are there afterwards, NaN if they were not given.
        windows: Signal-to-distortion ratio of every one-second window in dB, NaN if undefined.

    Raises:
        ValueError: A name is not in `SCORES`.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    windows: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        unknown = [name for name in self.values if name not in SCORES]
        if unknown:
            raise ValueError(f"the score {unknown[0]!r} is not in SCORES; add it there")
        object.__setattr__(self, "values", {name: self.values.get(name, NAN) for name in SCORES})

    def __getitem__(self, score: str) -> float:
        """Returns a score by its name in `SCORES`; NaN if it is undefined."""
        return self.values[score]


def with_museval(scores: StemScores, medians: Mapping[str, float]) -> StemScores:
    """Returns scores completed by museval's in dB, which are given by its names SDR, ISR, SIR and SAR."""
    found = {score: medians[score.removeprefix("museval_").upper()] for score in MUSEVAL_SCORES}
    return replace(scores, values={**scores.values, **found})
