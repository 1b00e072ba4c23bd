"""What a file of weights states at its beginning, read before its weights are."""

import json
from pathlib import Path
from typing import Any

import pytest

from bsmamba2.model import BSMamba2
from bsmamba2.weights.checkpoint import save_model
from bsmamba2.weights.headers import ARCHITECTURE, known_configs
from bsmamba2.weights.registry import DEFAULT_MODEL, PUBLISHED_MODELS
from tests.conftest import TINY


def with_header(path: Path, header: bytes) -> str:
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return str(path)


def stating(architecture: str) -> bytes:
    return json.dumps({"__metadata__": {ARCHITECTURE: architecture}}).encode()


def test_the_stems_of_published_models_and_the_architecture_of_saved_networks_are_known(tmp_path: Path) -> None:
    save_model(BSMamba2(TINY), tmp_path / "model.safetensors")
    names = [*PUBLISHED_MODELS, str(tmp_path / "model.safetensors")]
    *published, saved = known_configs(names) or []
    assert [config.stems for config in published] == [
        tuple(model.architecture.get("stems", TINY.stems)) for model in PUBLISHED_MODELS.values()
    ]
    assert saved == TINY


DEEP: Any = "[" * 100_000


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        DEEP.encode(),
        b'{"__metadata__": []}',
        b"{}",
        stating("nothing"),
        stating(DEEP),
        stating("[1]"),
        stating('{"dim": "8"}'),
        stating('{"dim": 1e999}'),
        stating('{"width": 8}'),
    ],
    ids=range(12),
)
def test_headers_that_state_no_architecture_are_left_to_the_loader(tmp_path: Path, header: bytes) -> None:
    assert known_configs([with_header(tmp_path / "model.safetensors", header)]) is None
    assert known_configs([DEFAULT_MODEL, str(tmp_path / "missing.safetensors")]) is None
    assert known_configs([str(tmp_path / "model.ckpt")]) is None
