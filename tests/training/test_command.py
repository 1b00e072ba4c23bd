import math
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor

import bsmamba2.model.dual_path
import bsmamba2.model.ssd
from bsmamba2 import load_model
from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.excerpts import SongExcerpts
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import find_tracks, mixture_of
from bsmamba2.errors import InputError
from bsmamba2.metrics import csdr, usdr
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.separation.separator import Separator
from bsmamba2.stem_names import MUSDB_STEMS
from bsmamba2.training.command import train
from bsmamba2.training.losses import LossConfig
from bsmamba2.training.module import SeparationModule
from bsmamba2.weights.checkpoint import save_model
from tests.model.make_golden import PRIMEKNET

pytestmark = pytest.mark.usefixtures("no_figures")


def options(config: ModelConfig, root: Path, output: Path, *more: str) -> list[str]:
    """Returns the options of a run of one epoch with two steps and a validation."""
    network = [f"--model.network.{name}={_text(value)}" for name, value in asdict(config).items()]
    return [
        *network,
        f"--data.root={root}",
        f"--data.cache={output / 'cache'}",
        "--data.batch_size=2",
        "--data.epoch_excerpts=4",
        "--data.workers=0",
        "--data.validation_seconds=0.25",
        "--model.loss.stft_windows=[256]",
        "--trainer.max_epochs=1",
        "--trainer.num_sanity_val_steps=0",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        f"--trainer.default_root_dir={output}",
        *more,
    ]


def _text(value: object) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def test_overfits_one_real_excerpt(song_stems: dict[str, Tensor]) -> None:
    """More than 10 dB on the half second that it is trained on: loss, network and gradients work together."""
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
    module = SeparationModule(network, LossConfig(stft_windows=(2048, 512), stft_hop=256), learning_rate=5e-3)
    batch = {stem: song_stems[stem][None, :, : network.segment] for stem in MUSDB_STEMS}
    optimiser = module.optimizer()
    for _ in range(20):
        optimiser.zero_grad()
        mixture = mixture_of(batch)
        references = torch.stack([batch["vocals"]], dim=1)
        module.loss(estimates=module.network(mixture), references=references, mixture=mixture).backward()
        optimiser.step()
    with torch.inference_mode():
        estimate = module.network(mixture_of(batch))[0, 0]
    assert usdr(estimate=estimate, reference=batch["vocals"][0]) > 10


def test_a_run_writes_checkpoints_that_rebuild_the_averaged_model(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path
) -> None:
    path = train(options(tiny_config, musdb_root, tmp_path, "--ema.decay=0.5"))
    content = torch.load(path, weights_only=True)
    assert content["hyper_parameters"]["network"] == tiny_config.to_dict()
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
    path = train(options(tiny_config, musdb_root, tmp_path, "--ema.decay=0.5", "--model.learning_rate=0.02"))
    _, stems = SongExcerpts(find_tracks(musdb_root, "valid"), round(0.25 * SAMPLE_RATE))[0]
    estimate = Separator(load_model(path))(mixture_of(stems), SAMPLE_RATE)["vocals"]
    callbacks = torch.load(path, weights_only=True)["callbacks"]
    (checkpoint,) = (state for name, state in callbacks.items() if name.startswith("ModelCheckpoint"))
    score = usdr(estimate=estimate, reference=stems["vocals"])
    assert checkpoint["best_model_score"].item() == pytest.approx(score, abs=1e-4)


def test_training_resumes_from_the_last_checkpoint(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    train(options(tiny_config, musdb_root, tmp_path))
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 2
    more = options(tiny_config, musdb_root, tmp_path, f"--ckpt_path={last}", "--trainer.max_epochs=2")
    train(more)
    newest = max(tmp_path.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
    assert torch.load(newest, weights_only=True)["global_step"] == 4


def test_without_a_validation_the_last_checkpoint_is_the_result(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path
) -> None:
    path = train(options(tiny_config, musdb_root, tmp_path, "--trainer.limit_val_batches=0"))
    assert path.name == "last.ckpt"
    assert load_model(path).config == tiny_config


def test_validation_scores_are_those_of_the_songs(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    """The median over songs of the cSDR, the means of loss and uSDR, each of whole songs including silence."""
    root = shutil.copytree(musdb_root, tmp_path / "root")
    for number, name in enumerate(("Two", "Three", "Four")):
        place = root / "valid" / f"{name} - Valid"
        for stem in MUSDB_STEMS:
            audio = read_audio(root / "train" / "Two - Second" / f"{stem}.wav") / (number + 1)
            audio[:, : 3 * SAMPLE_RATE // 2] *= 0 if stem == "vocals" else 1
            write_audio(place / f"{stem}.wav", audio, SAMPLE_RATE, depth="float")
    more = ("--data.shared_artists=true", "--data.validation_seconds=null")
    # Longer segments than those of other tests, of which a song has fewer.
    path = train(options(replace(tiny_config, segment_seconds=0.5), root, tmp_path / "run", *more))
    network = load_model(path)
    csdrs, usdrs = [], []
    for track in find_tracks(root, "valid"):
        reference = track.read("vocals")
        estimate = Separator(network)(mixture_of({stem: track.read(stem) for stem in MUSDB_STEMS}), SAMPLE_RATE)[
            "vocals"
        ]
        csdrs.append(csdr(estimate=estimate, reference=reference, sample_rate=SAMPLE_RATE))
        usdrs.append(usdr(estimate=estimate, reference=reference))
    events = EventAccumulator(str(next((tmp_path / "run").rglob("events.out.tfevents.*")).parent)).Reload()
    for name, score in zip(("Four - Valid", "Three - Valid", "Two - Valid"), csdrs, strict=True):
        assert events.Scalars(f"val_tracks/csdr/{name}")[-1].value == pytest.approx(score, abs=1e-3)
    metrics = torch.load(path, weights_only=True)["bsmamba2"]["metrics"]
    assert metrics["val/csdr"] == pytest.approx(sorted(csdrs)[1], abs=1e-3)
    assert metrics["val/usdr"] == pytest.approx(sum(usdrs) / 3, abs=1e-3)
    assert metrics["val/loss"] > 0


def test_silent_references_do_not_choose_checkpoints(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shutil.copytree(musdb_root, tmp_path / "root")
    for name in ("Silent", "Two"):
        folder = shutil.copytree(root / "train" / "Two - Second", root / "valid" / f"{name} - Valid")
        if name == "Silent":
            write_audio(folder / "vocals.wav", torch.zeros(2, 2 * SAMPLE_RATE), SAMPLE_RATE)
    # With the validation before the training that is Lightning's default, which neither warns nor logs.
    more = ("--data.shared_artists=true", "--trainer.num_sanity_val_steps=2", "--model.network.stems=[vocals,bass]")
    path = train(options(tiny_config, root, tmp_path / "run", *more))
    metrics = torch.load(path, weights_only=True)["bsmamba2"]["metrics"]
    events = EventAccumulator(str(next((tmp_path / "run").rglob("events.out.tfevents.*")).parent)).Reload()
    logged = [events.Scalars(f"val_tracks/usdr/{name} - Valid") for name in ("Silent", "Two")]
    usdrs = [event.value for (event,) in logged]
    assert metrics["val/usdr"] == pytest.approx(sum(usdrs) / 2, abs=1e-3)
    # That of the silent song is that of its bass alone; the uSDR of its vocals would be below -60 dB.
    assert min(usdrs) > -20
    assert metrics["val/silent_references"] == 1
    assert -120 <= metrics["val/leakage_dbfs"] < 0
    silent = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert silent == ["uSDR and cSDR leave out stems that are silent, in 1 of 2 validation songs: Silent - Valid"]


def test_weights_to_start_from(tmp_path: Path, tiny_config: ModelConfig, tiny_network: BSMamba2) -> None:
    path = tmp_path / "start.safetensors"
    save_model(tiny_network, path)
    module = SeparationModule(tiny_config, init_from=path)
    for name, value in module.network.state_dict().items():
        assert torch.equal(value, tiny_network.state_dict()[name])
    assert all(parameter.requires_grad for parameter in module.parameters())
    with pytest.raises(InputError, match=r"start\.safetensors are not those of this architecture: .* is missing"):
        SeparationModule(replace(tiny_config, depth=2), init_from=path)
    with pytest.raises(InputError, match="neither a file nor a published model"):
        SeparationModule(tiny_config, init_from="nothing")


def test_scores_in_the_names_of_checkpoints(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    more = ("--checkpoint.filename={epoch}-{val/usdr:.2f}", "--checkpoint.save_top_k=1", "--trainer.max_epochs=2")
    path = train(options(tiny_config, musdb_root, tmp_path, *more))
    score = torch.load(path, weights_only=True)["bsmamba2"]["metrics"]["val/usdr"]
    assert re.fullmatch(r"epoch=\d-val_usdr=-?\d+\.\d\d\.ckpt", path.name)
    assert path.stem.endswith(f"val_usdr={score:.2f}")
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(
        [".lock", path.name, "last.ckpt", "previous.ckpt"]
    )


def test_only_matrices_decay_on_request(tiny_config: ModelConfig) -> None:
    tiny_config = replace(tiny_config, band_mixer="mamba1")
    everything = SeparationModule(tiny_config).optimizer()
    assert {group["weight_decay"] for group in everything.param_groups} == {0.01}
    module = SeparationModule(tiny_config, weight_decay=0.1, decayed="matrices")
    decay = {
        id(parameter): group["weight_decay"]
        for group in module.optimizer().param_groups
        for parameter in group["params"]
    }
    for name, parameter in module.named_parameters():
        small = name.endswith(("A_log", "D", "dt_bias", "gamma", "bias")) or ".norm" in name
        assert decay[id(parameter)] == (0 if small else 0.1), name


@pytest.mark.parametrize(
    ("options_", "expected"),
    [
        ([], [1, 1, 1, 1]),
        (["--model.warmup_steps=2"], [0.5, 1, 1, 1]),
        (["--model.schedule=cosine"], [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
        (["--model.schedule=cosine", "--model.warmup_steps=2"], [0.5, 1, 1, 0.5]),
    ],
)
def test_the_learning_rate_follows_its_schedule(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path, options_: list[str], expected: list[float]
) -> None:
    two_epochs = ("--trainer.max_epochs=2", "--trainer.limit_val_batches=0", "--trainer.log_every_n_steps=1")
    train(options(tiny_config, musdb_root, tmp_path, *two_epochs, *options_))
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.tfevents.*")).parent))
    events.Reload()
    (name,) = (name for name in events.Tags()["scalars"] if name.startswith("lr"))
    assert [event.value / 5e-4 for event in events.Scalars(name)] == pytest.approx(expected, abs=1e-6)


def test_a_warmup_as_long_as_the_run_is_an_error(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    more = ("--model.schedule=cosine", "--model.warmup_steps=4", "--trainer.max_epochs=2")
    with pytest.raises(InputError, match="warmup_steps=4 leaves none of the 4 training steps"):
        train(options(tiny_config, musdb_root, tmp_path, *more))


def test_recomputed_layers_have_the_same_gradients(tiny_config: ModelConfig) -> None:
    torch.manual_seed(0)
    network, mixture = BSMamba2(replace(tiny_config, depth=2)), torch.randn(2, 2, 4410)
    gradients, passes = [], [0]
    network.layers[0].register_forward_pre_hook(lambda *_: passes.append(passes.pop() + 1))
    for recompute in (False, True):
        network.zero_grad()
        network(mixture, recompute=recompute).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) == len(list(network.parameters()))
    assert all(torch.allclose(one, two, atol=1e-7) for one, two in zip(*gradients, strict=True))
    assert passes == [1 + 2]


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_computes_the_same_under_the_same_names(
    tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sequences of two chunks, in tiles; bands and frames are alike, so that there is only one graph to compile."""
    monkeypatch.setattr(bsmamba2.model.ssd, "CHUNK_LENGTH", 2)
    monkeypatch.setattr(bsmamba2.model.dual_path, "CPU_TILE", 2 * 4 * tiny_config.d_inner)
    module = SeparationModule(tiny_config, compile=True)
    names, mixture = list(module.state_dict()), torch.randn(1, 2, 3 * tiny_config.hop_length)
    with torch.inference_mode():
        expected = module.network(mixture)
        module.on_fit_start()
        assert torch.allclose(module.network(mixture), expected, atol=1e-5)
    assert list(module.state_dict()) == names
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_a_step_without_finite_gradients_is_skipped(tiny_config: ModelConfig) -> None:
    module = SeparationModule(tiny_config)
    optimizer = module.optimizer()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    module.configure_gradient_clipping(optimizer, None, None)
    optimizer.step()
    assert not math.isfinite(module.gradient_norm)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(("algorithm", "order"), [("norm", 2.0), ("value", math.inf), (None, 2.0)])
def test_gradients_are_clipped_by_norm_or_value(tiny_config: ModelConfig, algorithm: str | None, order: float) -> None:
    module = SeparationModule(tiny_config)
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    module.configure_gradient_clipping(module.optimizer(), 0.01, algorithm)
    norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None], order)
    assert norm.item() == pytest.approx(0.01, rel=1e-3)
    assert module.gradient_norm > 1


def test_gains_of_primeknet_do_not_decay() -> None:
    module = SeparationModule(PRIMEKNET, weight_decay=0.1, decayed="matrices")
    without = {id(value) for value in module.optimizer().param_groups[1]["params"]}
    names = {name.removeprefix("network.") for name, value in module.named_parameters() if id(value) in without}
    assert {"sequence_block.0.beta_t", "mask_decoder.lsigmoid.slope", "dense_encoder.dense_conv_1.0.bias"} <= names
    assert "dense_encoder.dense_conv_1.0.weight" not in names


def test_four_stems_from_one_network(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    path = train(options(replace(tiny_config, stems=MUSDB_STEMS), musdb_root, tmp_path))
    assert load_model(path).config.stems == MUSDB_STEMS


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
def test_the_configs_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "configs" / f"{name}.yaml"
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


def test_weights_alone_cannot_be_resumed(
    tmp_path: Path, tiny_config: ModelConfig, tiny_network: BSMamba2, musdb_root: Path
) -> None:
    save_model(tiny_network, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"weights\.safetensors has weights, but .* --model\.init_from"):
        train(options(tiny_config, musdb_root, tmp_path, f"--ckpt_path={tmp_path / 'weights.safetensors'}"))


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_unreadable_files_stop_the_run(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path, workers: int
) -> None:
    """Excerpts of a song that was damaged after indexing are replaced, until there were too many."""
    root = shutil.copytree(musdb_root, tmp_path / "root")
    damaged = root / "train" / "One - First" / "bass.wav"
    audio = read_audio(damaged)
    write_audio(damaged, audio, SAMPLE_RATE, depth="float")
    # Without a validation, which would start a second process.
    more = ("--data.epoch_excerpts=16", "--trainer.limit_val_batches=0")
    arguments = options(tiny_config, root, tmp_path, *more)
    train(arguments)
    arguments.append(f"--data.workers={workers}")
    before = damaged.stat()
    write_audio(damaged, torch.full_like(audio, torch.nan), SAMPLE_RATE, depth="float")
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert damaged.stat().st_size == before.st_size
    if workers == 0:
        train(arguments)
    with pytest.raises(InputError, match=r"^\d+ pieces of audio could not be read, and max_unreadable=0 are allowed"):
        train([*arguments, "--health.max_unreadable=0"])


def test_an_error_in_a_loading_process_is_one_sentence(
    tmp_path: Path,
    tiny_config: ModelConfig,
    musdb_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The process does not import Lightning, which takes seconds and memory."""
    root = shutil.copytree(musdb_root, tmp_path / "root")
    files = [root / "train" / track / "bass.wav" for track in ("One - First", "Two - Second")]
    for file in files:
        write_audio(file, read_audio(file), SAMPLE_RATE, depth="float")
    arguments = options(tiny_config, root, tmp_path, "--trainer.limit_val_batches=0")
    train(arguments)
    arguments.append("--data.workers=1")
    for file in files:
        before = file.stat()
        write_audio(file, torch.full_like(read_audio(file), torch.nan), SAMPLE_RATE, depth="float")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    with pytest.raises(InputError) as error:
        train(arguments)
    assert "bass.wav" in str(error.value)
    assert "\n" not in str(error.value)
    lines = capfd.readouterr().err.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "bsmamba2.data.excerpts" in imported
    assert not {"lightning", "lightning.pytorch", "lightning.fabric"} & imported


def test_only_a_checkpoint_of_the_same_network_is_resumed(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path
) -> None:
    (tmp_path / "broken.ckpt").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"broken\.ckpt is not a checkpoint, is truncated"):
        train(options(tiny_config, musdb_root, tmp_path, f"--ckpt_path={tmp_path / 'broken.ckpt'}"))
    path = train(options(tiny_config, musdb_root, tmp_path))
    with pytest.raises(InputError, match="has a different network than these options"):
        train(options(replace(tiny_config, depth=2), musdb_root, tmp_path, f"--ckpt_path={path}"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.learning_rate=-1", "learning_rate=-1.0"),
        ("--model.network.channels=1", "the network takes 44100 Hz and 1"),
        ("--model.network.stems=[piano]", "has no stem 'piano'; choose among drums, bass, other, vocals"),
        ("--trainer.accelerator=gpu", "training cannot run with these options"),
        ("--ema.decay=2", "training cannot run with these options"),
        ("--model.validation_overlap=1", r"overlap=1\.0 is not allowed; give a share of a segment"),
        ("--model.learning_rate=.inf", "learning_rate=inf"),
        ("--model.warmup_steps=-1", "warmup_steps=-1"),
        (
            "--checkpoint.monitor=val/foo",
            "monitor=val/foo with checkpoint.mode=max is not allowed; give val/",
        ),
        (
            "--checkpoint.monitor=val/loss",
            "give val/usdr with mode max, .*, val/loss with mode min",
        ),
        ("--checkpoint.save_weights_only=true", "save_weights_only and checkpoint.save_last are not allowed"),
        ("--checkpoint.save_last=true", "save_weights_only and checkpoint.save_last are not allowed"),
        ("--trainer.overfit_batches=2", "overfit_batches is not allowed"),
        ("--seed_everything=-1", "-1"),
        ("--trainer.precision=bf16-true", "precision=bf16-true is not allowed, .*; give bf16-mixed, 16-mixed"),
        ("--trainer.precision=16-true", "precision=16-true is not allowed"),
        (
            "--trainer.callbacks=BatchSizeFinder",
            "the callback BatchSizeFinder cannot be used, .*give --data.batch_size",
        ),
        ("--trainer.callbacks=BackboneFinetuning", "callback BackboneFinetuning cannot be used"),
        ("--trainer.callbacks=LearningRateFinder", "LearningRateFinder cannot be used, .*give --model.learning_rate"),
        ("--trainer.callbacks=EMAWeightAveraging", "a second callback that averages weights cannot be used"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path, option: str, message: str
) -> None:
    if "gpu" in option and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match=message):
        train(options(tiny_config, musdb_root, tmp_path, option))


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_other_precisions_train_and_validate(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path, precision: str
) -> None:
    path = train(options(tiny_config, musdb_root, tmp_path, f"--trainer.precision={precision}"))
    assert load_model(path).config == tiny_config


def test_a_seed_is_a_number(tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path) -> None:
    with pytest.raises(ArgumentError, match="seed_everything=True is not allowed; give a whole number"):
        train(options(tiny_config, musdb_root, tmp_path, "--seed_everything=true"))
