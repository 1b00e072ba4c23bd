"""Whether weights are those of an architecture: found out before the memory that it claims is allocated."""

import contextlib
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig, Network, make_network
from bsmamba2.weights.shapes import StateDict

MASK_HEADS = "mask_estimators."
# Fields of the architecture that no weight has as a size.
NOT_IN_SHAPES = ("n_fft", "window_length", "hop_length", "sample_rate")
# How parameters are made.
MAKING = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


def fitted_network(config: ModelConfig, state: StateDict, path: Path, part: ModelConfig | None = None) -> Network:
    """Returns a network with an architecture and weights, after checking that they fit each other.

    Args:
        config: The architecture of the weights.
        state: The weights.
        path: Their file.
        part: That of the network to return, if it has only some of the stems.

    Raises:
        InputError: They do not.
    """
    _check_claims(config, state, path)
    with _usual_defaults():
        # Twice as many, so that what is missing from a file is named.
        with _at_most(2 * len(state), path), _ShapesOnly():
            claimed = make_network(config)
        check_same(state, claimed.state_dict(), path)
        part = part or config
        with _NoInitialisation():
            network = make_network(part)
    copy_weights(with_heads(state, [config.stems.index(stem) for stem in part.stems]), network)
    return network


@contextlib.contextmanager
def _usual_defaults() -> Iterator[None]:
    """Makes tensors on the CPU in single precision while the block runs, also if a program has set other defaults."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)


def with_heads(state: StateDict, places: Sequence[int | None]) -> StateDict:
    """Returns weights with other mask heads: in each place the one that was in the given place, or none."""
    kept = {name: value for name, value in state.items() if not name.startswith(MASK_HEADS)}
    heads: dict[str, StateDict] = defaultdict(dict)
    for name in (name for name in state if name not in kept):
        place, _, rest = name.removeprefix(MASK_HEADS).partition(".")
        heads[place][rest] = state[name]
    for new, old in enumerate(places):
        kept |= {f"{MASK_HEADS}{new}.{rest}": value for rest, value in heads[str(old)].items()}
    return kept


def _check_claims(config: ModelConfig, state: StateDict, path: Path) -> None:
    """Checks that no size in an architecture is beyond what the weights can be."""
    values = sum(value.numel() for value in state.values())
    read = config.to_dict()
    sizes = {field.name: read[field.name] for field in fields(config) if field.type is int and field.name in read}
    sizes = {name: size for name, size in sizes.items() if name not in NOT_IN_SHAPES}
    sizes |= {f"sum of {name}": sum(read[name]) for name in ("bands", "freq_block_kernel") if name in read}
    too_large = [f"{name}={size}" for name, size in sizes.items() if size > values]
    if too_large:
        raise InputError(
            f"the weights in {path} are not those of this architecture: {too_large[0]} is more than the number "
            f"of weights, {values}"
        )


class _ShapesOnly(TorchFunctionMode):
    """Makes tensors that have a shape but only one number, and leaves out what would change them.

    Unlike those on the device meta, they can be computed with: its arithmetic imports a compiler, which takes a second.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Returns the result of a function of torch."""
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if _initialises(func) or name == "__setitem__" or (name.endswith("_") and not name.endswith("__")):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func not in MAKING:
            return func(*args, **kwargs)
        claimed = func(*args, **kwargs | {"device": "meta"})
        return torch.zeros((), dtype=claimed.dtype).expand(claimed.shape)


class _NoInitialisation(TorchFunctionMode):
    """Leaves parameters as they are allocated, where weights will replace them all."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Returns the result of a function of torch."""
        kwargs = kwargs or {}
        tensor = kwargs["tensor"] if "tensor" in kwargs else next(iter(args), None)
        return tensor if _initialises(func) and isinstance(tensor, nn.Parameter) else func(*args, **kwargs)


def _initialises(func: Any) -> bool:
    return getattr(func, "__module__", None) == nn.init.__name__


@contextlib.contextmanager
def _at_most(count: int, path: Path) -> Iterator[None]:
    """Limits the parameters of the modules that are made in the block, so that no claim keeps it busy for ever.

    Raises:
        InputError: There are more.
    """
    made, thread = 0, threading.get_ident()

    def register(module: nn.Module, name: str, parameter: object) -> None:
        nonlocal made
        if threading.get_ident() == thread and parameter is not None:
            made += 1
            if made > count:
                raise InputError(
                    f"the weights in {path} are not those of this architecture: it has more than {count} tensors"
                )

    hook = register_module_parameter_registration_hook(register)
    try:
        yield
    finally:
        hook.remove()


def check_same(state: StateDict, expected: StateDict, path: Path) -> None:
    """Checks that two state dicts have the same names and shapes.

    Raises:
        InputError: They do not; the first difference is named.
    """
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


def copy_weights(state: StateDict, network: Network) -> None:
    """Copies weights into a network, in its precision; constants that a file has rounded remain exact."""
    exact = {
        name: constant
        for name, constant in network.named_buffers()
        if name in state
        and state[name].element_size() < constant.element_size()
        and torch.equal(constant.to(state[name].dtype), state[name])
    }
    network.load_state_dict({**state, **exact})
