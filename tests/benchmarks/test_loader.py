from pathlib import Path

import pytest
import torch

from benchmarks import loader
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.errors import InputError
from bsmamba2.stem_names import MUSDB_STEMS


def test_excerpts_are_loaded_and_compared_with_the_need_of_a_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for song in ("One - Song", "Two - Song"):
        for stem in MUSDB_STEMS:
            noise = 0.1 * torch.randn(2, SAMPLE_RATE // 2, generator=torch.Generator().manual_seed(0))
            write_audio(tmp_path / "train" / song / f"{stem}.wav", noise, SAMPLE_RATE)
    options = f"--root {tmp_path} --cache {tmp_path / 'cache'} --segment_seconds 0.1 --batch-size 2 --workers 0".split()
    options += ["--augmentation.pitch", "0", "--augmentation.tempo", "0", "--validation_artists", '["Two"]']
    options += ["--shared_artists", "true"]
    assert loader.main([*options, "--batches", "2", "--step_seconds", "3", "--step_excerpts", "6"]) == 0
    titles, cells = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    assert "".join(titles) == "workersstartsecondsexcerptspersecondaudiopersecondtimesneeded"
    workers, start, excerpts, audio, needed = map(float, cells)
    assert (workers, start > 0, excerpts > 0) == (0, True, True)
    assert audio == pytest.approx(0.1 * excerpts, rel=0.02)
    assert needed == pytest.approx(excerpts * 3 / 6, rel=0.02)


@pytest.mark.parametrize("options", [{"workers": [-1]}, {"workers": []}, {"batches": 0}, {"step_seconds": 0.0}])
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="is not allowed; give"):
        loader.Options(**options)  # type: ignore[arg-type]
