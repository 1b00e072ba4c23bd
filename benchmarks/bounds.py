"""What the network has to compute, and how fast a machine multiplies and copies: together the bounds of its speed.

Multiply-adds are counted by running the modules on tensors without data (`torch.device("meta")`), so that the full-size
network takes a second. `products` are matrix products, convolutions and attention: all that
`torch.utils.flop_counter` counts. `elementwise` are the multiply-adds that are written as `addcmul`: the depthwise
convolution, the skip of the scan and the states that it carries from chunk to chunk, also those of RWKV-6; and the scan
of Mamba-1, three for each state and step. Not counted are other elementwise operations, norms, exponentials and Fourier
transforms. The scan is counted as the chunked one, whichever one runs.

One operation is a multiplication or an addition, so that a multiply-add is two.
"""

import functools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import median_seconds
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.dual_path import rows_per_tile
from bsmamba2.model.stft import stft

# The mixers of a layer, in its order.
AXES = ("time", "bands")
RUNS = 15
# Far more than fits into the caches of all but the largest servers.
COPY_BYTES = 2**29
META = torch.device("meta")


def _two_per_value(*_: Any, out_shape: tuple[int, ...], **__: Any) -> int:
    return 2 * math.prod(out_shape)


def _six_per_state(x: tuple[int, ...], dt: tuple[int, ...], A: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Counts the exponent of the decay, the step of the state with its input, and the output."""
    return 6 * x[0] * x[1] * math.prod(A)


ELEMENTWISE = {
    torch.ops.aten.addcmul: _two_per_value,
    torch.ops.aten.addcmul_: _two_per_value,
    torch.ops.bsmamba2.selective_steps: _six_per_state,
    torch.ops.bsmamba2.wkv_states: _two_per_value,
}


def multiply_adds(run: Callable[..., object], *arguments: Tensor) -> Counter[str]:
    """Returns the multiply-adds of run(*arguments): `products` and `elementwise`."""
    with FlopCounterMode(display=False, custom_mapping=ELEMENTWISE) as counter, torch.no_grad():
        run(*arguments)
    count: Counter[str] = Counter()
    for operation, operations in counter.get_flop_counts().get("Global", {}).items():
        count["elementwise" if operation in ELEMENTWISE else "products"] += operations // 2
    return count


@functools.cache
def meta_network(config: ModelConfig) -> BSMamba2:
    """Returns the network without data in its tensors."""
    with META:
        return BSMamba2(config)


@functools.cache
def network_multiply_adds(config: ModelConfig, seconds: float) -> dict[str, Counter[str]]:
    """Returns the multiply-adds of one pass over audio, by part of the network.

    The parts are the mixers over `time` and over `bands`, each in all layers, and both together, `mixers`;
    `bands_and_masks`, the ends of the network; and `everything`.
    """
    network = meta_network(config)
    parts: dict[str, Counter[str]] = {axis: Counter() for axis in AXES}
    shapes = _rows(config, seconds)
    # The layers are alike.
    for axis, mixer in zip(AXES, network.mixers(), strict=False):
        of_one = multiply_adds(mixer, torch.empty(*shapes[axis], config.dim, device=META))
        parts[axis] = Counter({kind: config.depth * count for kind, count in of_one.items()})
    spectrum = _spectrum(config, seconds)
    features = torch.empty(1, spectrum.shape[-1], len(config.bands), config.dim, device=META)
    masks = multiply_adds(network.mask_estimators[0], features)
    parts["mixers"] = sum(parts.values(), Counter())
    parts["bands_and_masks"] = multiply_adds(network.band_split, spectrum)
    parts["bands_and_masks"] += Counter({kind: len(config.stems) * count for kind, count in masks.items()})
    return parts | {"everything": parts["mixers"] + parts["bands_and_masks"]}


def tile_shapes(config: ModelConfig, device: torch.device) -> dict[str, tuple[int, int]]:
    """Returns the rows and the length of what the mixers over time and over bands take at once of one segment.

    On a CPU that is a tile, as `DualPathLayer` cuts it, elsewhere the whole segment.
    """
    return {
        axis: (rows_per_tile(rows, length, mixer.inner_dim, device), length)
        for (axis, (rows, length)), mixer in zip(
            _rows(config, config.segment_seconds).items(), meta_network(config).mixers(), strict=False
        )
    }


def linear_shapes(config: ModelConfig) -> list[tuple[int, int]]:
    """Returns the inputs and outputs of the linear maps in the mixers, without repetition, the largest first."""
    maps = (module for module in meta_network(config).layers.modules() if isinstance(module, nn.Linear))
    return sorted({(linear.in_features, linear.out_features) for linear in maps}, key=math.prod, reverse=True)


def network_rate(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> float:
    """Returns the operations per second of the largest linear map of the mixers, by which the bounds are computed.

    It takes the frames of one segment on a CPU, as many as stay in its cache, elsewhere those of all bands.
    """
    return matrix_rate(device, *linear_shapes(config)[0], rate_rows(config, device), dtype)


def rate_rows(config: ModelConfig, device: torch.device) -> int:
    """Returns the rows of the matrix products that are measured; see `network_rate`."""
    bands, frames = _rows(config, config.segment_seconds)["time"]
    return frames * (1 if device.type == "cpu" else bands)


def matrix_rate(device: torch.device, inputs: int, outputs: int, rows: int, dtype: torch.dtype) -> float:
    """Returns the operations per second of a linear map without bias on rows: the median of `RUNS` after warm-up."""
    x = torch.randn(rows, inputs, device=device, dtype=dtype)
    weight = torch.randn(outputs, inputs, device=device, dtype=dtype)
    return 2 * rows * inputs * outputs / median_seconds(lambda: F.linear(x, weight), RUNS, device)


def memory_bandwidth(device: torch.device, size: int = COPY_BYTES) -> float:
    """Returns the bytes per second, read and written, of copying a tensor of `size` bytes."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / median_seconds(lambda: target.copy_(source), RUNS, device)


def bound_seconds(count: float, rate: float) -> float:
    """Returns the seconds that multiply-adds take at a rate in operations per second."""
    return 2 * count / rate


def _spectrum(config: ModelConfig, seconds: float) -> Tensor:
    samples = max(1, round(seconds * config.sample_rate))
    return stft(torch.empty(1, config.channels, samples, device=META), **meta_network(config).transform)


def _rows(config: ModelConfig, seconds: float) -> dict[str, tuple[int, int]]:
    """Returns the rows and their length that the mixers over time and over bands get in one pass."""
    frames, bands = _spectrum(config, seconds).shape[-1], len(config.bands)
    return dict(zip(AXES, [(bands, frames), (frames, bands)], strict=True))
