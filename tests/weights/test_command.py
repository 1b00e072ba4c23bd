import json
import re
from dataclasses import asdict
from pathlib import Path

from bsmamba2.weights.command import download_model, list_models, verify_models
from bsmamba2.weights.registry import DEFAULT_MODEL, PUBLISHED_MODELS, PublishedModel
from bsmamba2.weights.store import download, model_file, verify


def test_the_model_of_the_package_is_listed_first_and_good(cache: Path) -> None:
    model, path = PUBLISHED_MODELS[DEFAULT_MODEL], model_file(DEFAULT_MODEL)
    block = list_models().split("\n\n")[0]
    assert block.startswith(f"{DEFAULT_MODEL}\n")
    assert re.search(rf"^  here +{re.escape(str(path))}$", block, re.MULTILINE)
    assert re.search(rf"^  licence +{re.escape(model.licence)}$", block, re.MULTILINE)
    assert "non-commercial" in model.licence
    assert json.loads(list_models(json=True))[0] == json.loads(json.dumps(asdict(model))) | {"path": str(path)}
    assert verify_models().splitlines()[0] == f"{DEFAULT_MODEL}: ok"


def test_the_list_has_all_that_is_known(cache: Path, model: PublishedModel) -> None:
    listed = {entry["name"]: entry for entry in json.loads(list_models(json=True))}
    assert list(listed) == list(PUBLISHED_MODELS)
    assert listed["tiny"]["path"] is None
    assert listed["msst-vocals"]["sha256"] == PUBLISHED_MODELS["msst-vocals"].sha256
    assert re.search(r"^  here +no$", list_models(), re.MULTILINE)
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
        "small-vocals: ok",
        "msst-vocals: not downloaded",
        "official-vocals: not downloaded",
        "tiny: ok",
    ]
