"""Catalogues whose songs and stems are at URLs: of a local web server, and of fsspec's own file systems."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from bsmamba2.model import BSMamba2
from bsmamba2.weights.checkpoint import save_model
from tests.weights.model_server import Remote, running_server

STEMS = ("instrumental.wav", "vocals.wav")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, tiny_network: BSMamba2, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a folder with a model and a song the current one, and the memory of fsspec empty."""
    monkeypatch.chdir(tmp_path)
    save_model(tiny_network, Path("model.safetensors"))
    write_audio(Path("local.wav"), 0.1 * torch.ones(2, 4410), 44100)
    fsspec.filesystem("memory").store.clear()
    return tmp_path


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_server("song.wav") as server:
        server.remote.content = Path("local.wav").read_bytes()
        yield server.remote


def separate(rows: list[str], *more: str) -> int:
    Path("songs.csv").write_text("".join(f"{row}\n" for row in ("path,name", *rows)))
    return main(["separate", "--manifest", "songs.csv", "--model", "model.safetensors", "--device", "cpu", *more])


def results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("stems.results/songs.0.jsonl").read_text().splitlines()]


def files(folder: str = "stems") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def in_memory() -> dict[str, bytes]:
    memory = fsspec.filesystem("memory")
    return {path: memory.cat(path) for path in memory.find("/")}


def test_songs_at_urls_are_separated_like_local_ones_and_removed(remote: Remote, folder: Path) -> None:
    fsspec.filesystem("memory").put_file("local.wav", "/in/m.wav")
    rows = ["local.wav,", f"{remote.url}?key=1,", "memory://in/m.wav,", f"file://{folder}/local.wav,x/f"]
    assert separate(rows) == 0
    assert files() == sorted(f"{name}/{stem}" for name in ("local", "song", "m", "x/f") for stem in STEMS)
    assert len({Path("stems", name, "vocals.wav").read_bytes() for name in ("local", "song", "m", "x/f")}) == 1
    assert [result["path"] for result in results()] == [row.partition(",")[0] for row in rows]
    assert files("stems.results") == ["songs.0.begun", "songs.0.jsonl"]
    asked = len(remote.requests)
    assert separate(rows) == 0
    assert len(remote.requests) == asked


def test_one_fetched_song_is_here_at_a_time(remote: Remote) -> None:
    """The server looks at the folder when it is asked for a song."""
    fetched, seen = Path("stems.results/songs.0.fetched"), []

    class Watching(set[str]):
        def __contains__(self, path: object) -> bool:
            seen.append(files(str(fetched)))
            return super().__contains__(path)

    remote.missing = Watching()
    # As if an earlier run was killed.
    fetched.mkdir(parents=True)
    (fetched / "song.mp3").write_bytes(b"half of it")
    base = remote.url.removesuffix("song.wav")
    assert separate([f"{base}a.wav,", f"{base}b.flac,", f"{base}c,"]) == 0
    assert seen == [["song.wav"], ["song.flac"], ["song"]]
    assert not fetched.exists()


def test_songs_that_cannot_be_fetched_fail_alone(remote: Remote, capsys: pytest.CaptureFixture[str]) -> None:
    base = remote.url.removesuffix("song.wav")
    remote.missing.add("/gone.wav")
    remote.wrong["/page.wav"] = b"<html>"
    rows = [f"{base}gone.wav,", "s3://bucket/a.wav,", f"{base}page.wav,", "memory://none.wav,", "local.wav,"]
    assert separate(rows) == 1
    remarks = [result["remark"] for result in results()]
    assert remarks[:2] == [
        f"{base}gone.wav does not exist; check the address",
        "s3://bucket/a.wav needs a package that is not installed; run pip install s3fs",
    ]
    assert remarks[2].startswith(f"{base}page.wav is ")
    assert remarks[3:] == ["memory://none.wav does not exist; check the address", ""]
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert "song.wav" not in errors
    assert files() == [f"local/{stem}" for stem in STEMS]
    remote.missing.clear()
    remote.wrong.clear()
    remote.breaks_after = 10_000
    assert separate(rows, "--retry-failed") == 1
    assert results()[5]["remark"].startswith(f"{base}gone.wav cannot be fetched (ClientPayloadError")
    remote.breaks_after = 10**9
    assert separate(rows[::2], "--retry-failed") == 0
    assert {result["name"]: result["status"] for result in results()[-2:]} == {"gone": "done", "page": "done"}
    assert files("stems.results") == ["songs.0.begun", "songs.0.jsonl"]


def test_stems_are_uploaded_whole_and_removed(folder: Path) -> None:
    rows = ["local.wav,x/a", "local.wav,b"]
    for url in ("memory://out/stems/", f"file://{folder}/bucket"):
        assert separate(rows, "--upload", url, "--overwrite") == 0
    assert files() == []
    assert list(Path("stems").iterdir()) == []
    expected = sorted(f"{name}/{stem}" for name in ("x/a", "b") for stem in STEMS)
    assert files("bucket") == expected
    uploaded = in_memory()
    assert sorted(uploaded) == [f"/out/stems/{name}" for name in expected]
    for result in results():
        for file in result["files"]:
            content = Path("bucket", file["path"]).read_bytes()
            assert uploaded[f"/out/stems/{file['path']}"] == content
            assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_uploads_are_resumed_by_their_sizes() -> None:
    rows = ["local.wav,a", "local.wav,b"]
    upload = ("--upload", "memory://out")
    assert separate(rows, *upload) == 0
    first = in_memory()
    fsspec.filesystem("memory").pipe_file("/out/b/vocals.wav", b"torn")
    assert separate(rows, *upload) == 0
    assert in_memory() == first
    assert [result["name"] for result in results()] == ["a", "b", "b"]


def test_uploads_replace_nothing_of_something_else() -> None:
    fsspec.filesystem("memory").pipe_file("/out/a/vocals.wav", b"mine")
    rows = ["local.wav,a", "local.wav,b"]
    assert separate(rows, "--upload", "memory://out") == 1
    assert in_memory()["/out/a/vocals.wav"] == b"mine"
    one, two = results()
    advice = "memory://out/a/vocals.wav already exists; give another --upload, or --overwrite"
    assert (one["status"], one["remark"], two["status"]) == ("failed", advice, "done")
    assert separate(rows, "--upload", "memory://out", "--overwrite") == 0
    assert in_memory()["/out/a/vocals.wav"] != b"mine"


def test_an_upload_that_fails_is_the_failure_of_its_row() -> None:
    assert separate(["local.wav,a"], "--upload", "s3://bucket") == 1
    assert results()[0]["remark"].startswith("s3://bucket/a/vocals.wav needs a package that is not installed")
    assert results()[0]["files"] == []
    assert files() == []


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--upload", "folder"], "nothing can be uploaded to folder; give a folder such as s3://bucket/stems"),
        (["--upload", "https://host/a"], "nothing can be uploaded to https://host/a; give a folder such as"),
        (["--upload", "memory://a", "--skip-existing"], "--skip-existing looks for stems in the output, not where"),
    ],
)
def test_uploads_that_cannot_be_used(more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert separate(["local.wav,a"], *more) in (1, 2)
    assert sentence in capsys.readouterr().err
    assert not Path("stems").exists()
