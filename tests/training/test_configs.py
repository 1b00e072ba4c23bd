"""The configs in configs/: that they are the networks the documents say, and that they train."""

import re
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.model import BSMamba2, ModelConfig, make_network
from bsmamba2.model.mel import mel_bands
from bsmamba2.training.command import train
from bsmamba2.training.configs import MOST_CHARACTERS, load_config

pytestmark = pytest.mark.usefixtures("no_figures")

PROJECT = Path(__file__).parents[2]
CONFIGS = sorted(path.name for path in (PROJECT / "configs").glob("*.yaml"))
SMALL = ["--model.network.dim=8", "--model.network.depth=1", "--model.network.segment_seconds=0.1"]
OTHERS = ["roformer.yaml", "melband.yaml", "mamba2-roformer.yaml", "mamba1.yaml", "rwkv6.yaml", "rwkv6-mamba2.yaml"]
# Small sizes by mixer.
SMALL_MIXERS = {
    "roformer": ["--model.network.attention_heads=2", "--model.network.attention_headdim=4"],
    "mamba2": ["--model.network.headdim=4", "--model.network.d_state=4"],
    "mamba1": ["--model.network.mamba1_d_state=4"],
    "rwkv6": ["--model.network.rwkv_headdim=4"],
    "rwkv6+mamba2": ["--model.network.rwkv_headdim=4", "--model.network.headdim=4", "--model.network.d_state=4"],
}


def network_of(name: str) -> ModelConfig:
    options = yaml.safe_load((PROJECT / "configs" / name).read_text(encoding="utf-8"))
    return ModelConfig.from_dict(options.get("model", {}).get("network", {}))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_readme_lists_every_config_with_its_parameters_and_segment(name: str) -> None:
    config = network_of(name)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in make_network(config).parameters())
    rows = re.findall(rf"\| `{re.escape(name)}` \| (.+?) \|", (PROJECT / "README.md").read_text(encoding="utf-8"))
    assert rows == [f"{parameters / 1e6:.1f} M parameters, {config.segment_seconds:g} s"]


def test_the_mel_bands_of_the_config_are_those_of_the_published_weights() -> None:
    config = network_of("melband.yaml")
    assert (config.band_starts, config.bands) == mel_bands(60, config.n_fft, config.sample_rate)
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in BSMamba2(config).parameters()) == 228_202_788


@pytest.mark.parametrize(
    "name", ["roformer.yaml", "melband.yaml", "mamba2-roformer.yaml", "mamba1.yaml", "rwkv6.yaml", "rwkv6-mamba2.yaml"]
)
def test_other_networks_train_from_their_configs(name: str, musdb_root: Path, tmp_path: Path) -> None:
    config = network_of(name)
    options = [f"--config={PROJECT / 'configs' / name}", *SMALL]
    options += [option for mixer in {config.time_mixer, config.band_mixer} for option in SMALL_MIXERS[mixer]]
    options += [f"--data.root={musdb_root}", f"--data.cache={tmp_path}", "--data.workers=0"]
    options += ["--data.batch_size=2", "--data.validation_seconds=0.25"]
    options += ["--trainer.accelerator=cpu", "--trainer.precision=32", "--trainer.fast_dev_run=1"]
    options += [f"--trainer.default_root_dir={tmp_path}", "--trainer.enable_progress_bar=false"]
    assert train(options) == tmp_path.absolute()


@pytest.fixture(scope="module")
def second_of_song(tmp_path_factory: pytest.TempPathFactory, song_stems: dict[str, Tensor]) -> Path:
    """Returns a MUSDB18-HQ folder with one second of the song to test on."""
    root = tmp_path_factory.mktemp("second")
    for name, audio in song_stems.items():
        write_audio(root / "test" / "Three - Third" / f"{name}.wav", audio[:, :SAMPLE_RATE], SAMPLE_RATE)
    return root


@pytest.mark.parametrize("name", ["tiny", "rwkv6-tiny", "rwkv6-mamba2-tiny"])
def test_tiny_networks_train_score_and_separate(
    name: str, musdb_root: Path, second_of_song: Path, tmp_path: Path
) -> None:
    config = network_of(f"{name}.yaml")
    options = [f"--config={name}", *SMALL, *SMALL_MIXERS[config.time_mixer], f"--data.root={musdb_root}"]
    options += [f"--data.cache={tmp_path / 'cache'}", "--data.epoch_excerpts=4", "--trainer.max_epochs=1"]
    options += ["--data.workers=0", "--data.validation_seconds=0.25", "--trainer.num_sanity_val_steps=0"]
    options += [f"--trainer.default_root_dir={tmp_path}", "--trainer.enable_progress_bar=false"]
    model = train(options)
    assert model.suffix == ".ckpt"
    folder = tmp_path / "scores"
    scoring = ["evaluate", "--model", str(model), "--root", str(second_of_song), "--output", str(folder)]
    assert main([*scoring, "--no-report"]) == 0
    song = next((second_of_song / "test").iterdir())
    assert (
        main(["separate", str(song / "mixture.wav"), "--model", str(model), "--output", str(tmp_path / "stems")]) == 0
    )
    assert {path.name for path in tmp_path.glob("stems/*/*.wav")} == {"vocals.wav", "instrumental.wav"}


def bomb(line: str, last: str) -> str:
    """Returns ten levels of aliases, each with ten of the level before: ten billion values."""
    lines = [line.format(name="a", before=", ".join("1" * 10))]
    lines += [line.format(name=name, before=", ".join([f"*{old}"] * 10)) for old, name in pairwise("abcdefghij")]
    return "\n".join([*lines, last])


@pytest.mark.parametrize(
    "text",
    [
        bomb("{name}: &{name} [{before}]", "data: *j"),
        bomb("{name}: &{name} {{x: 1, <<: [{before}]}}", "data: *j").replace("[1, 1", "[{}, {}").replace(" 1,", " {},"),
        "model: &model\n  network: *model",
        "model: " + "[" * 5000,
        "model: " + "{a: " * 60 + "1" + "}" * 60,
        "data: {validation_tracks: [" + "a, " * 30_000 + "]}",
        "# " + "x" * 1_000_001,
    ],
    ids=["aliases", "merged", "itself", "unfinished", "deep", "many", "long"],
)
@pytest.mark.parametrize("option", ["--config", "--data", "--model.network"])
def test_a_config_that_is_too_large_is_refused_at_once(
    tmp_path: Path, text: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    begun = time.process_time()
    assert main(["train", f"{option}={tmp_path / 'config.yaml'}", f"--data.root={tmp_path}"]) == 1
    assert time.process_time() - begun < 5
    message = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"bsmamba2: error: (a|the) config .*has more than \d+ (values|characters|bytes)", message)


def test_aliases_are_allowed() -> None:
    assert load_config("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}
    assert load_config("1e-3") == load_config("0.001") == 0.001


def test_the_configs_of_this_package_are_far_below_the_limits() -> None:
    for path in (PROJECT / "configs").glob("*.yaml"):
        assert load_config(path.read_text(encoding="utf-8"))
        assert path.stat().st_size < MOST_CHARACTERS / 50
