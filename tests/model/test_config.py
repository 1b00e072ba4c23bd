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
        ({"stems": ("residual",)}, "a stem cannot be called 'residual'"),
        ({"residual": "mixture"}, "a stem cannot be called 'mixture'"),
        ({"residual": "a/b"}, "the stem name 'a/b' is not allowed"),
        ({"residual": "vocals"}, "residual='vocals' is also a stem of the network"),
        (
            {"stems": ("drums", "vocals"), "residual": "instrumental"},
            "residual='instrumental' means the song without the vocals, but drums, vocals are subtracted",
        ),
        ({"sample_rate": 10**7}, "sample_rate=10000000 is not allowed; give at most 1000000 Hz"),
        ({"segment_seconds": 1e6}, "segment_seconds=1000000.0 is longer than 33554432 samples at 44100 Hz"),
        (
            {"attention_heads": 4},
            "attention_heads=4 is an option of the mixer roformer, but time_mixer=mamba2 and band_",
        ),
        (
            {"time_mixer": "roformer", "band_mixer": "roformer", "d_state": 64},
            "d_state=64 is an option of the mixer mamba2",
        ),
        ({"rwkv_headdim": 32}, "rwkv_headdim=32 is an option of the mixer rwkv6 or rwkv6+mamba2, but"),
        (
            {"time_mixer": "rwkv6", "rwkv_headdim": 48},
            "rwkv_headdim=48 does not divide dim=256; choose a number of channels that does",
        ),
        ({"mamba1_d_state": 8}, "mamba1_d_state=8 is an option of the mixer mamba1, but time_mixer=mamba2"),
        (
            {"time_mixer": "mamba1", "band_mixer": "mamba1", "headdim": 32},
            "headdim=32 is an option of the mixer mamba2",
        ),
        (
            {"time_mixer": "roformer", "band_mixer": "roformer", "expand": 2},
            "expand=2 is an option of the mixer mamba2, mamba1 or rwkv6+mamba2, but",
        ),
        ({"band_mixer": "roformer", "attention_headdim": 7}, "attention_headdim=7 is odd"),
        ({"band_mixer": "roformer", "output_norm": "mixer"}, "output_norm=mixer needs roformer over time and bands"),
        ({"band_mixer": "roformer", "output_norm": "none"}, "output_norm='none' does not exist; choose final or mixer"),
        ({"segment_seconds": 0}, "segment_seconds=0 is shorter than one sample"),
        ({"segment_seconds": float("nan")}, "segment_seconds=nan is not a number"),
    ],
)
def test_inconsistent_values_are_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        ModelConfig(**values)


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", ".hidden", "-rf", " vocals", "vocals ", "vocals.", "vocals\r", "a\nb", "a\tb", "a\0b"),
        *(
            "\x1b[31mred",
            "\x7f",
            "\x9b31m",
            "\ud800",
            "\udcff",
            "\u202egnp.exe",
            "a\u200bb",
            "a\u00a0b",
            "\ufeffvocals",
        ),
        *("a/b", "a\\b", "a:b", "a*b", "a?b", 'a"b', "a<b", "a>b", "a|b", "$HOME", "`id`", "%s", "{stem}", "~", "a;b"),
        *("CON", "nul", "aux.x", "LPT1", "x" * 101, "夜" * 34, "x" * 5000, None, 7, b"vocals", ["vocals"]),
    ],
)
def test_a_stem_name_that_could_not_be_a_file_name_is_refused(name: Any) -> None:
    with pytest.raises(InputError, match=r"the stem name .* is not allowed, because it becomes a file name") as error:
        ModelConfig(stems=(name,))
    assert len(str(error.value)) < 300
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "name",
    ["Lead Vocals (wet)", "Schlagzeug", "E-Gitarre #2", "ボーカル", "गायन", "cafe\u0301", "R&B", "808_kick", "x" * 100],
)
def test_stem_names_in_any_language(name: str) -> None:
    assert ModelConfig(stems=(name,)).stems == (name,)


@pytest.mark.parametrize("stems", [("vocals", "Vocals"), ("caf\u00e9", "cafe\u0301"), ("vocals", "vocals")])
def test_stems_that_would_be_one_file_somewhere_are_refused(stems: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="give at least one name, each only once"):
        ModelConfig(stems=stems)


def test_a_number_that_cannot_be_printed_is_refused() -> None:
    with pytest.raises(ValueError, match="digits"):
        ModelConfig(dim=-(10**5000))


@pytest.mark.parametrize(
    ("stems", "residual", "differences", "outputs"),
    [
        (("vocals",), "", {"instrumental": ("vocals",)}, ("vocals", "instrumental")),
        (("vocals",), "instrumental", {"instrumental": ("vocals",)}, ("vocals", "instrumental")),
        (("drums", "vocals"), "", {"instrumental": ("vocals",)}, ("drums", "vocals")),
        (("instrumental",), "vocals", {"vocals": ("instrumental",)}, ("instrumental", "vocals")),
        (("vocals", "instrumental"), "", {}, ("vocals", "instrumental")),
        (("dry",), "reverb", {"reverb": ("dry",)}, ("dry", "reverb")),
        (("speech", "music"), "noise", {"noise": ("speech", "music")}, ("speech", "music", "noise")),
        (("drums",), "", {}, ("drums",)),
    ],
)
def test_what_is_left_of_the_song_has_a_name(
    stems: tuple[str, ...], residual: str, differences: dict[str, tuple[str, ...]], outputs: tuple[str, ...]
) -> None:
    config = ModelConfig(stems=stems, residual=residual)
    assert config.differences == differences
    assert config.outputs == outputs
    assert ModelConfig.from_dict(config.to_dict()) == config
    # Files for which the name follows from the stems can be read by version 0.1.
    assert ("residual" in config.to_dict()) == (residual not in ("", "instrumental"))


def test_a_plain_dict_and_back() -> None:
    config = ModelConfig(stems=("drums", "bass"), depth=3)
    assert ModelConfig.from_dict(config.to_dict()) == config
    assert ModelConfig.from_dict({"bands": [1000, 25]}).bands == (1000, 25)


def test_unknown_keys_are_errors() -> None:
    with pytest.raises(InputError, match=r"unknown keys \['deep'\]"):
        ModelConfig.from_dict({"deep": 3})


def test_the_low_memory_preset_of_48_bands_fits() -> None:
    bands = (2,) * 16 + (4,) * 8 + (12,) * 8 + (24,) * 8 + (64,) * 6 + (144, 145)
    assert len(ModelConfig(dim=192, depth=4, bands=bands).bands) == 48


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"band_starts": (0, 3)}, "there are 2 band_starts for 3 bands; give one for each, or none"),
        ({"band_starts": (0, 40, 100)}, "a band of 40 bins cannot start at 100; n_fft=256 gives the bins 0 to 128"),
        ({"band_starts": (0, 41, 89)}, "no band covers the bin 40; widen or add bands"),
        ({"band_starts": (0, 30.0, 89)}, "a band of 60 bins cannot start at 30.0"),
        ({"band_starts": 0}, "band_starts=0 is not a list"),
        ({"band_starts": (1, 40, 89)}, "no band covers the bin 0"),
    ],
)
def test_starts_of_bands_that_leave_something_out_are_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        ModelConfig(n_fft=256, window_length=256, hop_length=64, bands=(40, 60, 40), **values)


@pytest.mark.parametrize("mixer", [[], {}, 3, None])
def test_a_mixer_that_is_no_name_is_refused(mixer: object) -> None:
    with pytest.raises(InputError, match="does not exist; choose mamba2, mamba1, roformer, rwkv6, "):
        ModelConfig.from_dict({"band_mixer": mixer})


def test_contiguous_starts_are_not_stored() -> None:
    widths = (40, 49, 40)
    config = ModelConfig(n_fft=256, window_length=256, hop_length=64, bands=widths, band_starts=(0, 40, 89))
    assert config.band_starts == ()
    assert config == ModelConfig(n_fft=256, window_length=256, hop_length=64, bands=widths)


def test_version_0_1_reads_what_it_could_have_written() -> None:
    known = {
        *(
            "dim",
            "depth",
            "bands",
            "stems",
            "channels",
            "expand",
            "headdim",
            "d_state",
            "ngroups",
            "d_conv",
            "mask_depth",
        ),
        *("mask_expand", "n_fft", "window_length", "hop_length", "sample_rate", "segment_seconds"),
    }
    assert set(ModelConfig().to_dict()) == known
    overlapping = ModelConfig(n_fft=256, window_length=256, hop_length=64, bands=(100, 40), band_starts=(0, 89))
    assert set(overlapping.to_dict()) == known | {"band_starts"}
    assert ModelConfig.from_dict(overlapping.to_dict()) == overlapping


def test_what_no_mixer_reads_is_not_stored() -> None:
    config = ModelConfig(time_mixer="roformer", band_mixer="roformer", attention_heads=4)
    assert not {"expand", "headdim", "d_state", "ngroups", "d_conv"} & set(config.to_dict())
    assert ModelConfig.from_dict(config.to_dict()) == config
