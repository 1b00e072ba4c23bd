"""The published network on a CUDA device beside the arrangement of its authors: time, memory, share of the peak.

    python -m benchmarks.gpu --json gpu.json
    python -m benchmarks.gpu --batches 1 8 --compile yes --profile

A pass is a forward pass in inference mode, or a training step: forward, loss, backward and optimiser. The share is what
the network's multiply-adds would take at the rate of the matrix products that this device reaches in bfloat16, over the
time it took; a training step counts as three forward passes. The weights are random. Exit status: 0 done, 1 something
could not be measured, 2 wrong usage, 130 stopped by the user.
"""

import argparse
import gc
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.bounds import bound_seconds, multiply_adds, network_rate
from benchmarks.command import Row, cell, exit_status
from benchmarks.timing import elapsed
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.dual_path import BidirectionalMixer, Folded, MambaBlock
from bsmamba2.model.norms import rms_normalized
from bsmamba2.model.ssd import Scan, kernel_module, kernel_problem
from bsmamba2.separation.separator import Separator
from bsmamba2.system.files import complete_file
from bsmamba2.system.versions import hardware, versions

# Runs before those that count: in them Triton tries its kernels, torch.compile compiles and the allocator grows.
WARM_UP = 3
# The multiply-adds of a training step over those of a forward pass: the gradients of both factors of every product.
TRAINING_PASSES = 3
AUTHORS = "authors"
PRECISIONS = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
COLUMNS = {
    "arrangement": 12,
    "scan": 9,
    "compile": 9,
    "precision": 11,
    "kind": 12,
    "batch": 7,
    "seconds": 10,
    "audio_per_second": 12,
    "share": 8,
    "peak_gib": 10,
    "over_authors": 14,
}
Block = Callable[[], nn.Module]


@dataclass(frozen=True)
class Setting:
    """One way to run the network; the authors' arrangement has its own scan."""

    arrangement: str
    scan: Scan
    compile: bool
    precision: str
    kind: str
    batch: int


class AuthorsMixer(BidirectionalMixer):
    """The same map as `BidirectionalMixer`, step by step as the authors' program runs it.

    Args:
        config: Architecture of the network.
        block: Makes a Mamba-2 block that runs along the sequence.
    """

    def __init__(self, config: ModelConfig, block: Block) -> None:
        super().__init__(config)
        for own in (*self.forward_blocks, *self.backward_blocks):
            own.mixer = block()

    def forward(self, x: Tensor, scan: Scan = "auto", folded: Folded | None = None) -> Tensor:
        """Returns the mixed sequence (rows, l, d) of x (rows, l, d); what else is given is of no use here."""
        ahead, back = cast(list[MambaBlock], [*self.forward_blocks, *self.backward_blocks])
        forward = ahead.mixer(rms_normalized(x) * ahead.norm.weight) + x
        backward = back.mixer(rms_normalized(x.flip(1)) * back.norm.weight).flip(1) + x
        joined = torch.cat([forward, backward], dim=-1)
        return F.linear(joined, self.linear.weight.squeeze(-1).mT, self.linear.bias) + x


class AuthorsLayer(nn.ModuleList):
    """A mixer over time, then one over bands, each on all rows at once.

    Args:
        config: Architecture of the network.
        block: Makes a Mamba-2 block that runs along the sequence.
    """

    def __init__(self, config: ModelConfig, block: Block) -> None:
        super().__init__([AuthorsMixer(config, block), AuthorsMixer(config, block)])

    def forward(self, x: Tensor, scan: Scan = "auto") -> Tensor:
        """Returns mixed features (b, t, k, d) of features (b, t, k, d)."""
        batch = x.shape[0]
        x = self[0](rearrange(x, "b t k d -> (b k) t d"))
        x = self[1](rearrange(x, "(b k) t d -> (b t) k d", b=batch))
        return rearrange(x, "(b t) k d -> b t k d", b=batch)


def authors_network(config: ModelConfig, block: Block) -> BSMamba2:
    """Returns the network with its layers in the arrangement of the authors; parameters keep their names."""
    network = BSMamba2(config)
    network.layers = nn.ModuleList(AuthorsLayer(config, block) for _ in range(config.depth))
    return network


def stock_block(config: ModelConfig) -> Block:
    """Returns what makes the Mamba-2 block of mamba-ssm in the sizes of a network.

    Raises:
        InputError: mamba-ssm cannot be imported.
    """
    try:
        kernel_module()  # It enters the package where parts of it are missing.
        from mamba_ssm.modules.mamba2 import Mamba2
    # An incomplete or mismatched build fails in many ways.
    except Exception as error:
        raise InputError(
            f"the authors' arrangement cannot run: mamba-ssm failed with {type(error).__name__} ({error}); install "
            "requirements-cuda.txt"
        ) from error
    return lambda: Mamba2(
        d_model=config.dim,
        d_state=config.d_state,
        d_conv=config.d_conv,
        expand=config.expand,
        headdim=config.headdim,
        ngroups=config.ngroups,
        use_mem_eff_path=is_fused(),
    )


def is_fused() -> bool:
    """Returns whether the block of mamba-ssm can run as one kernel, which takes the compiled causal-conv1d."""
    return find_spec("causal_conv1d_cuda") is not None


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    options = parser().parse_args(arguments)
    return exit_status("gpu.py", lambda: benchmark(options))


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a segment")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--scans", nargs="+", choices=["kernel", "chunked"], default=["kernel", "chunked"])
    parser.add_argument("--compile", nargs="+", choices=["no", "yes"], default=["no", "yes"])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["float32", "bfloat16"])
    parser.add_argument("--kinds", nargs="+", choices=["forward", "training"], default=["forward", "training"])
    parser.add_argument("--authors-precision", choices=PRECISIONS, default="float16")
    parser.add_argument("--repeats", type=int, default=5, help=f"runs that count, after {WARM_UP} to warm up")
    parser.add_argument("--minutes", type=float, default=4.0, help="length of the file to separate; 0 leaves it out")
    parser.add_argument("--profile", action="store_true", help="print which kernels the best settings spend time in")
    parser.add_argument("--json", type=Path, help="file for the results; one that is there is replaced")
    return parser


def benchmark(options: argparse.Namespace) -> int:
    """Measures and prints; returns 1 if something could not be measured.

    Raises:
        InputError: There is no CUDA device, a value is out of range, or the file for the results cannot be written.
    """
    if not all(0 < number < math.inf for number in (options.seconds, options.repeats, *options.batches)):
        raise InputError(
            f"seconds={options.seconds:g}, repeats={options.repeats}, batches={options.batches} is not allowed; give "
            "values above 0"
        )
    if not 0 <= options.minutes < math.inf:
        raise InputError(f"minutes={options.minutes:g} is not allowed; give 0 or more")
    if not torch.cuda.is_available():
        raise InputError(
            "torch sees no CUDA device, and nothing was measured; run it on a machine with one, or "
            "benchmark_mamba_ssm.py for the CPU"
        )
    device, config = torch.device("cuda", torch.cuda.current_device()), ModelConfig()
    problems: list[str] = []
    rate = network_rate(config, device, torch.bfloat16)
    environment = {
        **hardware(device),
        **versions(),
        "multiply in TF32": torch.backends.cuda.matmul.allow_tf32,
        "block of mamba-ssm": "fused" if is_fused() else "not fused: causal-conv1d is not compiled",
        "bfloat16 matrix products": f"{rate / 1e12:.4g} T operations per second at the projection into a block",
    }
    for name, value in environment.items():
        print(f"{name:<26}{value}")
    print("\n" + "".join(f"{name.replace('_', ' '):>{width}}" for name, width in COLUMNS.items()))
    rows: list[Row] = []
    for setting in settings(options, problems):
        row = measured_or_problem(setting, config, options, rate, problems)
        if row:
            rows.append(row | over_authors(row, rows))
            print_row(rows[-1])
    files = whole_files(config, options, rows, rate, problems) if options.minutes else []
    for problem in problems:
        print(f"gpu.py: error: {problem}", file=sys.stderr)
    if options.profile:
        profile(config, options, rows)
    if options.json:
        results = {"environment": environment, "matrix_rate": rate, "passes": rows, "files": files}
        with complete_file(options.json) as path:
            path.write_text(json.dumps(results | {"problems": problems}, indent=2) + "\n", encoding="utf-8")
    return int(bool(problems))


def settings(options: argparse.Namespace, problems: list[str]) -> list[Setting]:
    """Returns what is to be measured, the authors' arrangement first; what cannot run goes to the problems."""
    scans = list(options.scans)
    problem = kernel_problem()
    if problem:
        problems.append(f"the kernels and the authors' arrangement were not measured: {problem}")
        scans = [scan for scan in scans if scan != "kernel"]
    authors = [] if problem else [(AUTHORS, "kernel", "no", options.authors_precision)]
    own = [("ours", *choice) for choice in itertools.product(scans, options.compile, options.precisions)]
    return [
        Setting(arrangement, scan, compiled == "yes", precision, kind, batch)
        for kind, batch in itertools.product(options.kinds, options.batches)
        for arrangement, scan, compiled, precision in (*authors, *own)
    ]


def measured_or_problem(
    setting: Setting, config: ModelConfig, options: argparse.Namespace, rate: float, problems: list[str]
) -> Row | None:
    """Returns the row of a setting, or None where it failed, which goes to the problems."""
    try:
        return measured(setting, config, options.seconds, options.repeats, rate)
    except InputError as error:
        problems.append(str(error))
    # Kernels fail in many ways, and out of memory is one; the other settings are worth measuring.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "no message")[:200]
        problems.append(f"{setting} failed with {type(error).__name__} ({reason})")
    finally:
        release()
    return None


def measured(setting: Setting, config: ModelConfig, seconds: float, repeats: int, rate: float) -> Row:
    """Returns the median time of a pass in seconds, and what follows from it."""
    run, samples = prepared(setting, config, seconds)
    for _ in range(WARM_UP):
        run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    device = torch.device("cuda")
    times = [elapsed(run, device) for _ in range(repeats)]
    median, audio = statistics.median(times), samples / config.sample_rate
    passes = setting.batch * (TRAINING_PASSES if setting.kind == "training" else 1)
    return {
        **asdict(setting),
        "seconds": median,
        "times": times,
        "audio_per_second": setting.batch * audio / median,
        "share": share_of_rate(config, audio, passes, median, rate),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
    }


def prepared(setting: Setting, config: ModelConfig, seconds: float) -> tuple[Callable[[], None], int]:
    """Returns one pass of a setting on noise, and the samples of its segment."""
    network = network_of(setting, config).train(setting.kind == "training")
    samples = max(1, round(seconds * config.sample_rate))
    mixture = 0.1 * torch.randn(setting.batch, config.channels, samples, device="cuda")
    run = training_step(network, mixture, setting) if setting.kind == "training" else forward(network, mixture, setting)
    return run, samples


def network_of(setting: Setting, config: ModelConfig) -> BSMamba2:
    """Returns the network of a setting with random weights, on the CUDA device."""
    torch.manual_seed(0)
    network = authors_network(config, stock_block(config)) if setting.arrangement == AUTHORS else BSMamba2(config)
    network = network.cuda().eval()
    if setting.compile:
        network.compile()
    return network


def forward(network: BSMamba2, mixture: Tensor, setting: Setting) -> Callable[[], None]:
    """Returns a forward pass."""
    dtype = PRECISIONS[setting.precision]

    def run() -> None:
        with torch.inference_mode(), torch.autocast(mixture.device.type, dtype, enabled=dtype is not None):
            network(mixture, setting.scan)

    return run


def training_step(network: BSMamba2, mixture: Tensor, setting: Setting) -> Callable[[], None]:
    """Returns a training step; its loss is the mean absolute error of the waveform."""
    dtype = PRECISIONS[setting.precision]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    scaler = torch.amp.GradScaler(mixture.device.type, enabled=dtype == torch.float16)
    target = 0.5 * mixture[:, None]

    def run() -> None:
        with torch.autocast(mixture.device.type, dtype, enabled=dtype is not None):
            loss = F.l1_loss(network(mixture, setting.scan), target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return run


def share_of_rate(config: ModelConfig, audio_seconds: float, passes: int, seconds: float, rate: float) -> float:
    """Returns what passes over audio would take at a rate of matrix products, over the seconds they took."""
    return bound_seconds(passes * sum(multiply_adds(config, audio_seconds).values()), rate) / seconds


def over_authors(row: Row, rows: list[Row]) -> Row:
    """Returns how many times faster a row is than the authors' of the same kind and batch, where that was measured."""
    same = [r for r in rows if r["arrangement"] == AUTHORS and (r["kind"], r["batch"]) == (row["kind"], row["batch"])]
    return {"over_authors": same[0]["seconds"] / row["seconds"]} if same else {}


def best(rows: list[Row], kind: str) -> Row | None:
    """Returns the fastest of our rows of a kind by audio per second, or None."""
    own = [row for row in rows if row["arrangement"] != AUTHORS and row["kind"] == kind]
    return max(own, key=lambda row: row["audio_per_second"], default=None)


def whole_files(
    config: ModelConfig, options: argparse.Namespace, rows: list[Row], rate: float, problems: list[str]
) -> list[Row]:
    """Returns what separating a song takes in the authors' arrangement and in our fastest setting; prints it.

    The song is in memory. Segments overlap, so that the network computes more audio than the song has.
    """
    authors = [row for row in rows if row["arrangement"] == AUTHORS and row["kind"] == "forward"]
    fastest = best(rows, "forward")
    print(
        f"\nseparating {options.minutes:g} min of stereo: segments of {options.seconds:g} s, overlapping by a quarter"
    )
    files: list[Row] = []
    for row in [*authors, *([fastest] if fastest else [])]:
        setting = setting_of(row)
        try:
            seconds = separation_seconds(setting, config, options)
        except Exception as error:  # As in `measured_or_problem`.
            problems.append(f"separating with {setting} failed with {type(error).__name__} ({str(error)[:200]})")
            continue
        finally:
            release()
        speed = 60 * options.minutes / seconds
        share = share_of_rate(config, 60 * options.minutes, 1, seconds, rate)
        files.append({**asdict(setting), "seconds": seconds, "audio_per_second": speed, "share_without_overlap": share})
        print(f"{setting}: {speed:.1f} s of audio per second, {100 * share:.1f} % of the matrix rate", flush=True)
    return files


def separation_seconds(setting: Setting, config: ModelConfig, options: argparse.Namespace) -> float:
    """Returns the median time of separating a song that lies in memory."""
    song = 0.1 * torch.randn(config.channels, max(1, round(60 * options.minutes * config.sample_rate)))
    separator = Separator(
        network_of(setting, config),
        segment_seconds=options.seconds,
        batch_size=setting.batch,
        device="cuda",
        precision=setting.precision,
        scan=setting.scan,
    )
    separator(song, config.sample_rate)
    return statistics.median(
        elapsed(lambda: separator(song, config.sample_rate), separator.device) for _ in range(min(3, options.repeats))
    )


def profile(config: ModelConfig, options: argparse.Namespace, rows: list[Row]) -> None:
    """Prints the kernels that take most of the time of our fastest setting of each kind."""
    for kind in options.kinds:
        row = best(rows, kind)
        if row is None:
            continue
        setting = setting_of(row)
        run, _ = prepared(setting, config, options.seconds)
        for _ in range(WARM_UP):
            run()
        torch.cuda.synchronize()
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profiler:
            run()
            torch.cuda.synchronize()
        print(f"\n{setting}")
        table = profiler.key_averages().table(sort_by="self_device_time_total", row_limit=25, max_name_column_width=60)
        print(table, flush=True)
        del run
        release()


def setting_of(row: Row) -> Setting:
    """Returns the setting of a row."""
    return Setting(**{name: row[name] for name in Setting.__dataclass_fields__})


def release() -> None:
    """Forgets compiled code and unused memory, so that settings do not depend on each other."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def print_row(row: Row) -> None:
    """Prints a line of the table."""
    cells = [cell(row.get(name)) for name in COLUMNS]
    print("".join(f"{text:>{width}}" for text, width in zip(cells, COLUMNS.values(), strict=True)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
