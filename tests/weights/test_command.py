import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bsmamba2.errors import InputError
from bsmamba2.weights.command import download_models, list_models, verify_models
from bsmamba2.weights.registry import DEFAULT_MODEL, PRESETS, PUBLISHED_MODELS, Preset, PublishedModel
from bsmamba2.weights.store import download, model_file, verify
from tests.weights.model_server import Remote


def test_the_model_of_the_package_is_listed_first_and_good(cache: Path) -> None:
    model, path = PUBLISHED_MODELS[DEFAULT_MODEL], model_file(DEFAULT_MODEL)
    assert list_models().splitlines()[1].startswith(f"{DEFAULT_MODEL} ")
    entry = list_models([DEFAULT_MODEL])
    assert entry.startswith(f"{DEFAULT_MODEL}\n")
    assert str(path) in entry
    assert re.search(rf"^  licence +{re.escape(model.licence)}$", entry, re.MULTILINE)
    assert "non-commercial" in model.licence
    assert json.loads(list_models(json=True))[0] == json.loads(json.dumps(asdict(model))) | {"path": str(path)}
    assert verify_models().splitlines()[0] == f"{DEFAULT_MODEL}: ok"


def test_the_table_fits_a_terminal(cache: Path, model: PublishedModel) -> None:
    def row() -> list[str]:
        (line,) = [line for line in list_models().splitlines() if line.startswith("tiny ")]
        return re.split(r"\s{2,}", line)

    assert max(map(len, list_models().splitlines())) <= 80
    name, stems, size, score, licence, here = row()
    assert (name, stems, size, licence, here) == ("tiny", "vocals", "0 MB", "none stated", "no")
    value, letter = score.split()
    assert value == "1.25"
    assert f"\n{letter}: SDR, noise\n" in list_models()
    download(model)
    assert row()[-1] == "yes"
    assert re.search(r"^bs-53stem-mvsep +53 stems +1\.37 GB +8\.25 \w +MIT +no$", list_models(), re.MULTILINE)


def test_an_entry_has_all_that_is_known(cache: Path, model: PublishedModel) -> None:
    listed = {entry["name"]: entry for entry in json.loads(list_models(json=True))}
    assert list(listed) == list(PUBLISHED_MODELS)
    assert listed["tiny"]["path"] is None
    assert listed["msst-vocals"]["sha256"] == PUBLISHED_MODELS["msst-vocals"].sha256
    assert re.search(r"^  here +no$", list_models(["tiny"]), re.MULTILINE)
    path = download(model)
    (entry,) = json.loads(list_models(["tiny"], json=True))
    assert entry == json.loads(json.dumps(asdict(model))) | {"path": str(path)}
    text = list_models([DEFAULT_MODEL, "tiny"]).split("\n\n")[1]
    for value in (
        "made for the tests",
        "300,000 bytes",
        model.sha256,
        model.source,
        *model.urls,
        model.licence,
        str(path),
    ):
        assert value in text
    assert re.search(r"^  SDR, vocals +1\.25, noise$", text, re.MULTILINE)
    lines = list_models(list(PUBLISHED_MODELS)).splitlines()
    assert max(len(line) for line in lines if not re.search(r"://|/", line)) <= 91
    assert re.search(
        r"^  stems +dry \(published as noreverb\)\n  rest of the song +reverb$", "\n".join(lines), re.MULTILINE
    )


@pytest.mark.parametrize(
    ("stems", "found", "left_out"),
    [
        (["guitar"], {"bs-53stem-mvsep"}, {"bs-4stem-zfturbo", "mel-vocals-kim"}),
        (
            ["instrumental"],
            {"mel-vocals-kim", "mel-instrumental-becruily", "bs-4stem-zfturbo"},
            {"mel-dereverb-anvuew"},
        ),
        (["vocals", "drums"], {"bs-4stem-zfturbo"}, {"mel-vocals-kim", "bs-53stem-mvsep"}),
        (["reverb"], {"mel-dereverb-anvuew"}, {"mel-denoise-aufr33"}),
    ],
)
def test_models_of_some_stems(cache: Path, stems: list[str], found: set[str], left_out: set[str]) -> None:
    names = {entry["name"] for entry in json.loads(list_models(stems=stems, json=True))}
    assert found <= names
    assert not left_out & names
    listed = {line.partition(" ")[0] for line in list_models(stems=stems).splitlines()}
    assert listed & set(PUBLISHED_MODELS) == names


def test_presets_are_listed_with_what_they_download(
    cache: Path, model: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def downloads(**options: Any) -> dict[str, str]:
        _, _, table = list_models(**options).partition("\npreset ")
        return {line.split()[0]: re.split(r"\s{2,}", line)[-1] for line in table.splitlines()[1:-2]}

    assert downloads() == {
        "vocals": "913 MB", "instrumental": "913 MB", "karaoke": "913 MB", "4stems": "527 MB", "fast": "nothing"
    }  # fmt: skip
    monkeypatch.setitem(PRESETS, "both", Preset("both", "vocals", ("mel-vocals-kim", "bs-vocals-viperx", "tiny"), {}))
    assert downloads()["both"] == "1.55 GB"
    download(model)
    monkeypatch.setitem(PRESETS, "both", Preset("both", "vocals", ("tiny", DEFAULT_MODEL), {}))
    assert downloads()["both"] == "nothing"
    assert downloads(stems=["drums"]) == {"4stems": "527 MB"}
    assert "preset" not in list_models(stems=["reverb"])


def test_stems_that_no_model_gives(cache: Path) -> None:
    with pytest.raises(InputError, match=r"no model gives drums and reverb; the stems are vocals, instrumental, drums"):
        list_models(stems=["drums", "reverb"])


def test_no_name_is_downloaded_if_one_is_misspelt(cache: Path, model: PublishedModel, remote: Remote) -> None:
    with pytest.raises(InputError, match="there is no published model 'tinny'; did you mean tiny"):
        download_models(["tiny", "tinny"])
    assert remote.requests == []


def test_commands_answer_people_and_programs(cache: Path, model: PublishedModel) -> None:
    assert json.loads(verify_models(json=True))["tiny"] == "not downloaded"
    path = cache / "weights.ckpt"
    first, second = download_models([DEFAULT_MODEL, "tiny"]).splitlines()
    assert first.startswith(f"{DEFAULT_MODEL} is complete in ")
    assert second == f"tiny is complete in {path} (300,000 bytes, sha256 {model.sha256})"
    assert json.loads(download_models(["tiny"], json=True)) == [
        {"name": "tiny", "path": str(path), "size_bytes": 300_000, "sha256": model.sha256}
    ]
    assert json.loads(verify_models(json=True)) == verify()
    states = dict.fromkeys(PUBLISHED_MODELS, "not downloaded") | {DEFAULT_MODEL: "ok", "tiny": "ok"}
    assert verify_models().splitlines() == [f"{name}: {state}" for name, state in states.items()]
