"""What is particular to MUSDB18: names, sampling rate, the streams of its stem files, the official split."""

from typing import Literal

from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS

Split = Literal["train", "valid", "test"]

SAMPLE_RATE = 44100
CHANNELS = 2
STREAMS = {name: number for number, name in enumerate((MIXTURE, *MUSDB_STEMS))}
OFFICIAL_COUNTS = {"train": 100, "test": 50}
# The tracks of train/ that are kept for validation: `validation_tracks` in configs/mus.yaml of the package musdb 0.4
# (github.com/sigsep/sigsep-mus-db).
OFFICIAL_VALIDATION_TRACKS = (
    "Actions - One Minute Smile",
    "Clara Berry And Wooldog - Waltz For My Victims",
    "Johnny Lokke - Promises & Lies",
    "Patrick Talbot - A Reason To Leave",
    "Triviul - Angelsaint",
    "Alexander Ross - Goodbye Bolero",
    "Fergessen - Nos Palpitants",
    "Leaf - Summerghost",
    "Skelpolu - Human Mistakes",
    "Young Griffo - Pennies",
    "ANiMAL - Rockshow",
    "James May - On The Line",
    "Meaxic - Take A Step",
    "Traffic Experiment - Sirens",
)
# Their left channel is not the sum of the stems (errata at sigsep.github.io/datasets/musdb.html).
TRACKS_WITH_WRONG_MIXTURE = ("PR - Oh No",)
