import dataclasses
import re
from typing import Any

import pytest

from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"bands": (2, 4)},
            "the band table covers 6 bins but n_fft=2048 gives 1025; the widths must sum to n_fft // 2 + 1",
        ),
        ({"bands": (1025, 0)}, "a band of 0 bins is not allowed"),
        ({"bands": (1025.0,)}, "a band of 1025.0 bins is not allowed"),
        ({"bands": 1025}, "bands=1025 is not a list"),
        ({"n_fft": 2047}, "n_fft=2047 is odd"),
        ({"n_fft": 4096}, "covers 1025 bins but n_fft=4096 gives 2049"),
        ({"window_length": 4096}, "window_length=4096 does not fit n_fft=2048"),
        ({"hop_length": 513}, "hop_length=513 is too long for window_length=2048"),
        ({"dim": 100}, "gives 400 channels, which headdim=64 does not divide"),
        ({"headdim": 60}, "headdim=60 does not divide"),
        ({"ngroups": 3}, "ngroups=3 does not divide the 16 heads"),
        ({"dim": 0}, "dim=0 is not allowed; give a whole number of at least 1"),
        ({"depth": -1}, "depth=-1 is not allowed"),
        ({"d_state": 1.5}, "d_state=1.5 is not allowed"),
        ({"d_conv": True}, "d_conv=True is not allowed"),
        ({"channels": "2"}, "channels='2' is not allowed"),
        ({"mask_depth": 0}, "mask_depth=0 is not allowed"),
        ({"stems": ()}, "give at least one name"),
        ({"stems": ("vocals", "vocals")}, "each only once"),
        ({"stems": "vocals"}, "stems='vocals' is not a list"),
        ({"stems": ("a/b",)}, "the stem name 'a/b' is not allowed"),
        ({"stems": ("instrumental",)}, "a stem cannot be called 'instrumental'"),
        ({"segment_seconds": 0}, "segment_seconds=0 is shorter than one sample"),
        ({"segment_seconds": float("nan")}, "segment_seconds=nan is not a number"),
    ],
)
def test_inconsistent_values_are_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        ModelConfig(**values)


def test_a_plain_dict_and_back() -> None:
    config = ModelConfig(stems=("drums", "bass"), depth=3)
    assert ModelConfig.from_dict(dataclasses.asdict(config)) == config
    assert ModelConfig.from_dict({"bands": [1000, 25]}).bands == (1000, 25)


def test_unknown_keys_are_errors() -> None:
    with pytest.raises(InputError, match=r"unknown keys \['deep'\]"):
        ModelConfig.from_dict({"deep": 3})


def test_the_low_memory_preset_of_48_bands_fits() -> None:
    bands = (2,) * 16 + (4,) * 8 + (12,) * 8 + (24,) * 8 + (64,) * 6 + (144, 145)
    assert len(ModelConfig(dim=192, depth=4, bands=bands).bands) == 48
