"""The commands `bsmamba2 demo` and `bsmamba2 doctor`; what they run takes seconds to import, their help does not."""

import math
from pathlib import Path

from bsmamba2.demo_files import check_demo_folder, song_file
from bsmamba2.errors import UsageError
from bsmamba2.training.configs import config_file

TRAINING_CONFIG, TRAINING_MINUTES = "tiny", 3.0


def doctor(json: bool = False) -> tuple[str, bool]:
    """Prints which devices and scans work on this machine and why, and how to fix what does not.

    Args:
        json: Print JSON.

    Returns:
        The text to print, and whether all that is installed works.
    """
    from bsmamba2.doctor import diagnose

    report = diagnose()
    return report.to_json() if json else report.text(), report.healthy


def run_demo(train: bool = False, config: str | Path | None = None, training_minutes: float | None = None) -> str:
    """Separates a short song with the packaged model, scores it and draws its spectrogram.

    Returns the results as text. The song is the excerpt in the package stempeg. Everything is written to the
    folder demo/; the files of an earlier demo are replaced.

    Args:
        train: Train a model on parts of the song instead, evaluate it on the rest and separate the rest.
        config: With --train, the training config, a file or a name, by default tiny.
        training_minutes: With --train, the longest training time, by default 3.

    Raises:
        InputError: An option cannot be used, or the folder demo/ cannot be written to.
    """
    given = {"--config": config, "--training-minutes": training_minutes}
    named = [name for name, value in given.items() if value is not None]
    if named and not train:
        raise UsageError(f"{' and '.join(named)} can be used only for training; give --train too, or leave it out")
    minutes = TRAINING_MINUTES if training_minutes is None else training_minutes
    if not 0 < minutes < math.inf:
        raise UsageError(f"training_minutes={minutes} is not allowed; give a time above 0")
    file = config_file(config or TRAINING_CONFIG)
    song_file()
    check_demo_folder()
    from bsmamba2.demo import demonstrate_separation, demonstrate_training

    return demonstrate_training(file, minutes) if train else demonstrate_separation()
