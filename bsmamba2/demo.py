"""The demo on one short real song: separates it with the packaged model, or trains on parts of it."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE, STREAMS
from bsmamba2.data.tracks import Track
from bsmamba2.demo_files import DEMO_FOLDER, MARKER, song_file
from bsmamba2.errors import InputError
from bsmamba2.evaluation.command import evaluate
from bsmamba2.evaluation.results import ESTIMATE, MIXTURE_ROW, Results
from bsmamba2.evaluation.runs import REPORT
from bsmamba2.evaluation.scores import StemScores
from bsmamba2.separation.command import separate_files
from bsmamba2.separation.paths import PAGE, Destination
from bsmamba2.separation.settings import StemSettings
from bsmamba2.stem_names import INSTRUMENTAL, MIXTURE, VOCALS
from bsmamba2.system.files import make_folder
from bsmamba2.text_table import text_table
from bsmamba2.weights.registry import DEFAULT_MODEL, PUBLISHED_MODELS

DATA_FOLDER, RUNS_FOLDER, SCORES_FOLDER, STEMS_FOLDER = (
    DEMO_FOLDER / name for name in ("data", "runs", "evaluation", "stems")
)
FIGURE = DEMO_FOLDER / "spectrograms.png"
# Beyond this the stem file has only the padding of its encoder.
SONG_SECONDS = 6.05
WHOLE_SONG = {"test": (0.0, SONG_SECONDS)}
# Seconds of the song by split; those of the test are used for nothing else.
EXCERPTS_SECONDS = {"train": (1.0, 4.6), "valid": (0.0, 1.0), "test": (4.6, SONG_SECONDS)}


def example_song() -> Track:
    """Returns the real song excerpt in the data of the package stempeg: 6 s, five streams."""
    return Track(song_file(), round(SONG_SECONDS * SAMPLE_RATE))


def lay_out(song: Track, root: Path, excerpts_seconds: Mapping[str, tuple[float, float]]) -> None:
    """Writes a MUSDB18 folder of WAV files with an excerpt of the song, given in seconds, for each split."""
    for split, seconds in excerpts_seconds.items():
        start, stop = (round(second * SAMPLE_RATE) for second in seconds)
        for name in STREAMS:
            path = root / split / song.name / f"{name}.wav"
            write_audio(path, song.read(name, start, stop - start), SAMPLE_RATE)


def verdict(scores: Mapping[str, StemScores]) -> str:
    """Returns how much closer the estimated vocals are to the true ones than the song and than silence, in plain words.

    The uSDR of silence is 0 dB by definition.
    """
    model, mixture = scores[ESTIMATE]["usdr"], scores[MIXTURE_ROW]["usdr"]
    gains = {"the song itself": model - mixture, "silence": model}
    told = " and ".join(
        f"{abs(gain):.1f} dB {'closer to' if gain > 0 else 'farther from'} the true ones than {name}"
        for name, gain in gains.items()
    )
    lost = " and ".join(name for name, gain in gains.items() if not gain > 0)
    return f"The estimated vocals are {told}." + (f" They do NOT beat {lost}." if lost else "")


def demonstrate_separation() -> str:
    """Separates the song, scores it and draws it, and returns the results as text."""
    song = _fresh_folder()
    lay_out(song, DATA_FOLDER, WHOLE_SONG)
    stems = _separate(song, DEFAULT_MODEL)
    results = _evaluated(song, DEFAULT_MODEL)
    _draw(song, stems)
    scores, model = results.tracks[song.name].scores[VOCALS], PUBLISHED_MODELS[DEFAULT_MODEL]
    rows = {f"vocals estimated by {model.name}": ESTIMATE, "the song as it is": MIXTURE_ROW}
    return "\n".join(
        [
            "",
            f"Separated {_span(WHOLE_SONG['test'])} of {song.name}, a song that {model.name} was not trained on.",
            verdict(scores),
            "",
            _listed(
                {
                    VOCALS: stems / f"{VOCALS}.wav",
                    INSTRUMENTAL: stems / f"{INSTRUMENTAL}.wav",
                    "the song": _mixture_file(song),
                    "listen": (stems / PAGE).absolute().as_uri(),
                    "spectrograms": FIGURE,
                    "report": SCORES_FOLDER / REPORT,
                }
            ),
            "",
            _table("scores", {name: scores[row] for name, row in rows.items()}),
            "",
            _listed(_circumstances(results) | {"model": f"{model.name}, licence of its weights: {model.licence}"}),
        ]
    )


def demonstrate_training(file: Path, minutes: float) -> str:
    """Trains on parts of the song and scores and separates the rest, and returns the results as text.

    Args:
        file: The training config.
        minutes: The longest training time.
    """
    # Lightning is imported only when it is needed.
    from bsmamba2.training.command import train

    song = _fresh_folder()
    lay_out(song, DATA_FOLDER, EXCERPTS_SECONDS)
    hours, seconds = divmod(round(60 * minutes), 3600)
    started = time.monotonic()
    checkpoint = train(
        [
            f"--config={file}",
            f"--data.root={DATA_FOLDER}",
            f"--data.cache={DATA_FOLDER}",
            "--data.shared_artists=true",
            "--trainer.devices=1",
            f"--trainer.max_time=00:{hours:02}:{seconds // 60:02}:{seconds % 60:02}",
            f"--trainer.default_root_dir={RUNS_FOLDER}",
        ]
    )
    training_seconds = time.monotonic() - started
    results = _evaluated(song, checkpoint)
    stems = _separate(song, checkpoint)
    scores = results.tracks[song.name].scores[VOCALS]
    model, mixture = scores[ESTIMATE], scores[MIXTURE_ROW]
    beaten = model["usdr"] > mixture["usdr"] and model["csdr"] > mixture["csdr"]
    rows = {"mixture as estimate": mixture, f"model, trained for {training_seconds:.0f} s": model}
    return "\n".join(
        [
            "",
            _table(f"vocals of {song.name}, {_span(EXCERPTS_SECONDS['test'])}", rows),
            "The model beats the mixture on seconds it never trained on."
            if beaten
            else "The model did NOT beat the mixture on seconds it never trained on; train for longer.",
            "By definition the uSDR of silence is 0 dB; a model of a few seconds of one song scores little more.",
            "",
            _listed(
                _circumstances(results)
                | {"report": SCORES_FOLDER / REPORT, "stems": _stem_files(stems), "checkpoint": checkpoint}
            ),
        ]
    )


def _fresh_folder() -> Track:
    """Makes the folder demo/, removes the files of an earlier demo, and returns the song."""
    song = example_song()
    make_folder(DEMO_FOLDER)
    MARKER.touch()
    for part in (DATA_FOLDER, RUNS_FOLDER, SCORES_FOLDER, STEMS_FOLDER):
        shutil.rmtree(part, ignore_errors=True)
    FIGURE.unlink(missing_ok=True)
    return song


def _separate(song: Track, model: str | Path) -> Path:
    """Separates the test excerpt and returns the folder of its stems."""
    shutil.copyfile(DATA_FOLDER / "test" / song.name / f"{MIXTURE}.wav", _mixture_file(song))
    (outcome,) = separate_files([_mixture_file(song)], model, Destination(STEMS_FOLDER), StemSettings(page="inside"))
    if outcome.state == "failed":
        raise InputError(outcome.remark)
    return STEMS_FOLDER / song.name


def _evaluated(song: Track, model: str | Path) -> Results:
    """Scores a model on the test excerpt and writes the report."""
    # Drawing is imported only when it is needed.
    from bsmamba2.report.page import write_report

    results = evaluate(DATA_FOLDER, SCORES_FOLDER, model)
    if results.failures:
        raise InputError(f"{song.name} could not be scored: {results.failures[song.name]}")
    write_report([SCORES_FOLDER], SCORES_FOLDER / REPORT)
    return results


def _draw(song: Track, stems: Path) -> None:
    # Drawing is imported only when it is needed.
    from bsmamba2.report.spectrogram_figure import write_spectrogram_figure

    sounds = {
        "Input: the mixture": _mixture_file(song),
        "Output: the vocals estimated by the model": stems / f"{VOCALS}.wav",
        "Reference: the true vocals": DATA_FOLDER / "test" / song.name / f"{VOCALS}.wav",
    }
    audio = {title: read_audio(path) for title, path in sounds.items()}
    write_spectrogram_figure(FIGURE, f"{song.name}, separated by {DEFAULT_MODEL}", audio, SAMPLE_RATE)


def _mixture_file(song: Track) -> Path:
    # Its name becomes that of the folder of its stems.
    return DATA_FOLDER / f"{song.name}.wav"


def _stem_files(stems: Path) -> str:
    return f"{stems / f'{VOCALS}.wav'}, {stems / f'{INSTRUMENTAL}.wav'}, {stems / PAGE}"


def _span(seconds: tuple[float, float]) -> str:
    return f"{seconds[0]:g} to {seconds[1]:g} s"


def _table(heading: str, rows: Mapping[str, StemScores]) -> str:
    lines = [(heading, "cSDR", "uSDR")]
    lines += [(name, f"{scores['csdr']:.2f} dB", f"{scores['usdr']:.2f} dB") for name, scores in rows.items()]
    return text_table(lines, longest_name=60)


def _circumstances(results: Results) -> dict[str, object]:
    about = results.description
    return {
        "protocol": about["settings"]["protocol"],
        "seconds per second of audio": f"{about['time']['seconds_per_second_of_audio']:.3g}",
        "scan": f"{about['separation']['scan']} on {about['hardware']['device']}",
    }


def _listed(values: Mapping[str, object]) -> str:
    return text_table([(name, str(value)) for name, value in values.items()], left=(0, 1))
