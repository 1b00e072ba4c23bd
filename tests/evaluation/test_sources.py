"""What a model computes for its scores: the stems that the songs have, and no others."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook

from bsmamba2 import save_model
from bsmamba2.audio.writing import write_audio
from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import ESTIMATE, Results
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.masks import MaskEstimator
from bsmamba2.stem_names import MUSDB_STEMS
from tests.evaluation.test_command import NAME, evaluate
from tests.weights.test_mask_heads import CONFIG

TWO = ("vocals", "instrumental")


@pytest.fixture
def computed() -> Iterator[list[MaskEstimator]]:
    """Returns the mask heads that are computed in the test, each as often as it is."""
    heads: list[MaskEstimator] = []

    def record(module: torch.nn.Module, _: object, __: object) -> None:
        if isinstance(module, MaskEstimator):
            heads.append(module)

    hook = register_module_forward_hook(record)
    yield heads
    hook.remove()


def model_of(path: Path, config: ModelConfig) -> Path:
    torch.manual_seed(0)
    save_model(BSMamba2(config).eval(), path)
    return path


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Returns the file of a model of 53 stems, among them bass and drums."""
    return model_of(tmp_path / "many.safetensors", CONFIG)


def test_only_the_stems_that_songs_have_are_computed_and_scored(
    tmp_path: Path, many: Path, musdb_root: Path, computed: list[MaskEstimator], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        results = evaluate(musdb_root, tmp_path / "run", many)
    assert list(results.tracks[NAME].scores) == ["bass", "drums"]
    assert "the songs have bass, drums of the 53 stems; only these are scored" in caplog.text
    assert len(set(computed)) == 2
    assert results.description["network"]["stems"] == ("bass", "drums")
    computed.clear()
    chosen = evaluate(musdb_root, tmp_path / "chosen", many, stems=["drums"])
    assert usdr_of(chosen) == {"drums": usdr_of(results)["drums"]}
    assert len(set(computed)) == 1


def test_a_song_without_the_stem_is_not_separated(
    tmp_path: Path, many: Path, musdb_root: Path, computed: list[MaskEstimator]
) -> None:
    results = evaluate(musdb_root, tmp_path / "run", many, stems=["guitar"])
    assert results.failures[NAME].startswith(f"the track '{NAME}' has no stem 'guitar', only drums, bass, other, ")
    assert not computed


def test_stems_are_those_of_any_song(tmp_path: Path, many: Path, song_stems: dict[str, Tensor]) -> None:
    """A song that lacks one of them is reported, also one whose files are ambiguous."""
    songs = {"A - 1": ("bass", "other"), "B - 2": ("bass", "guitar"), "C - 3": ("bass", "guitar")}
    for name, stems in songs.items():
        for stem, audio in zip(stems, song_stems.values(), strict=False):
            write_audio(tmp_path / "songs" / name / f"{stem}.wav", audio[:, :44100], 44100)
    (tmp_path / "songs" / "C - 3" / "guitar.flac").write_bytes(b"")
    results = evaluate(tmp_path / "songs", tmp_path / "run", many)
    assert list(results.tracks["B - 2"].scores) == ["bass", "guitar"]
    assert (
        "has no stem 'guitar', only bass, other; add it, or score those it has with --stems bass"
        in (results.failures["A - 1"])
    )


def test_songs_and_a_model_without_a_common_stem(
    tmp_path: Path, many: Path, song_stems: dict[str, Tensor], computed: list[MaskEstimator]
) -> None:
    for stem in ("vocals", "other"):
        write_audio(tmp_path / "songs" / "A - B" / f"{stem}.wav", song_stems[stem], 44100)
    with pytest.raises(InputError, match=r"the songs have none of the stems accordion, .*, only .*; rename their "):
        evaluate(tmp_path / "songs", tmp_path / "run", many)
    estimates = tmp_path / "estimates" / "A - B"
    write_audio(estimates / "piano.wav", song_stems["vocals"], 44100)
    with pytest.raises(InputError, match=r"the songs have none of the stems piano, only other, vocals, instrumental;"):
        evaluate(tmp_path / "songs", tmp_path / "run", estimates=tmp_path / "estimates")
    write_audio(estimates / "vocals.wav", song_stems["vocals"], 44100)
    results = evaluate(tmp_path / "songs", tmp_path / "run", estimates=tmp_path / "estimates")
    assert list(results.tracks["A - B"].scores) == ["vocals"]
    assert not computed


@pytest.mark.parametrize(
    ("options", "heads"), [({}, 1), ({"protocol": "pair"}, 2), ({"stems": ["instrumental"], "protocol": "pair"}, 2)]
)
def test_the_estimate_of_everything_else_is_computed_where_scores_use_it(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path, computed: list[MaskEstimator], options: Any, heads: int
) -> None:
    model = model_of(tmp_path / "two.safetensors", replace(tiny_config, stems=TWO))
    options = {"stems": ["vocals"], **options}
    scores = usdr_of(evaluate(musdb_root, tmp_path / "run", model, **options))
    assert len(set(computed)) == heads
    both = usdr_of(evaluate(musdb_root, tmp_path / "both", model, **{**options, "stems": TWO}))
    assert scores == {stem: both[stem] for stem in options["stems"]}


def test_the_protocol_of_four_computes_all_four(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path, computed: list[MaskEstimator]
) -> None:
    model = model_of(tmp_path / "five.safetensors", replace(tiny_config, stems=(*MUSDB_STEMS, "piano")))
    assert list(usdr_of(evaluate(musdb_root, tmp_path / "run", model, protocol="four"))) == list(MUSDB_STEMS)
    assert len(set(computed)) == 4
    computed.clear()
    evaluate(musdb_root, tmp_path / "one", model, protocol="four", stems=["bass"])
    assert len(set(computed)) == 4


def usdr_of(results: Results) -> dict[str, float]:
    """Returns the uSDR of the estimates of the only track by stem."""
    return {stem: rows[ESTIMATE]["usdr"] for stem, rows in results.tracks[NAME].scores.items()}
