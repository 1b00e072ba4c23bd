import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import songs
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2
from bsmamba2.weights.checkpoint import save_model
from tests import programs
from tests.conftest import TINY


@pytest.fixture
def options(tmp_path: Path) -> songs.Options:
    """Returns options for a tiny network and songs of two seconds."""
    save_model(BSMamba2(replace(TINY, segment_seconds=0.5)), tmp_path / "tiny.safetensors")
    return songs.Options(model=str(tmp_path / "tiny.safetensors"), minutes=1 / 30, songs=2, threads=1, repeats=1)


def test_a_song_is_compared_with_the_passes_of_its_network(
    options: songs.Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = ["--parts", "network", "--model", options.model, "--minutes", str(options.minutes), "--repeats", "1"]
    assert songs.main([*line, "--threads", "1", "--json", "songs.json"]) == 0
    (row,) = json.loads(Path("songs.json").read_text(encoding="utf-8"))["network"]
    assert row["over_network"] == pytest.approx(row["seconds"] / row["network_seconds"])
    # 2 s in segments of 0.5 s, of which a quarter overlaps.
    assert row["network_seconds"] == pytest.approx(5 * row["pass_seconds"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["songs.json", "tiny.safetensors"]


def test_the_first_samples_of_a_stem_are_seen(
    options: songs.Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", programs.Popen)
    song = songs.write_song(tmp_path / "song.wav", options)
    assert songs.seconds_to_first_sample(options, song, tmp_path / "stems") > 0
    with pytest.raises(InputError, match="ended with status 1 before its first sample"):
        songs.seconds_to_first_sample(options, tmp_path / "none.wav", tmp_path / "others")


def test_an_album_is_shared_by_processes(
    options: songs.Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", programs.Popen)
    (row,) = songs.album(replace(options, processes=[1]), tmp_path)
    assert (row["processes"], row["songs"], row["times_faster"]) == (1, 2, 1)
    assert len(list((tmp_path / "stems").rglob("*.wav"))) == 4
    line = songs.command(options, [tmp_path / "none.wav"], tmp_path / "stems")
    with pytest.raises(InputError, match=r"bsmamba2 separate ended with status 1: .*none\.wav does not exist"):
        songs.finished(line, options)


@pytest.mark.parametrize("values", [{"minutes": 0.0}, {"songs": 0}, {"processes": [0]}, {"threads": 0}])
def test_options_out_of_range_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match="is not allowed; give values above 0"):
        songs.Options(**values)  # type: ignore[arg-type]
