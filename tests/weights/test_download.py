import hashlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import bsmamba2
from bsmamba2.errors import InputError
from bsmamba2.weights import download as downloading
from bsmamba2.weights.registry import PUBLISHED_MODELS, PublishedModel
from bsmamba2.weights.store import OK, download, recognised, state_of
from tests.system.test_files import Spy, needs_folder_fsync
from tests.weights.model_server import CONTENT, Remote, files_in, part_of

# Importing the package takes seconds, for torch; these modules do not need it.
CHILD = """
import json, logging, sys, types
from pathlib import Path
package = types.ModuleType("bsmamba2")
package.__path__ = [sys.argv[1]]
sys.modules["bsmamba2"] = package
from bsmamba2.weights.registry import PublishedModel
from bsmamba2.weights.store import download
logging.basicConfig(level=logging.INFO)
model = PublishedModel(**json.loads(sys.argv[2]))
print(download(model, Path(sys.argv[3])))
"""


def start_child(model: PublishedModel, folder: Path) -> subprocess.Popen[str]:
    """Returns a process that downloads a model."""
    package = str(Path(bsmamba2.__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, package, json.dumps(asdict(model)), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert child.poll() is None
        assert time.monotonic() < deadline, "the process does not download"
        time.sleep(0.005)


def test_a_broken_transfer_is_resumed_in_the_same_call(
    tmp_path: Path, remote: Remote, model: PublishedModel, caplog: pytest.LogCaptureFixture
) -> None:
    remote.breaks_after = 120_000
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert remote.asked_ranges == [None, "bytes=120000-", "bytes=240000-"]
    assert sum(remote.sent) == len(CONTENT)
    assert "broke off after 240000 of 300000 bytes: the server closed the connection; trying again" in caplog.text


def test_a_file_of_unknown_size_is_known_by_the_hash_that_git_gives_it(
    tmp_path: Path, remote: Remote, model: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_blob = hashlib.sha1(f"blob {len(CONTENT)}\0".encode() + CONTENT).hexdigest()
    rounded = replace(model, size_bytes=310_000, sha256="", git_blob=git_blob)
    path = download(rounded, tmp_path)
    assert path.read_bytes() == CONTENT
    assert state_of(rounded, path) == OK
    monkeypatch.setitem(PUBLISHED_MODELS, model.name, rounded)
    assert recognised(path) == rounded
    path.write_bytes(CONTENT[:-1] + b"\0")
    assert state_of(rounded, path).startswith("damaged: it has the git blob hash ")
    assert state_of(rounded, path).endswith(f" instead of {git_blob}")
    assert recognised(path) is None
    # What is left of a transfer is not continued, since nothing says where the file ends.
    path.unlink()
    remote.requests.clear()
    remote.breaks_after = 120_000
    with pytest.raises(InputError, match="broke off after 120000 of"):
        download(rounded, tmp_path)
    assert set(remote.asked_ranges) == {None}
    remote.breaks_after = 10**9
    for content, refusal in ((CONTENT[::-1], "has the git blob hash"), (3 * CONTENT, "has more than 620000 bytes")):
        remote.content = content
        with pytest.raises(InputError, match=refusal):
            download(rounded, tmp_path)
    assert not path.exists()
    remote.content = CONTENT
    assert download(rounded, tmp_path).read_bytes() == CONTENT


@needs_folder_fsync
def test_a_download_is_on_the_disk_before_its_rename(
    tmp_path: Path, model: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    path = download(model, tmp_path)
    file, folder = str(path.stat().st_ino), str(tmp_path.stat().st_ino)
    size_bytes = len(CONTENT)
    assert spy.calls[:2] == [("flush", file, size_bytes), ("rename", file, size_bytes)]
    assert [call[:2] for call in spy.calls[2:]] == [("flush", folder)]


def test_a_transfer_that_always_breaks_off_reports_how_far_it_came(
    tmp_path: Path, remote: Remote, model: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "PAUSE_SECONDS", 0.05)
    started = time.monotonic()
    remote.breaks_after = 10_000
    with pytest.raises(InputError, match=r"after 40000 of 300000 bytes: .*; run the same command again to resume"):
        download(model, tmp_path)
    assert files_in(tmp_path) == {"weights.ckpt.part"}
    assert time.monotonic() - started > 0.05 * (downloading.REQUEST_ATTEMPTS - 1)
    remote.breaks_after = 10**9
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert remote.asked_ranges[-1] == "bytes=40000-"
    assert len(remote.requests) == downloading.REQUEST_ATTEMPTS + 1
    assert files_in(tmp_path) == {"weights.ckpt"}


def test_the_transfer_of_a_killed_process_is_resumed(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    remote.breaks_after, remote.stalls = 290_000, True
    part = part_of(tmp_path)
    with start_child(model, tmp_path) as child:
        wait_until(lambda: part.exists() and part.stat().st_size > 100_000, child)
        child.kill()
    reached = part.stat().st_size
    assert 100_000 < reached < len(CONTENT)
    assert not (tmp_path / "weights.ckpt").exists()
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert remote.asked_ranges == [None, f"bytes={reached}-"]
    assert remote.sent[1] == len(CONTENT) - reached


def test_two_processes_download_it_once(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    remote.breaks_after, remote.stalls = 200_000, True
    with start_child(model, tmp_path) as first:
        wait_until(lambda: bool(remote.requests), first)
        with start_child(model, tmp_path) as second:
            assert second.stderr is not None
            assert "another process is downloading weights.ckpt" in second.stderr.readline()
            remote.released.set()
            answers = [child.communicate(timeout=120)[0] for child in (first, second)]
    assert answers == [f"{tmp_path / 'weights.ckpt'}\n"] * 2
    assert (first.returncode, second.returncode) == (0, 0)
    assert remote.sent == [200_000, 100_000]
    assert (tmp_path / "weights.ckpt").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_everything_again(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:100_000])
    remote.ranges = False
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert remote.asked_ranges == ["bytes=100000-"]
    assert remote.sent == [len(CONTENT)]


def test_a_server_that_cannot_resume_is_asked_for_all(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:100_000])
    remote.statuses = [416]
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert remote.asked_ranges == ["bytes=100000-", None]


@pytest.mark.parametrize("content_range", ["bytes 50000-299999/300000", "nonsense"])
def test_a_server_that_sends_a_different_range_is_not_trusted(
    tmp_path: Path, remote: Remote, model: PublishedModel, content_range: str
) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:100_000])
    remote.content_range = content_range
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert remote.asked_ranges == ["bytes=100000-", None]


@pytest.mark.parametrize("extra", [0, 1, 70_000])
def test_a_part_file_that_is_too_long_is_not_used(
    tmp_path: Path, remote: Remote, model: PublishedModel, extra: int
) -> None:
    part_of(tmp_path).write_bytes(CONTENT + bytes(extra))
    assert download(model, tmp_path).read_bytes() == CONTENT
    # One of the right length needs only its hash.
    assert remote.asked_ranges == ([None] if extra else [])


def test_a_stalled_connection_is_given_up(
    tmp_path: Path, remote: Remote, model: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.breaks_after, remote.stalls = 50_000, True
    with monkeypatch.context() as patch:
        patch.setattr(downloading, "TIMEOUT_SECONDS", 0.1)
        with pytest.raises(InputError, match=r"after \d+ of 300000 bytes: nothing arrived for 0\.1 s; run the same"):
            download(model, tmp_path)
    assert len(remote.requests) == downloading.REQUEST_ATTEMPTS
    remote.breaks_after = 10**9
    remote.released.set()
    assert download(model, tmp_path).read_bytes() == CONTENT


def test_a_server_that_does_not_answer_is_given_up(
    tmp_path: Path, model: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_model = replace(model, urls=(f"http://127.0.0.1:{silent.getsockname()[1]}/weights.ckpt",))
        with pytest.raises(InputError, match=r"after 0 of 300000 bytes: nothing arrived for 0\.05 s"):
            download(silent_model, tmp_path)


def test_no_network_is_reported(tmp_path: Path, model: PublishedModel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    put = rf"put it into {re.escape(str(tmp_path))}, or give its path with --model$"
    remedy = rf"check the connection, or fetch weights\.ckpt by hand from https://example\.org/tiny and {put}"
    with pytest.raises(InputError, match=rf"cannot be reached \(Connection refused\); {remedy}"):
        download(replace(model, urls=(f"http://127.0.0.1:{port}/weights.ckpt",)), tmp_path)


def test_a_missing_file_is_reported_at_once(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    remote.statuses = [404, 404]
    with pytest.raises(InputError, match=r"the server answered 404 Not Found; fetch weights\.ckpt by hand from https"):
        download(model, tmp_path)
    assert len(remote.requests) == 1


def test_a_server_in_trouble_is_asked_again(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    remote.statuses = [503]
    assert download(model, tmp_path).read_bytes() == CONTENT
    remote.statuses = [503] * downloading.REQUEST_ATTEMPTS
    (tmp_path / "weights.ckpt").unlink()
    with pytest.raises(InputError, match="after 0 of 300000 bytes: the server answered 503 Service Unavailable"):
        download(model, tmp_path)


def test_wrong_bytes_are_removed(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    remote.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    wrong = hashlib.sha256(remote.content).hexdigest()
    with pytest.raises(InputError, match=f"has the sha256 {wrong} instead of {model.sha256} and was removed"):
        download(model, tmp_path)
    assert files_in(tmp_path) == set()
    assert len(remote.requests) == 1


@pytest.mark.parametrize("size", [0, 299_999, 300_001])
def test_a_file_of_a_different_size_is_not_downloaded(
    tmp_path: Path, remote: Remote, model: PublishedModel, size: int
) -> None:
    remote.content = (CONTENT + b"x")[:size]
    with pytest.raises(InputError, match=f"has {size} bytes instead of 300000, so it is not the published file"):
        download(model, tmp_path)
    part_of(tmp_path).write_bytes(CONTENT[:1000])
    remote.ranges = size > 0
    with pytest.raises(InputError, match=f"has {size} bytes instead of 300000"):
        download(model, tmp_path)
    assert not (tmp_path / "weights.ckpt").exists()


def test_too_many_bytes_of_unannounced_size_are_stopped(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    remote.content, remote.announces = CONTENT + bytes(50_000_000), False
    with pytest.raises(InputError, match="has more than 300000 bytes, so it is not the published file"):
        download(model, tmp_path)
    assert files_in(tmp_path) == set()
    assert sum(remote.sent) < 20_000_000
    remote.content = CONTENT
    assert download(model, tmp_path).read_bytes() == CONTENT


def test_redirections_lead_to_http_alone(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:100_000])
    remote.location = remote.url.replace("weights", "moved")
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert remote.requests == [("/weights.ckpt", "bytes=100000-"), ("/moved.ckpt", "bytes=100000-")]
    (tmp_path / "weights.ckpt").unlink()
    remote.location = "ftp://127.0.0.1:1/weights.ckpt"
    with pytest.raises(InputError, match="unknown url type: ftp"):
        download(model, tmp_path)
    local = tmp_path / "local.ckpt"
    local.write_bytes(CONTENT)
    with pytest.raises(InputError, match="unknown url type: file"):
        download(replace(model, urls=(local.as_uri(),)), tmp_path)


def test_the_proxy_of_the_environment_is_used(
    tmp_path: Path, remote: Remote, model: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", remote.url.removesuffix("/weights.ckpt"))
    elsewhere = replace(model, urls=("http://models.invalid/weights.ckpt",))
    assert download(elsewhere, tmp_path).read_bytes() == CONTENT
    assert remote.requests == [("http://models.invalid/weights.ckpt", None)]


@pytest.fixture
def two_addresses(remote: Remote, model: PublishedModel) -> PublishedModel:
    """Returns the model with an address before the good one."""
    return replace(model, urls=(remote.url.replace("weights", "first"), remote.url))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (CONTENT[::-1], "has the sha256 [0-9a-f]{64} instead of [0-9a-f]{64} and was removed"),
        (CONTENT[:1000], "has 1000 bytes instead of 300000, so it is not the published file"),
        (CONTENT + b"x", "has 300001 bytes instead of 300000, so it is not the published file"),
        (b"", "has 0 bytes instead of 300000, so it is not the published file"),
    ],
    ids=["other hash", "shorter", "longer", "empty"],
)
def test_the_next_address_is_tried(
    tmp_path: Path, remote: Remote, two_addresses: PublishedModel, caplog: pytest.LogCaptureFixture, wrong: bytes,
    reason: str,
) -> None:  # fmt: skip
    remote.wrong["/first.ckpt"] = wrong
    assert download(two_addresses, tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in remote.requests] == ["/first.ckpt", "/weights.ckpt"]
    first, second = two_addresses.urls
    assert re.search(rf"{re.escape(first)} {reason}; trying {re.escape(second)}", caplog.text)
    assert files_in(tmp_path) == {"weights.ckpt"}


def test_what_is_received_from_one_address_is_completed_from_the_next(
    tmp_path: Path, remote: Remote, two_addresses: PublishedModel
) -> None:
    remote.breaks_after, remote.missing_after = 120_000, {"/first.ckpt": 1}
    assert download(two_addresses, tmp_path).read_bytes() == CONTENT
    assert remote.requests == [
        ("/first.ckpt", None), ("/first.ckpt", "bytes=120000-"), ("/first.ckpt", "bytes=240000-"),
        ("/weights.ckpt", "bytes=240000-"),
    ]  # fmt: skip


def test_wrong_bytes_from_one_address_do_not_spoil_the_next(
    tmp_path: Path, remote: Remote, two_addresses: PublishedModel, caplog: pytest.LogCaptureFixture
) -> None:
    """The hash is known to be wrong only when the file is complete, with the bytes of both."""
    part_of(tmp_path).write_bytes(CONTENT[1000:2000])
    remote.missing.add("/first.ckpt")
    assert download(two_addresses, tmp_path).read_bytes() == CONTENT
    assert remote.requests[1:] == [("/weights.ckpt", "bytes=1000-"), ("/weights.ckpt", None)]
    assert "and was removed; downloading all of it" in caplog.text


def test_if_no_address_has_the_file_all_reasons_are_reported(
    tmp_path: Path, remote: Remote, two_addresses: PublishedModel
) -> None:
    remote.wrong["/weights.ckpt"] = CONTENT[::-1]
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    gone = f"http://127.0.0.1:{port}/weights.ckpt"
    with pytest.raises(InputError) as failure:
        download(replace(two_addresses, urls=(gone, remote.url)), tmp_path)
    text = str(failure.value)
    assert text.startswith(f"{gone} cannot be reached (Connection refused); the file from {remote.url} has the sha256 ")
    remedy = f"put it into {tmp_path}, or give its path with --model"
    assert text.endswith(
        f"; check the connection, or fetch weights.ckpt by hand from https://example.org/tiny and {remedy}"
    )
    assert files_in(tmp_path) == set()
    (tmp_path / "weights.ckpt").write_bytes(CONTENT)
    assert download(two_addresses, tmp_path).read_bytes() == CONTENT
