"""Models that are downloaded from a server on this machine."""

from pathlib import Path

import pytest

from bsmamba2.errors import InputError
from bsmamba2.server.downloads import Downloads
from bsmamba2.server.messages import SongSettings
from bsmamba2.server.offers import is_large, model_offers
from bsmamba2.weights.registry import PublishedModel
from tests.server.running import wait_for
from tests.weights.conftest import cache, model, remote, server  # noqa: F401
from tests.weights.model_server import CONTENT, Remote


def test_a_model_is_downloaded_and_offered(
    model: PublishedModel,  # noqa: F811
    cache: Path,  # noqa: F811
) -> None:
    downloads = Downloads()
    assert downloads.state("tiny") == {"name": "tiny", "here": False, "running": False, "share": 0.0, "problem": ""}
    assert not next(offer for offer in model_offers([]) if offer["name"] == "tiny")["here"]
    downloads.begin("tiny")
    wait_for(lambda: not downloads.state("tiny")["running"])
    assert downloads.state("tiny") == {"name": "tiny", "here": True, "running": False, "share": 1.0, "problem": ""}
    offer = next(offer for offer in model_offers([]) if offer["name"] == "tiny")
    assert (offer["here"], offer["stems"], offer["size_bytes"]) == (True, ("vocals", "instrumental"), len(CONTENT))
    assert offer["score"] == "vocals 1.25 dB SDR, noise"
    assert offer["licence"] == "none stated, and nobody asked"


def test_a_download_that_fails_is_reported_and_can_be_tried_again(
    model: PublishedModel,  # noqa: F811
    remote: Remote,  # noqa: F811
    cache: Path,  # noqa: F811
) -> None:
    downloads = Downloads()
    remote.missing.add("/weights.ckpt")
    downloads.begin("tiny")
    wait_for(lambda: not downloads.state("tiny")["running"])
    assert "the server answered 404 Not Found" in downloads.state("tiny")["problem"]
    remote.missing.clear()
    downloads.begin("tiny")
    wait_for(lambda: not downloads.state("tiny")["running"])
    assert downloads.state("tiny")["problem"] == ""
    assert downloads.state("tiny")["here"]


def test_only_published_models_are_downloaded() -> None:
    with pytest.raises(InputError, match="there is no published model '/etc/passwd'"):
        Downloads().begin("/etc/passwd")


def test_settings_of_a_request_replace_those_of_the_command_line() -> None:
    settings = SongSettings(("small-vocals",)).replaced(
        {"model": "a,b", "stems": "vocals, other", "overlap": "0.5", "downmix": "true", "preview": "false"}
    )
    assert settings.models == ("a", "b")
    assert settings.stem_settings.stems == ("vocals", "other")
    assert (settings.settings.overlap, settings.stem_settings.downmix, settings.preview) == (0.5, True, False)
    assert settings.stem_settings.format == "wav"


def test_large_models_are_those_of_100_megabytes(tmp_path: Path) -> None:
    assert not is_large("small-vocals")
    assert is_large("mel-vocals-kim")
    assert not is_large(str(tmp_path / "missing.ckpt"))
    with (tmp_path / "large.ckpt").open("wb") as file:
        file.truncate(100_000_000)
    assert is_large(str(tmp_path / "large.ckpt"))
