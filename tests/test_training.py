from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bsmamba2 import load_model
from bsmamba2.data.musdb import STEMS
from bsmamba2.data.tracks import mixture_of
from bsmamba2.errors import InputError
from bsmamba2.metrics import usdr
from bsmamba2.model import ModelConfig
from bsmamba2.training import SeparationModule
from bsmamba2.training_command import train


def options(config: ModelConfig, root: Path, output: Path, *more: str) -> list[str]:
    """Returns the options of a training of two epochs with two steps each."""
    network = [f"--model.network.{name}={_text(value)}" for name, value in asdict(config).items()]
    return [
        *network,
        f"--data.root={root}",
        f"--data.cache={output / 'cache'}",
        "--data.batch_size=2",
        "--data.epoch_excerpts=4",
        "--data.workers=0",
        "--data.validation_seconds=0.25",
        "--model.stft_windows=[256]",
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        f"--trainer.default_root_dir={output}",
        *more,
    ]


def _text(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def test_overfits_one_real_excerpt(song_stems: dict[str, Tensor]) -> None:
    """More than 10 dB on the half second it is trained on: loss, network and gradients work together."""
    torch.manual_seed(0)
    bands = (4,) * 12 + (12,) * 8 + (32,) * 6 + (96,) * 4 + (305,)
    network = ModelConfig(
        dim=32,
        depth=1,
        bands=bands,
        expand=2,
        headdim=32,
        d_state=16,
        mask_expand=2,
        hop_length=512,
        segment_seconds=0.5,
    )
    module = SeparationModule(network, stft_windows=(2048, 512), stft_hop=256, learning_rate=5e-3)
    batch = {stem: song_stems[stem][None, :, : network.segment] for stem in STEMS}
    optimiser = module.configure_optimizers()
    for _ in range(40):
        optimiser.zero_grad()
        module.loss(
            estimates=module.network(mixture_of(batch)), references=torch.stack([batch["vocals"]], dim=1)
        ).backward()
        optimiser.step()
    with torch.inference_mode():
        estimate = module.network(mixture_of(batch))[0, 0]
    assert usdr(estimate=estimate, reference=batch["vocals"][0]) > 10


def test_a_run_writes_checkpoints_that_rebuild_the_averaged_model(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path
) -> None:
    path = train(options(tiny_config, musdb_root, tmp_path, "--ema.decay=0.5"))
    content = torch.load(path, weights_only=True)
    assert content["hyper_parameters"]["network"] == asdict(tiny_config)
    network = load_model(path)
    assert network.config == tiny_config
    averaged = network.state_dict()
    raw = {name.removeprefix("network."): value for name, value in content["current_model_state"].items()}
    assert all(torch.equal(value, content["state_dict"][f"network.{name}"]) for name, value in averaged.items())
    assert any(not torch.equal(value, raw[name]) for name, value in averaged.items())
    assert list(tmp_path.rglob("events.out.tfevents.*"))
    assert list(tmp_path.rglob("last.ckpt"))


def test_the_validated_weights_are_the_saved_ones(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    """The score in the checkpoint is that of the weights in it, separated as `separate` does everywhere."""
    from bsmamba2.data.excerpts import SongExcerpts
    from bsmamba2.data.musdb import SAMPLE_RATE
    from bsmamba2.data.tracks import find_tracks
    from bsmamba2.separation import Separator

    path = train(options(tiny_config, musdb_root, tmp_path, "--ema.decay=0.5", "--model.learning_rate=0.02"))
    _, stems = SongExcerpts(find_tracks(musdb_root, "valid"), round(0.25 * SAMPLE_RATE))[0]
    estimate = Separator(load_model(path))(mixture_of(stems), SAMPLE_RATE)["vocals"]
    callbacks = torch.load(path, weights_only=True)["callbacks"]
    (checkpoint,) = (state for name, state in callbacks.items() if name.startswith("ModelCheckpoint"))
    score = usdr(estimate=estimate, reference=stems["vocals"])
    assert checkpoint["best_model_score"].item() == pytest.approx(score, abs=1e-4)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_training_goes_on_from_the_last_checkpoint(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    train(options(tiny_config, musdb_root, tmp_path))
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 4
    more = options(tiny_config, musdb_root, tmp_path, f"--ckpt_path={last}", "--trainer.max_epochs=3")
    train(more)
    newest = max(tmp_path.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    assert torch.load(newest, weights_only=True)["global_step"] == 6


def test_four_stems_from_one_network(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    path = train(options(replace(tiny_config, stems=STEMS), musdb_root, tmp_path))
    assert load_model(path).config.stems == STEMS


def test_command_line_beats_yaml_beats_defaults(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model:\n  network:\n    d_conv: 3\n    depth: 2\n  learning_rate: 0.1\n")
    arguments = options(tiny_config, musdb_root, tmp_path)
    arguments = [f"--config={config}", *(a for a in arguments if "d_conv" not in a), "--model.learning_rate=0.2"]
    content = torch.load(train(arguments), weights_only=True)["hyper_parameters"]
    assert content["network"]["d_conv"] == 3
    assert content["network"]["depth"] == tiny_config.depth
    assert content["learning_rate"] == 0.2
    assert content["network"]["channels"] == ModelConfig.channels


@pytest.mark.parametrize("name", ["bsmamba2", "small", "tiny"])
def test_the_configs_are_differences_that_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parent.parent / "configs" / f"{name}.yaml"
    with pytest.raises(SystemExit) as stop:
        train([f"--config={path}", "--data.root=nowhere", "--print_config"])
    assert stop.value.code == 0
    assert "learning_rate" in capsys.readouterr().out


def test_a_segment_longer_than_every_song_is_an_error(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path
) -> None:
    long = replace(tiny_config, segment_seconds=5.0)
    with pytest.raises(InputError, match=r"the longest track has 88200.*use a shorter segment"):
        train(options(long, musdb_root, tmp_path))


def test_a_missing_checkpoint_is_an_error(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    more: Sequence[str] = options(tiny_config, musdb_root, tmp_path, "--ckpt_path=none.ckpt")
    with pytest.raises(InputError, match=r"none\.ckpt is neither a file nor a published model"):
        train(more)


def test_only_a_checkpoint_of_the_same_network_goes_on(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path
) -> None:
    (tmp_path / "broken.ckpt").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"broken\.ckpt is truncated or no checkpoint"):
        train(options(tiny_config, musdb_root, tmp_path, f"--ckpt_path={tmp_path / 'broken.ckpt'}"))
    path = train(options(tiny_config, musdb_root, tmp_path))
    with pytest.raises(InputError, match="is of another network than the options say"):
        train(options(replace(tiny_config, depth=2), musdb_root, tmp_path, f"--ckpt_path={path}"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.learning_rate=-1", "learning_rate=-1.0"),
        ("--model.network.channels=1", "the network takes 44100 Hz and 1"),
        ("--model.network.stems=[piano]", "has no stem 'piano'; choose among drums, bass, other, vocals"),
        ("--trainer.accelerator=gpu", "the trainer cannot run as asked"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path, option: str, message: str
) -> None:
    if "gpu" in option and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match=message):
        train(options(tiny_config, musdb_root, tmp_path, option))
