import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from bsmamba2 import doctor as doctor_module
from bsmamba2.commands import doctor
from bsmamba2.doctor import (
    BUILD_TOOLS,
    CONVOLUTION_REBUILD,
    CUDA_REQUIREMENTS,
    SCAN_LIMIT,
    SELECTIVE_REBUILD,
    TRITON_ONLY,
    Check,
    Device,
    Report,
    agreement,
    causal_convolution,
    cuda_problem,
    diagnose,
    kernel_check,
    nvidia_machine,
    remedy_for,
    selective_arguments,
    ssd_arguments,
)
from bsmamba2.model.scans import kernel_problem
from bsmamba2.model.selective import selective_chunked, selective_sequential
from bsmamba2.model.ssd import ssd_chunked, ssd_sequential
from tests import programs

REPOSITORY = Path(__file__).parent.parent
NO_IMAGE = "CUDA error: no kernel image is available for execution on the device"

# What the wheels of an old torch are compiled for.
OLD_TORCH = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")


def install(folder: Path, package: str, source: str) -> None:
    """Makes a package that importlib.metadata finds too."""
    module = folder / package.replace("-", "_")
    module.mkdir(parents=True)
    (module / "__init__.py").write_text(source, encoding="utf-8")
    information = folder / f"{module.name}-9.8.7.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 9.8.7\n", encoding="utf-8")


def in_subprocess(path: Path) -> tuple[dict[str, Check], Report]:
    program = (
        "import warnings; warnings.simplefilter('error')\n"
        "from bsmamba2.commands import doctor; print(doctor(json=True)[0])"
    )
    environment = {**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    result = programs.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    content = json.loads(result.stdout)
    healthy = content.pop("healthy")
    devices = tuple(Device(**device) for device in content.pop("devices"))
    checks = tuple(Check(**check) for check in content.pop("checks"))
    report = Report(devices=devices, checks=checks, **content)
    assert report.healthy is healthy
    return {check.name: check for check in checks}, report


def test_text_and_json_report_the_same() -> None:
    report = diagnose()
    content, text = json.loads(report.to_json()), report.text()
    assert set(content) == {"healthy", "versions", "devices", "checks", "device", "scan", "reason"}
    for name, version in content["versions"].items():
        assert any(
            line.split(maxsplit=1)[0] == name.split()[0] and (version or "not installed") in line
            for line in text.splitlines()
            if line
        ), name
    for check in content["checks"]:
        (line,) = [
            line for line in text.splitlines() if line.startswith(f"{check['name']} ") and check["detail"] in line
        ]
        assert line.split(check["name"], 1)[1].split()[0] == check["state"]
    assert text.splitlines()[-1] == report.summary()
    assert content["versions"]["torch"].startswith(torch.__version__)
    assert content["versions"]["libsndfile"]
    assert json.loads(doctor(json=True)[0])["checks"] == content["checks"] or torch.cuda.is_available()
    assert doctor() == (text, report.healthy) or torch.cuda.is_available()


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_no_failure() -> None:
    report = diagnose()
    sentence = "This machine separates on the CPU with the chunked scan, because torch sees no CUDA device."
    assert doctor()[0].endswith(f"\n\n{sentence}")
    assert (report.device, report.scan, report.devices) == ("cpu", "chunked", ())
    assert report.healthy or nvidia_machine()[0]  # a GPU that torch cannot see is a problem


def test_columns_are_aligned_and_commands_below_their_check() -> None:
    checks = Check("one", "ok", "fine"), Check("another", "problem", "broken", "first\nsecond")
    devices = Device("Card", 23.6, "8.6"), Device("Apple MPS")
    report = Report({"a": "1", "longest": None}, devices, checks, "cuda", "kernel", "it can")
    assert report.text().splitlines() == [
        "a        1",
        "longest  not installed",
        "GPU 0    Card, 23.6 GiB, compute capability 8.6",
        "GPU 1    Apple MPS",
        "",
        "one      ok       fine",
        "another  problem  broken",
        "                  $ first",
        "                  $ second",
        "",
        "This machine separates on the device cuda with the kernel scan, because it can.",
    ]
    assert not report.healthy
    assert Report({}, (), (Check("one", "absent", ""), Check("two", "ok", "")), "cpu", "chunked", "").healthy


@pytest.mark.parametrize(
    ("package", "problem", "expected"),
    [
        ("torch", "AssertionError: Torch not compiled with CUDA enabled", "pip uninstall --yes torch && pip install"),
        ("torch", NO_IMAGE, 'pip install --upgrade "torch'),
        ("torch", "GTX 1080 is older than every build in this torch", 'pip install "torch==2.6.*"'),
        ("torch", "The NVIDIA driver on your system is too old (found version 12080).", "apt install nvidia-driver"),
        ("torch", "CUDA driver version is insufficient for CUDA runtime version", "apt install nvidia-driver"),
        ("torch", "RuntimeError: No CUDA GPUs are available", "unset CUDA_VISIBLE_DEVICES"),
        ("mamba-ssm", "not installed", f"{BUILD_TOOLS}\n{CUDA_REQUIREMENTS}"),
        (
            "mamba-ssm",
            "ImportError: /x/selective_scan_cuda.cpython.so: undefined symbol: _ZN3c107WarningC1E",
            TRITON_ONLY,
        ),
        ("mamba-ssm", "ModuleNotFoundError: No module named 'selective_scan_cuda'", TRITON_ONLY),
        ("mamba-ssm", "ModuleNotFoundError: No module named 'mamba_ssm.ops'", TRITON_ONLY),
        ("mamba-ssm", "libcudart.so.12: cannot open shared object file", TRITON_ONLY),
        ("mamba-ssm", NO_IMAGE, TRITON_ONLY),
        ("mamba-ssm", "wrong results", "--scan chunked"),
        ("mamba-ssm", "ModuleNotFoundError: No module named 'triton'", 'pip install "triton'),
        ("mamba-ssm", "ModuleNotFoundError: No module named 'packaging'", "pip install einops packaging"),
        ("mamba-ssm", "RuntimeError: Failed to find C compiler. Please specify via CC", "apt install gcc"),
        ("mamba-ssm", "Command '['/usr/bin/gcc', '/tmp/x/cuda_utils.c']' returned non-zero", "python3-dev"),
        ("causal-conv1d", NO_IMAGE, CONVOLUTION_REBUILD),
        ("causal-conv1d", "causal_conv1d_cuda.so: undefined symbol: _ZN3c104", CONVOLUTION_REBUILD),
        ("causal-conv1d", "ModuleNotFoundError: No module named 'causal_conv1d_cuda'", CONVOLUTION_REBUILD),
    ],
)
def test_each_known_failure_has_its_command(package: str, problem: str, expected: str) -> None:
    command = remedy_for(package, problem)
    assert command is not None
    assert expected in command
    assert "{" not in command
    assert "http" not in command


def test_an_unknown_failure_has_none() -> None:
    assert remedy_for("mamba-ssm", "CUDA error: an illegal memory access was encountered") is None
    assert remedy_for("causal-conv1d", "not installed") is None


def test_torch_is_installed_in_the_version_that_this_package_requires() -> None:
    command = remedy_for("torch", NO_IMAGE)
    assert command is not None
    assert command.endswith('"torch>=2.6"')


def test_commands_are_those_of_the_readme() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    requirements = (REPOSITORY / "requirements-cuda.txt").read_text(encoding="utf-8").split()
    again = "--force-reinstall --no-cache-dir "  # nothing is installed yet in the README
    for command in (BUILD_TOOLS, CUDA_REQUIREMENTS, TRITON_ONLY.replace(again, "")):
        assert command in readme
    for command in (TRITON_ONLY, CONVOLUTION_REBUILD):
        assert again in command
        assert command.split()[-1] in requirements


def test_agreement_tells_right_from_wrong() -> None:
    arguments = ssd_arguments()
    right = agreement(ssd_chunked, ssd_sequential, arguments, "cpu")
    assert list(right) == ["y", "x", "dt", "A", "B", "C"]
    assert max(right.values()) < 1e-5
    right = agreement(selective_chunked, selective_sequential, selective_arguments(), "cpu")
    assert max(right.values()) < 1e-5

    def without_gradient_of_a(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        return ssd_chunked(x, dt, A.detach() + 0 * A, B, C)

    wrong = agreement(without_gradient_of_a, ssd_sequential, arguments, "cpu")
    assert {name for name, value in wrong.items() if value > SCAN_LIMIT} == {"A"}
    assert wrong["A"] == pytest.approx(1)


def test_causal_convolution_by_hand() -> None:
    x = torch.tensor([[[1.0, 2.0, 3.0]]])
    y = causal_convolution(x, torch.tensor([[10.0, 1.0]]), torch.tensor([0.5]))
    before = torch.tensor([1.5, 12.5, 23.5])
    torch.testing.assert_close(y, (before * before.sigmoid()).view(1, 1, 3))


@pytest.mark.parametrize(
    ("errors", "state"),
    [({"y": 1e-3, "A": 5e-3}, "ok"), ({"y": 1e-3, "A": 6e-3}, "problem"), ({"y": float("nan")}, "problem")],
)
def test_results_beyond_the_limit_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, errors: dict[str, float], state: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check = kernel_check("scan", "torch", lambda: None, lambda: errors, SCAN_LIMIT)
    assert check.state == state
    assert all(f"{name} {value:.1e}" in check.detail for name, value in errors.items())


def test_a_failing_kernel_is_reported_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first of torch's many lines is shown, and the first of two errors must not get lost."""

    def fails() -> dict[str, float]:
        try:
            raise ImportError("selective_scan_cuda.so: undefined symbol: _ZN3c10")
        except ImportError:
            raise RuntimeError("something else" + 999 * "." + "\nsecond line") from None

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(doctor_module, "package_version", lambda package: "1")
    check = kernel_check("scan", "mamba-ssm", lambda: None, fails, SCAN_LIMIT)
    assert check.state == "problem"
    assert check.detail == (
        f"mamba-ssm failed with {'RuntimeError: something else':.<200}; "
        "after ImportError: selective_scan_cuda.so: undefined symbol: _ZN3c10"
    )
    assert check.remedy == TRITON_ONLY


@pytest.mark.parametrize(("package", "remedy"), [("mamba-ssm", TRITON_ONLY), ("causal-conv1d", CONVOLUTION_REBUILD)])
def test_a_kernel_compiled_for_other_gpus_is_reported_with_its_command(
    monkeypatch: pytest.MonkeyPatch, package: str, remedy: str
) -> None:
    def fails() -> dict[str, float]:
        raise RuntimeError(f"{NO_IMAGE}\nCUDA kernel errors might be asynchronously reported")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(doctor_module, "package_version", lambda package: "1")
    check = kernel_check("kernel", package, lambda: None, fails, SCAN_LIMIT)
    detail = f"{package} is not compiled for this GPU and failed with RuntimeError: {NO_IMAGE}"
    assert check == Check("kernel", "problem", detail, remedy)


@pytest.mark.parametrize(("cuda", "remedy"), [(True, f"{BUILD_TOOLS}\n{CUDA_REQUIREMENTS}"), (False, None)])
def test_kernels_are_offered_only_where_they_run(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, remedy: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(doctor_module, "package_version", lambda package: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    check = kernel_check("scan", "mamba-ssm", lambda: None, dict, SCAN_LIMIT)
    assert check == Check("scan", "absent", "mamba-ssm is not installed", remedy)


@pytest.mark.skipif(
    torch.version.cuda is not None or torch.version.hip is not None, reason="needs a CPU build of torch"
)
def test_a_cpu_build_beside_an_nvidia_gpu_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nvidia-smi is a program with the output of the driver's."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 5090, 580.82.07'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert nvidia_machine() == (["NVIDIA GeForce RTX 5090"], "580.82.07")
    report = diagnose()
    (check,) = [check for check in report.checks if check.name == "torch"]
    assert report.versions["NVIDIA driver"] == "580.82.07"
    assert check.state == "problem"
    assert "CPU build; GPU: NVIDIA GeForce RTX 5090" in check.detail
    assert check.remedy is not None
    assert "pip uninstall --yes torch" in check.remedy
    assert not report.healthy
    assert report.summary().startswith("This machine separates on the CPU with the chunked scan")


@pytest.mark.skipif(
    torch.version.cuda is not None or torch.version.hip is not None, reason="needs a CPU build of torch"
)
def test_a_gpu_that_torch_is_not_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torch.cuda: one RTX 5090, a torch from before it, a launch that fails."""
    card = SimpleNamespace(name="RTX 5090", major=12, minor=0, total_memory=32 * 2**30)
    stand_ins = {
        "is_available": lambda: True,
        "init": lambda: None,
        "device_count": lambda: 1,
        "get_arch_list": lambda: list(OLD_TORCH),
        "get_device_properties": lambda index: card,
        "get_device_capability": lambda index: (12, 0),
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)

    def fails(*_: object, **__: object) -> Tensor:
        raise RuntimeError(f"{NO_IMAGE}\nCUDA kernel errors might be asynchronously reported")

    monkeypatch.setattr(torch, "ones", fails)
    report = diagnose()
    assert report.devices == (Device("RTX 5090", 32.0, "12.0"),)
    (check,) = [check for check in report.checks if check.name == "torch"]
    assert check.state == "problem"
    assert check.detail.startswith(
        "this torch is compiled for sm_50, sm_60, sm_70, sm_75, sm_80, sm_86, sm_90 and not for RTX 5090 with compute "
        f"capability 12.0 (RuntimeError: {NO_IMAGE})"
    )
    assert check.remedy == remedy_for("torch", NO_IMAGE)
    assert report.reason.endswith("give --device cpu")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (3, 7))
    assert cuda_problem(report.devices) == "RTX 5090 is older than every build in this torch"


def test_a_broken_nvidia_smi_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed, no driver'; exit 9\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert nvidia_machine() == ([], None)


def test_broken_packages_are_reported_and_not_raised(tmp_path: Path) -> None:
    """The scan imports mamba-ssm without its `__init__`, and must not hide why that failed."""
    symbol = "selective_scan_cuda.so: undefined symbol: _ZN3c107WarningC1E"
    install(tmp_path, "mamba-ssm", f"raise ImportError('{symbol}')")
    install(tmp_path, "causal-conv1d", "raise OSError('causal_conv1d_cuda.so: undefined symbol: _ZN3c104cuda')")
    checks, report = in_subprocess(tmp_path)
    assert not report.healthy
    assert report.versions["mamba-ssm"] == report.versions["causal-conv1d"] == "9.8.7"
    assert (checks["Triton scan"].state, checks["Triton scan"].remedy) == ("problem", TRITON_ONLY)
    assert symbol in checks["Triton scan"].detail
    # Without the compiled part, which Mamba-1 alone needs, nothing of it is broken.
    assert checks["Mamba-1 scan"] == Check("Mamba-1 scan", "absent", "selective_scan_cuda is not installed")
    assert (checks["convolution"].state, checks["convolution"].remedy) == ("problem", CONVOLUTION_REBUILD)
    assert "OSError" in checks["convolution"].detail


def test_a_broken_compiled_part_is_a_problem_of_the_scan_of_mamba1(tmp_path: Path) -> None:
    symbol = "selective_scan_cuda.so: undefined symbol: _ZN3c107WarningC1E"
    install(tmp_path, "selective-scan-cuda", "")
    install(tmp_path, "mamba-ssm", "import mamba_ssm.ops.selective_scan_interface")
    (tmp_path / "mamba_ssm" / "ops").mkdir()
    (tmp_path / "mamba_ssm" / "ops" / "selective_scan_interface.py").write_text(
        f"raise ImportError('{symbol}')", encoding="utf-8"
    )
    check = in_subprocess(tmp_path)[0]["Mamba-1 scan"]
    assert (check.state, check.remedy) == ("problem", SELECTIVE_REBUILD)
    assert symbol in check.detail


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("source", ["", "raise RuntimeError('0 active drivers ([]). There should only be one.')"])
def test_a_package_that_waits_for_a_gpu_is_no_problem(tmp_path: Path, source: str) -> None:
    """Triton 3.2 cannot be imported without a GPU, which is no failure."""
    install(tmp_path, "causal-conv1d", source)
    checks, report = in_subprocess(tmp_path)
    assert checks["convolution"].state == "absent"
    assert "is installed; it cannot run, because torch sees no CUDA device" in checks["convolution"].detail
    assert report.healthy or nvidia_machine()[0]


def test_importing_the_doctor_imports_no_kernels() -> None:
    program = "import sys, bsmamba2.doctor; sys.exit(str({'mamba_ssm', 'causal_conv1d', 'triton'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stderr.strip() == "set()"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_report_on_a_cuda_machine() -> None:
    report = diagnose()
    assert cuda_problem(report.devices) is None
    assert report.device == "cuda"
    assert report.scan == ("kernel" if kernel_problem() is None else "chunked")
    assert {check.name: check.state for check in report.checks}["torch"] == "ok"


@pytest.mark.skipif(kernel_problem() is not None, reason=f"no CUDA kernels here: {kernel_problem()}")
def test_the_kernels_of_this_machine_agree() -> None:
    (check,) = [check for check in diagnose().checks if check.name == "Triton scan"]
    assert check.state == "ok", check.detail


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", ["Mamba-1 scan", "convolution"])
def test_compiled_kernels_agree(name: str) -> None:
    (check,) = [check for check in diagnose().checks if check.name == name]
    if check.state == "absent":
        pytest.skip(check.detail)
    assert check.state == "ok", check.detail
