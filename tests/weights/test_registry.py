import hashlib
import json
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import bsmamba2
from benchmarks.bounds import network_multiply_adds
from bsmamba2 import load_model
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.system.files import sha256_of
from bsmamba2.weights import download as downloading
from bsmamba2.weights import store
from bsmamba2.weights.command import download_model, list_models, verify_models
from bsmamba2.weights.registry import DEFAULT_MODEL, PUBLISHED_MODELS, PublishedModel
from bsmamba2.weights.store import download, model_file, recognised, verify

CONTENT = random.Random(0).randbytes(300_000)
PIECE_BYTES = 8192


@dataclass
class Remote:
    """What the server serves, how it misbehaves, and what it saw.

    Args:
        url: Address of the file.
        content: Bytes of the file.
        ranges: Whether requests for a range are answered with it.
        statuses: Error statuses that the next requests get.
        breaks_after: So many bytes are sent at most in one request.
        stalls: Whether the connection stays open after those, without a byte.
        pause_seconds: Rest after every piece.
        announces: Whether it sends a Content-Length.
        content_range: Which Content-Range is sent instead of the true one.
        location: Where requests are sent on to, once.
        requests: Path and Range header of all requests.
        sent: How many bytes each of them got.
        released: Ends all stalls.
    """

    url: str
    content: bytes = CONTENT
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    breaks_after: int = 10**9
    stalls: bool = False
    pause_seconds: float = 0.0
    announces: bool = True
    content_range: str | None = None
    location: str | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def asked_ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]


class Server(ThreadingHTTPServer):
    remote: Remote


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        remote = self.server.remote
        asked = self.headers["Range"]
        remote.requests.append((self.path, asked))
        remote.sent.append(0)
        if remote.location:
            location, remote.location = remote.location, None
            self.send_response(302)
            self.send_header("Location", location)
            self.end_headers()
            return
        if remote.statuses:
            self.send_error(remote.statuses.pop(0))
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and remote.ranges else 0
        body = remote.content[start:]
        self.send_response(206 if asked and remote.ranges else 200)
        if asked and remote.ranges:
            size = len(remote.content)
            self.send_header("Content-Range", remote.content_range or f"bytes {start}-{size - 1}/{size}")
        if remote.announces:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send_body(remote, body[: remote.breaks_after])

    def send_body(self, remote: Remote, body: bytes) -> None:
        index = len(remote.sent) - 1
        try:
            for position in range(0, len(body), PIECE_BYTES):
                piece = body[position : position + PIECE_BYTES]
                # Before it arrives: the client may be done, and the test look here, at once.
                remote.sent[index] += len(piece)
                self.wfile.write(piece)
                time.sleep(remote.pause_seconds)
        except (BrokenPipeError, ConnectionResetError):
            return
        if remote.stalls:
            remote.released.wait()

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloading, "PAUSE_SECONDS", 0.01)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.remote = Remote(f"http://127.0.0.1:{server.server_port}/weights.ckpt")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.remote.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def remote(server: Server) -> Remote:
    return server.remote


@pytest.fixture
def model(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """Returns a model on the local server, which is in the registry for the test."""
    model = PublishedModel(
        name="tiny",
        file_name="weights.ckpt",
        stems=("vocals",),
        parameters=1,
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        source="https://example.org/tiny",
        url=remote.url,
        licence="unstated",
        scores={"SDR (dB)": 1.25},
        note="made for the tests",
    )
    monkeypatch.setitem(PUBLISHED_MODELS, model.name, model)
    return model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder of the user's cache that the models lie in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bsmamba2" / "models"


def part_of(folder: Path) -> Path:
    return folder / "weights.ckpt.part"


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"weights.ckpt.lock"}


# The package's own import loads torch, for seconds; the module needs only its neighbours.
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
print("ready", flush=True)
sys.stdin.readline()
print(download(model, Path(sys.argv[3])))
"""


def start_child(model: PublishedModel, folder: Path) -> subprocess.Popen[str]:
    """Returns a process that waits for a line and then downloads."""
    package = str(Path(bsmamba2.__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, package, json.dumps(asdict(model)), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def release(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def wait_until_ready(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"


def count_parameters(network: BSMamba2) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_registry_holds_the_model_of_the_package_and_the_two_published_files() -> None:
    community, official = PUBLISHED_MODELS["msst-vocals"], PUBLISHED_MODELS["official-vocals"]
    assert list(PUBLISHED_MODELS) == [DEFAULT_MODEL, community.name, official.name]
    assert (community.size_bytes, official.size_bytes) == (192_610_602, 770_628_060)
    assert community.sha256 == "fceb733b41742abb8df563092f4cb5bbc9243c6c03e7f34dc44c14e60732c72f"
    assert official.sha256 == "b1fcf93fdd6f7bc79e5410b1330b3d0fd5a6ca6ea23a94730c684629c71cd5ca"
    release_page = "https://github.com/ZFTurbo/Music-Source-Separation-Training/releases"
    assert community.url == f"{release_page}/download/v1.0.19/bs_mamba2_vocals.ckpt"
    assert official.url is None
    assert list(community.scores.values()) == [8.82]
    assert list(official.scores.values()) == [11.03, 10.70]


def test_the_model_card_is_complete_and_tells_the_scores_of_the_registry() -> None:
    card = (store.PACKAGED / "mini-vocals.md").read_text(encoding="utf-8")
    assert "@" not in card
    scores = PUBLISHED_MODELS[DEFAULT_MODEL].scores
    assert scores
    assert all(f"**{score:.2f}** [" in card for score in scores.values())


def test_the_published_architecture_has_the_parameters_of_the_registry() -> None:
    with torch.device("meta"):
        network = BSMamba2(ModelConfig())
    for name in ("msst-vocals", "official-vocals"):
        assert PUBLISHED_MODELS[name].parameters == count_parameters(network)
        assert PUBLISHED_MODELS[name].stems == network.config.stems


def test_the_file_in_the_package_is_what_the_registry_says() -> None:
    model, path = PUBLISHED_MODELS[DEFAULT_MODEL], model_file(DEFAULT_MODEL)
    assert path.parent.parent == Path(bsmamba2.__file__).parent
    assert (path.name, sha256_of(path), path.stat().st_size) == (model.file_name, model.sha256, model.size_bytes)
    assert model.size_bytes <= 16 * 2**20
    network = load_model(DEFAULT_MODEL)
    assert (network.config.stems, count_parameters(network)) == (model.stems, model.parameters)


def test_the_model_of_the_package_is_small_enough_for_any_machine() -> None:
    config = load_model(DEFAULT_MODEL).config
    assert sum(network_multiply_adds(config, seconds=8.0)["everything"].values()) / 8.0 <= 20e9


def test_weights_in_half_precision_give_a_network_in_single_precision() -> None:
    stored, loaded = load_file(model_file(DEFAULT_MODEL)), load_model(DEFAULT_MODEL).state_dict()
    assert torch.float16 in {value.dtype for value in stored.values()}
    for name, value in stored.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], value.float())


def test_the_model_of_the_package_is_listed_first_and_good(cache: Path) -> None:
    model, path = PUBLISHED_MODELS[DEFAULT_MODEL], model_file(DEFAULT_MODEL)
    block = list_models().split("\n\n")[0]
    assert block.startswith(f"{DEFAULT_MODEL}\n")
    assert re.search(rf"^  here +{re.escape(str(path))}$", block, re.MULTILINE)
    assert re.search(rf"^  licence +{re.escape(model.licence)}$", block, re.MULTILINE)
    assert "non-commercial" in model.licence
    assert json.loads(list_models(json=True))[0] == json.loads(json.dumps(asdict(model))) | {"path": str(path)}
    assert verify_models().splitlines()[0] == f"{DEFAULT_MODEL}: ok"


def test_the_model_of_the_package_is_there_without_a_download(cache: Path) -> None:
    assert download_model(DEFAULT_MODEL).startswith(f"{DEFAULT_MODEL} is complete in {store.PACKAGED}")
    assert download(PUBLISHED_MODELS[DEFAULT_MODEL], cache) == model_file(DEFAULT_MODEL, cache)
    assert not cache.exists()


def refusals(path: Path, state: str) -> None:
    """Checks that whatever uses the model of the package says what its file is instead."""
    message = rf"^the model file {re.escape(str(path))} of this package is {state}; install bsmamba2 again$"
    uses: list[Callable[[], object]] = [
        lambda: model_file(DEFAULT_MODEL),
        lambda: load_model(DEFAULT_MODEL),
        verify_models,
        lambda: download(PUBLISHED_MODELS[DEFAULT_MODEL]),
        lambda: download_model(DEFAULT_MODEL),
    ]
    for use in uses:
        with pytest.raises(InputError, match=message):
            use()


@pytest.mark.parametrize(
    "damage",
    [lambda good: good[:-1], lambda good: good[:-1] + bytes([good[-1] ^ 1])],
    ids=["truncated", "another byte"],
)
def test_a_damaged_file_in_the_package_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    good = model_file(DEFAULT_MODEL).read_bytes()
    monkeypatch.setattr(store, "PACKAGED", tmp_path)
    path = tmp_path / PUBLISHED_MODELS[DEFAULT_MODEL].file_name
    path.write_bytes(damage(good))
    refusals(path, "damaged: it has .* instead of .*")
    assert verify()[DEFAULT_MODEL].startswith("damaged: it has ")
    path.write_bytes(good)
    assert model_file(DEFAULT_MODEL) == path


def test_a_package_without_its_file_is_to_be_installed_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PACKAGED", tmp_path)
    refusals(tmp_path / PUBLISHED_MODELS[DEFAULT_MODEL].file_name, "missing")
    assert re.search(r"^  here +no$", list_models().split("\n\n")[0], re.MULTILINE)


def test_a_model_is_downloaded_once_and_works_offline(
    tmp_path: Path, server: Server, remote: Remote, model: PublishedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model_file("tiny", tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "weights.ckpt"
    assert path.read_bytes() == CONTENT
    assert files_in(path.parent) == {"weights.ckpt"}
    assert capsys.readouterr() == ("", "")
    server.shutdown()
    server.server_close()
    assert model_file("tiny", path.parent) == path
    assert download(model, path.parent) == path
    assert remote.requests == [("/weights.ckpt", None)]


def test_the_default_folder_is_the_cache_of_the_user(cache: Path, model: PublishedModel) -> None:
    assert download(model) == model_file("tiny") == cache / "weights.ckpt"


def test_a_broken_transfer_goes_on_in_the_same_call(
    tmp_path: Path, remote: Remote, model: PublishedModel, caplog: pytest.LogCaptureFixture
) -> None:
    remote.breaks_after = 120_000
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert remote.asked_ranges == [None, "bytes=120000-", "bytes=240000-"]
    assert sum(remote.sent) == len(CONTENT)
    assert "broke off after 240000 of 300000 bytes: the server closed the connection; trying again" in caplog.text


def test_a_transfer_that_always_breaks_says_how_far_it_came(
    tmp_path: Path, remote: Remote, model: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "PAUSE_SECONDS", 0.05)
    started = time.monotonic()
    remote.breaks_after = 10_000
    with pytest.raises(InputError, match=r"after 40000 of 300000 bytes: .*; run the same command again and it goes on"):
        download(model, tmp_path)
    assert files_in(tmp_path) == {"weights.ckpt.part"}
    assert time.monotonic() - started > 0.05 * (downloading.REQUEST_ATTEMPTS - 1)
    remote.breaks_after = 10**9
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert remote.asked_ranges[-1] == "bytes=40000-"
    assert len(remote.requests) == downloading.REQUEST_ATTEMPTS + 1
    assert files_in(tmp_path) == {"weights.ckpt"}


def test_a_killed_process_is_gone_on_from(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    remote.pause_seconds = 0.02
    with start_child(model, tmp_path) as child:
        release(child)
        until = time.monotonic() + 20
        while not (part_of(tmp_path).exists() and part_of(tmp_path).stat().st_size > 50_000):
            assert time.monotonic() < until, "the process does not download"
            assert child.poll() is None
            time.sleep(0.005)
        child.kill()
    remote.pause_seconds = 0.0
    reached = part_of(tmp_path).stat().st_size
    assert 50_000 < reached < len(CONTENT)
    assert not (tmp_path / "weights.ckpt").exists()
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert remote.asked_ranges == [None, f"bytes={reached}-"]
    assert remote.sent[1] == len(CONTENT) - reached


def test_two_processes_fetch_it_once(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    remote.pause_seconds = 0.01
    with start_child(model, tmp_path) as first, start_child(model, tmp_path) as second:
        for child in (first, second):
            wait_until_ready(child)
        for child in (first, second):
            release(child)
        answers = [child.communicate(timeout=20) for child in (first, second)]
    assert [out for out, _ in answers] == [f"{tmp_path / 'weights.ckpt'}\n"] * 2
    assert (first.returncode, second.returncode) == (0, 0)
    assert sum("another process is fetching weights.ckpt" in log for _, log in answers) == 1
    assert remote.sent == [len(CONTENT)]
    assert (tmp_path / "weights.ckpt").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_all_again(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:100_000])
    remote.ranges = False
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert remote.asked_ranges == ["bytes=100000-"]
    assert remote.sent == [len(CONTENT)]


def test_a_server_that_cannot_go_on_is_asked_for_all(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:100_000])
    remote.statuses = [416]
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert remote.asked_ranges == ["bytes=100000-", None]


@pytest.mark.parametrize("content_range", ["bytes 50000-299999/300000", "nonsense"])
def test_a_server_that_sends_another_range_is_not_trusted(
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
    monkeypatch.setattr(downloading, "TIMEOUT_SECONDS", 0.1)
    remote.breaks_after, remote.stalls = 50_000, True
    started = time.monotonic()
    with pytest.raises(InputError, match=r"after 200000 of 300000 bytes: nothing came for 0\.1 s; run the same"):
        download(model, tmp_path)
    assert time.monotonic() - started < 5
    assert remote.asked_ranges == [None, "bytes=50000-", "bytes=100000-", "bytes=150000-"]
    assert download(model, tmp_path).read_bytes() == CONTENT


def test_a_server_that_does_not_answer_is_given_up(
    tmp_path: Path, model: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_model = replace(model, url=f"http://127.0.0.1:{silent.getsockname()[1]}/weights.ckpt")
        with pytest.raises(InputError, match=r"after 0 of 300000 bytes: nothing came for 0\.05 s"):
            download(silent_model, tmp_path)


def test_no_network_is_said(tmp_path: Path, model: PublishedModel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    remedy = r"check the connection, or fetch weights\.ckpt by hand from https://example\.org/tiny and give .* --model"
    with pytest.raises(InputError, match=rf"cannot be reached \(Connection refused\); {remedy}"):
        download(replace(model, url=f"http://127.0.0.1:{port}/weights.ckpt"), tmp_path)


def test_a_missing_file_is_said_at_once(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
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
def test_a_file_of_another_size_is_not_fetched(
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


def test_redirections_keep_to_the_web(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
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
        download(replace(model, url=local.as_uri()), tmp_path)


def test_the_proxy_of_the_environment_is_used(
    tmp_path: Path, remote: Remote, model: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", remote.url.removesuffix("/weights.ckpt"))
    elsewhere = replace(model, url="http://models.invalid/weights.ckpt")
    assert download(elsewhere, tmp_path).read_bytes() == CONTENT
    assert remote.requests == [("http://models.invalid/weights.ckpt", None)]


@pytest.mark.parametrize("damaged", [CONTENT[:-1], CONTENT[:-1] + b"?", b""])
def test_a_damaged_file_is_an_error_until_it_is_downloaded_anew(
    cache: Path, remote: Remote, model: PublishedModel, damaged: bytes
) -> None:
    path = model_file("tiny")
    path.write_bytes(damaged)
    remedy = re.escape("run `bsmamba2 models download tiny`, which fetches it anew")
    with pytest.raises(InputError, match=rf"the cached model file {re.escape(str(path))} is damaged: .*; {remedy}"):
        model_file("tiny")
    same_size = len(damaged) == len(CONTENT)
    what = f"the sha256 {sha256_of(path)} instead of" if same_size else f"{len(damaged)} bytes instead of 300000"
    assert verify()["tiny"].startswith(f"damaged: it has {what}")
    with pytest.raises(InputError, match=rf"{re.escape(str(path))} is damaged: .*; {remedy}"):
        verify_models()
    assert len(remote.requests) == 1
    download_model("tiny")
    assert model_file("tiny").read_bytes() == CONTENT
    assert len(remote.requests) == 2


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, remote: Remote, model: PublishedModel) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"folder .*file/models cannot be made \(Not a directory\).* by hand from"):
        model_file("tiny", tmp_path / "file" / "models")
    assert verify(tmp_path / "file" / "models")["tiny"] == "not downloaded"
    assert remote.requests == []


def test_a_target_that_cannot_be_replaced_is_an_error(tmp_path: Path, model: PublishedModel) -> None:
    (tmp_path / "weights.ckpt" / "full").mkdir(parents=True)
    with pytest.raises(InputError, match=r"weights\.ckpt cannot be written \(Is a directory\); free some space or"):
        download(model, tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk to be had that is always full")
def test_a_full_disk_is_an_error(tmp_path: Path, model: PublishedModel) -> None:
    part_of(tmp_path).symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"weights\.ckpt cannot be written \(No space left on device\); free some"):
        download(model, tmp_path)


def test_unknown_names_are_errors_that_list_the_names() -> None:
    for function in (model_file, download_model):
        with pytest.raises(InputError, match=r"model 'best'; choose one of mini-vocals, msst-vocals, official-vocals$"):
            function("best")


def test_a_model_without_an_address_says_why_and_what_to_do(cache: Path) -> None:
    expected = r"official-vocals cannot be downloaded: .* empty file since July 2026; if you have sota_model\.ckpt, run"
    remedy = r"`bsmamba2 convert sota_model\.ckpt vocals\.safetensors` and give --model vocals\.safetensors"
    for function in (model_file, download_model):
        with pytest.raises(InputError, match=f"{expected} {remedy}"):
            function("official-vocals")
    assert not cache.exists()


def test_a_model_is_loaded_by_its_name_and_recognised_as_a_file(
    tmp_path: Path, remote: Remote, model: PublishedModel, cache: Path, tiny_network: BSMamba2,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    torch.save(tiny_network.state_dict(), tmp_path / "mine.ckpt")
    remote.content = (tmp_path / "mine.ckpt").read_bytes()
    sha256 = hashlib.sha256(remote.content).hexdigest()
    published = replace(model, size_bytes=len(remote.content), sha256=sha256)
    monkeypatch.setitem(PUBLISHED_MODELS, "tiny", published)
    caplog.set_level("INFO", "bsmamba2")
    for _ in range(2):
        network = load_model("tiny", hop_length=64, segment_seconds=0.1)
        assert network.config == tiny_network.config
        assert torch.equal(network.final_norm.gamma, tiny_network.final_norm.gamma)
    assert remote.asked_ranges == [None]
    assert files_in(cache) == {"weights.ckpt"}
    assert caplog.messages == ["model tiny, licence of its weights: unstated"] * 2
    load_model(tmp_path / "mine.ckpt", hop_length=64)
    assert f"{tmp_path / 'mine.ckpt'}, which is tiny" in caplog.text


def test_published_bytes_are_recognised_under_any_name(tmp_path: Path, model: PublishedModel) -> None:
    path = tmp_path / "my favourite.bin"
    path.write_bytes(CONTENT)
    assert recognised(path) == model
    path.write_bytes(CONTENT[::-1])
    assert recognised(path) is None
    with pytest.raises(InputError, match="none cannot be read"):
        recognised(tmp_path / "none")


def test_only_files_of_a_published_size_are_hashed(tmp_path: Path, model: PublishedModel) -> None:
    # A folder has a size but cannot be hashed.
    assert tmp_path.stat().st_size != model.size_bytes
    assert recognised(tmp_path) is None
    with pytest.raises(InputError, match="cannot be read"):
        sha256_of(tmp_path)


def test_the_list_says_all_that_is_known(cache: Path, model: PublishedModel) -> None:
    listed = {entry["name"]: entry for entry in json.loads(list_models(json=True))}
    assert list(listed) == list(PUBLISHED_MODELS)
    assert listed["tiny"]["path"] is None
    assert listed["msst-vocals"]["sha256"] == PUBLISHED_MODELS["msst-vocals"].sha256
    assert "here                                 no" in list_models()
    path = download(model)
    listed = {entry["name"]: entry for entry in json.loads(list_models(json=True))}
    assert listed["tiny"] == json.loads(json.dumps(asdict(model))) | {"path": str(path)}
    block = next(block for block in list_models().split("\n\n") if block.startswith("tiny\n"))
    for value in ("made for the tests", "vocals", "300,000 bytes", model.sha256, model.source, "unstated", str(path)):
        assert value in block
    assert re.search(r"SDR \(dB\) +1\.25$", block, re.MULTILINE)


def test_commands_answer_people_and_programs(cache: Path, model: PublishedModel) -> None:
    assert json.loads(verify_models(json=True))["tiny"] == "not downloaded"
    path = cache / "weights.ckpt"
    assert download_model("tiny") == f"tiny is complete in {path} (300,000 bytes, sha256 {model.sha256})"
    assert json.loads(download_model("tiny", json=True)) == {
        "name": "tiny", "path": str(path), "size_bytes": 300_000, "sha256": model.sha256,
    }  # fmt: skip
    assert json.loads(verify_models(json=True)) == verify()
    assert verify_models().splitlines() == [
        "mini-vocals: ok",
        "msst-vocals: not downloaded",
        "official-vocals: not downloaded",
        "tiny: ok",
    ]
