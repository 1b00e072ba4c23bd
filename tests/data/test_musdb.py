from importlib.util import find_spec
from pathlib import Path

import yaml

from bsmamba2.data.musdb import OFFICIAL_COUNTS, OFFICIAL_VALIDATION_TRACKS, SAMPLE_RATE, STREAMS


def test_names_rate_and_validation_tracks_match_the_package_musdb() -> None:
    """Its settings are read as a file: musdb cannot be imported without an ffmpeg program."""
    spec = find_spec("musdb")
    assert spec is not None
    assert spec.origin is not None
    settings = yaml.safe_load((Path(spec.origin).parent / "configs" / "mus.yaml").read_text(encoding="utf-8"))
    assert list(OFFICIAL_VALIDATION_TRACKS) == settings["validation_tracks"]
    assert settings["stem_ids"] == STREAMS
    assert settings["sample_rate"] == SAMPLE_RATE


def test_validation_tracks_are_14_of_the_training_tracks() -> None:
    assert len(set(OFFICIAL_VALIDATION_TRACKS)) == len(OFFICIAL_VALIDATION_TRACKS) == 14 < OFFICIAL_COUNTS["train"]
