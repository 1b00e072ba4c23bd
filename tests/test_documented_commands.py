"""Every command and example that the documents show is run on tiny data; what is not run is listed with the reason.

The files and folders that the documents name exist where the commands run, so that they run as they are written, except
for what the tables below list.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bsmamba2.audio.formats import Format
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Track
from bsmamba2.metrics.sdr import Audio, checked_audio
from bsmamba2.model import BSMamba2, ModelConfig, PrimeKnet
from bsmamba2.model.mixing import Mixer
from bsmamba2.model.norms import RMSNorm
from bsmamba2.separation.manifest import read_manifest
from bsmamba2.separation.settings import StemSettings
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS, VOCALS
from bsmamba2.weights.checkpoint import save_model
from tests.conftest import TINY
from tests.model.make_golden import PRIMEKNET
from tests.test_documents import CURRENT, PROGRAM, REPOSITORY, names, read, run_program
from tests.weights.test_conversion import PUBLISHED_FORM, authors_checkpoint, own_checkpoint

# Options that make a command small, after those of the document.
SMALLER = {
    "bsmamba2 train": (
        "--model.network.dim=32",
        "--model.network.depth=1",
        "--model.network.bands=[8,24,33,64]",
        "--model.network.mask_expand=1",
        "--model.network.n_fft=256",
        "--model.network.window_length=256",
        "--model.network.hop_length=64",
        "--model.network.segment_seconds=0.1",
        "--model.loss.stft_windows=[256]",
        "--data.batch_size=2",
        "--data.epoch_excerpts=4",
        "--data.workers=0",
        "--data.validation_seconds=0.25",
        "--trainer.max_epochs=1",
        "--trainer.num_sanity_val_steps=0",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
        "--trainer.precision=32",
        "--trainer.enable_progress_bar=false",
        "--pictures.every_n_validations=100",
    ),
    # The tracks are shorter than the excerpts of the published recipe.
    "bsmamba2 check-data": ("--segment-seconds=0.1",),
}
# Instead of those, for a training of the other network.
SMALLER_SPEECH = (
    "--model.network.dense_channel=4",
    "--model.network.num_tsblock=1",
    "--model.network.segment_seconds=0.1",
    "--data.batch_size=2",
    *SMALLER["bsmamba2 train"][SMALLER["bsmamba2 train"].index("--data.epoch_excerpts=4") :],
)
# What a reader puts in place of a word.
INSTEAD = {
    "CHECKPOINT": "model.ckpt",
    "SEED": "1",
    "OPTIONS": "--model.loss.stft=0",
    "NAME": "small-vocals",
    "FILE": "index.json",
    "ROOT": "MUSDB18-HQ",
    "VOICES": "SPEECH",
}
# Small models in place of those that would be downloaded.
MODELS_INSTEAD = {
    "msst-vocals": "model.ckpt",
    "mel-vocals-kim": "model.ckpt",
    "bs-vocals-viperx": "other.safetensors",
    "mel-instrumental-becruily": "other.safetensors",
    "primek-net": "g_best",
}
# By how a command begins. Their options and values are checked in test_documents.py.
NOT_RUN = {
    "make benchmark-quick": "its times mean nothing on a machine that runs tests",
    ".venv/bin/python -m benchmarks.compare": "it compares what make benchmark-quick writes",
    "make ": ".ci/run runs it",
    "python3 -m venv .venv && source .venv/bin/activate": "scripts/check_installation.sh runs it",
    "pip install .": "scripts/check_installation.sh runs it",
    'pip install ".': "scripts/check_installation.sh runs it",
    'pip install "bsmamba2[wandb]"': "no test needs this logger",
    'pip install "bsmamba2[mlflow]"': "no test needs this logger",
    'pip install "bsmamba2[': "scripts/check_installation.sh installs this extra",
    "pip install uv": "the build that it chooses is not in the package index",
    "uv pip install": "the build that it chooses is not in the package index",
    "pip install wheel setuptools packaging ninja": "it needs an NVIDIA GPU",
    "pip install --no-build-isolation -r requirements-cuda.txt": "it needs an NVIDIA GPU",
    "MAMBA_SKIP_CUDA_BUILD": "it needs an NVIDIA GPU",
    "pip install pre-commit": "it changes the repository",
    "python -m http.server": "it runs until it is stopped",
    "tensorboard --logdir": "it runs until it is stopped",
    "#SBATCH": "it needs a cluster",
    "srun": "it needs a cluster",
    "torchrun": "it needs two machines",
    "bsmamba2 demo": ".ci/run runs it",
    "bsmamba2 open": "it runs until it is stopped; tests/server/test_interface.py runs it",
    "bsmamba2 models download": "it downloads models",
    "bsmamba2 separate song.mp3 --preset": "it downloads models",
    "bsmamba2 separate --manifest songs.csv --upload": "it needs a bucket",
    "bsmamba2 check-data PREVIEWS": "the stems of the song in stempeg do not sum to it",
    "bsmamba2 train --config FILE": "the commands with configs of ours are run",
    "bsmamba2 report RUN1 RUN2": "the command with names of runs is run",
    "bsmamba2 evaluate --root musdb18-7": "it needs the songs",
    "python scripts/train_default_model.py": "it takes hours",
    "bsmamba2 export": "tests/export/test_onnx_files.py exports tiny networks; the packaged one takes minutes",
    "python scripts/attack_": "tests/scripts/test_attacks.py makes a few of the attacks; all take minutes",
    "python scripts/fuzz_reading.py": "it takes an hour",
    "python scripts/compare_mixers.py": "tests/scripts/test_compare_mixers.py runs it on a little noise",
    "python scripts/lay_out_voices.py": "its own test lays out a few tones",
    "python benchmark_mamba_ssm.py": "it measures for minutes",
    "python -m benchmarks.": "it measures for minutes",
}
ARTISTS = ("Alexander Ross", "Hezekiah Jones", "Meaxic", "Port St Willow", "The Districts")
# Options alone, programs without what they need, and the forms of a usage are no commands.
WHOLE = re.compile(
    r"bsmamba2 (?:doctor|demo|models|[a-z-]+ \S)"
    r"|(?:MAMBA\w+=\w+ )*(?:make|pip|python3?|source|srun|tensorboard|torchrun|uv) \S|#SBATCH"
)


def documented(name: str) -> list[str]:
    """Returns the commands of a document in their order, without comments, each once."""
    text = read(name)
    blocks, spans = [], []
    for language, block, span in re.findall(r"```(\w*)\n(.*?)```|`([^`\n]+)`", text, re.DOTALL):
        if span and WHOLE.match(span):
            spans.append(span)
        elif language == "" and not re.search("[─│┐]", block):
            blocks += re.sub(r"\\\n", " ", block).splitlines()
    variables = dict(re.findall(r"^(\w+)='(.*)'$", text, re.MULTILINE))
    commands = [re.split(r"\s+# ", line)[0].strip() for line in (*blocks, *spans)]
    for variable, value in variables.items():
        commands = [command.replace(f'"${variable}"', shlex.quote(value)) for command in commands]
    usage = re.compile(r"\.\.\.|\[--")
    kept = [each for each in commands if each and not usage.search(each) and not re.match(r"\w+='", each)]
    return list(dict.fromkeys(kept))


def reason(command: str) -> str | None:
    return next((reason for beginning, reason in NOT_RUN.items() if command.startswith(beginning)), None)


def as_run(command: str) -> tuple[str, list[str]]:
    """Returns the program of a command and its arguments on the tiny data."""
    _, program, given = re.split(f"({PROGRAM.pattern})", command, maxsplit=1)
    words = [INSTEAD.get(word, word) for word in shlex.split(given)]
    if program in ("bsmamba2 separate", "bsmamba2 evaluate"):
        words = [",".join(MODELS_INSTEAD.get(part, part) for part in word.split(",")) for word in words]
    smaller = SMALLER_SPEECH if "primeknet" in command and program == "bsmamba2 train" else SMALLER.get(program, ())
    return program, words if "--help" in words else [*words, *smaller]


@pytest.fixture(scope="module")
def supposed(tmp_path_factory: pytest.TempPathFactory, song: Track) -> Path:
    """Returns a folder with the songs, models and configs that the documents suppose are there."""
    folder = tmp_path_factory.mktemp("supposed")
    second = SAMPLE_RATE // 2
    places = {
        "MUSDB18-HQ": ("train/One - First", "train/Two - Second", "train/Leaf - Summerghost", "test/Three - Third"),
        "songs": ("test/Three - Third",),
        "DATA": [f"train/{artist} - Song" for artist in ("One", "Two", *ARTISTS)],
        "FOLDER": ("Three - Third",),
    }
    for root, tracks in places.items():
        for number, track in enumerate(tracks):
            # At half the level, so that the sum is not clipped.
            audio = {stem: song.read(stem, number * second, second) / 2 for stem in MUSDB_STEMS}
            if root == "FOLDER":
                audio = {VOCALS: audio[VOCALS]}
            else:
                audio[MIXTURE] = sum(audio.values(), torch.zeros(2, second))
            for stem, samples in audio.items():
                write_audio(folder / root / track / f"{stem}.wav", samples, SAMPLE_RATE)
    speech_rate = 16000
    for place in ("train/A - 1", "valid/B - 2", "test/C - 3"):
        for stem in ("speech", "noise"):
            write_audio(folder / "SPEECH" / place / f"{stem}.wav", 0.1 * torch.rand(1, speech_rate), speech_rate)
    write_audio(folder / "call.wav", 0.1 * torch.rand(1, speech_rate), speech_rate)
    torch.save(own_checkpoint(PrimeKnet(PRIMEKNET).state_dict(), PRIMEKNET), folder / "speech.ckpt")
    torch.save({"generator": PrimeKnet(PRIMEKNET).state_dict()}, folder / "g_best")
    mixture = song.read(MIXTURE, 0, second)
    songs: dict[str, Format] = {"song.mp3": "mp3", "albums/one.mp3": "mp3", "live/first/two.flac": "flac"}
    for path, format in songs.items():
        write_audio(folder / path, mixture, SAMPLE_RATE, format, None)
    (manifest,) = re.findall(r"```csv\n(.*?)```", read("docs/catalogues.md"), re.DOTALL)
    (folder / "songs.csv").write_text(manifest)
    (folder / "PREVIEWS" / "train").mkdir(parents=True)
    shutil.copy(song.path, folder / "PREVIEWS" / "train" / "Five - Fifth.stem.mp4")
    torch.manual_seed(0)
    for path in ("model.ckpt", "tiny-350-steps.ckpt", "tiny-250-steps.ckpt"):
        torch.save(own_checkpoint(BSMamba2(TINY).state_dict(), TINY), folder / path)
    save_model(BSMamba2(TINY), folder / "other.safetensors")
    torch.save(authors_checkpoint(BSMamba2(PUBLISHED_FORM).state_dict()), folder / "sota_model.ckpt")
    two = replace(PUBLISHED_FORM, stems=("speech", "music"))
    torch.save(BSMamba2(two).state_dict(), folder / "weights.ckpt")
    for name in ("configs", "scripts"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


@pytest.mark.parametrize("name", names(CURRENT))
def test_commands_do_what_the_documents_show(
    name: str, supposed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(supposed, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    failed = []
    for command in documented(name):
        if reason(command):
            continue
        program, words = as_run(command)
        # Commands are alternatives to those before them, whose outputs would be in their way.
        for output in (
            Path("stems"),
            Path("lightning_logs"),
            *(Path(after) for word, after in pairwise(words) if word == "--output"),
        ):
            shutil.rmtree(output, ignore_errors=True)
        status, printed = run_program(program, *words)
        if status != 0:
            failed.append(f"{command}\n    as {program} {shlex.join(words)}\n    status {status}: {printed[-600:]}")
    assert "\n".join(failed) == ""


def test_the_tables_name_nothing_that_is_gone() -> None:
    commands = [command for name in names(CURRENT) for command in documented(name)]
    assert [beginning for beginning in NOT_RUN if not any(each.startswith(beginning) for each in commands)] == []
    words = {word for command in commands if not reason(command) for word in re.split(r"[ ,]", command)}
    assert [word for word in (*INSTEAD, *MODELS_INSTEAD) if word not in words] == []
    # Programs that are not ours are run by nothing here.
    assert [command for command in commands if not reason(command) and not PROGRAM.search(command)] == []


def test_commands_that_are_run_elsewhere_are() -> None:
    for command in (command for name in names(CURRENT) for command in documented(name)):
        where, _, end = (reason(command) or "").partition(" ")
        if end == "runs it":
            assert command.replace("bsmamba2 demo", "make demo") in read(where)
        if end == "installs this extra":
            extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
            installed = set(re.findall(r"\w+", " ".join(re.findall(r"\[([\w,]+)\]\"", read(where)))))
            installed |= set(re.findall(r"\w+", extras["all"][0])) if "all" in installed else set()
            assert set(re.findall(r"\w+", command.partition("[")[2])) <= installed


def examples(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", read(name), re.DOTALL)


def test_python_examples_of_separation_run(supposed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(supposed, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in ("docs/separation.md", "docs/models.md"):
        for example in examples(name):
            for model, small in MODELS_INSTEAD.items():
                example = example.replace(f'"{model}"', f'"{small}"')
            given: dict[str, Any] = {"audio": 0.1 * torch.randn(2, 24000), "sample_rate": 48000}
            with torch.inference_mode():
                exec(example, given)
            assert given["stems"]["vocals"].shape == (2, 24000)


def test_a_job_of_the_array_separates_its_part_of_the_manifest(supposed: Path, tmp_path: Path) -> None:
    splitting, script = re.findall(r"```bash\n(.*?)```", read("docs/catalogues.md"), re.DOTALL)
    splitting = splitting[: splitting.index("sbatch")].replace("--lines 10000", "--lines 2")
    bash = shutil.which("bash")
    if bash is None or shutil.which("split") is None:
        pytest.skip("there is no bash, or no split")
    shutil.copytree(supposed, tmp_path, symlinks=True, dirs_exist_ok=True)
    python = f'bsmamba2() {{ {shlex.quote(sys.executable)} -m bsmamba2 "$@"; }}\n'
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "1", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([bash, "-ec", python + splitting + script], cwd=tmp_path, env=environment, check=True)
    rows = [read_manifest(path, StemSettings()) for path in sorted(tmp_path.glob("part-*.csv"))]
    assert [row.name for part in rows for row in part] == ["song", "albums/one", "live/two"]
    [line] = (tmp_path / "stems.results/part-0001.0.jsonl").read_text().splitlines()
    assert json.loads(line)["status"] == "done"
    assert [path.name for path in (tmp_path / "stems.results").glob("*.jsonl")] == ["part-0001.0.jsonl"]


def test_python_examples_of_contributing_run() -> None:
    mixer, score = examples("CONTRIBUTING.md")
    given: dict[str, Any] = {"nn": nn, "Tensor": torch.Tensor, "Any": Any, "ModelConfig": ModelConfig}
    exec(mixer, given | {"Mixer": Mixer, "RMSNorm": RMSNorm}, given)
    config = SimpleNamespace(dim=8, gru_hidden_dim=4)
    assert given["GruMixer"](config)(torch.randn(3, 5, 8)).shape == (3, 5, 8)
    given |= {"Audio": Audio, "checked_audio": checked_audio}
    exec(score, given)
    reference = torch.zeros(2, 10)
    estimate = reference.clone()
    estimate[1, 3] = -0.1
    assert given["peak_error_dbfs"](estimate=estimate, reference=reference) == pytest.approx(-20)
