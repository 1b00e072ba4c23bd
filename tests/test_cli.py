import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import mixture_of
from bsmamba2.model import BSMamba2
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS
from bsmamba2.weights.checkpoint import save_model
from bsmamba2.weights.registry import PRESETS, Preset

COMMANDS = (
    "separate",
    "open",
    "train",
    "evaluate",
    "report",
    "check-data",
    "models",
    "convert",
    "export",
    "doctor",
    "demo",
)


@pytest.fixture
def model(tmp_path: Path, tiny_network: BSMamba2) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_model(tiny_network, path)
    return path


def test_separate_and_evaluate_from_the_command_line(
    tmp_path: Path, model: Path, musdb_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song = musdb_root / "test" / "Three - Third" / "mixture.wav"
    assert (
        main(["separate", str(song), "--model", str(model), "--output", str(tmp_path / "stems"), "--overlap", "0"]) == 0
    )
    for stem in ("vocals", "instrumental"):
        info = soundfile.info(tmp_path / "stems" / "mixture" / f"{stem}.wav")
        assert (info.frames, info.samplerate, info.subtype) == (88200, 44100, "PCM_16")
    shown = capsys.readouterr().err
    assert "float32 · segments 0.1 s" in shown
    assert "overlap 0 %" in shown
    run = ["evaluate", "--model", str(model), "--root", str(musdb_root), "--output", str(tmp_path / "run")]
    options = ["--stems", "vocals,instrumental", "--chunk-seconds", "0.05", "0.2", "--no-report"]
    assert main([*run, "--batch-size", "4", *options]) == 0
    shown = capsys.readouterr().out
    assert len(re.findall("^Three - Third ", shown, re.MULTILINE)) == 2
    for words in ("instrumental, protocol single, 1 tracks", "chunks of 0.05 s", "chunks of 0.2 s", "ideal ratio mask"):
        assert words in shown


def test_an_evaluation_has_a_report_that_can_be_made_again(
    tmp_path: Path, model: Path, musdb_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["evaluate", "--model", str(model), "--root", str(musdb_root), "--output", str(tmp_path / "run")]
    assert main(run) == 0
    assert "Three - Third" in (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "side by side.html")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "side by side.html"), str(tmp_path / "side by side.json")
    ]  # fmt: skip


def test_a_track_that_fails_changes_only_the_exit_status(
    tmp_path: Path, model: Path, musdb_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a - 1", "b - 2"):
        shutil.copytree(musdb_root / "test" / "Three - Third", tmp_path / "songs" / name)
    (tmp_path / "songs" / "b - 2" / "vocals.wav").unlink()
    run = ["--root", str(tmp_path / "songs"), "--output", str(tmp_path / "run"), "--no-report"]
    assert main(["evaluate", "--model", str(model), *run]) == 1
    shown = capsys.readouterr()
    assert len(re.findall("^a - 1 ", shown.out, re.MULTILINE)) == 1
    assert "failed: b - 2: " in shown.out
    assert not (tmp_path / "run" / "report.html").exists()
    assert shown.err.splitlines()[-1].startswith("bsmamba2: error: 1 of 2 tracks could not be scored; the first: b - 2")
    (tmp_path / "songs" / "a - 1" / "vocals.wav").unlink()
    assert main(["evaluate", "--model", str(model), *run[:-1]]) == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == (
        "bsmamba2: error: the songs have none of the stems vocals, only drums, bass, other; rename their files, or "
        "choose with --stems"
    )
    (tmp_path / "songs" / "a - 1" / "vocals.wav").write_text("no audio")
    assert main(["evaluate", "--model", str(model), *run[:-1]]) == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1].startswith("bsmamba2: error: no track could be scored; the first: a - 1: ")
    assert not re.search("^a - 1 ", shown.out, re.MULTILINE)
    assert not (tmp_path / "run" / "report.html").exists()


def test_existing_stems_are_kept(tmp_path: Path, model: Path, musdb_root: Path) -> None:
    song = musdb_root / "test" / "Three - Third" / "mixture.wav"
    arguments = ["separate", str(song), "--model", str(model), "--output", str(tmp_path / "stems")]
    assert main(arguments) == 0
    vocals = tmp_path / "stems" / "mixture" / "vocals.wav"
    vocals.write_text("mine")
    assert main(arguments) == 1
    assert vocals.read_text() == "mine"
    assert main([*arguments, "--overwrite"]) == 0
    assert soundfile.info(vocals).frames == 88200


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, ""),
        (["seperate"], 2, "there is no command 'seperate'; did you mean separate?"),
        (["listen"], 2, "there is no command 'listen'; choose separate, open, train, evaluate, report, check-data"),
        (["separate"], 2, "INPUT is missing; see bsmamba2 separate --help"),
        (["separate", "a.wav", "--model", "m", "--output", "o", "--gain", "1"], 2, "there is no option --gain; see"),
        (
            ["separate", "a.wav", "--overlap", "half"],
            2,
            "--overlap: 'half' is not a number",
        ),
        (
            ["separate", "{model}", "--model", "m.ckpt", "--output", "o"],
            1,
            "the model m.ckpt is neither a file nor a published model; check the path or the name; choose one of "
            "small-vocals, msst-vocals",
        ),
        (
            ["separate", "a.wav", "--model", "m", "--bit-depth", "20"],
            2,
            "--bit-depth: there is no '20'; choose source",
        ),
        (
            ["separate", "-x.wav", "--model", "m"],
            2,
            "there is no option -x.wav; write -- before a name that begins with -",
        ),
        (["separate", "a.wav", "--preset", "vocal"], 2, "--preset: there is no 'vocal'; did you mean vocals?"),
        (
            ["separate", "a.wav", "--preset", "fast", "--model", "m"],
            2,
            "--preset fast chooses a model too; leave --model or --preset out",
        ),
        (["separate", "a.wav", "--ensemble", "median"], 2, "--ensemble: there is no 'median'; "),
        (["separate", "{model}", "--preset", "fast", "--ensemble", "max"], 2, "but small-vocals is one; give --model"),
        (["separate", "{model}", "--model", "{model},kim"], 1, "kim is neither a file nor a published model; check"),
        (["separate", "a.wav", "--form", "flac"], 2, "there is no option --form; did you mean --format?"),
        (["separate", "a.wav", "--batch_sise", "2"], 2, "there is no option --batch_sise; did you mean --batch-size?"),
        (["separate", "a.wav", "--format", "mp4"], 2, "there is no 'mp4'; did you mean mp3?"),
        (["separate", "a.wav", "--two_stems", "x"], 2, "no option --two_stems; use --stems vocals,instrumental"),
        (["separate", "a.wav", "--batch-size", "2.5"], 2, "--batch-size: '2.5' is not a whole number"),
        (
            ["train", "--data.root", "nowhere", "--model.network.dept", "3"],
            2,
            "there is no option --model.network.dept; did you mean --model.network.depth?",
        ),
        (["separate", "", "--model", "{model}"], 1, "an input is empty"),
        (["separate", "{model}"], 1, "tiny.safetensors is damaged or not audio that can be read ("),
        (["separate", "{model}", "--overlap", "2"], 2, "--overlap 2.0 is not allowed; give a share"),
        (["separate", "a.wav", "--peak", "float", "--format", "flac"], 2, "flac does not support float samples; give"),
        (["separate", "a.wav", "-o"], 2, "--output needs a value; see bsmamba2 separate --help"),
        (["separate", "a.wav", "--overwrite=no"], 2, "--overwrite takes no value, but 'no' was given"),
        (["separate", "a.wav", "--model", ","], 2, "has an empty name"),
        (["--gain"], 2, "there is no option --gain before a command; see bsmamba2 --help"),
        (["--model", "m", "a.wav"], 2, "there is no option --model before a command; see bsmamba2 --help"),
        (["--verison"], 2, "there is no option --verison before a command; did you mean --version?"),
        (["doctor", "--version"], 2, "there is no option --version; use bsmamba2 --version"),
        (
            ["separate", "a.wav", "--device", "gpu"],
            2,
            "there is no device 'gpu'; choose auto, cpu, cuda, cuda:1 or mps",
        ),
        (["tiny.safetensors"], 2, "'tiny.safetensors' is not a command; did you mean bsmamba2 separate tiny.safet"),
        (["doctor", "now"], 2, "'now' was not expected; see bsmamba2 doctor --help"),
        (["demo", "--config", "tiny"], 2, "--config can be used only for training; give --train too"),
        (["demo", "--train", "--training-minutes", "0"], 2, "--training-minutes 0.0 is not allowed"),
        (["check-data"], 2, "ROOT is missing"),
        (["check-data", ".", "--channels", "0"], 1, "contains none of the folders train/, valid/ and test/"),
        (["convert", "{model}", "b.ckpt"], 2, "b.ckpt does not end in .safetensors"),
        (["convert", "{model}", "{model}"], 1, "exists already; give another OUTPUT, or --overwrite"),
        (["report", "a", "--output", "page.pdf"], 2, "page.pdf; give a name that ends in .html"),
        (["--print-completion", "cmd"], 2, "give the name of one shell: bash, zsh, tcsh, fish"),
        (["separate", "a.wav", "--model", "{model}", "--overwrite", "--skip-existing"], 2, "contradict each other"),
        (["separate", "a.wav", "--model", "{model}"], 1, "a.wav does not exist; check the path"),
        (["separate", "a.wav", "b.wav"], 1, "none of the 2 songs exists, the first of which is a.wav; check"),
        (["separate", "{model}", "--model", "{model}", "--stems", "voice"], 1, "choose vocals, instrumental, residual"),
        (["separate", "-", "--model", "{model}", "--devices", "2"], 2, "cannot share the standard input"),
        (["models", "--gain"], 2, "there is no option --gain"),
        (["models", "download"], 2, "NAME is missing"),
        (["models", "download", "best"], 2, "there is no published model 'best'; choose "),
        (["convert", "a.ckpt"], 2, "OUTPUT is missing"),
        (["convert", "a.ckpt", "b.safetensors", "c"], 2, "'c' was not expected; see bsmamba2 convert --help"),
        (
            ["evaluate", "--root", "r", "--output", "o", "--split", "dev"],
            2,
            "there is no 'dev'; choose train, valid, test",
        ),
        (
            ["evaluate", "--root", "r", "--chunk-seconds", "x"],
            2,
            "--chunk-seconds: 'x' is not a number",
        ),
        (["evaluate", "--root", "r", "--output", "o"], 2, "give either --model, or --estimates"),
        (["evaluate", "--root", "r", "--output", "o", "--estimates", "e"], 1, "there is no folder r"),
        (["evaluate", "--model", "m", "--root", "r"], 2, "--output is missing; see bsmamba2 evaluate --help"),
        (["evaluate"], 2, "--root and --output are missing; see bsmamba2 evaluate --help"),
        (["evaluate", "--root", "r", "--output", "o", "--estimates", "e", "--overlap", "0"], 2, "--overlap cannot be"),
        (["evaluate", "--root", ".", "--output", "{model}", "--model", "{model}"], 1, "is a file; give another one"),
        (["report"], 2, "RUN is missing"),
        (["report", "nowhere"], 1, "there is no results.json in nowhere"),
        (["train", "--batch-size", "3"], 2, "there is no option --batch-size; did you mean --data.batch_size?"),
        (["train", "--lr", "1e-3"], 2, "there is no option --lr; did you mean --model.learning_rate?"),
        (["train", "--data.root", "nowhere", "--speed", "3"], 2, "there is no option --speed; see bsmamba2 train"),
        (["train"], 2, "--data.root is missing, the folder of songs to train on; see bsmamba2 train --help"),
        (["train", "--data.root"], 2, "--data.root needs a value; see"),
        (["train", "songs"], 2, "'songs' was not expected; see"),
        (["train", "--data.root", "nowhere"], 1, "there is no folder nowhere; give --data.root the one that"),
        (
            ["train", "--data.root", ".", "--ckpt_path", "best.ckpt"],
            1,
            "the checkpoint best.ckpt does not exist; check",
        ),
        (["train", "--data.root", ".", "--model.init-from", "kim"], 1, "kim is neither a file nor a published model"),
        (["train", "--data.root", ".", "--model.compile", "maybe"], 2, "'maybe' is neither true nor false"),
        (["train", "--data.root", ".", "--model.schedule", "cosin"], 2, "there is no 'cosin'; did you mean cosine?"),
        (["train", "--data.root", ".", "--data.batch-size", "2.5"], 2, "'2.5' is not a whole number"),
        (["train", "--config", "tini"], 1, "there is no config tini; give a file, or a name: bsmamba2, "),
        (
            ["train", "--data.root", "nowhere", "--model.network.dim", "wide"],
            2,
            "--model.network.dim: 'wide' is not a whole",
        ),
        (["train", "--data.root", ".", "--model.network.dim", "100"], 1, "headdim=64 does not divide"),
        (["train", "--config", "none.yaml"], 1, "there is no config none.yaml; give a file, or a name: "),
        (["demo", "--train", "--config", "none.yaml"], 1, "there is no config none.yaml"),
    ],
)
def test_wrong_options_are_one_sentence_and_a_status(
    arguments: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([argument.replace("{model}", str(model)) for argument in arguments]) == status
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert len(re.findall("^bsmamba2.*: error: ", shown, re.MULTILINE)) == (1 if arguments else 0)
    if status == 2:
        assert shown.count("\n") == (1 if arguments else 0)
    assert list(tmp_path.iterdir()) == [model]


@pytest.mark.parametrize("command", [*COMMANDS, "models download", "models verify"])
def test_help_lists_the_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    if command == "models":
        assert main([command, "--help"]) == 0
        assert "usage: bsmamba2 models [NAME ...] [--stems STEM,...] [--json]" in capsys.readouterr().out
        return
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: bsmamba2 {command} " in shown
    assert "options:" in shown
    # The options of train are Lightning's and follow its spelling; both spellings are accepted.
    if command != "train":
        assert not re.search(r"--\w*_|<class|<function", shown)


def test_the_help_of_separate_shows_options_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["separate", "--help"])
    shown = capsys.readouterr().out
    assert all(f"  --{name} " in shown for name in ("bit-depth", "skip-existing", "batch-size", "num-nodes"))
    assert "usage: bsmamba2 separate [INPUT...] [options]" in shown


def test_the_general_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in COMMANDS)


@pytest.mark.parametrize("option", ["--bit-depth", "--bit_depth"])
@pytest.mark.parametrize("joined", [False, True])
def test_options_with_hyphens_and_underscores(
    option: str, joined: bool, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("a-b_c.wav", np.full((4410, 2), 0.1), 44100, "PCM_16")
    given = [f"{option}=24"] if joined else [option, "24"]
    template = "{track}-{stem}_x.{ext}"
    assert main(["separate", "a-b_c.wav", "--model", str(model), *given, f"--template={template}"]) == 0
    assert soundfile.info("stems/a-b_c-vocals_x.wav").subtype == "PCM_24"


@pytest.mark.parametrize("name", ["-x.wav", "--x-y.wav", "--model"])
def test_names_that_look_like_options(name: str, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write(name, np.full((4410, 2), 0.1), 44100, format="WAV")
    arguments = ["separate", "--model", str(model)]
    assert main([*arguments, f"./{name}"]) == 0
    assert main([*arguments, "--output", "again", "--", name]) == 0
    track = name.removesuffix(".wav")
    assert Path("stems", track, "vocals.wav").read_bytes() == Path("again", track, "vocals.wav").read_bytes()


def test_names_that_look_like_yaml(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["[x].wav", "{a: 1}", "null", "1", "true"]
    for name in names:
        soundfile.write(name, np.full((4410, 2), 0.1), 44100, format="WAV")
    assert main(["separate", *names, "--model", str(model), "--output", "[out]"]) == 0
    assert sorted(path.name for path in Path("[out]").iterdir()) == sorted(name.removesuffix(".wav") for name in names)


def test_stems_are_separated_by_commas(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("song.wav", np.full((4410, 2), 0.1), 44100)
    assert main(["separate", "song.wav", "--model", str(model), "--stems", "residual,vocals", "--skip-existing"]) == 0
    assert sorted(path.name for path in Path("stems/song").iterdir()) == ["residual.wav", "vocals.wav"]


def test_models_are_given_one_by_one_or_separated_by_commas(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("song.wav", np.full((4410, 2), 0.1), 44100)
    for number, models in enumerate(
        (["-m", "tiny.safetensors", "--model=tiny.safetensors"], ["-m", f"{model},{model}"])
    ):
        assert main(["separate", "song.wav", *models, "--ensemble", "min", "-o", str(number)]) == 0
        assert "min of 2 models" in capsys.readouterr().err
    assert Path("0/song/vocals.wav").read_bytes() == Path("1/song/vocals.wav").read_bytes()


def test_a_preset_chooses_a_model_and_options_that_are_not_given(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("song.wav", np.full((4410, 2), 0.1), 44100)
    options = {"overlap": 0.5, "stems": ["instrumental"], "segment_seconds": 0.05}
    monkeypatch.setitem(PRESETS, "fast", Preset("fast", "", (str(model),), options))
    assert main(["separate", "song.wav", "--preset", "fast"]) == 0
    shown = capsys.readouterr().err
    assert f"model {model}" in shown
    assert "segments 0.05 s, 1 in a pass · overlap 50 %" in shown
    assert [path.name for path in Path("stems/song").iterdir()] == ["instrumental.wav"]
    # The default of an option, when it is given, wins too.
    given = ["--overlap", "0.25", "--stems", "vocals"]
    assert main(["separate", "song.wav", "--preset", "fast", *given]) == 0
    assert "segments 0.05 s, 1 in a pass · overlap 25 %" in capsys.readouterr().err
    assert sorted(path.name for path in Path("stems/song").iterdir()) == ["instrumental.wav", "vocals.wav"]


def test_a_failed_song_is_status_1_and_a_skipped_one_0(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("good.wav", np.full((4410, 2), 0.1), 44100)
    Path("bad.wav").write_text("no audio")
    arguments = ["separate", "bad.wav", "good.wav", "--model", str(model), "--skip-existing"]
    assert main(arguments) == 1
    shown = capsys.readouterr().err
    assert "done 1, skipped 0, failed 1\n  done: good.wav\n  failed: bad.wav is damaged" in shown
    assert shown.splitlines()[-1].startswith("bsmamba2: error: 1 of 2 files could not be separated; the first: bad.wav")
    assert main([arguments[0], *arguments[2:]]) == 0
    assert "done 0, skipped 1, failed 0" in capsys.readouterr().err


def test_published_models_are_listed_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    assert models
    assert all(model["name"] in listed for model in models)
    assert main(["models", *(model["name"] for model in models)]) == 0
    described = capsys.readouterr().out
    assert all(model["name"] in described and model["sha256"] in described for model in models)
    assert main(["models", "--stems", "vocals,instrumental"]) == 0
    assert "mel-karaoke-aufr33" not in capsys.readouterr().out
    assert main(["models", "verify"]) == 0
    states = {model["name"]: "ok" if model["packaged"] else "not downloaded" for model in models}
    assert list(states.values()).count("ok") == 1
    assert capsys.readouterr().out.splitlines() == [f"{name}: {state}" for name, state in states.items()]
    assert main(["models", "verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == states


@pytest.mark.parametrize(
    ("command", "script"), [("train", "train"), ("evaluate", "evaluate"), ("check-data", "prepare_musdb")]
)
def test_the_scripts_are_the_commands(
    command: str, script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script of `separate` runs in the tests of songs that are shared by processes."""
    path = str(Path(__file__).parent.parent / "scripts" / f"{script}.py")
    monkeypatch.setattr(sys, "argv", [path, "--nonsense", "1"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(path, run_name="__main__")
    assert stop.value.code == 2
    assert f"bsmamba2 {command}: error" in capsys.readouterr().err


def test_data_are_checked_decoded_and_indexed(
    tmp_path: Path, musdb_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(musdb_root, tmp_path / "root")
    for number, track in enumerate(root.glob("*/*"), start=1):
        # Otherwise all four songs would be duplicates, and the mixture of this song was mastered.
        stems = {name: read_audio(track / f"{name}.wav") / number for name in MUSDB_STEMS}
        for name, audio in {**stems, MIXTURE: mixture_of(stems)}.items():
            write_audio(track / f"{name}.wav", audio, SAMPLE_RATE, depth="float")
    index = tmp_path / "index.json"
    assert main(["check-data", str(root), "--json", f"--index={index}", "--segment-seconds=0.1"]) == 0
    assert json.loads(capsys.readouterr().out)["healthy"]
    assert index.is_file()
    (root / "train" / "One - First" / "bass.wav").unlink()
    assert main(["check-data", str(root)]) == 1
    shown = capsys.readouterr()
    assert "error: train/One - First: lacks the stem bass, which others have" in shown.out
    assert (
        shown.err.splitlines()[-1] == "bsmamba2: error: the dataset has errors (listed above); fix them before training"
    )


def test_a_folder_that_cannot_be_made_is_an_error(
    tmp_path: Path, model: Path, musdb_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    song = musdb_root / "test" / "Three - Third" / "mixture.wav"
    output = str(tmp_path / "file" / "stems")
    assert main(["separate", str(song), "--model", str(model), "--output", output]) == 1
    assert "cannot be made" in capsys.readouterr().err


def test_a_reader_that_stops_early_is_not_an_error() -> None:
    code = "import sys; from bsmamba2.cli import main; sys.exit(main(['models']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(600) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such shell")
@pytest.mark.parametrize("prefix", ["exec 1>&-", "exec 2>&-", "exec 0<&- 1>&- 2>&-", "export PYTHONOPTIMIZE=2"])
def test_a_song_is_separated_without_a_console_or_docstrings(tmp_path: Path, model: Path, prefix: str) -> None:
    write_audio(tmp_path / "song.wav", torch.zeros(2, 4410), SAMPLE_RATE)
    program = f'{prefix}; exec "$0" -m bsmamba2 separate song.wav --model {model.name}'
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert (
        subprocess.run(["sh", "-c", program, sys.executable], cwd=tmp_path, env=environment, check=False).returncode
        == 0
    )
    assert soundfile.info(tmp_path / "stems" / "song" / "vocals.wav").frames == 4410


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_an_output_of_any_encoding(encoding: str) -> None:
    command = [sys.executable, "-m", "bsmamba2", "doctor"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    process = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert b"Traceback" not in process.stderr
    assert process.stdout
