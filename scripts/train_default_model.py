"""Makes the model in the package anew: lays out its data, trains it, and scores it on artists it never heard.

    python scripts/train_default_model.py SOURCES WORK              # data, training, weights, scores
    python scripts/train_default_model.py SOURCES WORK --compare    # before that: three sizes, and shares of the songs

SOURCES holds musdb18-7-cc/, everything-is-free-cc0/, mdn-multitrack-cc0/ and singing/; WORK gets everything else. Needs
`pip install -e ".[recipe]"`, and from the system fluidsynth and its SoundFont (Debian: fluidsynth, fluid-soundfont-gm).
What was stopped goes on when the same command is given again.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from bsmamba2.errors import InputError
from bsmamba2.evaluation.table import results_table
from bsmamba2.evaluation_command import evaluate
from default_model.laying_out import lay_out
from default_model.rendering import SOUND_FONT
from default_model.trainings import SIZES, export, train, training_folder

# Options of the trainings that are compared: 300 steps.
SHORT = ("--data.batch_size=3", "--ema.decay=0.99", "--trainer.max_epochs=3")


def make(
    sources: Path,
    work: Path,
    size: str = "medium",
    epochs: int = 20,
    processes: int = 2,
    compare: bool = False,
    sound_font: Path = SOUND_FONT,
) -> None:
    """Makes the model in the package anew, and prints its scores.

    Args:
        sources: Folder with the sources of the data.
        work: Folder for the data, the trainings, the weights and the scores.
        size: Which of the sizes is trained: small, medium or large.
        epochs: How long it is trained, in epochs of 300 excerpts.
        processes: How many processes train it, each on a core.
        compare: Train all sizes, and the small one on shares of the songs, for a few epochs first.
        sound_font: What the instruments are rendered with.

    Raises:
        InputError: An option cannot be used, a source or a program is missing, or a training failed.
    """
    if size not in SIZES:
        raise InputError(f"size={size!r} is not allowed; choose {', '.join(SIZES)}")
    data = work / "data"
    lay_out(sources, data, sound_font)
    if compare:
        for name, options in SIZES.items():
            train(data, work / "sizes" / name, *options, *SHORT)
        for share in (0.25, 0.5):
            part = training_folder(data, work / "shares" / str(share) / "data", share)
            train(part, work / "shares" / str(share), *SIZES["small"], *SHORT)
    everything = training_folder(data, work / "final" / "data", with_selection=True)
    checkpoint = train(
        everything,
        work / "final",
        *SIZES[size],
        # Its validation songs are trained on as well: nothing is chosen by them, the last weights are taken.
        "--data.shared_artists=true",
        "--trainer.limit_val_batches=0",
        f"--trainer.devices={processes}",
        f"--trainer.max_epochs={epochs}",
    )
    weights = work / "mini-vocals.safetensors"
    export(checkpoint, weights)
    print(results_table(evaluate(data, work / "evaluation", weights, overwrite=True)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the recipe."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = ArgumentParser(prog="train_default_model.py", description="Makes the model in the package anew.")
    parser.add_argument("sources", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--compare", action="store_true", help="train all sizes, and shares of the songs, first")
    parser.add_function_arguments(make, skip={"sources", "work", "compare"}, as_group=False)
    try:
        make(**parser.parse_args(arguments).as_dict())
    except InputError as error:
        sys.exit(f"{parser.prog}: error: {error}")


if __name__ == "__main__":
    main()
