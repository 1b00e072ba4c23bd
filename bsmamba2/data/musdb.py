"""What is particular to MUSDB18: names, sampling rate, the streams of its stem files, the official split."""

from importlib.util import find_spec
from pathlib import Path

import yaml

from bsmamba2.errors import InputError
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS

SAMPLE_RATE = 44100
STREAMS = {name: number for number, name in enumerate((MIXTURE, *MUSDB_STEMS))}
OFFICIAL_COUNTS = {"train": 100, "test": 50}
# Its left channel is not the sum of the stems (errata at sigsep.github.io/datasets/musdb.html).
OTHER_MIXTURES = ("PR - Oh No",)


def official_validation_tracks() -> list[str]:
    """Returns the names of the 14 tracks that the package musdb keeps for validation.

    They are read from its data: importing musdb fails on a machine without an ffmpeg program.
    """
    spec = find_spec("musdb")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("the package musdb is not installed, which lists the validation tracks; install it")
    settings = Path(spec.submodule_search_locations[0]) / "configs" / "mus.yaml"
    return list(yaml.safe_load(settings.read_text(encoding="utf-8"))["validation_tracks"])
