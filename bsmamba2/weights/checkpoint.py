"""Weights from files: checkpoints of our training, and plain weights under the published names."""

import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.system.files import complete_file
from bsmamba2.weights.shapes import config_from_shapes
from bsmamba2.weights.store import find_model

NETWORK_PREFIX = "network."
ARCHITECTURE = "bsmamba2.architecture"  # Key in the metadata of a safetensors file.

StateDict = dict[str, Tensor]


def load_model(model: str | Path, compile: bool = False, **architecture: Any) -> BSMamba2:
    """Returns the network of a published model or of a file, in eval mode on the CPU.

    The file is a checkpoint of our training (its EMA weights are taken), or weights under the published names as a
    plain state dict (`.ckpt`, `.pt`) or as `.safetensors`. Of weights that do not come with their architecture, it is
    read off the shapes; what shapes do not tell is the published value. No code inside a file is ever run.

    Args:
        model: Name of a published model, which is downloaded once (see `bsmamba2.weights.registry`), or a file.
        compile: Whether torch.compile makes kernels of it, which is faster after a first pass that takes a minute
            longer; see `BSMamba2.compile`.
        **architecture: Fields of `ModelConfig` that the file does not tell, such as hop_length or stems.

    Raises:
        InputError: The file is missing, damaged, holds something else, or does not fit the architecture.
    """
    network = load_network(find_model(model), **architecture)
    if compile:
        network.compile()
    return network


def load_network(path: Path, **architecture: Any) -> BSMamba2:
    """Returns the network of a file as `load_model` does, and says nothing."""
    content = read(path)
    own = "state_dict" in content
    config = stored_config(content, path) if own else described_config(path)
    state = network_weights(content["state_dict"], path) if own else tensors(content, path)
    given = _fields(architecture)
    return network_of(replace(config, **given) if config else config_from_shapes(state, path, **given), state, path)


def save_model(network: BSMamba2, path: Path) -> None:
    """Writes the weights of a network to a safetensors file that tells its architecture, for `load_model`.

    Raises:
        InputError: The file cannot be written.
    """
    # One key: of several, safetensors writes the order by chance, and the hash would not repeat.
    metadata = {ARCHITECTURE: json.dumps(network.config.to_dict())}
    with complete_file(path) as temporary:
        # Its own writing of files would hide them from all other users.
        temporary.write_bytes(save(network.state_dict(), metadata))


class Ignored:
    """Stands for any Python object that a file holds besides tensors and plain values, and does nothing."""

    def __new__(cls, *_: object) -> "Ignored":
        """Returns an empty object, whatever the file wants it made of."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Drops what the file wants to put in."""


def read(path: Path, ignore_objects: bool = False) -> dict[str, Any]:
    """Returns what a file holds, by name, and runs no code in it. Tensors of checkpoints stay on disk until used.

    Args:
        path: The file.
        ignore_objects: Whether Python objects are replaced by `Ignored` instead of refused.

    Raises:
        InputError: The file is missing, damaged or holds something else.
    """
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
        with zipfile.ZipFile(path) as archive:
            is_program = any(name.endswith("/constants.pkl") for name in archive.namelist())
        if is_program:
            raise InputError(f"the model file {path} is a TorchScript program; give a checkpoint or a state dict")
        # torch's own restricted reader meets a stand-in wherever the file names a class or function it does not allow.
        names = get_unsafe_globals_in_checkpoint(path) if ignore_objects else []
        with safe_globals([(Ignored, name) for name in names]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        remedy = "save its weights alone" if ignore_objects else _converted_first(path)
        raise InputError(
            f"the model file {path} holds Python objects besides tensors and plain values; it was not opened, "
            f"because they could run code; {remedy}"
        ) from error
    # A damaged file fails wherever the damage leads the reader; nothing in it is run.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"the model file {path} is damaged ({reason})") from error
    if not isinstance(content, dict):
        raise InputError(f"the model file {path} holds a {type(content).__name__}, not a checkpoint or state dict")
    return content


def holds_config(content: dict[str, Any]) -> bool:
    """Returns whether this is a checkpoint of our training."""
    parameters = content.get("hyper_parameters")
    return isinstance(parameters, dict) and isinstance(parameters.get("network"), dict)


def stored_config(content: dict[str, Any], path: Path) -> ModelConfig:
    """Returns the architecture in a checkpoint of our training.

    Raises:
        InputError: It is the checkpoint of another program, or the architecture cannot be used.
    """
    if not holds_config(content):
        raise InputError(
            f"{path} is a checkpoint of another program: it holds no network config of bsmamba2; "
            f"{_converted_first(path)}"
        )
    return _config(content["hyper_parameters"]["network"], path)


def described_config(path: Path) -> ModelConfig | None:
    """Returns the architecture in the metadata of a safetensors file, or None where there is none.

    Raises:
        InputError: The architecture cannot be used.
    """
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(ARCHITECTURE)
    if text is None:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the network config in {path} is no JSON ({error}); convert the original again") from error
    return _config(values, path)


def network_weights(weights: object, path: Path) -> StateDict:
    """Returns the weights of the network alone, of all the weights in a checkpoint of our training.

    Raises:
        InputError: There are none.
    """
    return prefixed(weights, NETWORK_PREFIX, path)


def prefixed(weights: object, prefix: str, path: Path) -> StateDict:
    """Returns the tensors whose names start with a prefix, without it.

    Raises:
        InputError: There are none.
    """
    if not isinstance(weights, dict):
        raise InputError(f"the state dict in {path} is a {type(weights).__name__}; give another file")
    named = {str(name): value for name, value in weights.items() if str(name).startswith(prefix)}
    return tensors({name.removeprefix(prefix): value for name, value in named.items()}, path)


def tensors(content: dict[str, Any], path: Path) -> StateDict:
    """Returns what was given, if it is a state dict.

    Raises:
        InputError: It is empty, or something in it is not a named tensor of real numbers.
    """
    strangers = [name for name, value in content.items() if not isinstance(name, str) or not is_weight(value)]
    if strangers or not content:
        stranger = strangers[0] if strangers else "nothing"
        raise InputError(f"{path} is no state dict: {stranger!r} is not a named tensor of real numbers")
    return content


def is_weight(value: object) -> bool:
    """Returns whether this is a tensor of real numbers, all of which are in the file.

    A few bytes can claim any shape, with strides of zero or without memory of their own.
    """
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and value.is_floating_point()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def network_of(config: ModelConfig, state: StateDict, path: Path) -> BSMamba2:
    """Returns the network with these weights, in eval mode.

    Raises:
        InputError: The weights are not those of this architecture.
    """
    network = BSMamba2(config)
    load_weights(network, state, path)
    return network.eval()


def _converted_first(path: Path) -> str:
    return f"run `bsmamba2 convert {path} OUT.safetensors` first and give what it writes"


def _config(values: object, path: Path) -> ModelConfig:
    if not isinstance(values, dict):
        raise InputError(f"the network config in {path} is a {type(values).__name__}; convert the original again")
    try:
        return ModelConfig.from_dict(values)
    except (InputError, OverflowError) as error:
        raise InputError(f"the network config in {path} cannot be used: {error}") from error


def _fields(architecture: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(architecture) - set(ModelConfig.__dataclass_fields__))
    if unknown:
        raise InputError(
            f"{unknown} is not part of the architecture; allowed are {', '.join(ModelConfig.__dataclass_fields__)}"
        )
    return architecture


def load_weights(network: BSMamba2, state: StateDict, path: Path) -> None:
    """Puts the weights of a file into a network.

    Raises:
        InputError: They are not those of its architecture.
    """
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
