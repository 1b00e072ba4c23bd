import os
from collections.abc import Iterator

import pytest

from bsmamba2.training import pictures


@pytest.fixture(scope="module")
def no_figures() -> Iterator[None]:
    """Leaves out the figures of validation songs, which take a quarter of the time and are tested in test_pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "SONGS_SHOWN", 0)
        yield


@pytest.fixture(scope="module", autouse=True)
def no_flushing() -> Iterator[None]:
    """Does not wait for the disk at each checkpoint; that files are flushed is tested in tests/system/test_files.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
