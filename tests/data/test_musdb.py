import shutil
from pathlib import Path

import pytest

from bsmamba2.data.musdb import official_validation_tracks as official


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="musdb cannot be imported without an ffmpeg program")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_official_list_is_that_of_musdb(tmp_path: Path) -> None:
    import musdb

    assert official() == musdb.DB(root=str(tmp_path)).setup["validation_tracks"]


def test_the_official_list_has_14_names() -> None:
    assert len(set(official())) == len(official()) == 14
    assert "Meaxic - Take A Step" in official()
