import subprocess
import sys

import pytest

from bsmamba2.system.processes import RANKS, is_first_process, peak_memory_bytes


def test_a_process_alone_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    assert is_first_process()
    for name in RANKS:
        monkeypatch.setenv(name, "0")
    assert is_first_process()


@pytest.mark.parametrize("name", RANKS)
def test_any_other_rank_is_not_the_first(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in RANKS:
        monkeypatch.setenv(other, "0")
    monkeypatch.setenv(name, "1")
    assert not is_first_process()


PEAK = "from bsmamba2.system.processes import peak_memory_bytes; print(peak_memory_bytes())"


@pytest.mark.skipif(sys.platform == "win32", reason="unknown on Windows")
def test_peak_memory_grows_by_what_is_used_and_never_falls() -> None:
    size = 2**26
    program = f"{PEAK}; block = b'x' * {size}; print(peak_memory_bytes()); del block; print(peak_memory_bytes())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, during, after = map(int, result.stdout.split())
    assert size <= during - before < size + 2**24
    assert abs(after - during) < 2**24  # the system counts pages in batches


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process starts with the peak of its parent")
def test_peak_memory_is_not_that_of_the_parent() -> None:
    block = b"x" * 2**28
    result = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    own = peak_memory_bytes()
    assert own is not None
    assert own > len(block)
    assert 2**20 < int(result.stdout) < own


def test_peak_memory_is_unknown_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert peak_memory_bytes() is None
