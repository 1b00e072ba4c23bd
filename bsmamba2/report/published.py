"""Scores of other systems, as their authors published them."""

from dataclasses import dataclass

SOURCE = (
    "cSDR (median over tracks of the median over one-second windows) of the vocals on the 50 test tracks of "
    "MUSDB18-HQ, trained without additional data, as reported by the authors of each system; training runs with "
    "different seeds differ by about 0.3 dB."
)
# What a run must have scored to be comparable with them.
STEM = "vocals"
SPLIT = "test"
TEST_TRACKS = 50


@dataclass(frozen=True)
class Published:
    """A score from a publication.

    Args:
        name: Name of the system.
        csdr: cSDR in dB.
        usdr: uSDR in dB; None if it was not published.
    """

    name: str
    csdr: float
    usdr: float | None = None


PUBLISHED_SCORES = (
    Published("Open-Unmix", 6.25),
    Published("HT Demucs", 7.93),
    Published("TFC-TDF-UNet v3", 9.59),
    Published("SCNet", 9.89),
    Published("BSRNN", 10.01),
    Published("BS-RoFormer, L=6", 10.66),
    Published("SCNet, large", 10.86),
    Published("BS-RoFormer, L=9", 11.02),
    Published("BSMamba2", 11.03, 10.70),
    Published("Mel-RoFormer, L=6", 11.21),
    Published("BS-RoFormer, vocals only", 11.49),
    Published("Mel-RoFormer, vocals only", 12.08),
)
