"""One network in a process of its own, which computes only when `peers.py` tells it to.

It runs in the environments of the peers as well, and so imports PyTorch alone, and every network where it is built.
Each line on the standard input starts a run; the answer is a line of JSON.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

try:
    import resource
except ImportError:  # Windows has no such module.
    resource = None  # type: ignore[assignment]

SAMPLE_RATE = 44100
# What HT Demucs was released with; it pads shorter inputs to this length.
DEMUCS_SEGMENT = Fraction(39, 5)
PACKAGES = ("torch", "bsmamba2", "BS-RoFormer", "demucs")
CONFIGS = Path(__file__).parents[1] / "configs"
SMALLER = {"small": CONFIGS / "small.yaml", "mini": CONFIGS / "default_model.yaml"}

Network = tuple[nn.Module, Callable[[Tensor], Tensor], float]


def main() -> None:
    """Builds a network and answers until the standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=BUILDERS)
    parser.add_argument("--weights", type=Path, help="file for the weights of our networks")
    parser.add_argument("--save", action="store_true", help="write random weights to that file and end")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the input")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--scan", default="auto")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--quick", action="store_true", help="a tiny network of the same kind")
    options = parser.parse_args()
    # Only answers may reach the standard output: libraries print there, too.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    if options.save:
        save(options)
        return
    network, run, seconds = BUILDERS[options.name](options)
    mixture = 0.1 * torch.randn(1, 2, max(1, round(seconds * SAMPLE_RATE)))
    loaded = resident_mib()
    answer = {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "input_seconds": mixture.shape[-1] / SAMPLE_RATE,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    print(json.dumps(answer), file=answers, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16"):
            run(mixture)
        elapsed = time.perf_counter() - started
        peak = peak_mib()
        over_weights = None if peak is None or loaded is None else peak - loaded
        answer = {"seconds": elapsed, "peak_mib": peak, "peak_over_weights_mib": over_weights}
        print(json.dumps(answer), file=answers, flush=True)


def bsroformer(options: argparse.Namespace) -> Network:
    """Returns BS-RoFormer in the sizes of its paper, as far as the package has them."""
    from bs_roformer import BSRoformer  # type: ignore[import-not-found]

    dim, depth = (32, 1) if options.quick else (256, 6)
    network = BSRoformer(
        dim=dim,
        depth=depth,
        stereo=True,
        time_transformer_depth=1,
        freq_transformer_depth=1,
        num_residual_streams=1,
        stft_hop_length=441,
    ).eval()
    return network, network, options.seconds


def demucs(options: argparse.Namespace) -> Network:
    """Returns HT Demucs as it was released: what differs from the defaults is the bottleneck and the segment."""
    from demucs.htdemucs import HTDemucs  # type: ignore[import-not-found]

    segment = min(Fraction(max(1, round(options.seconds * SAMPLE_RATE)), SAMPLE_RATE), DEMUCS_SEGMENT)
    sizes = {"channels": 8, "bottom_channels": 64, "t_layers": 1} if options.quick else {"bottom_channels": 512}
    network = HTDemucs(["drums", "bass", "other", "vocals"], segment=segment, **sizes).eval()
    return network, network, float(segment)


def ours(options: argparse.Namespace) -> Network:
    """Returns our network as `load_model` gives it."""
    from bsmamba2.weights.checkpoint import load_model

    network = load_model(options.weights, compile=options.compile)
    return network, lambda mixture: network(mixture, options.scan), options.seconds


def save(options: argparse.Namespace) -> None:
    """Writes random weights: in another process, so that the memory it takes to make them is not counted."""
    import yaml

    from bsmamba2 import BSMamba2, ModelConfig
    from bsmamba2.weights.checkpoint import save_model

    sizes: dict[str, Any] = {}
    if options.quick:
        sizes = {"dim": 16, "depth": 1, "headdim": 16, "d_state": 8}
    elif options.name in SMALLER:
        sizes = yaml.safe_load(SMALLER[options.name].read_text(encoding="utf-8"))["model"]["network"]
    save_model(BSMamba2(ModelConfig(**sizes)), options.weights)


BUILDERS: dict[str, Callable[[argparse.Namespace], Network]] = {
    "bsroformer": bsroformer,
    "demucs": demucs,
    **dict.fromkeys(("full", *SMALLER), ours),
}


def versions() -> dict[str, str]:
    """Returns the versions of what computes here."""
    found = {"Python": sys.version.split()[0]}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def peak_mib() -> float | None:
    """Returns the most memory this process has held, or None where the system does not tell."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def resident_mib() -> float | None:
    """Returns the memory this process holds now; outside Linux, the most it has held so far."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return peak_mib()
    return int(pages.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
