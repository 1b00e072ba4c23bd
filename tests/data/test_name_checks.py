from pathlib import Path

import pytest

from bsmamba2.data.findings import CheckedTrack
from bsmamba2.data.musdb import STREAMS
from bsmamba2.data.name_checks import (
    found_tracks,
    kind_of,
    misplaced_files,
    unlisted_or_empty,
    usual_stems,
    wrong_file_names,
)
from bsmamba2.data.track_files import track_files

MUSDB = list(STREAMS)


def track(folder: Path, stems: list[str], suffix: str = ".wav") -> CheckedTrack:
    """Returns a track of empty files: only names are read here."""
    folder.mkdir(parents=True)
    for stem in stems:
        (folder / f"{stem}{suffix}").touch()
    files = track_files(folder)
    return CheckedTrack(folder, files.sources, files.unused)


def test_found_tracks_are_visible_folders_and_stem_files(tmp_path: Path) -> None:
    for name in ("B - 2", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("A - 1.stem.mp4", "song.wav", ".C - 3.stem.mp4"):
        (tmp_path / name).touch()
    assert [path.name for path in found_tracks(tmp_path)] == ["A - 1.stem.mp4", "B - 2"]
    assert list(unlisted_or_empty(tmp_path)) == []


def test_a_split_that_cannot_be_listed_is_one_problem(tmp_path: Path) -> None:
    missing = tmp_path / "train"
    assert found_tracks(missing) == []
    assert list(misplaced_files(missing, tmp_path)) == []
    (problem,) = unlisted_or_empty(missing)
    assert (problem.severity, problem.place) == ("error", "train")
    assert problem.text == "cannot be listed (No such file or directory)"


def test_usual_stems_are_those_of_more_than_half_of_the_tracks(tmp_path: Path) -> None:
    tracks = [track(tmp_path / str(number), ["guitar", "voice"]) for number in range(2)]
    tracks.append(track(tmp_path / "third", ["guitar", "drum machine"]))
    assert usual_stems(tracks) == ["guitar", "voice"]
    # Of half of the tracks, only a name of MUSDB18's counts.
    half = [track(tmp_path / "fourth", ["bass"]), track(tmp_path / "fifth", ["guitar"])]
    assert usual_stems(half) == ["bass"]
    assert usual_stems([]) == MUSDB


def test_a_misspelled_stem_is_usual_under_its_right_name(tmp_path: Path) -> None:
    tracks = [track(tmp_path / str(number), ["bass", "drums", "Vocal", "other"]) for number in range(3)]
    assert usual_stems(tracks) == ["bass", "drums", "other", "vocals"]
    for found in tracks:
        (problem,) = wrong_file_names(found, usual_stems(tracks))
        assert problem.text == "is called 'Vocal' instead of 'vocals'; rename it"
        assert problem.place == f"{tmp_path.name}/{found.name}/Vocal.wav"


def test_a_stem_that_is_found_is_not_missing_a_second_time(tmp_path: Path) -> None:
    """Of two files that could be the missing stem, the first is taken for it and the second is unusual."""
    found = track(tmp_path / "A - 1", ["bass", "drums", "other", "vocal", "vocalss"])
    texts = [problem.text for problem in wrong_file_names(found, ["bass", "drums", "other", "vocals"])]
    assert texts == [
        "is called 'vocal' instead of 'vocals'; rename it",
        "is a stem that most tracks lack; all tracks need the same stems",
    ]


@pytest.mark.parametrize(
    ("stems", "suffix", "kind"),
    [(MUSDB, ".wav", "MUSDB18-HQ"), (MUSDB, ".flac", "folders of stems"), (["bass"], ".wav", "folders of stems")],
)
def test_the_kind_of_folders(tmp_path: Path, stems: list[str], suffix: str, kind: str) -> None:
    found = track(tmp_path / "A - 1", stems, suffix)
    assert kind_of([found]) == kind
    stem_file = CheckedTrack(tmp_path / "B - 2.stem.mp4")
    assert kind_of([found, stem_file, stem_file]) == "MUSDB18"
