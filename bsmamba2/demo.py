"""The three jobs on one short real song: train, evaluate, separate."""

import shutil
import time
from importlib.util import find_spec
from pathlib import Path

from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import MIXTURE, SAMPLE_RATE, STREAMS
from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.evaluation.results import ESTIMATE, MIXTURE_ROW, Results
from bsmamba2.evaluation.runs import REPORT
from bsmamba2.evaluation_command import evaluate
from bsmamba2.files import make_folder
from bsmamba2.song_files import separate_files
from bsmamba2.training_command import train

# Seconds of the song that each side gets; those of the test are heard by nothing else.
EXCERPTS_SECONDS = {"train": (1.0, 4.6), "valid": (0.0, 1.0), "test": (4.6, 6.05)}


def run_demo(config: Path = Path("configs/tiny.yaml"), training_minutes: float = 3.0) -> str:
    """Trains, evaluates and separates the song excerpt that the package stempeg carries; returns the results as text.

    Everything goes to the folder demo/; what an earlier demo left there is replaced.

    Args:
        config: Training config.
        training_minutes: Longest time to train.

    Raises:
        InputError: The config cannot be used, or the folder demo/ cannot be written to.
    """
    if not config.is_file():
        raise InputError(f"there is no config {config}; run the demo in the project's folder, or give --config")
    if not training_minutes > 0:
        raise InputError(f"training_minutes={training_minutes} is not allowed; give a time above 0")
    marker = Path("demo") / ".bsmamba2-demo"
    if Path("demo").exists() and not marker.exists():
        raise InputError("there is a folder demo/ here that no demo made; run the demo in another folder")
    make_folder(marker.parent)
    marker.touch()
    data, runs, scores, stems = (Path("demo") / name for name in ("data", "runs", "evaluation", "stems"))
    for part in (data, runs, scores, stems):
        shutil.rmtree(part, ignore_errors=True)
    song = example_song()
    lay_out(song, data)
    minutes, seconds = divmod(round(60 * training_minutes), 60)
    started = time.monotonic()
    checkpoint = train(
        [
            f"--config={config}",
            f"--data.root={data}",
            f"--data.cache={data}",
            "--data.shared_artists=true",
            "--trainer.devices=1",
            f"--trainer.max_time=00:{minutes // 60:02}:{minutes % 60:02}:{seconds:02}",
            f"--trainer.default_root_dir={runs}",
        ]
    )
    training_seconds = time.monotonic() - started
    results = evaluate(data, scores, checkpoint)
    mixture = data / f"{song.name}.wav"
    shutil.copyfile(data / "test" / song.name / f"{MIXTURE}.wav", mixture)
    separate_files([mixture], checkpoint, stems)
    return _report(results, song.name, checkpoint, stems / song.name, scores / REPORT, training_seconds)


def example_song() -> Track:
    """Returns the real song excerpt in the data of the package stempeg: 6 s, five streams.

    The package is not imported: that fails on a machine without an ffmpeg program.
    """
    spec = find_spec("stempeg")
    files = sorted(Path(spec.origin or "").parent.glob("data/*.stem.mp4")) if spec else []
    if not files:
        raise InputError("the package stempeg with its example song is not installed; install requirements.txt")
    return Track(files[0], round(EXCERPTS_SECONDS["test"][1] * SAMPLE_RATE))


def lay_out(song: Track, root: Path) -> None:
    """Writes a MUSDB18 folder of WAV files; train/, valid/ and test/ have different seconds of the song."""
    for split, seconds in EXCERPTS_SECONDS.items():
        start, stop = (round(second * SAMPLE_RATE) for second in seconds)
        for name in STREAMS:
            path = root / split / song.name / f"{name}.wav"
            write_audio(path, song.read(name, start, stop - start), SAMPLE_RATE)


def _report(results: Results, track: str, checkpoint: Path, stems: Path, page: Path, training_seconds: float) -> str:
    rows = results.tracks[track].scores["vocals"]
    model, mixture = rows[ESTIMATE], rows[MIXTURE_ROW]
    about = results.description
    start, stop = EXCERPTS_SECONDS["test"]
    beaten = model.usdr > mixture.usdr and model.csdr > mixture.csdr
    verdict = (
        "The model beats the mixture on seconds it never trained on."
        if beaten
        else "The model did NOT beat the mixture on seconds it never trained on; train for longer."
    )
    lines = [
        (f"vocals of {track}, {start:g} to {stop:g} s", "cSDR", "uSDR"),
        ("mixture as estimate", f"{mixture.csdr:.2f} dB", f"{mixture.usdr:.2f} dB"),
        (f"model, trained for {training_seconds:.0f} s", f"{model.csdr:.2f} dB", f"{model.usdr:.2f} dB"),
    ]
    return "\n".join(
        [
            "",
            *(f"{name:52} {csdr:>10} {usdr:>10}" for name, csdr, usdr in lines),
            verdict,
            "By its definition the uSDR of silence is 0 dB; a model of a few seconds of one song gets little further.",
            "",
            f"protocol                      {about['settings']['protocol']}",
            f"seconds per second of audio   {about['time']['seconds_per_second_of_audio']:.3g}",
            f"scan                          {about['separation']['scan']} on {about['hardware']['device']}",
            f"report                        {page}",
            f"stems                         {stems / 'vocals.wav'}, {stems / 'instrumental.wav'}",
            f"checkpoint                    {checkpoint}",
        ]
    )
