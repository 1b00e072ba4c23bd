import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import plots


def results(**changes: Any) -> dict[str, Any]:
    """Returns results of the network at two lengths, eager and compiled."""
    setting = {"batch": 1, "threads": 2, "precision": "float32", "times_bound": 2.0, "peak_memory_mib": None}
    lengths = [(8.0, False, 0.5), (1.0, False, 0.25), (8.0, True, 0.75)]
    rows = [setting | {"audio_seconds": s, "compiled": c, "audio_per_second": speed} for s, c, speed in lengths]
    return {"environment": {"device": "cpu", "processor": "any", "torch": "2"}, "network": rows, "files": [], **changes}


def test_a_figure_is_drawn_of_results(tmp_path: Path) -> None:
    source, figure = tmp_path / "results.json", tmp_path / "results.png"
    source.write_text(json.dumps(results()), encoding="utf-8")
    assert plots.main([str(source), str(figure)]) == 0
    with Image.open(figure) as drawn:
        assert (drawn.format, drawn.size) == ("PNG", (1200, 900))
    curves = plots.curves_of("one pass", results()["network"], "audio_seconds", "audio_per_second")
    assert curves == [
        ("one pass, float32, eager", [1.0, 8.0], [0.25, 0.5]),
        ("one pass, float32, compiled", [8.0], [0.75]),
    ]


@pytest.mark.parametrize("content", ["no JSON", "[]", "{}", json.dumps(results(network=[{"batch": 1}]))])
def test_a_figure_of_anything_else_ends_with_one_sentence(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "results.json"
    source.write_text(content, encoding="utf-8")
    assert plots.main([str(source), str(tmp_path / "results.png")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [source]
