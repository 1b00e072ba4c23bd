"""Trains one small network with each mixer on equal processor time and scores them, as in docs/mixers.md.

    python scripts/compare_mixers.py SOURCES WORK
    python scripts/compare_mixers.py SOURCES WORK --mixers mamba2 roformer --minutes 1 --seeds 1

The data are those of scripts/train_default_model.py, laid out in WORK/data; the scores are those on the 14 official
validation songs. A first short training run measures how much processor time a step of each mixer takes, with mixing,
loss and averaging, and so how many steps it gets. Everything is kept in WORK: run the same command again to resume
after a stop. The table is printed and written to WORK/comparison.md, the figure to WORK/comparison.png.
"""

import argparse
import functools
import json
import logging
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from bsmamba2.errors import InputError
from bsmamba2.evaluation.command import evaluate
from bsmamba2.evaluation.results import ESTIMATE, Results
from bsmamba2.evaluation.settings import Selection
from bsmamba2.evaluation.statistics import compare, summarise
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.stem_names import VOCALS
from bsmamba2.system.files import complete_file
from bsmamba2.training.command import train
from default_model.bank import Bank
from default_model.datamodule import RecordingMixes
from default_model.laying_out import lay_out
from exit_status import exit_status

FRAME = Path(__file__).parents[1] / "configs" / "tiny.yaml"
MAMBA2 = {"expand": 2, "headdim": 32, "d_state": 32}
ATTENTION = {"attention_heads": 4, "attention_headdim": 16}
RWKV6 = {"rwkv_headdim": 16}
# The mixers over time and over bands, and their options in the frame.
MIXERS: dict[str, tuple[str, str, Mapping[str, int]]] = {
    "mamba2": ("mamba2", "mamba2", MAMBA2),
    "roformer": ("roformer", "roformer", ATTENTION),
    "mamba2+roformer": ("mamba2", "roformer", MAMBA2 | ATTENTION),
    "mamba1": ("mamba1", "mamba1", {"expand": 2}),
    "rwkv6": ("rwkv6", "rwkv6", RWKV6),
    "rwkv6+mamba2": ("rwkv6+mamba2", "rwkv6+mamba2", RWKV6 | MAMBA2),
}
# Sizes of the frame with which minutes of one processor are several hundred steps.
SIZES = {"dim": 32, "bands": [8] * 8 + [16] * 8 + [48] * 4 + [96] * 3 + [353], "segment_seconds": 1.5}
BATCH = 2
# The loss and the schedule are those of configs/default_model.yaml, the rest is that of the frame.
MODEL: dict[str, Any] = {
    "loss": {"l1": 0.0, "stft": 0.0, "error_db": 0.1},
    "learning_rate": 3e-3,
    "weight_decay": 0.05,
    "schedule": "cosine",
}
TRAINING: dict[str, Any] = {
    "data": {"batch_size": BATCH},
    "ema": {"decay": 0.98},
    "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "gradient_clip_val": 3, "log_every_n_steps": 10},
}
# Steps of short training runs: the first warms up, and the difference of the others does not contain their start.
SHORT_STEPS = (2, 5, 35)


class OneBank(RecordingMixes):
    """Mixes of recordings that are read only once for all training runs of this process."""

    @staticmethod
    @functools.cache
    def read(root: Path) -> Bank:
        """Returns the recordings of a folder."""
        return Bank(root)


@dataclass(frozen=True)
class Run:
    """A network that was trained and scored.

    Args:
        results: Scores on the validation songs.
        seconds: Processor time of the training with its start and a validation; after a stop, of what came then.
    """

    results: Results
    seconds: float

    def scores(self, score: str) -> dict[str, float]:
        """Returns a score by song."""
        return {name: track.scores[VOCALS][ESTIMATE][score] for name, track in self.results.tracks.items()}


@dataclass(frozen=True)
class Candidate:
    """A mixer and its runs.

    Args:
        network: Options of the network.
        step_seconds: Processor time of a training step.
        steps: Steps of each run.
        runs: One for each seed.
    """

    network: dict[str, Any]
    step_seconds: float
    steps: int
    runs: Sequence[Run]

    def medians(self, score: str) -> list[float]:
        """Returns the median of a score over the songs, for each run."""
        return [summarise(run.scores(score).values()).median for run in self.runs]

    def means_by_song(self, score: str) -> dict[str, float]:
        """Returns the mean of a score over the runs by song."""
        scores = [run.scores(score) for run in self.runs]
        return {name: statistics.fmean(run[name] for run in scores) for name in scores[0]}


def compare_mixers(sources: Path, work: Path, mixers: Sequence[str], minutes: float, seeds: Sequence[int]) -> None:
    """Trains and scores networks with each mixer, and prints a table.

    Args:
        sources: Folder with the sources of the data.
        work: Folder for everything that is written.
        mixers: Names of mixers.
        minutes: Processor time of one training.
        seeds: Start of all randomness of each run.

    Raises:
        InputError: A source is missing, the time is none, a training run failed, or a song could not be scored.
    """
    if not 0 < minutes < math.inf:
        raise InputError(f"minutes={minutes} is not allowed; give a number above 0")
    torch.set_num_threads(1)
    lay_out(sources, work / "data")
    step_seconds = {mixer: _step_seconds(mixer, work) for mixer in mixers}
    steps = {mixer: max(1, round(60 * minutes / seconds)) for mixer, seconds in step_seconds.items()}
    # All mixers with one seed before the next seed, so that a comparison is there early.
    runs = {(seed, mixer): _run(mixer, seed, steps[mixer], work) for seed in seeds for mixer in mixers}
    candidates = {
        mixer: Candidate(network_of(mixer), step_seconds[mixer], steps[mixer], [runs[seed, mixer] for seed in seeds])
        for mixer in mixers
    }
    table = table_of(candidates)
    with complete_file(work / "comparison.md") as path:
        path.write_text(table, encoding="utf-8")
    draw(candidates, work / "comparison.png")
    print(f"\n{table}", end="")


def network_of(mixer: str) -> dict[str, Any]:
    """Returns the options of a network: the frame with a mixer instead of Mamba-2."""
    frame = yaml.safe_load(FRAME.read_text(encoding="utf-8"))["model"]["network"]
    over_time, over_bands, sizes = MIXERS[mixer]
    chosen = {"time_mixer": over_time, "band_mixer": over_bands, **SIZES, **sizes}
    return {name: value for name, value in frame.items() if name not in MAMBA2} | chosen


def _options(mixer: str, work: Path, folder: str) -> list[str]:
    """Returns the options of a training run in a folder of a mixer; those with several values are written to a file."""
    config, root = work / mixer / "network.yaml", work / mixer / folder
    with complete_file(config) as temporary:
        content = TRAINING | {"model": MODEL | {"network": network_of(mixer)}}
        temporary.write_text(yaml.safe_dump(content), encoding="utf-8")
    return [
        f"--config={config}",
        f"--data.root={work / 'data'}",
        f"--trainer.default_root_dir={root}",
        "--ckpt_path=last",
    ]


def _seconds(options: Sequence[str], steps: int) -> float:
    """Trains for an epoch and returns the processor time that it took."""
    started = time.process_time()
    train([*options, f"--data.epoch_excerpts={BATCH * steps}", f"--model.warmup_steps={steps // 20}"], OneBank)
    return time.process_time() - started


def _step_seconds(mixer: str, work: Path) -> float:
    """Returns the processor time of a training step, measured only once."""
    path = work / mixer / "step_seconds.json"
    if not path.exists():
        spent = []
        for steps in SHORT_STEPS:
            options = _options(mixer, work, f"{steps} steps")
            spent.append(_seconds([*options, "--trainer.limit_val_batches=0"], steps))
        seconds = (spent[-1] - spent[-2]) / (SHORT_STEPS[-1] - SHORT_STEPS[-2])
        with complete_file(path) as temporary:
            temporary.write_text(json.dumps(seconds), encoding="utf-8")
    return float(json.loads(path.read_text(encoding="utf-8")))


def _run(mixer: str, seed: int, steps: int, work: Path) -> Run:
    """Returns the scores of a network after it was trained, which is done only once."""
    name = f"seed {seed}, {steps} steps"
    folder = work / mixer / name
    spent = folder / "seconds.json"
    if not spent.exists():
        seconds = _seconds([*_options(mixer, work, name), f"--seed_everything={seed}"], steps)
        with complete_file(spent) as temporary:
            temporary.write_text(json.dumps(seconds), encoding="utf-8")
    (checkpoint,) = folder.glob("**/last.ckpt")
    results = evaluate(work / "data", folder / "scores", checkpoint, selection=Selection("valid"))
    if results.failures:
        raise InputError(f"songs could not be scored: {', '.join(results.failures)}; the reasons are printed above")
    return Run(results, json.loads(spent.read_text(encoding="utf-8")))


def table_of(candidates: Mapping[str, Candidate]) -> str:
    """Returns a table in Markdown; differences are to the first mixer."""
    first, *_ = candidates
    columns = [
        "mixer",
        "million parameters",
        "billion products per second of audio",
        "processor seconds per step",
        "steps",
        "processor minutes of a run",
        "uSDR in dB by seed, median of the songs",
        "mean of the seeds",
        "the same for cSDR",
        f"uSDR minus that of {first}, mean of the songs [95 % interval]",
    ]
    rows = [columns, ["---"] * len(columns)]
    for mixer, one in candidates.items():
        usdr, csdr = one.medians("usdr"), one.medians("csdr")
        parameters, products = _counts(one.network)
        difference = compare(candidates[first].means_by_song("usdr"), one.means_by_song("usdr")).summary
        interval = f"{difference.mean:+.2f} [{difference.mean_low:+.2f}, {difference.mean_high:+.2f}]"
        rows.append(
            [
                f"`{mixer}`",
                f"{parameters / 1e6:.2f}",
                f"{products / 1e9:.2f}",
                f"{one.step_seconds:.2f}",
                str(one.steps),
                f"{statistics.fmean(run.seconds for run in one.runs) / 60:.1f}",
                ", ".join(f"{value:.2f}" for value in usdr),
                f"{statistics.fmean(usdr):.2f}",
                f"{statistics.fmean(csdr):.2f}",
                "–" if mixer == first else interval,
            ]
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _counts(network: dict[str, Any]) -> tuple[int, float]:
    """Returns the parameters, and the multiply-adds in matrix products, convolutions and attention per second."""
    built = BSMamba2(ModelConfig.from_dict(network))
    # With gradients, which the counter needs where a parameter is the argument of a module.
    with FlopCounterMode(display=False) as counter:
        built(torch.zeros(1, built.config.channels, built.config.segment))
    parameters = sum(parameter.numel() for parameter in built.parameters())
    return parameters, counter.get_total_flops() / 2 / built.config.segment_seconds


def draw(candidates: Mapping[str, Candidate], path: Path) -> None:
    """Writes a figure: the mean of songs and runs with its interval over songs, and next to it each run."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for place, one in enumerate(candidates.values()):
        summary = summarise(one.means_by_song("usdr").values())
        below, above = summary.mean - summary.mean_low, summary.mean_high - summary.mean
        axes.errorbar(place, summary.mean, [[below], [above]], fmt="_", color="black", capsize=4, markersize=16)
        runs = [statistics.fmean(run.scores("usdr").values()) for run in one.runs]
        axes.plot([place + 0.15] * len(runs), runs, "o", markersize=4, color="tab:blue")
    axes.set_xticks(range(len(candidates)), list(candidates), rotation=20)
    axes.set_ylabel("uSDR in dB, mean of the songs")
    axes.grid(axis="y", alpha=0.3)
    with complete_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison and returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(prog="compare_mixers.py", description="Compares mixers on equal processor time.")
    parser.add_argument("sources", type=Path, help="folder with the sources of the data")
    parser.add_argument("work", type=Path, help="folder for the data, the training runs, the scores, table and figure")
    parser.add_argument(
        "--mixers", nargs="+", choices=MIXERS, default=list(MIXERS), help="which; the first is compared with"
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="processor time of one training run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="one training for each")
    options = parser.parse_args(arguments)
    return exit_status(parser.prog, lambda: compare_mixers(**vars(options)))


if __name__ == "__main__":
    sys.exit(main())
