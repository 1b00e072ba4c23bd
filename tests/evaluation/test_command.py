import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.tracks import Track, find_tracks
from bsmamba2.errors import InputError, OutputError
from bsmamba2.evaluation.command import evaluate as evaluation_of
from bsmamba2.evaluation.results import ESTIMATE, HALF_ROW, MIXTURE_ROW, SCALE_ROWS, Results, to_json
from bsmamba2.metrics import csdr, usdr
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.options import grouped
from bsmamba2.report import write_report
from bsmamba2.separation.separator import Separator
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS
from bsmamba2.weights.checkpoint import save_model
from bsmamba2.weights.registry import ModelNames
from tests import programs

NAME = "Three - Third"
# Kills the process when it is about to give the result of the second song its name.
KILLED = """
import os, signal, sys
from bsmamba2.cli import main

def kill(event, arguments):
    if event == "os.rename" and os.fspath(arguments[1]).endswith("b - 2.json"):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
sys.exit(main())
"""
SCRIPT = str(Path(__file__).parents[2] / "scripts" / "evaluate.py")


def evaluate(root: Path, output: Path, model: ModelNames | None = None, **options: Any) -> Results:
    """Evaluates with the options of the command line, each by its name."""
    return evaluation_of(**grouped(evaluation_of, {"root": root, "output": output, "model": model, **options}))


@pytest.fixture
def model(tmp_path: Path, tiny_network: BSMamba2) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_model(tiny_network, path)
    return path


@pytest.fixture
def track(musdb_root: Path) -> Track:
    (track,) = find_tracks(musdb_root, "test")
    return track


@pytest.fixture
def songs(tmp_path: Path, musdb_root: Path) -> Path:
    """Returns a folder of three songs, tracks at its top."""
    for name in ("a - 1", "b - 2", "c - 3"):
        shutil.copytree(musdb_root / "test" / NAME, tmp_path / "songs" / name)
    return tmp_path / "songs"


def write_song(folder: Path, stems: dict[str, Tensor], rate: int = 44100) -> None:
    for stem, audio in stems.items():
        write_audio(folder / f"{stem}.wav", audio, rate, depth="float")


def written(run: Path) -> list[Path]:
    """Returns the results of tracks, without those that a kill left half-written under hidden names."""
    return sorted(path for path in (run / "tracks").glob("*.json") if not path.name.startswith("."))


def content(run: Path) -> dict[str, Any]:
    """Returns the results of tracks without times, to six decimals: the last bits differ between processes."""
    found = {}
    for path in written(run):
        track = json.loads(path.read_text(), parse_float=lambda text: round(float(text), 6))
        found[path.name] = track | {"computing_seconds": 0, "computed": {}}
    return found


def test_a_model_of_the_instrumental_is_scored_by_its_name(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path, track: Track
) -> None:
    torch.manual_seed(0)
    network = BSMamba2(replace(tiny_config, stems=("instrumental",), residual="vocals")).eval()
    save_model(network, tmp_path / "instrumental.safetensors")
    results = evaluate(musdb_root, tmp_path / "run", tmp_path / "instrumental.safetensors")
    assert list(results.tracks[NAME].scores) == ["instrumental"]
    both = evaluate(
        musdb_root, tmp_path / "both", tmp_path / "instrumental.safetensors", stems=["vocals", "instrumental"]
    )
    mixture, vocals = track.read(MIXTURE), track.read("vocals")
    estimate = mixture - Separator(network, device="cpu")(mixture, 44100)["instrumental"]
    expected = usdr(estimate=estimate, reference=vocals)
    assert both.tracks[NAME].scores["vocals"][ESTIMATE]["usdr"] == pytest.approx(expected, abs=1e-4)
    with pytest.raises(InputError, match=r"'drums' cannot be scored; the model gives instrumental, vocals$"):
        evaluate(musdb_root, tmp_path / "c", tmp_path / "instrumental.safetensors", stems=["drums"])


def test_an_ensemble_is_scored_like_a_model(
    tmp_path: Path, model: Path, tiny_config: ModelConfig, tiny_network: BSMamba2, musdb_root: Path, track: Track
) -> None:
    torch.manual_seed(1)
    network = BSMamba2(replace(tiny_config, stems=("instrumental",), residual="vocals", segment_seconds=0.15)).eval()
    other = tmp_path / "instrumental.safetensors"
    save_model(network, other, training_songs=[NAME])
    run = tmp_path / "run"
    results = evaluate(musdb_root, run, f"{model},{other}", stems=["vocals", "instrumental"])
    mixture, vocals = track.read(MIXTURE), track.read("vocals")
    first = Separator(tiny_network, device="cpu")(mixture, 44100)["vocals"]
    second = mixture - Separator(network, device="cpu")(mixture, 44100)["instrumental"]
    expected = usdr(estimate=(first + second) / 2, reference=vocals)
    assert results.tracks[NAME].scores["vocals"][ESTIMATE]["usdr"] == pytest.approx(expected, abs=1e-4)
    assert results.tracks[NAME].trained_on == "song"
    assert results.description["model"]["name"] == [str(model), str(other)]
    assert results.description["separation"]["ensemble"] == "mean"
    assert results.description["separation"]["segment_seconds"] == [0.1, 0.15]
    assert results.description["network 2"]["stems"] == ("instrumental",)
    write_report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert f"{model.name}, {other.name}" in page
    assert str(tmp_path) not in page
    with pytest.raises(InputError, match=r"results with other settings \(.*ensemble"):
        evaluate(musdb_root, run, [model, other], stems=["vocals", "instrumental"], ensemble="max")
    with pytest.raises(InputError, match=r"'drums' is not common to the models: .* gives vocals, instrumental, and"):
        evaluate(musdb_root, tmp_path / "c", [model, other], stems=["drums"])


def test_scores_are_those_of_the_separation(
    tmp_path: Path, model: Path, tiny_network: BSMamba2, musdb_root: Path, track: Track
) -> None:
    results = evaluate(musdb_root, tmp_path / "run", model, overlap=0.5, chunk_seconds=[0.05])
    mixture, vocals = track.read(MIXTURE), track.read("vocals")
    rows = results.tracks[NAME].scores["vocals"]
    assert list(rows) == [ESTIMATE, "chunks of 0.05 s", *SCALE_ROWS]
    for row, seconds in ((ESTIMATE, 0.1), ("chunks of 0.05 s", 0.05)):
        estimate = Separator(tiny_network, segment_seconds=seconds, overlap=0.5)(mixture, 44100)["vocals"]
        assert rows[row]["csdr"] == pytest.approx(
            csdr(estimate=estimate, reference=vocals, sample_rate=44100), abs=1e-6
        )
        assert rows[row]["usdr"] == pytest.approx(usdr(estimate=estimate, reference=vocals), abs=1e-6)
    assert rows[MIXTURE_ROW]["usdr"] == usdr(estimate=mixture, reference=vocals)
    assert rows[HALF_ROW]["usdr"] == usdr(estimate=mixture / 2, reference=vocals)
    assert len(rows[ESTIMATE].windows) == 2
    assert len(results.tracks[NAME].activity["vocals"]) == 20
    settings = results.description["settings"]
    assert settings == {"protocol": "single", "stems": ["vocals"], "museval": False, "save_estimates": False}
    assert results.description["separation"]["overlap"] == 0.5
    assert results.description["time"]["seconds_per_second_of_audio"] > 0
    assert to_json(Results.read(tmp_path / "run").tracks) == to_json(results.tracks)
    assert not (tmp_path / "run" / "report.html").exists(), "the page is made by the command line"


def test_the_excerpt_is_what_was_scored(
    tmp_path: Path, model: Path, tiny_network: BSMamba2, musdb_root: Path, track: Track
) -> None:
    results = evaluate(musdb_root, tmp_path / "run", model, save_estimates=True)
    assert results.tracks[NAME].excerpt == (0.0, 2.0)
    folder = tmp_path / "run" / "excerpts" / NAME
    assert sorted(path.name for path in folder.iterdir()) == [
        "mixture.flac", "vocals.estimate.flac", "vocals.reference.flac"
    ]  # fmt: skip
    estimate = Separator(tiny_network)(track.read(MIXTURE), 44100)["vocals"]
    assert read_audio(folder / "vocals.estimate.flac") == pytest.approx(estimate, abs=1e-6)
    assert torch.equal(read_audio(tmp_path / "run" / "estimates" / NAME / "vocals.wav"), estimate)


def test_the_estimates_of_a_model_score_the_same_as_files(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    """Saved estimates of a model are read like those of another tool."""
    first = evaluate(musdb_root, tmp_path / "a", model, stems=["vocals", "instrumental"], save_estimates=True)
    second = evaluate(
        musdb_root, tmp_path / "b", estimates=tmp_path / "a" / "estimates", stems=["vocals", "instrumental"]
    )
    assert to_json(second.tracks[NAME].scores) == to_json(first.tracks[NAME].scores)
    assert "model" not in second.description
    assert math.isnan(second.tracks[NAME].computing_seconds)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimates": Path("e"), "overlap": 0.5}, "--overlap cannot be used with --estimates"),
        (
            {"estimates": Path("e"), "batch_size": 2, "scan": "chunked", "chunk_seconds": [1.0]},
            "--batch-size, --scan, --chunk-seconds cannot be used with --estimates",
        ),
        ({"estimates": Path("e"), "ensemble": "max"}, "--ensemble is for a --model; leave it out with --estimates"),
        ({"estimates": Path("e"), "compile": True}, "--compile cannot be used with --estimates"),
        ({"estimates": Path("e"), "save_estimates": True}, "--save-estimates cannot be used with --estimates"),
        ({"model": "m", "validation_artists": ["Two"]}, "are for --split valid or train"),
        ({"model": "{model}", "chunk_seconds": [0.1, 0.1]}, "give each length only once"),
        ({"model": "{model}", "devices": 0}, "give at least 1 of each"),
        ({"model": "{model}", "strategy": "ddp"}, "is for several processes"),
    ],
)
def test_options_that_contradict_each_other(
    tmp_path: Path, model: Path, musdb_root: Path, options: dict[str, Any], message: str
) -> None:
    options = {name: model if value == "{model}" else value for name, value in options.items()}
    with pytest.raises(InputError, match=message):
        evaluate(musdb_root, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_excerpts_are_turned_down_rather_than_clipped(tmp_path: Path, model: Path, track: Track) -> None:
    stems = {stem: track.read(stem) for stem in MUSDB_STEMS}
    stems["vocals"] *= 2 / stems["vocals"].abs().max()
    write_song(tmp_path / "data" / "A - B", stems)
    result = evaluate(tmp_path / "data", tmp_path / "run", model).tracks["A - B"]
    assert result.excerpt_gain <= 0.5
    kept = read_audio(tmp_path / "run" / "excerpts" / "A - B" / "vocals.reference.flac")
    assert kept == pytest.approx(result.excerpt_gain * stems["vocals"], abs=1e-6)


@pytest.mark.parametrize("given", [{}, {"model": "m", "estimates": Path("e")}])
def test_either_a_model_or_estimates(tmp_path: Path, musdb_root: Path, given: dict[str, str | Path]) -> None:
    with pytest.raises(InputError, match="give either --model, or --estimates"):
        evaluate(musdb_root, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_splits_and_validation_tracks(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    assert list(evaluate(musdb_root, tmp_path / "a", model, split="valid").tracks) == ["Leaf - Summerghost"]
    artists = evaluate(musdb_root, tmp_path / "b", model, split="valid", validation_artists=["Two"])
    assert list(artists.tracks) == ["Two - Second"]


def test_the_pair_protocol_voids_windows_where_the_accompaniment_is_silent(
    tmp_path: Path, model: Path, track: Track
) -> None:
    """Only vocals sound in the second second: it counts on its own, but not with a silent accompaniment."""
    stems = {stem: track.read(stem) for stem in MUSDB_STEMS}
    for stem in ("drums", "bass", "other"):
        stems[stem][:, 44100:] = 0
    write_song(tmp_path / "data" / "A - B", stems)
    for protocol, defined in (("single", [True, True]), ("pair", [True, False])):
        results = evaluate(tmp_path / "data", tmp_path / protocol, model, protocol=protocol)
        for row in (ESTIMATE, MIXTURE_ROW):
            windows = results.tracks["A - B"].scores["vocals"][row].windows
            assert [not math.isnan(window) for window in windows] == defined


def test_four_sources_need_a_model_of_four(
    tmp_path: Path, model: Path, tiny_config: ModelConfig, musdb_root: Path
) -> None:
    with pytest.raises(InputError, match="protocol='four' needs estimates of drums, bass, other, vocals"):
        evaluate(musdb_root, tmp_path / "run", model, protocol="four")
    assert not (tmp_path / "run").exists()
    torch.manual_seed(0)
    save_model(BSMamba2(replace(tiny_config, stems=MUSDB_STEMS)), tmp_path / "four.safetensors")
    results = evaluate(musdb_root, tmp_path / "run", tmp_path / "four.safetensors", protocol="four")
    assert results.stems == MUSDB_STEMS
    assert all(math.isfinite(results.tracks[NAME].scores[stem][ESTIMATE]["csdr"]) for stem in MUSDB_STEMS)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="museval cannot be imported without an ffmpeg program")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_museval_on_request(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    """Its median SDR equals our cSDR of the pair to the five decimals it keeps."""
    results = evaluate(musdb_root, tmp_path / "run", model, protocol="pair", museval=True)
    scores = results.tracks[NAME].scores["vocals"][ESTIMATE]
    assert scores["museval_sdr"] == pytest.approx(scores["csdr"], abs=1e-5)
    assert all(math.isfinite(score) for score in (scores["museval_isr"], scores["museval_sir"], scores["museval_sar"]))
    official = json.loads((tmp_path / "run" / "museval" / "test" / f"{NAME}.json").read_text())
    assert [target["name"] for target in official["targets"]] == ["vocals", "accompaniment"]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="museval cannot be imported without an ffmpeg program")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_song_that_museval_refuses_has_the_remaining_scores(tmp_path: Path, model: Path, track: Track) -> None:
    stems = {stem: track.read(stem) for stem in MUSDB_STEMS}
    stems["vocals"].zero_()
    write_song(tmp_path / "data" / "A - B", stems)
    result = evaluate(tmp_path / "data", tmp_path / "run", model, museval=True).tracks["A - B"]
    scores = result.scores["vocals"][ESTIMATE]
    assert math.isnan(scores["csdr"])
    assert math.isnan(scores["museval_sdr"])
    assert math.isfinite(scores["leakage_db"])
    assert any("which museval cannot score" in note for note in result.notes)


def test_a_stopped_evaluation_resumes(
    tmp_path: Path, model: Path, songs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate(songs, tmp_path / "run", model)
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    records = tmp_path / "run" / "tracks"
    (records / "b - 2.json").unlink()
    (records / "c - 3.json").write_text('{"name": ')
    kept = (records / "a - 1.json").read_bytes()
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(InputError, match="was not finished; run the command again"):
        Results.read(tmp_path / "run")
    with caplog.at_level("INFO", "bsmamba2"):
        evaluate(songs, tmp_path / "run", model)
    assert [record.getMessage() for record in caplog.records if "already" in record.getMessage()] == [
        "a - 1: already scored"
    ]
    assert (records / "a - 1.json").read_bytes() == kept
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    assert Results.read(tmp_path / "run").tracks.keys() == {"a - 1", "b - 2", "c - 3"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_evaluation_gives_the_same_table(tmp_path: Path, model: Path, songs: Path) -> None:
    options = ["--model", str(model), "--root", str(songs), "--device", "cpu", "--output", str(tmp_path / "run")]
    job = programs.run([sys.executable, "-c", KILLED, "evaluate", *options], stderr=subprocess.DEVNULL, check=False)
    assert job.returncode == -signal.SIGKILL
    assert content(tmp_path / "run").keys() == {"a - 1.json"}
    assert len(list((tmp_path / "run" / "tracks").glob(".*"))) == 1, "the second result was being written"
    evaluate(songs, tmp_path / "run", model, device="cpu")
    evaluate(songs, tmp_path / "whole", model, device="cpu")
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    assert [path.name for path in (tmp_path / "run").rglob(".*")] == [".lock"]


def another_overlap(options: dict[str, object], tmp_path: Path) -> str:
    options["overlap"] = 0.5
    return r"overlap was 0\.25 and is 0\.5"


def another_protocol(options: dict[str, object], tmp_path: Path) -> str:
    options["protocol"] = "pair"
    return "protocol was single and is pair"


def another_model(options: dict[str, object], tmp_path: Path) -> str:
    torch.manual_seed(1)
    from tests.conftest import TINY

    save_model(BSMamba2(TINY), tmp_path / "other.safetensors")
    options["model"] = tmp_path / "other.safetensors"
    return "model was "


@pytest.mark.parametrize("change", [another_overlap, another_protocol, another_model])
def test_results_of_other_settings_are_never_mixed(
    tmp_path: Path, model: Path, musdb_root: Path, change: Callable[[dict[str, object], Path], str]
) -> None:
    options: dict[str, Any] = {"model": model}
    evaluate(musdb_root, tmp_path / "run", **options)
    before = content(tmp_path / "run")
    message = change(options, tmp_path)
    with pytest.raises(InputError, match=f"contains results with other settings .*{message}"):
        evaluate(musdb_root, tmp_path / "run", **options)
    assert content(tmp_path / "run") == before
    evaluate(musdb_root, tmp_path / "run", overwrite=True, **options)
    assert content(tmp_path / "run") != before


def test_a_song_that_changed_is_scored_again(tmp_path: Path, model: Path, songs: Path) -> None:
    before = evaluate(songs, tmp_path / "run", model)
    shutil.copyfile(songs / "b - 2" / "drums.wav", songs / "b - 2" / "vocals.wav")
    after = evaluate(songs, tmp_path / "run", model)
    changed = [name for name in after.tracks if to_json(after.tracks[name]) != to_json(before.tracks[name])]
    assert changed == ["b - 2"]
    assert after.description["data"]["sha256"] != before.description["data"]["sha256"]


def test_estimates_that_changed_are_scored_again(tmp_path: Path, musdb_root: Path, track: Track) -> None:
    write_song(tmp_path / "tool" / NAME, {"vocals": track.read(MIXTURE)})
    evaluate(musdb_root, tmp_path / "run", estimates=tmp_path / "tool")
    write_song(tmp_path / "tool" / NAME, {"vocals": track.read(MIXTURE) / 2})
    results = evaluate(musdb_root, tmp_path / "run", estimates=tmp_path / "tool")
    rows = results.tracks[NAME].scores["vocals"]
    assert to_json(rows[ESTIMATE]) == to_json(rows[HALF_ROW])


def test_only_the_track_that_lacks_an_estimate_fails(tmp_path: Path, songs: Path, track: Track) -> None:
    for name in ("a - 1", "b - 2", "c - 3"):
        write_song(tmp_path / "tool" / name, {"vocals" if name != "b - 2" else "bass": track.read("vocals") / 2})
    results = evaluate(songs, tmp_path / "run", estimates=tmp_path / "tool", stems=["vocals"])
    assert list(results.tracks) == ["a - 1", "c - 3"]
    assert "there is no estimate of vocals" in results.failures["b - 2"]


def test_files_that_no_evaluation_wrote_are_never_replaced(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"results\.json exists and was not written by an evaluation"):
            evaluate(musdb_root, tmp_path / "run", model, overwrite=overwrite)
    assert (tmp_path / "run" / "results.json").read_text() == "mine"


def test_songs_and_results_are_never_in_one_folder(tmp_path: Path, model: Path, songs: Path) -> None:
    shutil.move(songs, tmp_path / "data" / "tracks")
    before = sorted(tmp_path.rglob("*"))
    for root, output in (("data/tracks", "data"), ("data/tracks", "data/tracks/run"), ("data", "data")):
        with pytest.raises(InputError, match="are inside each other"):
            evaluate(tmp_path / root, tmp_path / output, model, overwrite=True)
    with pytest.raises(InputError, match="are inside each other"):
        evaluate(tmp_path / "data" / "tracks", tmp_path / "data", estimates=tmp_path / "data" / "tracks")
    assert sorted(tmp_path.rglob("*")) == before


def test_files_of_another_program_in_a_run_are_kept(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    evaluate(musdb_root, tmp_path / "run", model, save_estimates=True)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "run" / "estimates" / "list.txt").write_text("mine")
    evaluate(musdb_root, tmp_path / "run", model, overlap=0.5, overwrite=True)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert [path.name for path in (tmp_path / "run" / "estimates").iterdir()] == ["list.txt"]


def test_two_evaluations_do_not_share_a_folder(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    evaluate(musdb_root, tmp_path / "run", model)
    before = content(tmp_path / "run")
    with (
        FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(InputError, match="another evaluation is writing to"),
    ):
        evaluate(musdb_root, tmp_path / "run", model, overlap=0.5, overwrite=True)
    assert content(tmp_path / "run") == before


def test_overwrite_resumes_with_the_same_settings(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    first = evaluate(musdb_root, tmp_path / "run", model).tracks[NAME]
    assert evaluate(musdb_root, tmp_path / "run", model, overwrite=True).tracks[NAME].computed == first.computed


def test_a_lost_excerpt_is_made_again(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    evaluate(musdb_root, tmp_path / "run", model)
    excerpt = tmp_path / "run" / "excerpts" / NAME / "vocals.estimate.flac"
    before = excerpt.read_bytes()
    excerpt.unlink()
    evaluate(musdb_root, tmp_path / "run", model)
    assert excerpt.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_full_disk_ends_the_evaluation(
    tmp_path: Path, model: Path, songs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The remaining songs would be separated in vain."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            evaluate(songs, tmp_path / "run", model)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "failed: " not in caplog.text
    assert evaluate(songs, tmp_path / "run", model).tracks.keys() == {"a - 1", "b - 2", "c - 3"}


def test_a_name_that_is_not_unicode(tmp_path: Path, model: Path, songs: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = os.fsdecode(b"b \xff")
    for another in ("a - 1", "c - 3"):
        shutil.rmtree(songs / another)
    try:
        (songs / "b - 2").rename(songs / name)
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    # pytest-xdist cannot send such a name between processes.
    with caplog.at_level("ERROR", "bsmamba2"):
        results = evaluate(songs, tmp_path / "run", model)
    assert name in results.tracks
    write_report([tmp_path / "run"], tmp_path / "run" / "report.html")
    assert (
        "b \ufffd" in (tmp_path / "run" / "report.html").read_text()
        or "b ?" in (tmp_path / "run" / "report.html").read_text()
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows counts characters of whole paths")
def test_a_name_as_long_as_a_file_system_allows(tmp_path: Path, model: Path, songs: Path) -> None:
    first, second = (letter * 252 for letter in "xy")
    for old, new in (("a - 1", first), ("b - 2", second)):
        (songs / old).rename(songs / new)
    run = tmp_path / "run"
    results = evaluate(songs, run, model, save_estimates=True)
    assert {first, second} < results.tracks.keys()
    assert not results.failures
    assert len(list((run / "tracks").iterdir())) == len(results.tracks) == len(list((run / "estimates").iterdir()))
    files = {path: path.stat().st_mtime_ns for path in (run / "tracks").iterdir()}
    evaluate(songs, run, model, save_estimates=True)
    assert {path: path.stat().st_mtime_ns for path in (run / "tracks").iterdir()} == files
    again = evaluate(songs, tmp_path / "again", estimates=run / "estimates", stems=["vocals"])
    assert again.tracks.keys() == results.tracks.keys()
    page = write_report([run], run / "report.html")[0].read_text()
    assert "Excerpts were kept, but their files are missing" not in page


def test_an_empty_test_folder_is_an_error(tmp_path: Path, model: Path) -> None:
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match="there is no track in"):
        evaluate(tmp_path, tmp_path / "run", model)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stems", "message"),
    [
        (["drums"], "the stem 'drums' cannot be scored; the model gives vocals, instrumental"),
        (["vocals", "vocals"], "give at least one, each only once"),
        ([], "give at least one"),
    ],
)
def test_stems_that_cannot_be_scored(
    tmp_path: Path, model: Path, musdb_root: Path, stems: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(musdb_root, tmp_path / "run", model, stems=stems)


def test_only_broken_tracks_fail(tmp_path: Path, model: Path, songs: Path) -> None:
    write_audio(songs / "a - 1" / "bass.wav", torch.full((2, 88200), torch.nan), 44100, depth="float")
    (songs / "b - 2" / "vocals.wav").unlink()
    results = evaluate(songs, tmp_path / "run", model)
    assert list(results.tracks) == ["c - 3"]
    assert list(results.failures) == ["a - 1", "b - 2"]
    assert "not finite" in results.failures["a - 1"]
    assert "the track 'b - 2' has no stem 'vocals'" in results.failures["b - 2"]
    assert Results.read(tmp_path / "run").failures == results.failures
    (songs / "c - 3" / "vocals.wav").write_text("no audio")
    results = evaluate(songs, tmp_path / "run", model)
    assert not results.tracks
    assert list(results.failures) == ["a - 1", "b - 2", "c - 3"]
    assert not (tmp_path / "run" / "results.json").exists(), "the old results belong to different songs"


def test_mono_songs_at_a_different_rate(tmp_path: Path, model: Path, track: Track) -> None:
    """They are scored at their own rate, on one channel."""
    stems = {stem: track.read(stem)[:1, :48000] for stem in MUSDB_STEMS}
    write_song(tmp_path / "data" / "A - B", stems, rate=24000)
    result = evaluate(tmp_path / "data", tmp_path / "run", model).tracks["A - B"]
    assert result.seconds == 2.0
    assert len(result.scores["vocals"][ESTIMATE].windows) == 2
    info = audio_info(tmp_path / "run" / "excerpts" / "A - B" / "vocals.estimate.flac")
    assert (info.sample_rate, info.channels) == (24000, 1)


def test_an_output_that_cannot_be_written_is_found_before_any_work(
    tmp_path: Path, model: Path, musdb_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level("INFO"), pytest.raises(InputError, match="cannot be made"):
        evaluate(musdb_root, tmp_path / "file" / "run", model)
    assert "uSDR" not in caplog.text


def test_two_processes_share_the_songs(tmp_path: Path, model: Path, songs: Path) -> None:
    (songs / "b - 2" / "vocals.wav").unlink()
    command = [
        sys.executable,
        SCRIPT,
        "--model",
        str(model),
        "--root",
        str(songs),
        "--device",
        "cpu",
        "--devices",
        "2",
        "--no-report",
    ]
    job = programs.run(
        [*command, "--output", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=600, check=False, starts_copies=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert job.returncode == 1
    assert job.stderr.count("bsmamba2: error: 1 of 3 tracks could not be scored; the first: b - 2: ") == 1
    assert job.stdout.count("vocals, protocol single, 2 tracks") == 1
    alone = evaluate(songs, tmp_path / "alone", model, device="cpu")
    results = Results.read(tmp_path / "run")
    assert results.failures == alone.failures
    for name, track in alone.tracks.items():
        for row, scores in track.scores["vocals"].items():
            assert results.tracks[name].scores["vocals"][row]["usdr"] == pytest.approx(scores["usdr"], abs=1e-5)
