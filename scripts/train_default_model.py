"""Makes the packaged model again: prepares its data, trains it, and scores it on artists it was not trained on.

    python scripts/train_default_model.py SOURCES WORK              # data, training, weights, scores
    python scripts/train_default_model.py SOURCES WORK --compare    # instead: three sizes, and shares of the songs

SOURCES contains musdb18-7-cc/, everything-is-free-cc0/, mdn-multitrack-cc0/ and singing/; everything else is written to
WORK. Needs `pip install -e ".[recipe]"`, a C++ compiler, fluidsynth and its SoundFont (Debian: fluidsynth,
fluid-soundfont-gm). Run the same command again to resume after a stop. Trains on a CPU, in two processes.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from bsmamba2.data.tracks import Split
from bsmamba2.errors import InputError
from bsmamba2.evaluation.command import evaluate
from bsmamba2.evaluation.results import ESTIMATE, Results
from bsmamba2.evaluation.runs import REPORT
from bsmamba2.evaluation.settings import ScoringSettings, Selection
from bsmamba2.evaluation.statistics import summarise_results
from bsmamba2.evaluation.table import results_table
from bsmamba2.report import write_report
from bsmamba2.stem_names import VOCALS
from bsmamba2.system.stopping import stopped_by_exception
from default_model.laying_out import lay_out, lay_out_muted
from default_model.rendering import SOUND_FONT
from default_model.trainings import SIZES, export, train, training_folder

# Options of the training runs that are compared: 300 steps of three excerpts in one process.
SHORT = ("--trainer.devices=1", "--data.batch_size=3", "--ema.decay=0.99", "--trainer.max_epochs=3")
SHARES = (0.25, 0.5)
PRINTED = ("csdr", "usdr")


def make(sources: Path, work: Path, size: str = "medium", compare: bool = False, sound_font: Path = SOUND_FONT) -> None:
    """Makes the packaged model again and prints its scores, or compares alternatives to it.

    Args:
        sources: Folder with the sources of the data.
        work: Folder for the data, the training runs, the weights and the scores.
        size: Size to train: small, medium or large.
        compare: Instead of making the model, train all sizes, and the small one on shares of the songs, briefly, and
            score them on the artists for selection.
        sound_font: SoundFont that the instruments are rendered with.

    Raises:
        InputError: An option cannot be used, a source or a program is missing, or a training run failed.
    """
    if size not in SIZES:
        raise InputError(f"size={size!r} is not allowed; choose {', '.join(SIZES)}")
    data = work / "data"
    lay_out(sources, data, sound_font)
    if compare:
        _compare(data, work)
    else:
        _make(data, work, size)


def _compare(data: Path, work: Path) -> None:
    trainings = {name: (data, options) for name, options in SIZES.items()}
    for share in SHARES:
        name = f"small, {share:.0%} of the songs"
        trainings[name] = (training_folder(data, work / "shares" / f"{share}", share), SIZES["small"])
    for name, (part, options) in trainings.items():
        checkpoint = train(part, work / "trainings" / name, *options, *SHORT)
        _scored(name, data, work, checkpoint, "valid")


def _make(data: Path, work: Path, size: str) -> None:
    everything = training_folder(data, work / "everything", with_selection=True)
    # The validation songs are trained on as well: the last weights are taken, so nothing is chosen by validation.
    options = (*SIZES[size], "--data.shared_artists=true", "--trainer.limit_val_batches=0")
    checkpoint = train(everything, work / "trainings" / f"{size}, everything", *options)
    weights = work / "mini-vocals.safetensors"
    export(checkpoint, weights)
    lay_out_muted(data, work / "muted")
    _scored("float32", data, work, checkpoint, "test")
    for name, songs in {"half precision": data, "without vocals": work / "muted"}.items():
        print(results_table(_scored(name, songs, work, weights, "test")))


def _scored(name: str, data: Path, work: Path, model: Path, split: Split) -> Results:
    folder = work / "evaluations" / name
    results = evaluate(data, folder, model, selection=Selection(split), scoring=ScoringSettings(overwrite=True))
    if results.failures:
        raise InputError(f"tracks could not be scored: {', '.join(results.failures)}; the reasons are printed above")
    write_report([folder], folder / REPORT)
    scores = summarise_results(results)[VOCALS][ESTIMATE]
    medians = ", ".join(f"{score} {scores[score].median:.2f}" for score in PRINTED if score in scores)
    print(f"{name}, medians in dB over {len(results.tracks)} tracks of {split}: {medians}", flush=True)
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the recipe."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = ArgumentParser(prog="train_default_model.py", description="Makes the packaged model again.")
    parser.add_argument("sources", type=Path, help="folder with the sources of the data")
    parser.add_argument("work", type=Path, help="folder for the data, the training runs, the weights and the scores")
    parser.add_argument("--compare", action="store_true", help="compare sizes and shares of the songs instead")
    parser.add_function_arguments(make, skip={"sources", "work", "compare"}, as_group=False)
    try:
        with stopped_by_exception():
            make(**parser.parse_args(arguments).as_dict())
    except InputError as error:
        sys.exit(f"{parser.prog}: error: {error}")
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
