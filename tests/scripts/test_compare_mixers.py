"""The comparison of mixers: networks that can be built, a table and a figure, and one short training."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

import compare_mixers
from benchmarks.mixers import PAIRS
from bsmamba2.evaluation.results import ESTIMATE, Results, TrackResult
from bsmamba2.evaluation.scores import StemScores
from bsmamba2.model import BSMamba2, ModelConfig
from compare_mixers import MIXERS, Candidate, Run, draw, network_of, table_of


def run(*usdr: float) -> Run:
    """Returns a run with these scores of songs."""
    tracks = {
        f"song {place}": TrackResult(
            f"song {place}", "", "", 7.0, 1.0, scores={"vocals": {ESTIMATE: StemScores({"usdr": one, "csdr": one - 1})}}
        )
        for place, one in enumerate(usdr)
    }
    return Run(Results({}, tracks, {}), 300.0)


@pytest.mark.parametrize("mixer", MIXERS)
def test_networks_differ_in_the_mixers_alone(mixer: str) -> None:
    assert MIXERS[mixer][:2] == PAIRS[mixer]
    network, mamba2 = (ModelConfig.from_dict(network_of(name)) for name in (mixer, "mamba2"))
    assert (network.time_mixer, network.band_mixer) == MIXERS[mixer][:2]
    assert (network.dim, network.depth, network.bands) == (mamba2.dim, mamba2.depth, mamba2.bands)
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in BSMamba2(network).parameters()) < 2.5e6


def test_the_table_has_medians_means_and_paired_intervals(tmp_path: Path) -> None:
    songs = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0]
    first = Candidate(network_of("mamba2"), 0.5, 720, [run(*songs), run(*(one + 1 for one in songs))])
    second = Candidate(network_of("roformer"), 0.25, 1440, [run(*(one + 2 for one in songs))] * 2)
    table = table_of({"mamba2": first, "roformer": second})
    columns, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    assert {len(row) for row in rows} == {len(columns)}
    assert rows[0][3:] == ["0.50", "720", "5.0", "3.50, 4.50", "4.00", "3.00", "–"]
    # Every song is better by 1.5 dB in the mean of the seeds, so the interval is that point.
    assert rows[1][3:] == ["0.25", "1440", "5.0", "5.50, 5.50", "5.50", "4.50", "+1.50 [+1.50, +1.50]"]
    assert all("nan" not in table_of({name: replace(first, network=network_of(name))}) for name in MIXERS)
    draw({"mamba2": first, "roformer": second}, tmp_path / "figure.png")
    assert imread(tmp_path / "figure.png").std() > 0.01


def test_a_mixer_is_trained_scored_and_not_trained_again(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare_mixers, "SHORT_STEPS", (1, 1, 2))
    monkeypatch.setitem(compare_mixers.SIZES, "segment_seconds", 0.2)
    # As measured, so that the number of steps does not depend on this machine.
    (tmp_path / "mamba2").mkdir()
    (tmp_path / "mamba2" / "step_seconds.json").write_text("0.06")
    options = [str(made_up), str(tmp_path), "--mixers", "mamba2", "--seeds", "1", "--minutes", "0.002"]
    assert compare_mixers.main(options) == 0
    table = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.endswith(table)
    row = [cell.strip() for cell in table.splitlines()[2].split("|")[1:-1]]
    assert row[3:5] == ["0.06", "2"]
    assert math.isfinite(float(row[7]))
    (checkpoint,) = tmp_path.glob("mamba2/seed 1, 2 steps/**/last.ckpt")
    written = checkpoint.stat().st_mtime_ns
    assert compare_mixers.main(options) == 0
    assert checkpoint.stat().st_mtime_ns == written
    capsys.readouterr()
    assert compare_mixers.main([str(tmp_path / "nothing"), str(tmp_path / "other")]) == 1
    assert "error: there is no folder" in capsys.readouterr().err
    assert compare_mixers.main([*options, "--minutes", "0"]) == 1
    assert "minutes=0.0 is not allowed" in capsys.readouterr().err
    assert math.isfinite(compare_mixers._step_seconds("roformer", tmp_path))
    assert (tmp_path / "roformer" / "step_seconds.json").exists()
    (vocals,) = tmp_path.glob("data/valid/*/vocals.wav")
    vocals.write_text("no audio")
    assert compare_mixers.main(options) == 1
    assert "error: songs could not be scored: " in capsys.readouterr().err
