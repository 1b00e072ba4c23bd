"""Makes the packaged model again: lays out its data, trains it, and scores it.

    python scripts/train_default_model.py SOURCES WORK             # data, training, weights, scores on the 14 songs
    python scripts/train_default_model.py SOURCES WORK --report    # and on the test songs, with the leakage
    python scripts/train_default_model.py SOURCES WORK --pack      # instead: only the data, and a small copy of them
    python scripts/train_default_model.py WORK/pack WORK --device cuda    # the training alone, from such a copy

SOURCES contains the folders that scripts/default_model/sources.py names; everything is written to WORK. Run the same
command again to resume after a stop. What follows after `--` are options of `bsmamba2 train`, for comparisons.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from bsmamba2.data.musdb import Split
from bsmamba2.errors import InputError
from bsmamba2.evaluation.command import evaluate
from bsmamba2.evaluation.results import Results
from bsmamba2.evaluation.runs import REPORT
from bsmamba2.evaluation.settings import ScoringSettings, Selection
from bsmamba2.evaluation.table import results_table
from bsmamba2.report.page import write_report
from bsmamba2.system.processes import is_first_process
from bsmamba2.training.command import train
from bsmamba2.weights.checkpoint import WeightsFile, save_model
from default_model.datamodule import RecordingMixes
from default_model.laying_out import HASHES, check_pack, lay_out, lay_out_muted, pack
from default_model.sources import TEST_FOLDER
from exit_status import exit_status

NAME = "small-vocals"
CONFIG = Path(__file__).parents[1] / "configs" / "default_model.yaml"
DEVICES = ("cpu", "cuda")


def make(
    sources: Path,
    work: Path,
    packed: bool = False,
    report: bool = False,
    device: str = "cpu",
    training: Sequence[str] = (),
) -> None:
    """Makes the packaged model again and prints its scores.

    Args:
        sources: Folder with the sources of the data, or a pack of them; from a pack only the training runs.
        work: Folder for the data, the training run, the weights and the scores.
        packed: Only lay out and pack the data.
        report: Also score the test songs, with and without their vocals.
        device: Where to train.
        training: Further options of `bsmamba2 train`.

    Raises:
        InputError: An option cannot be used, a source is missing, or the training run failed.
    """
    from_pack = (sources / HASHES).is_file()
    if from_pack and (packed or report):
        raise InputError(f"{sources} is a pack, which is only trained on; leave out --pack and --report")
    if from_pack:
        check_pack(sources)
        data = sources
    else:
        data = work / "data"
        lay_out(sources, data)
    if packed:
        target = work / "pack"
        pack(data, target)
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        print(f"{target}: {size / 2**20:.1f} MiB")
        return
    options = [f"--config={CONFIG}", f"--data.root={data}", f"--trainer.default_root_dir={work / 'training'}"]
    options += [f"--trainer.accelerator={device}", "--ckpt_path=last", *training]
    checkpoint = train(options, RecordingMixes)
    if not is_first_process():
        return
    weights = work / f"{NAME}.safetensors"
    # The averaged weights of the validation that scored best, in half precision.
    file = WeightsFile.read(checkpoint)
    save_model(file.network().half(), weights, file.training_songs)
    print(f"{weights}: from {checkpoint}", flush=True)
    if from_pack:
        return
    _score(data, "valid", work / "evaluations" / "valid", weights)
    if report:
        songs, muted = sources / Path(TEST_FOLDER).parent, work / "muted"
        lay_out_muted(songs, muted)
        _score(songs, "test", work / "evaluations" / "test", weights)
        _score(muted, "test", work / "evaluations" / "test without vocals", weights)


def _score(songs: Path, split: Split, folder: Path, weights: Path) -> Results:
    results = evaluate(songs, folder, weights, selection=Selection(split), scoring=ScoringSettings(overwrite=True))
    if results.failures:
        raise InputError(f"tracks could not be scored: {', '.join(results.failures)}; the reasons are printed above")
    write_report([folder], folder / REPORT)
    print(f"\n{folder.name}\n{results_table(results)}", flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the recipe and returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, training = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser(prog="train_default_model.py", description="Makes the packaged model again.")
    parser.add_argument("sources", type=Path, help="folder with the sources of the data, or a pack of them")
    parser.add_argument("work", type=Path, help="folder for the data, the training run, the weights and the scores")
    parser.add_argument("--pack", action="store_true", dest="packed", help="only lay out the data and pack them")
    parser.add_argument("--report", action="store_true", help="also score the test songs, with and without vocals")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where to train")
    options = parser.parse_args(own)
    return exit_status(parser.prog, lambda: make(**vars(options), training=training))


if __name__ == "__main__":
    sys.exit(main())
