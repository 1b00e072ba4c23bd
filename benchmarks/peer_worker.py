"""One network in a process of its own, which computes only when `peers.py` asks for a run.

    python -m benchmarks.peer_worker '{"name": "demucs", ...}'

It also runs in the environments of the peers, and so imports PyTorch alone, and every network where it is built. Each
line on the standard input starts a run; the answer is a line of JSON.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.memory import peak_memory_mib, present_memory_mib
from benchmarks.timing import CPU, elapsed

MUSIC_RATE = 44100
# What HT Demucs was released with; it pads shorter inputs to this length.
DEMUCS_SEGMENT = Fraction(39, 5)
REPORTED_PACKAGES = ("torch", "bsmamba2", "BS-RoFormer", "demucs")
SMALLER = {"small": "small.yaml", "mini": "default_model.yaml"}

Request = dict[str, Any]
Runnable = tuple[nn.Module, Callable[[Tensor], Tensor], float]


def main() -> None:
    """Builds a network and answers until the standard input ends.

    The argument is JSON: `name` of the network, `seconds` of the input, `threads`, `quick` for a tiny network of the
    same kind, and for ours `compile`, `precision` and `scan`.
    """
    request = json.loads(sys.argv[1])
    # Only answers may reach the standard output: libraries print there, too.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    torch.manual_seed(0)
    torch.set_num_threads(request["threads"])
    network, estimates, seconds = BUILDERS[request["name"]](request)
    mixture = 0.1 * torch.randn(1, 2, max(1, round(seconds * MUSIC_RATE)))
    loaded = present_memory_mib(CPU) or peak_memory_mib(CPU)
    answer = {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "input_seconds": mixture.shape[-1] / MUSIC_RATE,
        "threads": torch.get_num_threads(),
        "versions": reported_versions(),
    }
    print(json.dumps(answer), file=answers, flush=True)
    for _ in sys.stdin:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=request["precision"] == "bfloat16"):
            seconds = elapsed(partial(estimates, mixture))
        peak = peak_memory_mib(CPU)
        over_weights = None if peak is None or loaded is None else peak - loaded
        answer = {"seconds": seconds, "peak_mib": peak, "peak_over_weights_mib": over_weights}
        print(json.dumps(answer), file=answers, flush=True)


def bsroformer(request: Request) -> Runnable:
    """Returns BS-RoFormer in the sizes of its paper, as far as the package has them."""
    from bs_roformer import BSRoformer  # type: ignore[import-not-found]

    dim, depth = (32, 1) if request["quick"] else (256, 6)
    network = BSRoformer(
        dim=dim,
        depth=depth,
        stereo=True,
        time_transformer_depth=1,
        freq_transformer_depth=1,
        num_residual_streams=1,
        stft_hop_length=441,
    ).eval()
    return network, network, request["seconds"]


def demucs(request: Request) -> Runnable:
    """Returns HT Demucs as it was released: what differs from the defaults is the bottleneck and the segment."""
    from demucs.htdemucs import HTDemucs  # type: ignore[import-not-found]

    segment = min(Fraction(max(1, round(request["seconds"] * MUSIC_RATE)), MUSIC_RATE), DEMUCS_SEGMENT)
    sizes = {"channels": 8, "bottom_channels": 64, "t_layers": 1} if request["quick"] else {"bottom_channels": 512}
    network = HTDemucs(["drums", "bass", "other", "vocals"], segment=segment, **sizes).eval()
    return network, network, float(segment)


def ours(request: Request) -> Runnable:
    """Returns our network with random weights."""
    from benchmarks.networks import PROJECT, QUICK, config_in, random_network
    from bsmamba2.model import ModelConfig

    config, file = ModelConfig(), SMALLER.get(request["name"])
    if request["name"] == "roformer":
        dim, depth = (32, 1) if request["quick"] else (256, 6)
        config = ModelConfig(dim=dim, depth=depth, time_mixer="roformer", band_mixer="roformer")
    elif request["quick"]:
        config = QUICK
    elif file:
        config = config_in(PROJECT / "configs" / file)
    network = random_network(config, compiled=request["compile"])
    network.set_scan(request["scan"])
    return network, network, request["seconds"]


BUILDERS: dict[str, Callable[[Request], Runnable]] = {
    "bsroformer": bsroformer,
    "demucs": demucs,
    **dict.fromkeys(("full", "roformer", *SMALLER), ours),
}


def reported_versions() -> dict[str, str]:
    """Returns the versions of what computes here."""
    found = {"Python": sys.version.split()[0]}
    for package in REPORTED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


if __name__ == "__main__":
    main()
