"""Folders of evaluations, made from a real song."""

import base64
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Track
from bsmamba2.evaluation.results import (
    ESTIMATE,
    EXCERPTS_FOLDER,
    MIXTURE_ROW,
    SILENCE_ROW,
    Results,
    TrackResult,
    TrainedOn,
    chunk_row,
)
from bsmamba2.evaluation.scores import StemScores
from bsmamba2.metrics import csdr, usdr, windowed_sdr
from bsmamba2.stem_names import MIXTURE

# Realistic names, and one that would run as a script if it were not escaped.
NAMES = ("Änne - Ça & là", "<script>alert(\"x\")< - $5 'q'", "Sóley - 夜 " + "long " * 30, "Zed - Last")
SECONDS = 2


@functools.cache
def excerpts(song: Track) -> dict[str, dict[str, Tensor]]:
    """Returns two seconds of vocals and mixture (c, n) by name; the vocals of the second pause in the first half."""
    found = {}
    for start, name in enumerate(NAMES):
        audio = {kind: song.read(kind, start * SAMPLE_RATE, SECONDS * SAMPLE_RATE) for kind in ("vocals", MIXTURE)}
        if start == 1:
            audio[MIXTURE][:, :SAMPLE_RATE] -= audio["vocals"][:, :SAMPLE_RATE]
            audio["vocals"][:, :SAMPLE_RATE] = 0
        found[name] = audio
    return found


def estimate_of(song: Track, name: str, share: float) -> Tensor:
    """Returns an estimate (c, n) of the vocals: themselves and a share of the rest that differs by track."""
    audio = excerpts(song)[name]
    return audio["vocals"] + share * (1 + NAMES.index(name) / 4) * (audio[MIXTURE] - audio["vocals"])


def scored(estimate: Tensor, reference: Tensor, **others: float) -> StemScores:
    """Returns the scores that follow from audio alone, and given values of other scores."""
    windows = windowed_sdr(estimate=estimate, reference=reference, sample_rate=SAMPLE_RATE)
    values = {
        "csdr": csdr(estimate=estimate, reference=reference, sample_rate=SAMPLE_RATE),
        "usdr": usdr(estimate=estimate, reference=reference),
    }
    return StemScores({**values, **others}, tuple(windows.tolist()))


@dataclass(frozen=True)
class Example:
    """What distinguishes the run of an example.

    Args:
        share: How much of the other sources is in the estimate.
        names: Names of the tracks, by those of NAMES.
        protocol: Name of the protocol.
        stem: Name of the stem, which is always the vocals.
        data: Beginning of the hashes of the tracks.
        start: Second at which the excerpts begin; None to keep none.
        scores: Scores of the estimate instead of its own, without other rows.
        failures: Tracks that failed.
        gain: Gain applied to the excerpts.
        sample_rate: Sampling rate that the files of the excerpts declare.
        trained_on: What the model was trained on, by the names of the tracks.
    """

    share: float = 0.3
    names: Mapping[str, str] = field(default_factory=lambda: dict(zip(NAMES, NAMES, strict=True)))
    protocol: str = "single"
    stem: str = "vocals"
    data: str = "one"
    start: float | None = 10.0
    scores: StemScores | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    gain: float = 1.0
    sample_rate: int = SAMPLE_RATE
    trained_on: Mapping[str, TrainedOn] = field(default_factory=dict)


USUAL = Example()


def write_run(folder: Path, song: Track, example: Example = USUAL) -> Path:
    """Writes the folder of an evaluation, all of it from one song, and returns the folder."""
    stem, start = example.stem, example.start
    tracks = {}
    for place, (known, name) in enumerate(example.names.items()):
        reference, mixture = excerpts(song)[known]["vocals"], excerpts(song)[known][MIXTURE]
        estimate = estimate_of(song, known, example.share)
        rows = {
            ESTIMATE: scored(estimate, reference, leakage_dbfs=-30.0 - place, false_mute=2.0 * place),
            chunk_row(1): scored(0.8 * estimate, reference),
            chunk_row(2.5): scored(0.9 * estimate, reference),
            MIXTURE_ROW: scored(mixture, reference, csdr_activity_0=-9.0, csdr_activity_75=-1.0),
            SILENCE_ROW: scored(torch.zeros_like(reference), reference),
        }
        tracks[name] = TrackResult(
            name=name,
            key=f"{example.share}",
            data_sha256=f"{example.data}-{known}",
            seconds=float(SECONDS),
            computing_seconds=1.5,
            notes=("the estimate was cut by 3 samples",) if known == NAMES[0] else (),
            activity={stem: tuple((reference.abs().amax(0)[: SECONDS * 44100 : 4410] > 1e-4).int().tolist())},
            scores={stem: {ESTIMATE: example.scores} if example.scores else rows},
            excerpt=None if start is None else (start, start + SECONDS),
            excerpt_gain=example.gain,
            trained_on=example.trained_on.get(name),
        )
        kept = {MIXTURE: mixture, f"{stem}.reference": reference, f"{stem}.estimate": estimate}
        for kind, audio in kept.items() if start is not None else ():
            write_audio(
                folder / EXCERPTS_FOLDER / name / f"{kind}.flac", example.gain * audio, example.sample_rate, "flac"
            )
    description: dict[str, dict[str, Any]] = {
        "model": {"name": "/home/someone/tiny.ckpt", "sha256": "ab12" * 16, "parameters": 1234},
        "data": {"root": "/home/someone/MUSDB18-HQ", "split": "test", "sha256": "cd34" * 16},
        "settings": {"protocol": example.protocol, "museval": False, "nothing": None, "several": [1, 2.5]},
        "separation": {"device": "cpu"},
        "hardware": {"device": "cpu", "processor": "AMD EPYC"},
    }
    Results(description, tracks, example.failures).write(folder, {})
    return folder


class Page(HTMLParser):
    """The content of a page.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.in_cell = False
        self.players: list[dict[str, Any]] = []
        self.in_player = False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Records an element, and begins a row or a cell."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.in_player = ("class", "song") in attrs
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True
        if tag in ("br", "span", "p", "li", "h3", "h4", "dt", "dd"):
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        """Ends a cell."""
        self.in_player = False
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        """Records text, or what a player reads."""
        if self.in_player:
            self.players.append(json.loads(data))
            return
        self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data

    def cells(self, head: str) -> list[list[str]]:
        """Returns the cells of the rows with a given head."""
        rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]
        return [row[1:] for row in rows if row and row[0] == " ".join(head.split())]

    @property
    def drawings(self) -> list[str]:
        """The SVG of all plots, light and dark."""
        urls = (value for _, attributes in self.elements for value in attributes.values())
        parts = (url.partition("data:image/svg+xml;base64,") for url in urls)
        return [base64.b64decode(content).decode() for start, found, content in parts if found and not start]

    def all(self, tag: str) -> list[dict[str, str]]:
        """Returns the attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]
