"""Limits of uploads, which are made small here."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bsmamba2.errors import InputError
from bsmamba2.server import uploads
from bsmamba2.server.messages import SongSettings
from bsmamba2.server.session import MOST_SONGS, QueuedSong, Session
from bsmamba2.server.uploads import Upload, UploadError, check_upload_fits, receive
from tests.server.running import form

LIMIT_BYTES = 2**21


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the limit one that a test can reach."""
    monkeypatch.setattr(uploads, "LARGEST_UPLOAD_BYTES", LIMIT_BYTES)


def received(folder: Path, *sizes: int) -> Upload:
    """Returns what is received of files of some sizes."""
    files = [folder / f"{number}.wav" for number, _ in enumerate(sizes)]
    for file, size in zip(files, sizes, strict=True):
        file.write_bytes(bytes(size))
    body, headers = form(*files)
    new_files = iter([folder / f"upload-{number}" for number, _ in enumerate(sizes)])

    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 2**16):
            yield body[start : start + 2**16]

    receiving = receive(stream(), headers["Content-Type"], lambda: next(new_files))
    # A browser of other tests may have a loop in this thread.
    with ThreadPoolExecutor() as pool:
        return pool.submit(asyncio.run, receiving).result()


def test_a_file_is_as_large_as_the_limit_at_most(tmp_path: Path) -> None:
    upload = received(tmp_path, LIMIT_BYTES, LIMIT_BYTES)
    assert [file.stat().st_size for file in upload.files] == [LIMIT_BYTES] * 2
    for file in upload.files:
        file.unlink()
    with pytest.raises(UploadError, match="the file has more than 0 GiB; give it to `bsmamba2 separate`, or split it"):
        received(tmp_path, 1000, LIMIT_BYTES + 1)
    assert list(tmp_path.glob("upload-*")) == []


def test_a_file_as_large_as_the_limit_is_not_refused_for_its_form(tmp_path: Path) -> None:
    check_upload_fits(LIMIT_BYTES + 5000, tmp_path)
    with pytest.raises(UploadError, match="the upload has more than 0 GiB; send several files one by one"):
        check_upload_fits(2 * LIMIT_BYTES, tmp_path)


def test_some_of_the_disk_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "FREE_BYTES", 2**62)
    with pytest.raises(UploadError, match="the disk is nearly full; free some space, or delete songs of this page"):
        received(tmp_path, LIMIT_BYTES)
    assert list(tmp_path.glob("upload-*")) == []


def test_a_page_has_a_thousand_songs_at_most(tmp_path: Path) -> None:
    settings = SongSettings(("small-vocals",))
    session = Session(tmp_path, None, settings)

    def add() -> None:
        session.add(QueuedSong("song", "song.wav", [], tmp_path / "song", True, settings, state="failed"))

    for _ in range(MOST_SONGS):
        add()
    with pytest.raises(InputError, match="this page has 1000 songs; delete some first, or use `bsmamba2 separate`"):
        add()
