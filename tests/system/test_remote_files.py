import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from bsmamba2.errors import InputError, OutputError
from bsmamba2.system import remote_files
from bsmamba2.system.remote_files import fetch_file, file_name_of, is_url, remote_size_bytes, upload_file
from tests.weights.model_server import CONTENT, Remote, running_server


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_server("song.wav") as server:
        yield server.remote


@pytest.mark.parametrize(
    ("text", "answer"),
    [("https://host/a", True), ("s3://bucket/a", True), ("a/b.wav", False), ("C:\\a", False), ("a b://c", False)],
)
def test_what_is_a_url(text: str, answer: bool) -> None:
    assert is_url(text) == answer


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/in/a%20song.mp3?key=x/y#z", "a song.mp3"),
        ("s3://bucket/in/50%25 a?.mp3", "50%25 a?.mp3"),
        ("https://host", ""),
    ],
)
def test_the_name_of_the_file_at_a_url(url: str, name: str) -> None:
    assert file_name_of(url) == name


def test_a_file_is_fetched_whole(remote: Remote, tmp_path: Path) -> None:
    fetch_file(remote.url, tmp_path / "song")
    assert (tmp_path / "song").read_bytes() == CONTENT


def test_files_are_uploaded_replaced_and_fetched_again(tmp_path: Path) -> None:
    for folder in (f"file://{tmp_path}/new/folder", "memory://new/folder"):
        url = f"{folder}/stem 1.wav"
        assert remote_size_bytes(url) is None
        for content in (b"first", b"second one"):
            (tmp_path / "stem").write_bytes(content)
            upload_file(tmp_path / "stem", url)
            assert remote_size_bytes(url) == len(content)
            fetch_file(url, tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == content
    assert (tmp_path / "new/folder/stem 1.wav").read_bytes() == b"second one"
    assert fsspec.filesystem("memory").cat("/new/folder/stem 1.wav") == b"second one"


def reason(url: str, path: Path) -> str:
    with pytest.raises(InputError) as failure:
        fetch_file(url, path)
    return str(failure.value)


def test_each_way_to_fail_is_one_sentence(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "song"
    remote.missing.add("/song.wav")
    assert reason(remote.url, path) == f"{remote.url} does not exist; check the address"
    remote.missing.clear()
    remote.statuses.append(403)
    assert reason(remote.url, path).startswith(f"{remote.url} cannot be fetched (ClientResponseError: 403")
    remote.breaks_after = 100_000
    advice = "; check the address, the permissions and the connection"
    broken = reason(remote.url, path)
    assert broken.startswith(f"{remote.url} cannot be fetched (ClientPayloadError: ")
    assert broken.endswith(advice)
    monkeypatch.setattr(remote_files, "SILENCE_SECONDS", 0.2)
    remote.stalls = True
    assert reason(remote.url, path).startswith(f"{remote.url} cannot be fetched (FSTimeoutError")
    assert reason("http://127.0.0.1:1/a", path).startswith(
        "http://127.0.0.1:1/a cannot be fetched (ClientConnectorError"
    )
    assert reason("nonsense://a", path).startswith("nonsense://a cannot be fetched (ValueError: Protocol not known")
    with pytest.raises(OutputError, match=r"gone/song cannot be written \(No such file or directory\)"):
        fetch_file(remote.url, tmp_path / "gone/song")


@pytest.mark.parametrize(
    ("url", "modules", "package"),
    [
        ("https://host/a", ["aiohttp"], '"bsmamba2[remote]"'),
        ("https://host/a", ["fsspec", "fsspec.core"], '"bsmamba2[remote]"'),
        ("s3://bucket/a", ["s3fs"], "s3fs"),
        ("gs://bucket/a", ["gcsfs"], "gcsfs"),
    ],
)
def test_a_package_that_is_missing_is_named(
    url: str, modules: list[str], package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    assert reason(url, tmp_path / "a") == f"{url} needs a package that is not installed; run pip install {package}"
