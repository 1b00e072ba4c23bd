import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.separation.common_stems import CommonStems
from bsmamba2.separation.ensemble import Ensemble
from bsmamba2.separation.separator import Separator
from bsmamba2.separation.settings import Combination, StemSettings
from bsmamba2.separation.stems import write_stems
from tests.conftest import TINY

RATE = 44100
ROFORMER = {"attention_heads": 2, "attention_headdim": 4, "expand": 4, "headdim": 64, "d_state": 128}
FOUR = ("drums", "bass", "other", "vocals")


def noise(length: int, channels: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return 0.2 * torch.randn(channels, length, generator=generator).clamp(-4, 4)


def separator(seed: int = 0, choices: dict[str, Any] | None = None, **architecture: Any) -> Separator:
    torch.manual_seed(seed)
    network = BSMamba2(replace(TINY, **architecture)).eval()
    return Separator(network, **{"device": "cpu", **(choices or {})})


def different() -> list[Separator]:
    """Returns separators with different segments, hops, batches, frames, rates and mixers."""
    return [
        separator(0),
        separator(1, {"overlap": 0.6, "batch_size": 3}, segment_seconds=0.07, hop_length=32),
        separator(2, {"overlap": 0.0, "segment_seconds": 0.31}, sample_rate=22050),
        separator(3, {"overlap": 0.5}, time_mixer="roformer", band_mixer="roformer", **ROFORMER),
    ]


@pytest.mark.parametrize("combination", get_args(Combination))
@pytest.mark.parametrize(("length", "rate"), [(1, RATE), (20_000, RATE), (9001, 48000)])
def test_a_model_twice_gives_what_it_gives_once(combination: Combination, length: int, rate: int) -> None:
    one = separator()
    mixture = noise(length)
    together = Ensemble([one, one], combination)(mixture, rate)
    assert list(together) == ["vocals"]
    tolerance = 0.0 if combination == "mean" else 1e-6
    torch.testing.assert_close(together["vocals"], one(mixture, rate)["vocals"], rtol=0, atol=tolerance)


@given(
    length=st.integers(1, 40_000),
    rate=st.sampled_from([8000, 22050, 44100, 48000, 96000]),
    channels=st.integers(1, 2),
    block=st.sampled_from([100, 4000, 65536]),
)
@settings(max_examples=12, deadline=None)
def test_models_of_different_segments_hops_and_rates_stay_in_step(
    length: int, rate: int, channels: int, block: int
) -> None:
    models = different()
    mixture = noise(length, channels)
    parts = list(Ensemble(models).stream(mixture.split(block, dim=-1), rate))
    assert torch.equal(torch.cat([part for part, _ in parts], dim=-1), mixture)
    expected = torch.stack([model(mixture, rate)["vocals"] for model in models]).mean(0)
    vocals = torch.cat([estimates["vocals"] for _, estimates in parts], dim=-1)
    torch.testing.assert_close(vocals, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("combination", ["max", "min"])
def test_parts_of_spectral_choices_belong_to_their_samples(combination: Combination) -> None:
    mixture = noise(30_000)
    models = different()
    parts = list(Ensemble(models, combination).stream(mixture.split(4096, dim=-1), 48000))
    assert all(part.shape == estimates["vocals"].shape for part, estimates in parts)
    assert torch.equal(torch.cat([part for part, _ in parts], dim=-1), mixture)
    each = torch.stack([model(mixture, 48000)["vocals"] for model in models]).square().mean((1, 2))
    energy = torch.cat([estimates["vocals"] for _, estimates in parts], dim=-1).square().mean()
    assert energy > each.max() if combination == "max" else energy < each.min()


def test_models_of_vocals_and_of_the_instrumental_meet() -> None:
    voice, music = separator(0), separator(1, stems=("instrumental",), residual="vocals")
    mixture = noise(12_000)
    estimate, other = voice(mixture, RATE)["vocals"], music(mixture, RATE)["instrumental"]
    together = Ensemble([voice, music])
    assert together.gives.outputs == ("vocals", "instrumental")
    result = together(mixture, RATE)
    assert list(result) == ["vocals"]
    torch.testing.assert_close(result["vocals"], (estimate + mixture - other) / 2, rtol=0, atol=1e-6)
    together = Ensemble([music, voice])
    assert together.gives.outputs == ("instrumental", "vocals")
    result = together(mixture, RATE)
    torch.testing.assert_close(result["instrumental"], (other + mixture - estimate) / 2, rtol=0, atol=1e-6)


def config(*stems: str, residual: str = "", channels: int = 2) -> ModelConfig:
    return replace(TINY, stems=stems, residual=residual, channels=channels)


@pytest.mark.parametrize(
    ("models", "stems", "differences", "outputs"),
    [
        ([config("vocals"), config("vocals")], ["vocals"], {"instrumental": ("vocals",)}, ["vocals", "instrumental"]),
        ([config(*FOUR), config("vocals")], ["vocals"], {"instrumental": ("vocals",)}, ["vocals", "instrumental"]),
        ([config(*FOUR), config("instrumental")], ["instrumental"], {}, ["instrumental"]),
        (
            [config(*FOUR), config("vocals", "bass")],
            ["bass", "vocals"], {"instrumental": ("vocals",)}, ["bass", "vocals"],
        ),
        ([config(*FOUR), config(*reversed(FOUR))], [*FOUR], {"instrumental": ("vocals",)}, [*FOUR]),
        (
            [config("dry", residual="reverb"), config("reverb", residual="dry")],
            ["dry"], {"reverb": ("dry",)}, ["dry", "reverb"],
        ),
        ([config("a", "b", residual="c"), config("a", "c")], ["a", "c"], {}, ["a", "c"]),
    ],
)  # fmt: skip
def test_common_stems(
    models: list[ModelConfig], stems: list[str], differences: dict[str, Any], outputs: list[str]
) -> None:
    common = CommonStems.of([(str(number), model) for number, model in enumerate(models)])
    assert (list(common.stems), common.differences, list(common.outputs)) == (stems, differences, outputs)


def test_a_mono_model_makes_the_ensemble_mono() -> None:
    assert CommonStems.of([("stereo", config("vocals")), ("mono", config("vocals", channels=1))]).most_channels == 2
    models = [separator(0), separator(1, channels=1)]
    mixture = noise(5000, channels=1)
    expected = sum(model(mixture, RATE)["vocals"] for model in models) / 2
    torch.testing.assert_close(Ensemble(models)(mixture, RATE)["vocals"], expected, rtol=0, atol=1e-6)


def test_models_without_a_common_stem_are_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"no stem in common: number 1 gives vocals, instrumental, and number 2 gives dry, reverb; choose others$",
    ):
        Ensemble([separator(), separator(stems=("dry",), residual="reverb")])


@pytest.mark.parametrize(
    ("length", "channels", "rate", "message"),
    [
        (0, 2, RATE, "has shape"),
        (100, 3, RATE, "3 channels; the model takes 1 or 2"),
        (100, 2, 0, "rate of 0 Hz"),
    ],
)
@pytest.mark.parametrize("combination", get_args(Combination))
def test_audio_that_cannot_be_used(
    length: int, channels: int, rate: int, message: str, combination: Combination
) -> None:
    with pytest.raises(InputError, match=message):
        Ensemble([separator(), separator(1)], combination)(torch.zeros(channels, length), rate)


@pytest.mark.parametrize("combination", get_args(Combination))
@pytest.mark.parametrize(
    ("stems", "peak"),
    [
        (("vocals", "instrumental"), "clip"),
        (("drums", "residual"), "clip"),
        (("vocals", "drums", "residual"), "clip"),
        (("vocals", "instrumental"), "float"),
    ],
)
@pytest.mark.parametrize("rate", [RATE, 48000])
def test_the_stems_sum_to_the_song(
    tmp_path: Path, combination: Combination, stems: tuple[str, ...], peak: Any, rate: int
) -> None:
    four = separator(0, stems=FOUR)
    other = separator(1, stems=("vocals", "drums"), segment_seconds=0.23, sample_rate=22050)
    source, paths = tmp_path / "song.wav", {stem: tmp_path / f"{stem}.wav" for stem in stems}
    write_audio(source, noise(9001), rate, "wav", "16")
    write_stems(Ensemble([four, other], combination), source, paths, StemSettings(stems, peak=peak))
    written = [soundfile.read(path, dtype="int32")[0] for path in paths.values()]
    np.testing.assert_array_equal(sum(written), soundfile.read(source, dtype="int32")[0])
    assert all(np.abs(part).max() > 2**20 for part in written)


def test_an_instrumental_is_the_song_without_the_combined_vocals(tmp_path: Path) -> None:
    models = [separator(0), separator(1, stems=("instrumental",), residual="vocals")]
    write_audio(tmp_path / "song.wav", noise(9001), RATE, "wav", "float")
    for combination in get_args(Combination):
        together = Ensemble(models, combination)
        write_stems(
            together, tmp_path / "song.wav", {"instrumental": tmp_path / "out.wav"}, StemSettings(("instrumental",))
        )
        mixture = read_audio(tmp_path / "song.wav")
        expected = mixture - together(mixture, RATE)["vocals"]
        torch.testing.assert_close(read_audio(tmp_path / "out.wav"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("combination", "order"), [("mean", 1), ("mean", -1), ("max", 1)])
def test_memory_does_not_depend_on_the_length(combination: Combination, order: int) -> None:
    """Neither blocks that were read nor estimates wait for longer in a longer song."""

    def most_waiting(blocks: int) -> tuple[int, int]:
        read, most_blocks = 0, 0
        alive: weakref.WeakSet[Tensor] = weakref.WeakSet()

        def song() -> Iterator[Tensor]:
            nonlocal read, most_blocks
            for _ in range(blocks):
                block = torch.rand(2, 1000) - 0.5
                alive.add(block)
                read += 1000
                most_blocks = max(most_blocks, len(alive))
                yield block
                del block

        written, most_samples = 0, 0
        for part, _ in Ensemble(different()[::order], combination).stream(song(), 48000):
            most_samples = max(most_samples, read - written)
            written += part.shape[-1]
        assert written == 1000 * blocks
        return most_samples, most_blocks

    short_samples, short_blocks = most_waiting(60)
    long_samples, long_blocks = most_waiting(240)
    # In four times the length, parts of different lengths meet in a few more ways.
    assert long_samples <= 1.25 * short_samples
    assert long_blocks <= 1.25 * short_blocks
