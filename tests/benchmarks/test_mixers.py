import re
from dataclasses import replace

import pytest
import torch

from benchmarks import mixers
from benchmarks.networks import PROJECT
from benchmarks.parts import Job
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.model.mixers import MIXERS

TINY = ["--dim", "8", "--depth", "1", "--seconds", "0.3", "--training_seconds", "0.1", "--steps", "2"]


def test_every_mixer_is_in_the_table() -> None:
    assert {mixer for pair in mixers.PAIRS.values() for mixer in pair} == MIXERS.keys()


def test_the_document_lists_parameters_and_multiply_adds_of_every_mixer() -> None:
    rows = {}
    for name in mixers.PAIRS:
        counts = mixers.counts(mixers.network_config(name), 8.0)
        parameters, products, elementwise = (f"{value:.1f}" for value in counts.values())
        rows[name] = (parameters, products, elementwise)
    text = (PROJECT / "docs" / "mixers.md").read_text(encoding="utf-8")
    found = re.findall(r"\| `([\w+]+)` \| [^|]+ \| ([\d.]+) \| ([\d.]+) in products, ([\d.]+) elementwise \|", text)
    assert {name: tuple(values) for name, *values in found} == rows


def test_a_line_in_markdown_is_printed_for_every_mixer(capsys: pytest.CaptureFixture[str]) -> None:
    options = [*TINY, "--networks", "mamba1", "primek-net", "--repeats", "1", "--threads", "1", "--device", "cpu"]
    assert mixers.main(options) == 0
    printed = capsys.readouterr()
    titles, line, *rows = (text.strip("| ").split(" | ") for text in printed.out.splitlines())
    assert titles[:3] == ["network", "million parameters", "billion products per second"]
    assert set(line) == {"---"}
    assert [row[0] for row in rows] == ["mamba1", "primek-net"]
    for row in rows:
        assert len(titles) == len(line) == len(row)
        assert all(float(value) > 0 for value in row[1:] if value not in ("-", "0.00"))
    assert printed.err == ""


@pytest.mark.parametrize("name", mixers.NETWORK_NAMES)
def test_training_on_one_excerpt_lowers_the_loss(name: str) -> None:
    config, steps = mixers.network_config(name, dim=16, depth=1), 12
    if name in mixers.SPEECH_NETWORKS:
        config, steps = replace(config, dense_channel=16, num_tsblock=1), 24
    row = mixers.measure_training(Job(config, "cpu", torch.get_num_threads(), 1, compile=False, seconds=0.2), steps)
    assert row["last_loss"] < 0.95 * row["first_loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"networks": ["mamba3"]}, "'mamba3' does not exist; choose mamba2, roformer"), ({"steps": 0}, "values above 0")],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mixers.Options(**options)  # type: ignore[arg-type]


def test_networks_differ_in_the_mixers_alone() -> None:
    assert mixers.network_config("mamba2") == ModelConfig()
    assert mixers.network_config("mamba2+roformer", dim=64).band_mixer == "roformer"
