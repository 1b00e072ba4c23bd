from pathlib import Path

import pytest
import torch
from torch import Tensor

from bsmamba2.audio.writing import write_audio
from bsmamba2.data.audio_checks import compressed_sums, measure_track, unreadable_audio, wrong_lengths, wrong_sum
from bsmamba2.data.findings import LOWEST_DB, CheckedTrack, Problem
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.stem_names import MIXTURE

WINDOW = 1000


def noise(length: int, seed: int = 0) -> Tensor:
    return torch.rand(2, length, generator=torch.Generator().manual_seed(seed)) - 0.5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a track of two stems and their sum, longer than a block of a file."""
    stems = {"bass": noise(70_000), "drums": noise(70_000, seed=1)}
    for name, audio in {**stems, MIXTURE: stems["bass"] + stems["drums"]}.items():
        write_audio(tmp_path / "train" / "A - 1" / f"{name}.wav", audio, SAMPLE_RATE, depth="float")
    return tmp_path / "train" / "A - 1"


def rewrite(path: Path, audio: Tensor) -> None:
    write_audio(path, audio, SAMPLE_RATE, depth="float")


def test_everything_is_measured(folder: Path) -> None:
    track = measure_track(folder, WINDOW)
    assert track.samples == 70_000
    assert set(track.infos) == set(track.activities) == {MIXTURE, "bass", "drums"}
    assert set(track.active_shares) == {"bass", "drums"}
    assert track.mixture_minus_sum_db == LOWEST_DB
    assert (track.silent, list(track.faults)) == (frozenset(), [])
    assert list(wrong_sum(track)) == []


@pytest.mark.parametrize("gain", [0.5, 0.95, 0.9999])
def test_the_difference_is_measured_over_the_whole_mixture(folder: Path, gain: float) -> None:
    sound = noise(70_000) + noise(70_000, seed=1)
    rewrite(folder / "mixture.wav", gain * sound)
    track = measure_track(folder, WINDOW)
    expected = 20 * torch.tensor((1 - gain) / gain).log10().item()
    assert track.mixture_minus_sum_db == pytest.approx(expected, abs=0.01)
    assert len(list(wrong_sum(track))) == (gain == 0.5)
    assert len(list(compressed_sums([track]))) == (gain == 0.95)


def test_compressed_sums_are_one_note_on_the_worst_track(tmp_path: Path) -> None:
    for name in "ABC":
        (tmp_path / "train" / name).mkdir(parents=True)
    levels = {"A": -30.0, "B": -25.0, "C": -90.0}
    tracks = [CheckedTrack(tmp_path / "train" / name, mixture_minus_sum_db=level) for name, level in levels.items()]
    (note,) = compressed_sums(tracks)
    assert (note.severity, note.place) == ("note", "train/B")
    assert note.text.endswith("in 2 tracks, as in files that were compressed; at most -25.0 dB")


def test_a_fault_in_one_stem_leaves_the_measurements_of_the_others(folder: Path) -> None:
    audio = noise(70_000)
    audio[0, -1] = torch.nan
    rewrite(folder / "bass.wav", audio)
    track = measure_track(folder, WINDOW)
    assert set(track.activities) == {MIXTURE, "drums"}
    assert track.mixture_minus_sum_db is None
    (problem,) = unreadable_audio(track)
    assert problem.place == "train/A - 1/bass.wav"
    assert problem.text.startswith("has samples that are not finite")


def test_a_folder_that_has_a_stem_twice_is_not_measured(folder: Path) -> None:
    (folder / "bass.flac").touch()
    track = measure_track(folder, WINDOW)
    assert (track.sources, track.samples) == ({}, None)
    (problem,) = unreadable_audio(track)
    assert problem.place == "train/A - 1"
    assert "the stem 'bass' is in" in problem.text


def test_lengths_are_compared_with_the_mixture_or_the_longest_stem(folder: Path) -> None:
    rewrite(folder / "bass.wav", noise(69_999))
    place = "train/A - 1/bass.wav"
    expected = Problem("error", place, "has 69999 samples but its mixture 70000")
    track = measure_track(folder, WINDOW)
    assert list(wrong_lengths(track)) == [expected]
    assert [activity.samples for activity in track.activities.values()] == [70_000, 70_000, 69_999]
    (folder / "mixture.wav").unlink()
    track = measure_track(folder, WINDOW)
    assert track.samples == 69_999
    expected = Problem("note", place, "has 69999 samples but the longest stem 70000")
    assert list(wrong_lengths(track)) == [expected]
