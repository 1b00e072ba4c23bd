"""Weights from files: checkpoints of our training, and plain weights under the published names."""

import pickle
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig

NETWORK_PREFIX = "network."
STEMS_BY_COUNT = {1: ("vocals",), 4: ("drums", "bass", "other", "vocals")}

StateDict = dict[str, Tensor]


def load_model(path: str | Path, **architecture: Any) -> BSMamba2:
    """Returns the network of a file, in eval mode on the CPU.

    The file is a checkpoint of our training (its EMA weights are taken), or weights under the published names as a
    plain state dict (`.ckpt`, `.pt`) or as `.safetensors`. Of plain weights the architecture is read off the shapes;
    what shapes do not tell is the published value. No code inside a file is ever run.

    Args:
        path: The file.
        **architecture: Fields of `ModelConfig` that the file does not tell, such as hop_length or stems.

    Raises:
        InputError: The file is missing, damaged, holds something else, or does not fit the architecture.
    """
    path = Path(path)
    content = _read(path)
    if "state_dict" in content:
        config, state = _training_checkpoint(content, path)
        config = replace(config, **_fields(architecture))
    else:
        state = _tensors(content, path)
        config = _config_from_shapes(state, path, _fields(architecture))
    network = BSMamba2(config)
    _load(network, state, path)
    return network.eval()


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise InputError(f"the model {path} is a folder; give a .ckpt, .pt or .safetensors file")
    if not path.is_file():
        raise InputError(f"the model file {path} does not exist; check the path")
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise InputError(f"the model file {path} is damaged or no safetensors file ({error})") from error
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"the model file {path} is truncated or no checkpoint (or of a torch before 1.6); fetch or save it again"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"the model file {path} holds Python objects besides tensors and plain values; it was not opened, "
            "because they could run code"
        ) from error
    # A damaged file fails wherever the damage leads the reader; nothing in it is run.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"the model file {path} is damaged ({reason})") from error
    if not isinstance(content, dict):
        raise InputError(f"the model file {path} holds a {type(content).__name__}, not a checkpoint or state dict")
    return content


def _training_checkpoint(content: dict[str, Any], path: Path) -> tuple[ModelConfig, StateDict]:
    parameters = content.get("hyper_parameters")
    values = parameters.get("network") if isinstance(parameters, dict) else None
    state = content["state_dict"]
    if not isinstance(values, dict) or not isinstance(state, dict):
        raise InputError(f"{path} is a checkpoint of another program: it holds no network config of bsmamba2")
    try:
        config = ModelConfig.from_dict(values)
    except InputError as error:
        raise InputError(f"the network config in {path} cannot be used: {error}") from error
    weights = {str(name): value for name, value in state.items()}
    weights = {
        name.removeprefix(NETWORK_PREFIX): value for name, value in weights.items() if name.startswith(NETWORK_PREFIX)
    }
    return config, _tensors(weights, path)


def _tensors(content: dict[str, Any], path: Path) -> StateDict:
    strangers = [name for name, value in content.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if strangers or not content:
        raise InputError(f"{path} is no state dict: {strangers[0] if strangers else 'nothing'!r} is not a named tensor")
    return content


def _fields(architecture: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(architecture) - set(ModelConfig.__dataclass_fields__))
    if unknown:
        raise InputError(
            f"{unknown} is not part of the architecture; allowed are {', '.join(ModelConfig.__dataclass_fields__)}"
        )
    return architecture


def _config_from_shapes(state: StateDict, path: Path, given: dict[str, Any]) -> ModelConfig:
    mixer = "layers.0.0.forward_blocks.0.mixer."
    mask_weights = [name for name in state if re.fullmatch(r"mask_estimators\.0\.to_freqs\.0\.0\.\d+\.weight", name)]
    channels = given.get("channels", ModelConfig.channels)
    ngroups = given.get("ngroups", ModelConfig.ngroups)
    try:
        dim = state["band_split.to_features.0.1.weight"].shape[0]
        widths = [
            state[f"band_split.to_features.{band}.0.gamma"].shape[0] / (2 * channels)
            for band in range(_count(state, r"band_split\.to_features\.(\d+)\."))
        ]
        d_inner = state[mixer + "norm.weight"].shape[0]
        conv_dim, _, d_conv = state[mixer + "conv1d.weight"].shape
        heads = state[mixer + "A_log"].shape[0]
        hidden_dim = state[mask_weights[0]].shape[0] if len(mask_weights) > 1 else dim * ModelConfig.mask_expand
        expand, headdim, mask_expand = d_inner // dim, d_inner // heads, hidden_dim // dim
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InputError(
            f"{path} does not hold the weights of a BSMamba2 under the published names ({error} is missing or of "
            "another form); give a checkpoint of bsmamba2 or a published file"
        ) from error
    if any(width % 1 for width in widths):
        raise InputError(
            f"the bands in {path} do not fit channels={channels}; give the number of channels it was made for"
        )
    stems = _count(state, r"mask_estimators\.(\d+)\.")
    if "stems" not in given and stems not in STEMS_BY_COUNT:
        raise InputError(f"{path} estimates {stems} stems but does not name them; give stems=[...] with {stems} names")
    n_fft = 2 * (int(sum(widths)) - 1)
    shapes = {
        "dim": dim,
        "depth": _count(state, r"layers\.(\d+)\."),
        "bands": tuple(int(width) for width in widths),
        "stems": STEMS_BY_COUNT.get(stems, ()),
        "expand": expand,
        "headdim": headdim,
        "d_state": (conv_dim - d_inner) // (2 * ngroups),
        "d_conv": d_conv,
        "mask_depth": len(mask_weights),
        "mask_expand": mask_expand,
        "n_fft": n_fft,
        "window_length": n_fft,
    }
    try:
        return ModelConfig(**(shapes | given))
    except InputError as error:
        raise InputError(f"the shapes in {path} make no BSMamba2: {error}") from error


def _count(state: StateDict, pattern: str) -> int:
    return len({match[1] for match in map(re.compile(pattern).match, state) if match})


def _load(network: BSMamba2, state: StateDict, path: Path) -> None:
    expected = network.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name} is not part of it" for name in state if name not in expected]
    problems += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise InputError(f"the weights in {path} are not those of this architecture: {problems[0]}{more}")
    network.load_state_dict(state)
