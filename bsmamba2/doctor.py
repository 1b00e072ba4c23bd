"""What this machine computes with, whether its kernels run and are right, and commands that fix them."""

import contextlib
import importlib
import importlib.util
import os
import re
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from json import dumps
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.errors import InputError
from bsmamba2.model.scans import (
    choose_scan,
    kernel_module,
    kernel_problem,
    selective_kernel,
    ssd_kernel,
    wkv_kernel,
)
from bsmamba2.model.selective import selective_chunked
from bsmamba2.model.ssd import ssd_chunked
from bsmamba2.model.wkv import wkv_chunked
from bsmamba2.system.devices import choose_device
from bsmamba2.system.versions import package_version, torch_build, versions
from bsmamba2.text_table import text_table

CheckState = Literal["ok", "problem", "absent"]
Arguments = dict[str, Tensor]

# Largest RMS ratio of the error of outputs and gradients. Triton, which the scans of Mamba-2 and RWKV-6 use, multiplies
# in TF32, which keeps 10 bits; the scan of Mamba-1 and the convolution compute in float32, with fast exponentials.
SCAN_LIMIT = 5e-3
SELECTIVE_LIMIT = 1e-3
WKV_LIMIT = 5e-3
CONVOLUTION_LIMIT = 1e-4

NO_CUDA = "torch sees no CUDA device"

BUILD_TOOLS = "pip install wheel setuptools packaging ninja"
CUDA_REQUIREMENTS = "pip install --no-build-isolation -r requirements-cuda.txt"
# Without the first two flags pip keeps what is installed, or takes the same build from its cache.
_AGAIN = "--force-reinstall --no-cache-dir --no-deps --no-build-isolation"
TRITON_ONLY = f"MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE pip install {_AGAIN} mamba-ssm==2.3.1"
# The compiled part of mamba-ssm, in a module of its own.
SELECTIVE_PACKAGE = "selective_scan_cuda"
SELECTIVE_REBUILD = f"MAMBA_FORCE_BUILD=TRUE pip install {_AGAIN} mamba-ssm==2.3.1"
CONVOLUTION_REBUILD = f"CAUSAL_CONV1D_FORCE_BUILD=TRUE pip install {_AGAIN} causal-conv1d==1.7.0"

_NO_IMAGE = r"no kernel image is available"
# A build for a different torch or CUDA, or an incomplete one.
_MISMATCH = r"undefined symbol|cannot open shared object|DLL load failed|No module named '{}"
# (package or "" for any, pattern of the failure, commands): the first that matches counts; {name} is a requirement.
_REMEDIES = (
    (
        "",
        r"driver .*(too old|insufficient)",
        "apt install nvidia-driver  # Debian; elsewhere NVIDIA's own, then restart",
    ),
    ("", r"No CUDA GPUs are available", "unset CUDA_VISIBLE_DEVICES"),
    ("", r"Failed to find C compiler", "apt install gcc  # Debian; elsewhere any C compiler"),
    ("", r"Python\.h|cuda_utils\.c", "apt install gcc python3-dev  # Debian; Triton compiles against Python's headers"),
    ("", r"No module named 'triton'", 'pip install "{triton}"'),
    ("", r"No module named '(?:einops|packaging)'", "pip install einops packaging"),
    ("torch", r"older than every build", 'pip install "torch==2.6.*"  # or compute with --device cpu'),
    ("torch", _NO_IMAGE, 'pip install --upgrade "{torch}"'),
    # pip does not replace a CPU build of the same version.
    ("torch", r"not compiled with CUDA", 'pip uninstall --yes torch && pip install "{torch}"'),
    ("mamba-ssm", r"not installed", f"{BUILD_TOOLS}\n{CUDA_REQUIREMENTS}"),
    ("mamba-ssm", _MISMATCH.format("(?:selective_scan_cuda|mamba_ssm)") + "|" + _NO_IMAGE, TRITON_ONLY),
    ("mamba-ssm", r"wrong results", "bsmamba2 separate --scan chunked ..."),
    (SELECTIVE_PACKAGE, _MISMATCH.format("(?:selective_scan_cuda|mamba_ssm)") + "|" + _NO_IMAGE, SELECTIVE_REBUILD),
    (SELECTIVE_PACKAGE, r"wrong results", "bsmamba2 separate --scan chunked ..."),
    ("fla-core", r"wrong results", "bsmamba2 separate --scan chunked ..."),
    ("causal-conv1d", _MISMATCH.format("causal_conv1d") + "|wrong results|" + _NO_IMAGE, CONVOLUTION_REBUILD),
)


@dataclass(frozen=True)
class Check:
    """Result of a check: absent is no failure; remedy has the commands that fix a problem, one per line."""

    name: str
    state: CheckState
    detail: str
    remedy: str | None = None


@dataclass(frozen=True)
class Device:
    """A GPU; memory and compute capability are unknown on MPS."""

    name: str
    memory_gib: float | None = None
    capability: str | None = None

    def text(self) -> str:
        """Returns one line of text."""
        memory = f"{self.memory_gib} GiB" if self.memory_gib else ""
        capability = f"compute capability {self.capability}" if self.capability else ""
        return ", ".join(filter(None, (self.name, memory, capability)))


@dataclass(frozen=True)
class Report:
    """All that `bsmamba2 doctor` reports; device and scan are those of "auto", missing packages have no version."""

    versions: dict[str, str | None]
    devices: tuple[Device, ...]
    checks: tuple[Check, ...]
    device: str
    scan: str
    reason: str

    @property
    def healthy(self) -> bool:
        """Returns whether all that is installed works; a machine without a GPU is healthy."""
        return all(check.state != "problem" for check in self.checks)

    def to_json(self) -> str:
        """Returns the report as JSON."""
        return dumps({"healthy": self.healthy, **asdict(self)}, indent=2, ensure_ascii=False)

    def summary(self) -> str:
        """Returns one sentence about what separates on this machine, and why."""
        device = "the CPU" if self.device == "cpu" else f"the device {self.device}"
        return f"This machine separates on {device} with the {self.scan} scan, because {self.reason}."

    def text(self) -> str:
        """Returns the report as text."""
        rows = [(name, version or "not installed") for name, version in self.versions.items()]
        rows += [(f"GPU {index}", device.text()) for index, device in enumerate(self.devices)]
        checks: list[tuple[str, ...]] = []
        for check in self.checks:
            checks.append((check.name, check.state, check.detail))
            checks += [("", "", f"$ {command}") for command in (check.remedy or "").splitlines()]
        tables = text_table(rows, left=(0, 1)), text_table(checks, left=(0, 1, 2))
        return "\n\n".join([*tables, self.summary()])


def diagnose() -> Report:
    """Returns the report on this machine; what is broken is reported and not raised."""
    # With a driver that is too old every call of torch.cuda warns; the check of torch reports it once.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graphics_cards, driver = nvidia_machine()
        devices = tuple(_devices())
        # Before the checks: after a kernel has crashed, this process cannot use its device any more.
        device, scan, reason = _choice()
        checks = (
            _torch_check(graphics_cards, devices),
            kernel_check("Triton scan", "mamba-ssm", kernel_module, _scan_ratios, SCAN_LIMIT),
            kernel_check(
                "Mamba-1 scan",
                SELECTIVE_PACKAGE,
                lambda: kernel_module("selective"),
                _selective_ratios,
                SELECTIVE_LIMIT,
            ),
            kernel_check("RWKV-6 scan", "fla-core", lambda: kernel_module("wkv"), _wkv_ratios, WKV_LIMIT),
            kernel_check(
                "convolution",
                "causal-conv1d",
                lambda: importlib.import_module("causal_conv1d"),
                _convolution_ratios,
                CONVOLUTION_LIMIT,
            ),
        )
        return Report({**versions(), "NVIDIA driver": driver}, devices, checks, device, scan, reason)


def remedy_for(package: str, problem: str) -> str | None:
    """Returns the commands that fix a failure, one per line, or None if it is not a known one.

    Args:
        package: What failed: torch, mamba-ssm or causal-conv1d.
        problem: The message of its error.
    """
    for subject, pattern, command in _REMEDIES:
        if subject in ("", package) and re.search(pattern, problem):
            return command.replace("{torch}", _requirement("bsmamba2", "torch")).replace(
                "{triton}", _requirement("torch", "triton")
            )
    return None


def agreement(
    function: Callable[..., Tensor], reference: Callable[..., Tensor], arguments: Arguments, device: str
) -> dict[str, float]:
    """Returns the RMS ratio of the error of y and of every gradient by name; the reference runs on the CPU."""
    torch_device = torch.device(device)
    values, expected = (
        _outputs_and_gradients(f, {name: value.to(where) for name, value in arguments.items()})
        for f, where in ((function, torch_device), (reference, torch.device("cpu")))
    )
    return {
        name: ((values[name].cpu() - value).double().norm() / value.double().norm().clamp(min=1e-30)).item()
        for name, value in expected.items()
    }


def _outputs_and_gradients(function: Callable[..., Tensor], arguments: Arguments) -> dict[str, Tensor]:
    leaves = {name: value.detach().requires_grad_() for name, value in arguments.items()}
    y = function(*leaves.values())
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    gradients = torch.autograd.grad((y * weights).sum(), list(leaves.values()))
    return {"y": y.detach(), **dict(zip(leaves, gradients, strict=True))}


def ssd_arguments() -> Arguments:
    """Returns x, dt, A, B, C: head size, states and groups are as in the published network, heads and steps are few."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (2, 130, 4, 64), "dt": (2, 130, 4), "A": (4,), "B": (2, 130, 1, 128), "C": (2, 130, 1, 128)}
    values = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**values, "dt": 0.5 * values["dt"].abs(), "A": -(1 + 4 * values["A"].abs())}


def selective_arguments() -> Arguments:
    """Returns x, dt, A, B, C of the scan of Mamba-1: as many states as in the published network, few channels."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (2, 130, 64), "dt": (2, 130, 64), "A": (64, 16), "B": (2, 130, 16), "C": (2, 130, 16)}
    values = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**values, "dt": 0.5 * values["dt"].abs(), "A": -(1 + 4 * values["A"].abs())}


def wkv_arguments() -> Arguments:
    """Returns r, k, v, log_w, beta of the scan of RWKV-6: heads as wide as in the published size, few of them."""
    generator = torch.Generator().manual_seed(0)
    shapes = dict.fromkeys(("r", "k", "v", "log_w"), (2, 130, 2, 64)) | {"beta": (2, 64)}
    values = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return values | {"log_w": -torch.exp(values["log_w"])}


def _scan_ratios() -> dict[str, float]:
    return agreement(ssd_kernel, ssd_chunked, ssd_arguments(), "cuda")


def _selective_ratios() -> dict[str, float]:
    return agreement(selective_kernel, selective_chunked, selective_arguments(), "cuda")


def _wkv_ratios() -> dict[str, float]:
    return agreement(wkv_kernel, wkv_chunked, wkv_arguments(), "cuda")


def _convolution_ratios() -> dict[str, float]:
    convolution = importlib.import_module("causal_conv1d").causal_conv1d_fn
    generator = torch.Generator().manual_seed(0)
    shapes = {"x": (2, 64, 130), "weight": (64, 4), "bias": (64,)}
    arguments = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return agreement(
        lambda x, weight, bias: convolution(x, weight, bias, activation="silu"), causal_convolution, arguments, "cuda"
    )


def causal_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Returns SiLU of the causal convolution of each channel; x (b, d, l), weight (d, w), bias (d)."""
    taps = weight.shape[-1]
    return F.silu(F.conv1d(F.pad(x, (taps - 1, 0)), weight[:, None], bias, groups=len(weight)))


def kernel_check(
    name: str, package: str, load: Callable[[], object], ratios: Callable[[], dict[str, float]], limit: float
) -> Check:
    """Returns whether a package can be imported and, on a CUDA device, its outputs and gradients are right.

    Args:
        name: Name of the check.
        package: Name of the package for pip.
        load: Imports it.
        ratios: Runs it and returns the errors relative to a reference, by name.
        limit: Largest error that is right.
    """
    cuda = torch.cuda.is_available()
    if package_version(package) is None and importlib.util.find_spec(package.replace("-", "_")) is None:
        remedy = remedy_for(package, "not installed") if cuda else None
        return Check(name, "absent", f"{package} is not installed", remedy)
    try:
        load()
        if not cuda:
            return Check(name, "absent", f"{package} is installed; it cannot run, because {NO_CUDA}")
        errors = ratios()
    # An incomplete or mismatched build can fail in the import, in Triton's compiler or at the launch, by any error.
    except Exception as error:
        messages = [_message(e) for e in _chain(error)]
        if not cuda and "0 active drivers" in messages[0]:  # Triton 3.2 cannot even be imported without a GPU
            return Check(name, "absent", f"{package} is installed; it cannot run, because {NO_CUDA}")
        remedies = (remedy_for(package, message) for message in messages)
        detail = "; after ".join(dict.fromkeys(next(iter(message.splitlines()))[:200] for message in messages))
        mismatch = "is not compiled for this GPU and " if any(re.search(_NO_IMAGE, text) for text in messages) else ""
        return Check(name, "problem", f"{package} {mismatch}failed with {detail}", next(filter(None, remedies), None))
    figures = ", ".join(f"{key} {value:.1e}" for key, value in errors.items())
    figures = f"RMS ratio to the reference, limit {limit:g}: {figures}"
    if not all(value <= limit for value in errors.values()):  # so that NaN is a problem too
        return Check(name, "problem", f"wrong results; {figures}", remedy_for(package, "wrong results"))
    return Check(name, "ok", f"runs forward and backward; {figures}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and its causes: the import that is tried second hides why the first one failed."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _message(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip() or 'no message'}"


def _torch_check(graphics_cards: list[str], devices: tuple[Device, ...]) -> Check:
    build, problem = torch_build(), cuda_problem(devices)
    if problem is None:
        return Check("torch", "ok", f"computes on {len(devices)} GPU ({build})")
    if not graphics_cards and not torch.cuda.is_available():
        detail = f"{build}; no GPU found"
        if torch.backends.mps.is_available():
            detail = "computes on MPS, where the chunked scan runs; the kernels need a CUDA device"
        elif Path("/dev/kfd").exists():
            detail = f"{build}; this machine has an AMD GPU, which a ROCm build of torch can use"
        return Check("torch", "ok", detail)
    hidden = "No CUDA GPUs are available" in problem and "CUDA_VISIBLE_DEVICES" in os.environ
    detail = f"{problem.splitlines()[0]} ({build}; GPU: {', '.join(graphics_cards) or 'unknown'})"
    return Check("torch", "absent" if hidden else "problem", detail, remedy_for("torch", problem))


def cuda_problem(devices: Iterable[Device] = ()) -> str | None:
    """Returns why torch cannot compute with CUDA or on one of the devices, or None if it can."""
    try:
        torch.cuda.init()
    except Exception as error:
        return _message(error)
    for index, device in enumerate(devices):
        try:
            torch.ones(2, device=f"cuda:{index}").sum().item()
        except Exception as error:
            if not re.search(_NO_IMAGE, str(error)):
                return f"{device.name}: {_message(error)}"
            if _older_than_builds(torch.cuda.get_device_capability(index)):
                return f"{device.name} is older than every build in this torch"
            return (
                f"this torch is compiled for {', '.join(torch.cuda.get_arch_list())} and not for {device.name} with "
                f"compute capability {device.capability} ({_message(error).splitlines()[0]})"
            )
    return None


def _older_than_builds(capability: tuple[int, int]) -> bool:
    numbers = [int(number) for name in torch.cuda.get_arch_list() for number in re.findall(r"_(\d+)", name)]
    return 10 * capability[0] + capability[1] < min(numbers, default=0)


def _choice() -> tuple[str, str, str]:
    try:
        device = choose_device("auto")
    except InputError as error:
        return "cpu", "chunked", f"{error}; give --device cpu"
    scan = choose_scan(device)
    if device.type == "cuda":
        reason = "the kernels of mamba-ssm ran on a tiny input" if scan == "kernel" else str(kernel_problem())
    else:
        reason = "the kernels do not run on MPS" if device.type == "mps" else NO_CUDA
    return str(device), scan, reason


def _devices() -> Iterator[Device]:
    for index in range(0 if cuda_problem() else torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        gibibytes = round(properties.total_memory / 2**30, 1)
        yield Device(properties.name, gibibytes, f"{properties.major}.{properties.minor}")
    if torch.backends.mps.is_available():
        yield Device("Apple MPS")


def nvidia_machine() -> tuple[list[str], str | None]:
    """Returns the names of the NVIDIA GPUs and the version of their driver, even if torch cannot use them."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        cards = [line.rpartition(",") for line in result.stdout.splitlines() if "," in line]
        if cards:
            return [name.strip() for name, _, _ in cards], cards[0][2].strip()
    driver, cards_folder = Path("/proc/driver/nvidia/version"), Path("/proc/driver/nvidia/gpus")
    with contextlib.suppress(OSError):
        version = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", driver.read_text(encoding="utf-8"))
        models = [re.search(r"Model:\s*(.+)", (f / "information").read_text()) for f in cards_folder.iterdir()]
        return [model[1].strip() for model in models if model], version and version[0]
    return [], None


def _requirement(package: str, name: str) -> str:
    """Returns how an installed package requires another one, as `torch>=2.6`, or only the name of that one."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for requirement in metadata.requires(package) or ():
            if re.match(rf"{name}\b(?!-)", requirement):
                return requirement.partition(";")[0].strip()
    return name
