"""Time and memory of a training step, each setting in a process of its own, and how long a whole training takes so.

A step is forward, loss, backward and optimiser on one batch of noise. On a GPU the peak is that of PyTorch's allocator,
on a CPU that of the process.
"""

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from inspect import signature
from pathlib import Path

import torch
import yaml

from bsmamba2.data.datamodule import MusdbDataModule
from bsmamba2.data.excerpts import Excerpts
from bsmamba2.model import ModelConfig
from bsmamba2.model.scans import Scan, kernel_problem
from bsmamba2.system.devices import choose_device
from bsmamba2.training.losses import LossConfig
from bsmamba2.training.module import SeparationModule

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
HEADER = (
    f"{'config':12} {'batch':>5} {'precision':9} {'scan':8} {'recompute':9} {'compile':7} "
    f"{'s/step':>8} {'audio s/s':>9} {'peak GiB':>8}"
)


def main() -> int:
    """Prints a table, a line per setting; returns 1 if one could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", type=Path, default=[Path("configs/bsmamba2.yaml")])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32"])
    parser.add_argument("--scans", nargs="+", default=["chunked"] if kernel_problem() else ["kernel", "chunked"])
    parser.add_argument("--recompute", nargs="+", choices=["no", "yes"], default=["no", "yes"])
    parser.add_argument("--compile", nargs="+", choices=["no", "yes"], default=["no"])
    parser.add_argument("--steps", type=int, default=3, help="measured steps, after one more")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--measured", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measured:
        print(json.dumps(measure(**json.loads(options.measured))))
        return 0
    print(HEADER)
    failed = False
    settings = (options.configs, options.batch_sizes, options.precisions, options.scans, options.recompute)
    for config, batch, precision, scan, recompute, compiled in itertools.product(*settings, options.compile):
        setting = {"config": str(config), "batch": batch, "precision": precision, "scan": scan}
        setting |= {"recompute": recompute == "yes", "compile": compiled == "yes"}
        arguments = json.dumps(setting | {"steps": options.steps, "device": options.device})
        run = subprocess.run([sys.executable, __file__, "--measured", arguments], capture_output=True, text=True)
        label = f"{config.stem:12} {batch:5} {precision:9} {scan:8} {recompute:9} {compiled:7}"
        if run.returncode:
            failed = True
            print(f"{label} failed: {(run.stderr.strip() or 'killed').splitlines()[-1][:120]}", flush=True)
            continue
        result = json.loads(run.stdout.splitlines()[-1])
        speed = result["audio_seconds"] / result["step_seconds"]
        print(f"{label} {result['step_seconds']:8.2f} {speed:9.2f} {result['peak_gib']:8.2f}", flush=True)
        days = result["training_audio_seconds"] / speed / 86400
        print(
            f"{'':12} a training of {result['training_audio_seconds'] / 3600:.0f} h of audio takes {days:.1f} days so"
        )
    return int(failed)


def measure(
    config: str, batch: int, precision: str, scan: Scan, recompute: bool, compile: bool, steps: int, device: str
) -> dict[str, float]:
    """Returns the median time of a step in seconds, its audio in seconds, and the peak memory in GiB."""
    content = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    model, data, trainer = (content.get(part) or {} for part in ("model", "data", "trainer"))
    torch.manual_seed(0)
    network = ModelConfig(**model.get("network", {}))
    loss = LossConfig(**model.get("loss", {}))
    place = choose_device(device)
    module = SeparationModule(network, loss, scan=scan, recompute=recompute, compile=compile).to(place)
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign, assignment]
    module.on_fit_start()
    optimizer = module.optimizer()
    shape = (batch, network.channels, network.segment)
    excerpts = Excerpts({stem: 0.1 * torch.randn(shape, device=place) for stem in (*network.stems, "rest")}, [])
    seconds = []
    for _ in range(steps + 1):
        started = time.monotonic()
        dtype = PRECISIONS[precision]
        with torch.autocast(place.type, dtype, enabled=dtype is not None):
            value = module.training_step(excerpts, 0)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        if place.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - started)
    on_gpu = place.type == "cuda"
    unit = 1 if sys.platform == "darwin" else 1024
    peak = torch.cuda.max_memory_allocated() if on_gpu else unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    audio_seconds = batch * network.segment / network.sample_rate
    epoch_excerpts = data.get("epoch_excerpts", signature(MusdbDataModule).parameters["epoch_excerpts"].default)
    return {
        "step_seconds": statistics.median(seconds[1:]),
        "audio_seconds": audio_seconds,
        "peak_gib": peak / 2**30,
        "training_audio_seconds": trainer["max_epochs"] * epoch_excerpts * network.segment / network.sample_rate,
    }


if __name__ == "__main__":
    sys.exit(main())
