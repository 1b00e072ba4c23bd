"""Folders of evaluations, made of a real song."""

import functools
from collections.abc import Mapping
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
    chunk_row,
)
from bsmamba2.evaluation.scores import StemScores
from bsmamba2.metrics import csdr, usdr, windowed_sdr
from bsmamba2.stem_names import MIXTURE

# Names as people give them, and one that would be a program if it were not escaped.
NAMES = ("Änne - Ça & là", "<script>alert(\"x\")< - $5 'q'", "Sóley - 夜 " + "long " * 30, "Zed - Last")
SECONDS = 2


@functools.cache
def excerpts(song: Track) -> dict[str, dict[str, Tensor]]:
    """Returns two seconds of vocals and mixture (c, n) by name; in the second the vocals pause in the first half."""
    found = {}
    for start, name in enumerate(NAMES):
        audio = {kind: song.read(kind, start * SAMPLE_RATE, SECONDS * SAMPLE_RATE) for kind in ("vocals", MIXTURE)}
        if start == 1:
            audio[MIXTURE][:, :SAMPLE_RATE] -= audio["vocals"][:, :SAMPLE_RATE]
            audio["vocals"][:, :SAMPLE_RATE] = 0
        found[name] = audio
    return found


def estimate_of(song: Track, name: str, share: float) -> Tensor:
    """Returns an estimate (c, n) of the vocals: they and a share of the rest, another one in every track."""
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


def write_run(
    folder: Path,
    song: Track,
    *,
    share: float = 0.3,
    names: Mapping[str, str] | None = None,
    protocol: str = "single",
    stem: str = "vocals",
    data: str = "one",
    start: float | None = 10.0,
    scores: StemScores | None = None,
    failures: Mapping[str, str] | None = None,
    gain: float = 1.0,
    sample_rate: int = SAMPLE_RATE,
) -> Path:
    """Writes the folder of an evaluation and returns it.

    Args:
        folder: Where.
        song: The song that all is made of.
        share: How much of the other sources is in the estimate.
        names: What the tracks are called, by those of NAMES.
        protocol: Name of the protocol.
        stem: What the vocals are called.
        data: What the hashes of the tracks begin with.
        start: Second at which the excerpts begin; None to keep none.
        scores: Of the estimate, instead of its own and without other rows.
        failures: Tracks that failed.
        gain: What the excerpts were multiplied by.
        sample_rate: What the files of the excerpts say of their rate.
    """
    tracks = {}
    for place, (known, name) in enumerate((names or dict(zip(NAMES, NAMES, strict=True))).items()):
        reference, mixture = excerpts(song)[known]["vocals"], excerpts(song)[known][MIXTURE]
        estimate = estimate_of(song, known, share)
        rows = {
            ESTIMATE: scored(estimate, reference, leakage_dbfs=-30.0 - place, false_mute=2.0 * place),
            chunk_row(1): scored(0.8 * estimate, reference),
            chunk_row(2.5): scored(0.9 * estimate, reference),
            MIXTURE_ROW: scored(mixture, reference, csdr_activity_0=-9.0, csdr_activity_75=-1.0),
            SILENCE_ROW: scored(torch.zeros_like(reference), reference),
        }
        tracks[name] = TrackResult(
            name=name,
            key=f"{share}",
            data_sha256=f"{data}-{known}",
            seconds=float(SECONDS),
            computing_seconds=1.5,
            notes=("the estimate was cut by 3 samples",) if known == NAMES[0] else (),
            activity={stem: tuple((reference.abs().amax(0)[: SECONDS * 44100 : 4410] > 1e-4).int().tolist())},
            scores={stem: {ESTIMATE: scores} if scores else rows},
            excerpt=None if start is None else (start, start + SECONDS),
            excerpt_gain=gain,
        )
        kept = {MIXTURE: mixture, f"{stem}.reference": reference, f"{stem}.estimate": estimate}
        for kind, audio in kept.items() if start is not None else ():
            write_audio(folder / EXCERPTS_FOLDER / name / f"{kind}.flac", gain * audio, sample_rate, "flac")
    description: dict[str, dict[str, Any]] = {
        "model": {"name": "/home/someone/tiny.ckpt", "sha256": "ab12" * 16, "parameters": 1234},
        "data": {"root": "/home/someone/MUSDB18-HQ", "split": "test", "sha256": "cd34" * 16},
        "settings": {"protocol": protocol, "museval": False, "nothing": None, "several": [1, 2.5]},
        "separation": {"device": "cpu"},
        "hardware": {"device": "cpu", "processor": "AMD EPYC"},
    }
    Results(description, tracks, failures or {}).write(folder, {})
    return folder


class Page(HTMLParser):
    """What is in a page.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.in_cell = False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keeps an element, and begins a row or a cell."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True
        if tag in ("br", "span", "p", "li", "h3", "h4", "dt", "dd"):
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        """Ends a cell."""
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        """Keeps text."""
        self.text += data
        if self.in_cell:
            self.rows[-1][-1] += data

    def cells(self, head: str) -> list[list[str]]:
        """Returns the cells of the rows with such a head."""
        rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]
        return [row[1:] for row in rows if row and row[0] == " ".join(head.split())]

    def all(self, tag: str) -> list[dict[str, str]]:
        """Returns the attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]
