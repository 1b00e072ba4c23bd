import ast
import sys

import pytest
import torch

from benchmarks.memory import peak_memory_mib, present_memory_mib
from benchmarks.networks import PROJECT

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports all figures")
def test_memory_that_was_used_counts_to_the_peak_only() -> None:
    block = torch.ones(2**26)  # 256 MiB
    during = present_memory_mib(CPU)
    del block
    after, peak = present_memory_mib(CPU), peak_memory_mib(CPU)
    assert during is not None
    assert after is not None
    assert peak is not None
    assert after < during - 200
    # The pages of both figures are counted at slightly different times.
    assert peak > during - 8


def test_on_windows_no_figure_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert peak_memory_mib(CPU) is None


def test_no_benchmark_imports_the_module_resource_when_it_is_imported() -> None:
    for file in (PROJECT / "benchmarks").glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            assert "import resource" not in ast.unparse(node) or isinstance(node, ast.FunctionDef), file
