"""Scores of separated stems, each a function of audio alone."""

from bsmamba2.metrics.sdr import Audio, csdr, defined_median, usdr, windowed_sdr

__all__ = ["Audio", "csdr", "defined_median", "usdr", "windowed_sdr"]
