"""Two results of the benchmark beside each other."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare
from benchmarks.timing import spread


def result(path: Path, seconds: float, times_bound: float, **more: Any) -> str:
    row = {"over": "time", "precision": "float32", "seconds": seconds, "times_bound": times_bound, "spread": 0.03}
    tables: dict[str, Any] = {"scans": [], "mixers": [row | more], "network": [], "files": []}
    path.write_text(json.dumps(tables), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("seconds", "times_bound", "cells"),
    [
        (2.2, 1.65, ["1.1", "1.1", "0.0424", "slower"]),
        (1.0, 0.75, ["0.5", "0.5", "0.0424", "faster"]),
        # The machine was slower.
        (2.4, 1.53, ["1.2", "1.02", "0.0424"]),
    ],
)
def test_a_change_is_named_if_it_is_above_the_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seconds: float, times_bound: float, cells: list[str]
) -> None:
    files = result(tmp_path / "a.json", 2.0, 1.5), result(tmp_path / "b.json", seconds, times_bound)
    assert compare.main(files) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.split()[:3] == ["mixers", "over=time", "precision=float32"]
    assert [float(c) if c[0].isdigit() else c for c in line.split()[5:]] == [
        float(c) if c[0].isdigit() else c for c in cells
    ]


def test_results_without_a_row_in_common_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = result(tmp_path / "a.json", 2.0, 1.5), result(tmp_path / "b.json", 2.0, 1.5, over="bands")
    assert compare.main(files) == 1
    assert "have measured nothing in common" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", '{"scans": []}', None])
def test_a_file_that_is_none_of_results_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content is not None:
        (tmp_path / "b.json").write_text(content)
    assert compare.main([result(tmp_path / "a.json", 2.0, 1.5), str(tmp_path / "b.json")]) == 1
    assert "give a file of benchmark_mamba_ssm.py --json" in capsys.readouterr().err


def test_the_spread_is_that_of_the_middle_half() -> None:
    assert spread([1.0]) == 0
    assert spread([1.0, 2.0, 2.0, 2.0, 9.0]) == 0
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
