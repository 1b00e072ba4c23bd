import functools
import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.evaluation.museval_scores import (
    METRICS,
    MusevalScores,
    museval_medians,
    require_museval,
    score_with_museval,
)
from bsmamba2.evaluation.statistics import summarise
from bsmamba2.metrics import windowed_sdr
from bsmamba2.stem_names import MIXTURE

RATE = 4000
NAN = float("nan")
needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None,
    reason="museval cannot be imported without the programs ffmpeg and ffprobe",
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def frames(scores: MusevalScores) -> dict[str, dict[str, list[float]]]:
    """Returns the stored scores by target and metric."""
    return {
        target["name"]: {metric: [frame["metrics"][metric] for frame in target["frames"]] for metric in METRICS}
        for target in json.loads(scores.json)["targets"]
    }


@pytest.fixture(scope="module")
def pair(song_stems: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns estimates and references of a second of a real song; in its third quarter an estimate is silent."""
    audio = {name: stem[:, :44100] for name, stem in song_stems.items()}
    references = {"vocals": audio["vocals"], "accompaniment": audio[MIXTURE] - audio["vocals"]}
    estimates = {"vocals": 0.8 * audio["vocals"] + 0.1 * audio["drums"]}
    estimates["accompaniment"] = audio[MIXTURE] - estimates["vocals"]
    estimates["accompaniment"][:, 22050:33075] = 0
    return estimates, references


@pytest.fixture(scope="module")
def scored(pair: tuple[dict[str, Tensor], dict[str, Tensor]]) -> MusevalScores:
    """Returns their scores; windows of a quarter of a second are faster to score."""
    return score_with_museval(estimates=pair[0], references=pair[1], sample_rate=11025)


@needs_ffmpeg
def test_its_sdr_equals_our_windowed_sdr(
    scored: MusevalScores, pair: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    estimates, references = (torch.stack([sources[name] for name in pair[1]]) for sources in pair)
    ours = windowed_sdr(estimate=estimates, reference=references, sample_rate=11025)
    stored = frames(scored)
    assert list(stored) == ["vocals", "accompaniment"]
    theirs = [stored[name]["SDR"] for name in stored]
    assert np.isnan(theirs).tolist() == [[False, False, True, False]] * 2
    # Half of the last of five decimals.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=5.001e-6)


@needs_ffmpeg
def test_museval_reads_the_file_as_its_own(scored: MusevalScores, tmp_path: Path) -> None:
    import museval

    scored.write(tmp_path / "museval" / "test" / "A - B.json")
    store = museval.EvalStore()
    store.add_eval_dir(tmp_path / "museval")
    (track,) = store.df["track"].unique()
    assert track == "A - B"
    theirs = store.agg_frames_scores()["A - B"]
    medians = museval_medians(scored)
    assert {(target, metric) for target in medians for metric in medians[target]} == set(theirs.index)
    for target, metric in theirs.index:
        assert medians[target][metric] == pytest.approx(theirs[target, metric], rel=0, abs=1e-12)
    first = json.loads(scored.json)["targets"][0]["frames"][1]
    assert (first["time"], first["duration"]) == (1, 1)


@needs_ffmpeg
def test_the_file_holds_what_the_medians_are_computed_from(scored: MusevalScores, tmp_path: Path) -> None:
    scored.write(tmp_path / "A.json")
    medians = museval_medians(scored)
    assert all(np.isfinite(list(values.values())).all() for values in medians.values())
    assert museval_medians(MusevalScores((tmp_path / "A.json").read_text(encoding="utf-8"))) == medians
    assert [path.name for path in tmp_path.iterdir()] == ["A.json"]


@needs_ffmpeg
def test_every_metric_has_the_right_name() -> None:
    """One estimate is too quiet and contains the other source; the other one contains noise."""
    first, second, own = noise(3, 1, RATE)
    scores = score_with_museval(
        estimates={"a": 0.5 * first + 0.05 * second, "b": second + 0.1 * own},
        references={"a": first, "b": second},
        sample_rate=RATE,
    )
    medians = museval_medians(scores)
    assert medians["a"]["ISR"] == pytest.approx(20 * np.log10(2), abs=0.1)
    assert medians["a"]["SIR"] == pytest.approx(20, abs=0.5)
    assert medians["a"]["SAR"] > 50
    assert medians["b"]["ISR"] > 20
    assert medians["b"]["SAR"] == pytest.approx(20, abs=2)
    assert medians["b"]["SIR"] > 20
    assert medians["a"]["SDR"] == pytest.approx(-10 * np.log10(0.25 + 0.0025), abs=0.1)


@needs_ffmpeg
def test_scores_that_are_not_numbers_are_undefined() -> None:
    """The first window is perfect, in the second a reference is too quiet for its energy to be a number."""
    references = {"a": noise(1, 2 * RATE), "b": noise(1, 2 * RATE, seed=1)}
    references["a"][:, RATE:] *= 1e-200
    estimates = {name: audio.clone() for name, audio in references.items()}
    estimates["a"][:, RATE:] = 1e-3
    scores = score_with_museval(estimates=estimates, references=references, sample_rate=RATE)
    assert np.isnan(frames(scores)["a"]["SDR"]).all()
    assert np.isnan(museval_medians(scores)["a"]["SDR"])


def give_silence(estimates: dict[str, Tensor], references: dict[str, Tensor]) -> None:
    references["b"][:] = 0


def give_antiphase(estimates: dict[str, Tensor], references: dict[str, Tensor]) -> None:
    estimates["a"][1] = -estimates["a"][0]


def give_infinity(estimates: dict[str, Tensor], references: dict[str, Tensor]) -> None:
    estimates["b"][0, 7] = torch.inf


def give_another_length(estimates: dict[str, Tensor], references: dict[str, Tensor]) -> None:
    estimates["b"] = estimates["b"][:, :-1]


def give_one_axis(estimates: dict[str, Tensor], references: dict[str, Tensor]) -> None:
    for sources in (estimates, references):
        sources.update({name: audio[0] for name, audio in sources.items()})


def give_nothing(estimates: dict[str, Tensor], references: dict[str, Tensor]) -> None:
    for sources in (estimates, references):
        sources.update({name: audio[:, :0] for name, audio in sources.items()})


def give_one_source(estimates: dict[str, Tensor], references: dict[str, Tensor]) -> None:
    del estimates["b"], references["b"]


def give_other_sources(estimates: dict[str, Tensor], references: dict[str, Tensor]) -> None:
    estimates["c"] = estimates.pop("b")


def give_copies(estimates: dict[str, Tensor], references: dict[str, Tensor]) -> None:
    for audio in references.values():
        audio[:] = 0
        audio[:, 0] = 64


@needs_ffmpeg
@pytest.mark.parametrize(
    ("give", "message"),
    [
        (give_silence, "the reference of b is silent over the whole track"),
        (give_antiphase, "the estimate of a is silent over the whole track"),
        (give_infinity, "the estimate of b has samples that are not finite"),
        (give_another_length, r"sources of shape \(2, 3999\), \(2, 4000\); all are"),
        (give_one_axis, r"sources of shape \(4000,\); all are"),
        (give_nothing, r"sources of shape \(2, 0\); all are"),
        (give_one_source, "estimates of a and references of a; it scores at least two"),
        (give_other_sources, "estimates of a, c and references of a, b; it scores at least two"),
        (give_copies, "cannot distinguish the sources a, b"),
    ],
)
def test_sources_it_cannot_score_are_errors(give: Any, message: str) -> None:
    references = {"a": noise(2, RATE), "b": noise(2, RATE, seed=1)}
    estimates = {"a": noise(2, RATE, seed=2), "b": noise(2, RATE, seed=3)}
    give(estimates, references)
    with pytest.raises(InputError, match=message):
        score_with_museval(estimates=estimates, references=references, sample_rate=RATE)


def forget_museval(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] in ("museval", "musdb", "stempeg"):
            monkeypatch.delitem(sys.modules, name)


@needs_ffmpeg
def test_museval_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_museval(monkeypatch)
    require_museval()


def test_without_an_ffmpeg_program_it_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_museval(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"museval cannot be used \(ffmpeg .*; it needs the programs ffmpeg and ff"):
        require_museval()
    with pytest.raises(InputError, match="museval cannot be used"):
        score_with_museval(estimates={}, references={}, sample_rate=RATE)


def test_without_the_package_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "museval", None)
    with pytest.raises(InputError, match=r"museval cannot be used .* and `pip install museval`"):
        require_museval()


@functools.cache
def published(folder: Path) -> dict[str, Any]:
    """Returns the figures of SiSEC 2018 by method, target and metric."""
    return dict(json.loads((folder / "medians_all_methods.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("method", "vocals_sdr"),
    [("TAK1", 6.60), ("UHL2", 5.93), ("IRM2", 9.43), ("WK", 3.76), ("JY3", 5.74), ("STL2", 3.25)],
)
def test_the_published_medians_of_sisec(tmp_path: Path, test_data: Path, method: str, vocals_sdr: float) -> None:
    sisec = test_data / "data" / "sisec2018"
    with tarfile.open(sisec / f"{method}.tar.xz") as archive:
        # The first versions of Python 3.11 have no filter.
        if hasattr(tarfile, "data_filter"):
            archive.extractall(tmp_path, filter="data")
        else:
            archive.extractall(tmp_path)
    files = sorted((tmp_path / method).rglob("*.json"))
    tracks = {path.stem: museval_medians(MusevalScores(path.read_text(encoding="utf-8"))) for path in files}
    expected = published(sisec)[method]
    assert len(tracks) == 50
    assert all(medians.keys() == expected.keys() for medians in tracks.values())
    for target, metrics in expected.items():
        assert metrics.keys() == set(METRICS)
        for metric, figures in metrics.items():
            summary = summarise(medians[target][metric] for medians in tracks.values())
            # Half of the last of four decimals.
            assert summary.median == pytest.approx(figures["median_of_track_medians"], rel=0, abs=5.1e-5)
            assert summary.mean == pytest.approx(figures["mean_of_track_medians"], rel=0, abs=5.1e-5)
            assert summary.count == figures["n_tracks"]
            if (target, metric) == ("vocals", "SDR"):
                assert round(summary.median, 2) == vocals_sdr


def test_medians_leave_undefined_frames_out() -> None:
    metrics = [dict.fromkeys(METRICS, 1.0) | {"SDR": value} for value in (4.0, NAN, 1.0, 2.0, 8.0, NAN)]
    frames = [{"time": float(number), "duration": 1.0, "metrics": frame} for number, frame in enumerate(metrics)]
    scores = MusevalScores(json.dumps({"targets": [{"name": "bass", "frames": frames}]}))
    assert museval_medians(scores) == {"bass": {"SDR": 3, "ISR": 1, "SIR": 1, "SAR": 1}}
