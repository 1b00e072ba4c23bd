import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bsmamba2 import load_model
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2
from bsmamba2.system.files import sha256_of
from bsmamba2.weights import store
from bsmamba2.weights.command import download_models, list_models, verify_models
from bsmamba2.weights.registry import DEFAULT_MODEL, PUBLISHED_MODELS, PublishedModel
from bsmamba2.weights.store import download, model_file, recognised, verify
from tests.weights.model_server import CONTENT, Remote, Server, files_in, part_of


def test_the_model_of_the_package_is_there_without_a_download(cache: Path) -> None:
    assert download_models([DEFAULT_MODEL]).startswith(f"{DEFAULT_MODEL} is complete in {store.PACKAGED}")
    assert download(PUBLISHED_MODELS[DEFAULT_MODEL], cache) == model_file(DEFAULT_MODEL, cache)
    assert not cache.exists()


def refusals(path: Path, state: str) -> None:
    """Checks that whatever uses the model of the package reports the state of its file."""
    message = rf"^the model file {re.escape(str(path))} of this package is {state}; install bsmamba2 again$"
    uses: list[Callable[[], object]] = [
        lambda: model_file(DEFAULT_MODEL),
        lambda: load_model(DEFAULT_MODEL),
        verify_models,
        lambda: download(PUBLISHED_MODELS[DEFAULT_MODEL]),
        lambda: download_models([DEFAULT_MODEL]),
    ]
    for use in uses:
        with pytest.raises(InputError, match=message):
            use()


@pytest.mark.parametrize(
    "damage",
    [lambda good: good[:-1], lambda good: good[:-1] + bytes([good[-1] ^ 1])],
    ids=["truncated", "changed byte"],
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
    assert re.search(r"^  here +no$", list_models([DEFAULT_MODEL]), re.MULTILINE)


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


@pytest.mark.parametrize("damaged", [CONTENT[:-1], CONTENT[:-1] + b"?", b""])
def test_a_damaged_file_is_an_error_until_it_is_downloaded_again(
    cache: Path, remote: Remote, model: PublishedModel, damaged: bytes
) -> None:
    path = model_file("tiny")
    path.write_bytes(damaged)
    remedy = re.escape("run `bsmamba2 models download tiny` to download it again")
    with pytest.raises(InputError, match=rf"the cached model file {re.escape(str(path))} is damaged: .*; {remedy}"):
        model_file("tiny")
    same_size = len(damaged) == len(CONTENT)
    what = f"the sha256 {sha256_of(path)} instead of" if same_size else f"{len(damaged)} bytes instead of 300000"
    assert verify()["tiny"].startswith(f"damaged: it has {what}")
    with pytest.raises(InputError, match=rf"{re.escape(str(path))} is damaged: .*; {remedy}"):
        verify_models()
    assert len(remote.requests) == 1
    download_models(["tiny"])
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


def test_a_model_without_an_address_reports_why_and_what_to_do(cache: Path) -> None:
    expected = r"official-vocals cannot be downloaded: .* empty file since July 2026; if you have sota_model\.ckpt, run"
    remedy = r"`bsmamba2 convert sota_model\.ckpt vocals\.safetensors` and give --model vocals\.safetensors"
    for function in (model_file, lambda name: download_models([name])):
        with pytest.raises(InputError, match=f"{expected} {remedy}"):
            function("official-vocals")
    assert not cache.exists()


def test_a_model_is_loaded_by_its_name_and_recognised_as_a_file(
    tmp_path: Path, remote: Remote, model: PublishedModel, cache: Path, tiny_network: BSMamba2,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    torch.save(tiny_network.state_dict(), tmp_path / "mine.ckpt")
    remote.content = (tmp_path / "mine.ckpt").read_bytes()
    published = replace(model, size_bytes=len(remote.content), sha256=sha256_of(tmp_path / "mine.ckpt"))
    monkeypatch.setitem(PUBLISHED_MODELS, "tiny", published)
    caplog.set_level("INFO", "bsmamba2")
    for _ in range(2):
        network = load_model("tiny")
        assert network.config == tiny_network.config
        assert all(torch.equal(*pair) for pair in zip(network.parameters(), tiny_network.parameters(), strict=True))
    assert remote.asked_ranges == [None]
    assert files_in(cache) == {"weights.ckpt"}
    assert caplog.messages == ["model tiny, licence of its weights: none stated, and nobody asked"] * 2
    assert load_model(tmp_path / "mine.ckpt", hop_length=64).config == tiny_network.config
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
