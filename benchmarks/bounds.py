"""What the network has to compute, and how fast a machine multiplies and copies: together the bounds of its speed.

One operation is a multiplication or an addition, so that a multiply-add is two.
"""

from itertools import pairwise

import torch
from torch.nn import functional as F

from benchmarks.timing import median_seconds
from bsmamba2.model import ModelConfig
from bsmamba2.model.dual_path import rows_per_tile
from bsmamba2.model.ssd import chunking

# The parts of `multiply_adds` that the bound counts; the others are the ends of the network.
MIXERS = ("projections_in", "projections_out", "scan_over_time", "scan_over_bands")
RUNS = 15
# Far more than the caches of all but the largest servers hold.
COPY_BYTES = 2**29


def frames(config: ModelConfig, seconds: float) -> int:
    """Returns the frames of the spectrum of audio, as `bsmamba2.model.stft` makes them."""
    samples = max(round(seconds * config.sample_rate), config.n_fft // 2 + 1)
    return samples // config.hop_length + 1


def multiply_adds(config: ModelConfig, seconds: float) -> dict[str, float]:
    """Returns the multiply-adds of one pass over audio, by part of the network.

    Counted are the matrix products of the chunked scan, whichever scan runs, and those of the folded maps.
    """
    steps, bands = frames(config, seconds), len(config.bands)
    tokens = config.depth * steps * bands
    masks = 0
    for width in config.bands:
        dims = [config.dim, *[config.dim * config.mask_expand] * (config.mask_depth - 1), 4 * width * config.channels]
        masks += sum(inputs * outputs for inputs, outputs in pairwise(dims))
    return {
        "projections_in": 2.0 * tokens * 2 * config.dim * projected_dim(config),
        "projections_out": 2.0 * tokens * (2 * config.d_inner * config.dim + config.dim**2),
        "scan_over_time": 2.0 * tokens * scan_multiply_adds(config, steps),
        "scan_over_bands": 2.0 * tokens * scan_multiply_adds(config, bands),
        "band_split": 2.0 * steps * config.channels * sum(config.bands) * config.dim,
        "masks": float(len(config.stems) * steps * masks),
    }


def projected_dim(config: ModelConfig) -> int:
    """Returns the channels that come out of the projection into a Mamba-2 block."""
    return 2 * config.d_inner + 2 * config.ngroups * config.d_state + config.heads


def scan_multiply_adds(config: ModelConfig, length: int) -> int:
    """Returns the multiply-adds per step of the chunked scan over rows of a length, in one direction."""
    count, chunk_length = chunking(length)
    inside = chunk_length * (config.d_state * config.ngroups + config.d_inner)
    return inside + (2 * config.d_state * config.d_inner if count > 1 else 0)


def mixer_multiply_adds(config: ModelConfig, length: int) -> int:
    """Returns the multiply-adds per step of a bidirectional mixer over rows of a length."""
    one_direction = (
        config.dim * projected_dim(config) + config.d_inner * config.dim + scan_multiply_adds(config, length)
    )
    return 2 * one_direction + config.dim**2


def tile_shapes(config: ModelConfig, device: torch.device) -> dict[str, tuple[int, int]]:
    """Returns the rows and the length of what the mixers over time and over bands take at once of one segment.

    On a CPU that is a tile, as `DualPathLayer` cuts it, elsewhere the whole segment.
    """
    steps, bands = frames(config, config.segment_seconds), len(config.bands)
    return {
        "time": (rows_per_tile(bands, steps, config.d_inner, device), steps),
        "bands": (rows_per_tile(steps, bands, config.d_inner, device), bands),
    }


def network_rate(config: ModelConfig, device: torch.device, dtype: torch.dtype) -> float:
    """Returns the operations per second of the projection into a block, by which the bounds are counted.

    It takes the steps of one segment on a CPU, as many as stay in its cache, elsewhere all bands of them.
    """
    return matrix_rate(device, config.dim, projected_dim(config), rate_rows(config, device), dtype)


def rate_rows(config: ModelConfig, device: torch.device) -> int:
    """Returns the rows of the matrix products that are measured; see `network_rate`."""
    return frames(config, config.segment_seconds) * (1 if device.type == "cpu" else len(config.bands))


def matrix_rate(device: torch.device, inputs: int, outputs: int, rows: int, dtype: torch.dtype) -> float:
    """Returns the operations per second of a linear map without bias on rows: the median of `RUNS` after warm-up."""
    x = torch.randn(rows, inputs, device=device, dtype=dtype)
    weight = torch.randn(outputs, inputs, device=device, dtype=dtype)
    return 2 * rows * inputs * outputs / median_seconds(lambda: F.linear(x, weight), device, RUNS)


def memory_bandwidth(device: torch.device, size: int = COPY_BYTES) -> float:
    """Returns the bytes per second, read and written, of copying a tensor of `size` bytes."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / median_seconds(lambda: target.copy_(source), device, RUNS)


def bound_seconds(count: float, rate: float) -> float:
    """Returns the seconds that multiply-adds take at a rate in operations per second."""
    return 2 * count / rate
