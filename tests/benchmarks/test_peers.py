"""The benchmark against the peers, as far as it runs without the network."""

import ast
import json
import sys
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.networks import PROJECT, QUICK
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2


def test_networks_are_measured_though_a_peer_cannot_be_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A file where the folder of the environments should be: nothing is installed.
    (tmp_path / "peers").touch()
    file = tmp_path / "results.json"
    short = ["--quick", "--seconds", "0.1", "--repeats", "2", "--threads", "1", "--only", "full", "demucs"]
    assert peers.main([*short, "--folder", str(tmp_path / "peers"), "--json", str(file)]) == 1
    assert "the network 'demucs' could not be prepared" in capsys.readouterr().err
    results = json.loads(file.read_text(encoding="utf-8"))
    assert len(results["problems"]) == 1
    (network,) = results["networks"]
    parameters = sum(parameter.numel() for parameter in BSMamba2(QUICK).parameters())
    assert (network["name"], network["parameters"], len(network["times"])) == ("full", parameters, 2)
    assert network["per_audio_second"] == pytest.approx(sum(network["times"]) / 2 / 0.1)


def test_ratios_are_ours_over_each_peer() -> None:
    rows = [{"name": name, "per_audio_second": time} for name, time in (("full", 3.0), ("small", 1.0), ("demucs", 2.0))]
    assert peers.with_ratios(rows) == [*rows[:2], rows[2] | {"ratios": {"full": 1.5, "small": 0.5}}]


def test_results_are_printed_with_ratios_to_the_peers(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"parameters": 2_500_000, "input_seconds": 1.0, "peak_mib": 300.0, "peak_over_weights_mib": None}
    rows = [
        facts | {"name": name, "configuration": f"the {name}", "per_audio_second": time}
        for name, time in (("full", 3.0), ("demucs", 2.0))
    ]
    peers.print_results(peers.with_ratios(rows))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[3:] == [
        ["full", "2.50", "1.00", "3.00", "-", "300", "-"],
        ["demucs", "2.50", "1.00", "2.00", "1.50", "300", "-"],
        [],
        ["full", "the", "full"],
        ["demucs", "the", "demucs"],
    ]


@pytest.mark.parametrize("name", ["seconds", "sequential_seconds", "repeats", "threads"])
def test_options_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}=0 is not allowed"):
        peers.Options(**{name: 0})  # type: ignore[arg-type]


def test_a_worker_that_dies_is_reported_in_one_sentence(tmp_path: Path) -> None:
    options = peers.Options(sequential_seconds=0.1, threads=1, quick=True)
    with (
        peers.started("full", options, tmp_path, scan="none") as worker,
        pytest.raises(peers.WorkerError, match=r"the network 'full' ended with status 1 .*scan='none' does not exist"),
    ):
        worker.run()


@pytest.mark.parametrize("module", ["peer_worker", "timing", "memory"])
def test_the_worker_imports_pytorch_alone(module: str) -> None:
    tree = ast.parse((PROJECT / "benchmarks" / f"{module}.py").read_text(encoding="utf-8"))
    imported = {name.name for node in tree.body if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    # The last needs the standard library alone; `tests/test_imports.py` checks that the package itself loads lazily.
    allowed = {"torch", "benchmarks.timing", "benchmarks.memory", "bsmamba2.system.processes"}
    assert {name for name in imported - allowed if name.partition(".")[0] not in sys.stdlib_module_names} == set()
