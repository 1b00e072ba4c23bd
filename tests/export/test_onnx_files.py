"""Exported files: that another runtime computes the same, and that a program without PyTorch separates with them."""

import contextlib
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bsmamba2.cli import main
from bsmamba2.errors import InputError
from bsmamba2.export.onnx_files import export_error, export_onnx, reduced
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.system.files import sha256_of
from bsmamba2.weights.checkpoint import load_model, save_model
from tests.conftest import PATIENCE_SECONDS, TINY

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
onnx = pytest.importorskip("onnx", reason="onnx is not installed")

PROJECT = Path(__file__).parents[2]
# Both mixers, bands that overlap, two stems.
CONFIG = replace(
    TINY,
    band_mixer="roformer",
    attention_heads=2,
    attention_headdim=4,
    bands=(16, 40, 90),
    band_starts=(0, 10, 39),
    stems=("vocals", "drums"),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the file of a network of three stems."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_model(BSMamba2(replace(CONFIG, stems=(*CONFIG.stems, "bass"))), path)
    return path


@pytest.fixture(scope="module")
def network(weights: Path) -> BSMamba2:
    """Returns the network of the two stems that are exported."""
    loaded = load_model(weights, only=CONFIG.stems)
    assert isinstance(loaded, BSMamba2)
    return loaded


@pytest.fixture(scope="module")
def exported_by_the_command(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Returns the file in float32 and what the command printed; an export takes ten seconds, so there is one."""
    path = tmp_path_factory.mktemp("export") / "new" / "model.onnx"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["export", str(path), "--model", str(weights), "--stems", ",".join(CONFIG.stems)]) == 0
    return path, printed.getvalue()


@pytest.fixture(scope="module")
def exported(exported_by_the_command: tuple[Path, str]) -> Path:
    """Returns the file in float32."""
    return exported_by_the_command[0]


def test_the_file_computes_what_the_network_does(network: BSMamba2, exported: Path) -> None:
    assert 0 < export_error(exported, network) < 1e-5
    other = BSMamba2(CONFIG).eval()
    assert export_error(exported, other) > 0.1


def test_the_file_states_what_a_program_needs(exported: Path, weights: Path) -> None:
    model = onnx.load(exported)
    stated = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(stated["stems"]) == ["vocals", "drums"]
    assert ModelConfig.from_dict(json.loads(stated["architecture"])) == CONFIG
    assert (stated["segment"], stated["hop_length"], stated["precision"]) == ("4410", "64", "float32")
    assert (stated["model"], stated["model_sha256"]) == (str(weights), sha256_of(weights))
    (entry,) = model.graph.input
    sizes = [size.dim_param or size.dim_value for size in entry.type.tensor_type.shape.dim]
    assert sizes == ["batch", 2, 129, 69, 2]
    onnx.checker.check_model(model)


@pytest.mark.parametrize(("precision", "lowest", "highest"), [("float16", 1e-5, 1e-2), ("int8", 1e-3, 0.1)])
def test_reduced_precisions_are_smaller_and_near(
    network: BSMamba2, exported: Path, tmp_path: Path, precision: str, lowest: float, highest: float
) -> None:
    path = tmp_path / "model.onnx"
    reduced(exported, path, precision)  # type: ignore[arg-type]
    assert lowest < export_error(path, network) < highest
    weights = {name: sum(len(each.raw_data) for each in onnx.load(name).graph.initializer) for name in (exported, path)}
    assert weights[path] < 0.75 * weights[exported]


def test_a_program_without_pytorch_separates_with_it(network: BSMamba2, exported: Path, tmp_path: Path) -> None:
    """The example of docs/export.md: segments that overlap by half are faded into each other."""
    (program,) = re.findall(r"```python\n(.+?)```", (PROJECT / "docs/export.md").read_text(encoding="utf-8"), re.DOTALL)
    script = tmp_path / "separate_onnx.py"
    script.write_text("import sys\nsys.modules['torch'] = None\n" + program, encoding="utf-8")
    segment = CONFIG.segment
    song = np.random.default_rng(0).normal(scale=0.1, size=(2, 2 * segment + 100)).astype(np.float32)
    soundfile.write(tmp_path / "song.wav", song.T, 44100, subtype="FLOAT")
    line = [sys.executable, str(script), str(exported), "song.wav"]
    subprocess.run(line, cwd=tmp_path, check=True, timeout=PATIENCE_SECONDS)
    fade = 1 - np.abs(np.linspace(-1, 1, segment + 2)[1:-1])
    expected, weight = np.zeros((2, 2, 3 * segment + 100)), np.zeros(3 * segment + 100)
    padded = np.pad(song, ((0, 0), (0, segment)))
    for start in range(0, 2 * segment + 100, segment // 2):
        with torch.inference_mode():
            estimates = network(torch.from_numpy(padded[None, :, start : start + segment]))[0].numpy()
        expected[..., start : start + segment] += estimates * fade
        weight[start : start + segment] += fade
    length = song.shape[1]
    for name, stem in zip(CONFIG.stems, expected[..., :length] / weight[:length], strict=True):
        samples, rate = soundfile.read(tmp_path / f"{name}.wav")
        assert rate == 44100
        assert np.abs(samples.T - stem).max() < 1e-5 * np.abs(stem).max()


def test_the_command_exports_some_stems_of_a_file(
    exported_by_the_command: tuple[Path, str], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, printed = exported_by_the_command
    assert re.fullmatch(
        rf"{re.escape(str(output))} has \d\.\d MB in float32; on noise, its error is 1[0-9][0-9] dB below its output\n",
        printed,
    )
    assert main(["export", str(output), "--model", str(weights)]) == 1
    assert "exists already; give another OUTPUT, or --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("mixer", ["mamba1", "rwkv6"])
def test_networks_that_run_step_by_step_are_refused(mixer: str, tmp_path: Path) -> None:
    network = BSMamba2(replace(TINY, time_mixer=mixer, rwkv_headdim=4 if mixer == "rwkv6" else TINY.rwkv_headdim))
    with pytest.raises(InputError, match=f"networks with {mixer} cannot be exported"):
        export_onnx(network, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
