"""A published model on a local web server, and the user's cache in a temporary folder."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bsmamba2.weights import download as downloading
from bsmamba2.weights.registry import PUBLISHED_MODELS, PublishedModel, PublishedScore
from tests.weights.model_server import CONTENT, Remote, Server, running_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloading, "PAUSE_SECONDS", 0.01)
    with running_server("weights.ckpt") as server:
        yield server


@pytest.fixture
def remote(server: Server) -> Remote:
    return server.remote


@pytest.fixture
def model(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """Returns a model on the local server; during the test it is in the registry."""
    model = PublishedModel(
        name="tiny",
        file_name="weights.ckpt",
        stems=("vocals",),
        parameters=1,
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        source="https://example.org/tiny",
        urls=(remote.url,),
        network="tiny",
        credit="the tests",
        licence="none stated, and nobody asked",
        hop_length=64,
        segment_seconds=0.1,
        scores=(PublishedScore("vocals", "SDR", "noise", 1.25),),
        note="made for the tests",
    )
    monkeypatch.setitem(PUBLISHED_MODELS, model.name, model)
    return model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder of the models in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bsmamba2" / "models"
