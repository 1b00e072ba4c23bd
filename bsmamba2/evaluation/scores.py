"""Which scores an estimate gets, what they are called and which way is better."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

NAN = float("nan")


@dataclass(frozen=True)
class Score:
    """What there is to know about a score to read it.

    Args:
        label: Its name for people.
        unit: Its unit; empty where it has none.
        better: Which way is better.
        meaning: What it says, in one sentence.
    """

    label: str
    unit: str
    better: Literal["higher", "lower"]
    meaning: str


SCORES: dict[str, Score] = {
    "csdr": Score("cSDR", "dB", "higher", "Median signal-to-distortion ratio of the defined one-second windows."),
    "usdr": Score("uSDR", "dB", "higher", "Signal-to-distortion ratio over the whole track."),
    "si_sdr": Score("SI-SDR", "dB", "higher", "Signal-to-distortion ratio whatever the level of the estimate."),
    "bleedless": Score("bleedless", "", "higher", "How little the estimate adds to the reference, of 100 (MSST)."),
    "fullness": Score("fullness", "", "higher", "How little the estimate lacks of the reference, of 100 (MSST)."),
    "leakage_dbfs": Score("leakage", "dBFS", "lower", "Level of the estimate where the reference is silent, median."),
    "leakage_dbfs_95": Score("leakage 95 %", "dBFS", "lower", "The same, exceeded in 5 % of the silent blocks."),
    "leakage_db": Score("leakage / mixture", "dB", "lower", "The same relative to the mixture there, median."),
    "leakage_db_95": Score("leakage / mixture 95 %", "dB", "lower", "The same, exceeded in 5 % of the silent blocks."),
    "false_mute": Score("false mute", "%", "lower", "Share of active blocks more than 20 dB below the reference."),
    "onset_sdr": Score("onset", "dB", "higher", "SDR of the first second after a pause of at least two seconds."),
    "csdr_activity_0": Score("cSDR 0-25 %", "dB", "higher", "cSDR where under a quarter of ±4 s is active."),
    "csdr_activity_25": Score("cSDR 25-50 %", "dB", "higher", "cSDR where a quarter to a half of ±4 s is active."),
    "csdr_activity_50": Score("cSDR 50-75 %", "dB", "higher", "cSDR where a half to three quarters is active."),
    "csdr_activity_75": Score("cSDR 75-100 %", "dB", "higher", "cSDR where three quarters or more is active."),
    "museval_sdr": Score("museval SDR", "dB", "higher", "By the package museval."),
    "museval_isr": Score("museval ISR", "dB", "higher", "By the package museval: what distorts the image."),
    "museval_sir": Score("museval SIR", "dB", "higher", "By the package museval: what other sources leak."),
    "museval_sar": Score("museval SAR", "dB", "higher", "By the package museval: what is neither."),
}
# In the order of the share of active blocks.
ACTIVITY_SCORES = ("csdr_activity_0", "csdr_activity_25", "csdr_activity_50", "csdr_activity_75")
SPARSE_SCORES = ("leakage_dbfs", "leakage_dbfs_95", "leakage_db", "leakage_db_95", "false_mute", "onset_sdr")
MUSEVAL_SCORES = ("museval_sdr", "museval_isr", "museval_sir", "museval_sar")
# What tables of single tracks show.
TRACK_SCORES = ("csdr", "usdr", "si_sdr", "bleedless", "fullness", "leakage_dbfs", "false_mute", "onset_sdr")


@dataclass(frozen=True)
class StemScores:
    """Scores of one estimate of one stem of one track, as in `SCORES`; NaN where there is nothing to score.

    Args:
        windows: Signal-to-distortion ratio of every one-second window in dB.
    """

    csdr: float = NAN
    usdr: float = NAN
    si_sdr: float = NAN
    bleedless: float = NAN
    fullness: float = NAN
    leakage_dbfs: float = NAN
    leakage_dbfs_95: float = NAN
    leakage_db: float = NAN
    leakage_db_95: float = NAN
    false_mute: float = NAN
    onset_sdr: float = NAN
    csdr_activity_0: float = NAN
    csdr_activity_25: float = NAN
    csdr_activity_50: float = NAN
    csdr_activity_75: float = NAN
    museval_sdr: float = NAN
    museval_isr: float = NAN
    museval_sir: float = NAN
    museval_sar: float = NAN
    windows: tuple[float, ...] = ()


def with_museval(scores: StemScores, medians: Mapping[str, float]) -> StemScores:
    """Returns the scores with those of museval in dB, by its names SDR, ISR, SIR and SAR."""
    return replace(
        scores,
        museval_sdr=medians["SDR"],
        museval_isr=medians["ISR"],
        museval_sir=medians["SIR"],
        museval_sar=medians["SAR"],
    )
