"""Whether the network is exact on a CUDA device, and how fast it is, compared with the arrangement of its authors.

    python -m benchmarks.gpu --json gpu.json
    python -m benchmarks.gpu --batches 1 8 --compile yes --profile

A pass is a forward pass in inference mode, or a training step: forward, loss, backward and optimiser. The share is what
the network's matrix products would take at the rate that this device reaches with them in bfloat16, over the time it
took; a training step counts as three forward passes. The weights are random. Exit status: 0 done, 1 something could not
be measured, 2 wrong usage, 130 stopped by the user.
"""

import gc
import itertools
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.agreement import network_errors
from benchmarks.bounds import bound_seconds, network_multiply_adds, network_rate
from benchmarks.command import Problems, Row, check_positive, print_facts, print_table, run, write_json
from benchmarks.networks import autocast, random_network
from benchmarks.timing import WARM_UP_RUNS, elapsed, median_seconds
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.bidirectional import BidirectionalMixer, Block
from bsmamba2.model.mamba2 import Mamba2
from bsmamba2.model.scan_names import Scan
from bsmamba2.model.scans import kernel_module, kernel_problem
from bsmamba2.separation.separator import Separator
from bsmamba2.separation.settings import Precision
from bsmamba2.system.versions import hardware, versions

# The multiply-adds of a training step over those of a forward pass: the gradients of both factors of every product.
TRAINING_PASSES = 3
AUTHORS = "authors"
PASS_COLUMNS = (
    "arrangement",
    "scan",
    "compile",
    "precision",
    "kind",
    "batch",
    "seconds",
    "audio_per_second",
    "share",
    "peak_gib",
    "over_authors",
)
PassKind = Literal["forward", "training"]
MakeBlock = Callable[[], nn.Module]


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        seconds: Length of a segment.
        batches: Segments in one pass.
        scans: Scans of our arrangement; that of the authors is measured with the kernels.
        compile: Whether our network is compiled.
        precisions: Precisions of our network's matrix products.
        kinds: Kinds of passes.
        authors_precision: Precision of the authors' arrangement.
        repeats: Timed runs, after three to warm up.
        minutes: Length of the file to separate; 0 leaves it out.
        profile: Print in which kernels the fastest settings spend their time.
        json: File for the results; an existing one is replaced.

    Raises:
        InputError: A number is out of range.
    """

    seconds: float = 8.0
    batches: Sequence[int] = (1, 4)
    scans: Sequence[Literal["kernel", "chunked"]] = ("kernel", "chunked")
    compile: Sequence[Literal["no", "yes"]] = ("no", "yes")
    precisions: Sequence[Precision] = ("float32", "bfloat16")
    kinds: Sequence[PassKind] = ("forward", "training")
    authors_precision: Precision = "float16"
    repeats: int = 5
    minutes: float = 4.0
    profile: bool = False
    json: Path | None = None

    def __post_init__(self) -> None:
        check_positive(self, "seconds", "repeats", "batches")
        if not 0 <= self.minutes < math.inf:
            raise InputError(f"minutes={self.minutes:g} is not allowed; give 0 or more")


@dataclass(frozen=True)
class Setting:
    """One way to run the network; the authors' arrangement has its own scan."""

    arrangement: str
    scan: Scan
    compile: bool
    precision: Precision
    kind: PassKind
    batch: int


class AuthorsMixer(BidirectionalMixer):
    """The same map as `BidirectionalMixer`, step by step as the authors' program runs it.

    Args:
        config: Architecture of the network.
        block: Makes a Mamba-2 block that runs along the sequence.
    """

    def __init__(self, config: ModelConfig, block: MakeBlock) -> None:
        super().__init__(config.dim, partial(Mamba2, config))
        for own in (*self.forward_blocks, *self.backward_blocks):
            own.mixer = block()

    def forward(self, x: Tensor, folded: object = None) -> Tensor:
        """Returns the mixed rows (rows, l, d) of x (rows, l, d); `folded` is ignored."""
        ahead, back = cast(list[Block], [*self.forward_blocks, *self.backward_blocks])
        forward = ahead(x) + x
        backward = back(x.flip(1)).flip(1) + x
        joined = torch.cat([forward, backward], dim=-1)
        return F.linear(joined, self.linear.weight.squeeze(-1).mT, self.linear.bias) + x


class AuthorsLayer(nn.ModuleList):
    """A mixer over time, then one over bands, each on all rows at once.

    Args:
        config: Architecture of the network.
        block: Makes a Mamba-2 block that runs along the sequence.
    """

    def __init__(self, config: ModelConfig, block: MakeBlock) -> None:
        super().__init__([AuthorsMixer(config, block), AuthorsMixer(config, block)])

    def forward(self, x: Tensor) -> Tensor:
        """Returns mixed features (b, t, k, d) of features (b, t, k, d)."""
        batch = x.shape[0]
        x = self[0](rearrange(x, "b t k d -> (b k) t d"))
        x = self[1](rearrange(x, "(b k) t d -> (b t) k d", b=batch))
        return rearrange(x, "(b t) k d -> b t k d", b=batch)


def authors_network(config: ModelConfig, block: MakeBlock) -> BSMamba2:
    """Returns the network with its layers in the arrangement of the authors; parameters keep their names."""
    network = BSMamba2(config)
    network.layers = nn.ModuleList(AuthorsLayer(config, block) for _ in range(config.depth))
    return network


def stock_block(config: ModelConfig) -> MakeBlock:
    """Returns what makes the Mamba-2 block of mamba-ssm in the sizes of a network.

    Raises:
        InputError: mamba-ssm cannot be imported.
    """
    try:
        kernel_module()  # It makes the package importable where parts of it are missing.
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
    """Returns whether the block of mamba-ssm can run as one kernel, which needs the compiled causal-conv1d."""
    return find_spec("causal_conv1d_cuda") is not None


def benchmark(options: Options) -> int:
    """Measures and prints; returns 1 if something could not be measured.

    Raises:
        InputError: The machine has no CUDA device, or the file for the results cannot be written.
    """
    if not torch.cuda.is_available():
        raise InputError(
            "torch sees no CUDA device, so nothing was measured; run it on a machine that has one, or run "
            "benchmark_mamba_ssm.py for the CPU"
        )
    device, config, problems = torch.device("cuda", torch.cuda.current_device()), ModelConfig(), Problems("gpu.py")
    rate = network_rate(config, device, torch.bfloat16)
    environment = {
        **hardware(device),
        **versions(),
        "multiply in TF32": torch.backends.cuda.matmul.allow_tf32,
        "block of mamba-ssm": "fused" if is_fused() else "not fused: causal-conv1d is not compiled",
        "bfloat16 matrix products": f"{rate / 1e12:.4g} T operations per second at the projection into a block",
    }
    print_facts(environment)
    title = "A small network against the recurrence in float64: RMS of the difference over that of the value"
    agreement = print_table(title, agreements(options, device, problems))
    rows = print_table("Passes", passes(config, options, rate, problems), PASS_COLUMNS)
    files = []
    if options.minutes:
        title = (
            f"Separating {options.minutes:g} min of stereo: segments of {options.seconds:g} s, a quarter overlapping"
        )
        files = print_table(title, whole_files(config, options, rows, rate, problems))
    if options.profile:
        profile(config, options, rows)
    measured = {"agreement": agreement, "passes": rows, "files": files}
    results = {"environment": environment, "matrix_rate": rate, **measured}
    write_json(options.json, results | {"problems": problems.messages})
    return int(bool(problems.messages))


def agreements(options: Options, device: torch.device, problems: Problems) -> Iterator[Row]:
    """Yields how far each scan and precision is from the recurrence, forward and backward."""
    for scan, precision in itertools.product(options.scans, options.precisions):
        with problems.skipping(f"the agreement of {scan} in {precision}", Exception):
            yield network_errors(scan, precision, device)


def settings(options: Options, problems: Problems) -> list[Setting]:
    """Returns what is to be measured, the authors' arrangement first; what cannot run is added to the problems."""
    scans = list(options.scans)
    # Without the kernels their first use, which takes minutes, is left out, and with them the authors' arrangement.
    problem = kernel_problem() if "kernel" in scans else "they were not asked for"
    if problem and "kernel" in scans:
        problems.add(f"the kernels and the authors' arrangement were not measured: {problem}")
        scans = [scan for scan in scans if scan != "kernel"]
    return [
        setting
        for kind, batch in itertools.product(options.kinds, options.batches)
        for setting in (
            *([] if problem else [Setting(AUTHORS, "kernel", False, options.authors_precision, kind, batch)]),
            *(
                Setting("ours", scan, compiled == "yes", precision, kind, batch)
                for scan, compiled, precision in itertools.product(scans, options.compile, options.precisions)
            ),
        )
    ]


def passes(config: ModelConfig, options: Options, rate: float, problems: Problems) -> Iterator[Row]:
    """Yields the row of each setting that could be measured, compared with the authors' of the same kind and batch."""
    done: list[Row] = []
    for setting in settings(options, problems):
        # Kernels fail in many ways, and lack of memory is one; the other settings are still worth measuring.
        with problems.skipping(setting, Exception):
            row = measured_pass(setting, config, options, rate)
            done.append(row | over_authors(row, done))
            yield done[-1]
        release()


def measured_pass(setting: Setting, config: ModelConfig, options: Options, rate: float) -> Row:
    """Returns the median time of a pass in seconds, and what follows from it."""
    run, audio = prepared(setting, config, options.seconds)
    for _ in range(WARM_UP_RUNS):
        run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times = [elapsed(run, torch.device("cuda")) for _ in range(options.repeats)]
    median = statistics.median(times)
    count = setting.batch * (TRAINING_PASSES if setting.kind == "training" else 1)
    return {
        **asdict(setting),
        "seconds": median,
        "times": times,
        "audio_per_second": setting.batch * audio / median,
        "share": share_of_rate(config, audio, count, median, rate),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
    }


def prepared(setting: Setting, config: ModelConfig, seconds: float) -> tuple[Callable[[], object], float]:
    """Returns one pass of a setting on noise, and the length of its segment in seconds."""
    network = network_of(setting, config).train(setting.kind == "training")
    samples = max(1, round(seconds * config.sample_rate))
    mixture = 0.1 * torch.randn(setting.batch, config.channels, samples, device="cuda")
    make = training_pass if setting.kind == "training" else forward
    return make(network, mixture, setting), samples / config.sample_rate


def network_of(setting: Setting, config: ModelConfig) -> BSMamba2:
    """Returns the network of a setting with random weights, on the CUDA device."""
    if setting.arrangement != AUTHORS:
        network = random_network(config, "cuda", setting.compile)
        network.set_scan(setting.scan)
        return network
    torch.manual_seed(0)
    return authors_network(config, stock_block(config)).cuda().eval()


def forward(network: BSMamba2, mixture: Tensor, setting: Setting) -> Callable[[], object]:
    """Returns a forward pass."""

    def run() -> None:
        with torch.inference_mode(), autocast(mixture.device, setting.precision):
            network(mixture)

    return run


def training_pass(network: BSMamba2, mixture: Tensor, setting: Setting) -> Callable[[], object]:
    """Returns a training step; its loss is the mean absolute error of the waveform."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
    scaler = torch.amp.GradScaler(mixture.device.type, enabled=setting.precision == "float16")
    target = 0.5 * mixture[:, None]

    def run() -> None:
        with autocast(mixture.device, setting.precision):
            loss = F.l1_loss(network(mixture), target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return run


def share_of_rate(config: ModelConfig, audio_seconds: float, passes: int, seconds: float, rate: float) -> float:
    """Returns what passes over audio would take at a rate of matrix products, over the seconds they took."""
    products = network_multiply_adds(config, audio_seconds)["everything"]["products"]
    return bound_seconds(passes * products, rate) / seconds


def over_authors(row: Row, rows: list[Row]) -> Row:
    """Returns how many times faster a row is than the authors' of the same kind and batch, where that was measured."""
    same = [r for r in rows if r["arrangement"] == AUTHORS and (r["kind"], r["batch"]) == (row["kind"], row["batch"])]
    return {"over_authors": same[0]["seconds"] / row["seconds"]} if same else {}


def best(rows: list[Row], kind: str) -> list[Row]:
    """Returns the fastest of our rows of a kind by audio per second, if there is one."""
    own = [row for row in rows if row["arrangement"] != AUTHORS and row["kind"] == kind]
    return sorted(own, key=lambda row: row["audio_per_second"])[-1:]


def whole_files(
    config: ModelConfig, options: Options, rows: list[Row], rate: float, problems: Problems
) -> Iterator[Row]:
    """Yields what separating a song takes in the authors' arrangement and in our fastest setting.

    The song is in memory. Segments overlap, so that the network computes more audio than the song has.
    """
    authors = [row for row in rows if row["arrangement"] == AUTHORS and row["kind"] == "forward"]
    for setting in map(setting_of, [*authors, *best(rows, "forward")]):
        with problems.skipping(f"separating with {setting}", Exception):
            seconds = separation_seconds(setting, config, options)
            speed, share = 60 * options.minutes / seconds, share_of_rate(config, 60 * options.minutes, 1, seconds, rate)
            yield asdict(setting) | {"seconds": seconds, "audio_per_second": speed, "share_without_overlap": share}
        release()


def separation_seconds(setting: Setting, config: ModelConfig, options: Options) -> float:
    """Returns the median time of separating a song that is in memory."""
    song = 0.1 * torch.randn(config.channels, max(1, round(60 * options.minutes * config.sample_rate)))
    separator = Separator(
        network_of(setting, config),
        segment_seconds=options.seconds,
        batch_size=setting.batch,
        device="cuda",
        precision=setting.precision,
        scan=setting.scan,
    )
    run = partial(separator, song, config.sample_rate)
    return median_seconds(run, min(3, options.repeats), separator.device, warm_up=1)


def profile(config: ModelConfig, options: Options, rows: list[Row]) -> None:
    """Prints the kernels that take most of the time of our fastest setting of each kind."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    for setting in [setting_of(row) for kind in options.kinds for row in best(rows, kind)]:
        run, _ = prepared(setting, config, options.seconds)
        median_seconds(run, 1, torch.device("cuda"))
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
    """Drops compiled code and unused memory, so that settings do not depend on each other."""
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status."""
    return run("gpu.py", __doc__, Options, benchmark, arguments)


if __name__ == "__main__":
    sys.exit(main())
