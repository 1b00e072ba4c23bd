import json
from pathlib import Path

import pytest

from benchmarks import separation
from bsmamba2.errors import InputError


def test_songs_of_two_lengths_are_separated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status = separation.main(["--minutes", "0.02", "0.03", "--json", "growth.json"])
    assert "% above the lowest (limit 5 %)" in capsys.readouterr().out
    rows = json.loads(Path("growth.json").read_text(encoding="utf-8"))
    assert [(row["minutes"], row["stems"], row["samples"]) for row in rows] == [(0.02, 2, 57_600), (0.03, 2, 86_400)]
    peaks = [row["peak_mib"] for row in rows]
    assert status == int(max(peaks) > 1.05 * min(peaks))
    assert rows[1]["over_first"] == pytest.approx(rows[1]["per_audio_second"] / rows[0]["per_audio_second"])
    assert list(tmp_path.iterdir()) == [tmp_path / "growth.json"]


def test_a_separation_that_fails_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"bsmamba2 separate ended with status 1: bsmamba2: error: .*none\.wav does not exist"
    ):
        separation.separate([str(tmp_path / "none.wav"), "--output", str(tmp_path)])


@pytest.mark.parametrize("options", [{"minutes": [1.0, 0.0]}, {"minutes": []}, {"repeats": 0}])
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="is not allowed; give"):
        separation.Options(**options)  # type: ignore[arg-type]
