"""Scores of separated stems, as functions of audio alone."""

from bsmamba2.metrics.sdr import SILENT_PEAK, Audio, csdr, defined_median, is_silent, si_sdr, usdr, windowed_sdr
from bsmamba2.metrics.sparse import Leakage, active_blocks, csdr_by_activity, false_mute, leakage, onset_sdr
from bsmamba2.metrics.spectral import bleedless_fullness
from bsmamba2.metrics.speech import pesq, stoi

__all__ = [
    "SILENT_PEAK",
    "Audio",
    "Leakage",
    "active_blocks",
    "bleedless_fullness",
    "csdr",
    "csdr_by_activity",
    "defined_median",
    "false_mute",
    "is_silent",
    "leakage",
    "onset_sdr",
    "pesq",
    "si_sdr",
    "stoi",
    "usdr",
    "windowed_sdr",
]
