import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import MIXTURE
from bsmamba2.data.tracks import find_tracks
from bsmamba2.errors import InputError
from bsmamba2.evaluation import Evaluation, TrackScores, evaluate
from bsmamba2.metrics import csdr, usdr
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.separation import Separator


def save(network: BSMamba2, path: Path) -> Path:
    weights = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": weights, "hyper_parameters": {"network": asdict(network.config)}}, path)
    return path


@pytest.fixture
def model(tmp_path: Path, tiny_network: BSMamba2) -> Path:
    return save(tiny_network, tmp_path / "tiny.ckpt")


def test_scores_are_those_of_the_separation(
    tmp_path: Path, model: Path, tiny_network: BSMamba2, musdb_root: Path
) -> None:
    evaluation = evaluate(model, musdb_root, tmp_path / "run", overlap=0.5)
    (track,) = find_tracks(musdb_root, "test")
    mixture, vocals = track.read(MIXTURE), track.read("vocals")
    estimate = Separator(tiny_network, overlap=0.5)(mixture, 44100)["vocals"]
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["tracks"]["Three - Third"] == {
        "csdr": pytest.approx(csdr(estimate=estimate, reference=vocals), abs=1e-6),
        "usdr": pytest.approx(usdr(estimate=estimate, reference=vocals), abs=1e-6),
    }
    assert results["mixtures"]["Three - Third"]["usdr"] == usdr(estimate=mixture, reference=vocals)
    assert results["settings"]["protocol"] == "single"
    assert results["settings"]["overlap"] == 0.5
    assert results["seconds_per_second"] > 0
    table = evaluation.table()
    assert "protocol single" in table
    assert "Three - Third" in table


def test_other_splits_and_validation_tracks(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    assert list(evaluate(model, musdb_root, tmp_path / "a", split="valid").tracks) == ["Leaf - Summerghost"]
    artists = evaluate(model, musdb_root, tmp_path / "b", split="valid", validation_artists=["Two"])
    assert list(artists.tracks) == ["Two - Second"]


def test_the_pair_protocol_voids_windows_where_the_accompaniment_is_silent(
    tmp_path: Path, model: Path, musdb_root: Path
) -> None:
    """In the second second only vocals are heard: it counts alone, and not beside a silent accompaniment."""
    (track,) = find_tracks(musdb_root, "test")
    stems = {stem: track.read(stem) for stem in ("drums", "bass", "other", "vocals")}
    for stem in ("drums", "bass", "other"):
        stems[stem][:, 44100:] = 0
    stems[MIXTURE] = torch.stack(list(stems.values())).sum(0)
    for stem, audio in stems.items():
        write_audio(tmp_path / "data" / "test" / "A - B" / f"{stem}.wav", audio, 44100, depth="float")
    single = evaluate(model, tmp_path / "data", tmp_path / "single").mixtures["A - B"]
    pair = evaluate(model, tmp_path / "data", tmp_path / "pair", protocol="pair").mixtures["A - B"]
    assert math.isinf(single.csdr)
    assert math.isfinite(pair.csdr)
    assert single.usdr == pair.usdr


def test_four_sources_need_a_model_of_four(
    tmp_path: Path, model: Path, tiny_config: ModelConfig, musdb_root: Path
) -> None:
    with pytest.raises(InputError, match="protocol='four' needs a model of drums, bass, other, vocals"):
        evaluate(model, musdb_root, tmp_path / "run", protocol="four")
    four = save(BSMamba2(replace(tiny_config, stems=("drums", "bass", "other", "vocals"))), tmp_path / "four.ckpt")
    scores = evaluate(four, musdb_root, tmp_path / "run", protocol="four", stem="bass")
    assert scores.settings["stem"] == "bass"
    assert math.isfinite(scores.tracks["Three - Third"].csdr)


def test_results_are_not_overwritten_unasked(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("mine")
    with pytest.raises(InputError, match=r"results\.json is already there"):
        evaluate(model, musdb_root, tmp_path / "run")
    assert (tmp_path / "run" / "results.json").read_text() == "mine"
    evaluate(model, musdb_root, tmp_path / "run", overwrite=True)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["tracks"]


def test_an_empty_test_folder_is_an_error(tmp_path: Path, model: Path) -> None:
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match="there is no track in"):
        evaluate(model, tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_stem_the_model_does_not_give_is_an_error(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    with pytest.raises(InputError, match="stem='drums' cannot be scored; the model gives vocals"):
        evaluate(model, musdb_root, tmp_path / "run", stem="drums")


def test_undefined_scores_are_left_out_and_counted() -> None:
    scores = {
        "a": TrackScores(csdr=1.0, usdr=2.0),
        "b": TrackScores(csdr=math.nan, usdr=-1.0),
        "c": TrackScores(csdr=4.0, usdr=5.0),
        "d": TrackScores(csdr=10.0, usdr=6.0),
    }
    settings = {"stem": "vocals", "protocol": "single", "overlap": 0, "segment_seconds": 8, "scan": "", "device": ""}
    evaluation = Evaluation(settings, scores, scores, {}, 1.0)
    assert evaluation.summary(scores) == {
        "csdr_median": 4.0,
        "csdr_mean": 5.0,
        "usdr_median": 3.5,
        "usdr_mean": 3.0,
        "tracks_without_csdr": 1,
    }
    assert json.loads(evaluation.to_json())["tracks"]["b"] == {"csdr": None, "usdr": -1.0}
    assert "1 tracks have no defined window" in evaluation.table()


def test_a_broken_track_costs_no_other_its_score(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(musdb_root / "test", root / "test")
    shutil.copytree(musdb_root / "test" / "Three - Third", root / "test" / "Broken - Song")
    broken = torch.full((2, 88200), torch.nan)
    write_audio(root / "test" / "Broken - Song" / "bass.wav", broken, 44100, depth="float")
    with pytest.raises(InputError, match=r"1 of 2 tracks could not be scored.*Broken - Song.*not finite"):
        evaluate(model, root, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["tracks"]) == ["Three - Third"]
    assert list(results["failures"]) == ["Broken - Song"]


def test_an_output_that_cannot_be_written_is_found_before_any_work(
    tmp_path: Path, model: Path, musdb_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level("INFO"), pytest.raises(InputError, match="cannot be made"):
        evaluate(model, musdb_root, tmp_path / "file" / "run")
    assert "uSDR" not in caplog.text
