"""Files of weights name classes; none of them is ever imported or made."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bsmamba2 import load_model
from bsmamba2.cli import main
from bsmamba2.model import BSMamba2
from bsmamba2.version import __version__
from bsmamba2.weights.headers import ARCHITECTURE

CLASS = "module_that_a_file_names.Hostile"
NAMED = {"class_path": CLASS, "init_args": {"command": "touch"}}
CONFIG = f"trainer: {{logger: {{class_path: {CLASS}}}}}\nmodel: {{class_path: {CLASS}}}\n"


def checkpoint(network: BSMamba2, **parameters: Any) -> dict[str, Any]:
    return {
        "state_dict": {f"network.{name}": value for name, value in network.state_dict().items()},
        "hyper_parameters": {"network": network.config.to_dict(), **parameters},
        "datamodule_hyper_parameters": NAMED,
        "callbacks": {CLASS: NAMED},
        "loops": NAMED,
        "bsmamba2": {"version": __version__, "config": CONFIG, "training_songs": [], "metrics": {}},
    }


@pytest.fixture(params=["record", "instantiator", "network", "metadata"])
def file(request: pytest.FixtureRequest, tmp_path: Path, tiny_network: BSMamba2) -> Path:
    """Returns a file that names a class where Lightning or jsonargparse would look for one."""
    if request.param == "metadata":
        path = tmp_path / "model.safetensors"
        metadata = {ARCHITECTURE: json.dumps(tiny_network.config.to_dict()), "class_path": CLASS, "config": CONFIG}
        save_file(tiny_network.state_dict(), path, metadata)
        return path
    parameters = {"record": {}, "instantiator": {"_instantiator": CLASS, "_class_path": CLASS, "loss": NAMED}}
    content = checkpoint(tiny_network, **parameters.get(request.param, {}))
    if request.param == "network":
        content["hyper_parameters"]["network"] |= NAMED
    torch.save(content, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


@pytest.mark.parametrize("command", ["load", "separate", "evaluate", "convert"])
def test_no_class_that_a_file_names_is_made(
    file: Path, command: str, tmp_path: Path, musdb_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_that_a_file_names.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    song = str(musdb_root / "test" / "Three - Third" / "mixture.wav")
    # A field that no architecture has is refused.
    refused = file.suffix == ".ckpt" and "class_path" in torch.load(file)["hyper_parameters"]["network"]
    if command == "load":
        if not refused:
            load_model(file)
    else:
        arguments = {
            "separate": [song, "--model", str(file), "--output", str(tmp_path / "stems")],
            "evaluate": ["--model", str(file), "--root", str(musdb_root), "--output", str(tmp_path / "run")],
            "convert": [str(file), str(tmp_path / "converted.safetensors")],
        }
        assert main([command, *arguments[command]]) == int(refused)
    assert not (tmp_path / "made").exists()
    assert "module_that_a_file_names" not in sys.modules
