from pathlib import Path

import pytest

from bsmamba2.data.track_files import TrackFiles, track_files, unused_files
from bsmamba2.errors import InputError


def files(folder: Path, *names: str) -> TrackFiles:
    """Returns the files of a track of empty files: only names are read."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return track_files(folder)


@pytest.mark.parametrize(
    ("names", "stems", "unused"),
    [
        (["vocals.wav", "drums.wav", "mixture.wav", "a.wav"], ["mixture", "drums", "vocals", "a"], []),
        (["Vocals.WAV", "DRUMS.flac", "Mixture.Wav"], ["mixture", "drums", "vocals"], []),
        (["Guitar.wav", "Voice.wav"], ["Guitar", "Voice"], []),
        (["voice.mp3", "music.opus"], ["music", "voice"], []),
        (["vocals.wav", "drums.wav", "mix.wav"], ["drums", "vocals"], ["mix.wav"]),
        (["vocals.wav", "drums.wav", "Mixdown.wav", "MASTER.wav"], ["drums", "vocals"], ["MASTER.wav", "Mixdown.wav"]),
        (["vocals.wav", "drums.wav", "residual.wav"], ["drums", "vocals"], ["residual.wav"]),
        (["vocals.wav", "instrumental.wav"], ["vocals", "instrumental"], []),
        (["vocals.wav", "Accompaniment.wav"], ["vocals", "instrumental"], []),
        (["vocals.wav", "no_vocals.wav", "drums.wav"], ["drums", "vocals"], ["no_vocals.wav"]),
        (["vocals.wav", "vocals.mp3", "drums.wav"], ["drums", "vocals"], ["vocals.mp3"]),
        (["vocals.wav", "drums.wav", "clip.mp4"], ["drums", "vocals"], ["clip.mp4"]),
        (["vocals.wav", "drums.wav", "takes/vocals.wav"], ["drums", "vocals"], ["takes/vocals.wav"]),
        (["vocals.wav", "drums.wav", "notes.txt", ".hidden.wav", ".trash/bass.wav"], ["drums", "vocals"], []),
        (["cafe\u0301.wav", "vocals.wav"], ["vocals", "caf\u00e9"], []),
    ],
)
def test_stems_are_chosen_by_the_names_of_files(
    tmp_path: Path, names: list[str], stems: list[str], unused: list[str]
) -> None:
    found = files(tmp_path / "A - 1", *names)
    assert list(found.sources) == stems
    assert sorted(path.relative_to(tmp_path / "A - 1").as_posix() for path in found.unused) == unused
    assert all(reason.startswith("is not used, because ") for reason in found.unused.values())


@pytest.mark.parametrize(
    "names", [["bass.wav", "bass.flac"], ["bass.mp3", "bass.ogg"], ["instrumental.wav", "accompaniment.wav"]]
)
def test_two_files_of_a_stem_are_an_error(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InputError, match=r"is in .* twice, as .* and .*; keep one"):
        files(tmp_path, *names)


def test_files_of_the_same_name_in_several_tracks_are_one_sentence(tmp_path: Path) -> None:
    tracks = [tmp_path / f"A - {number}" for number in range(3)]
    for track in tracks:
        files(track, "vocals.wav", "drums.wav", "mix.wav")
    files(tracks[2], "residual.wav")
    first, second = unused_files(tracks)
    assert first.startswith(f"{tracks[0] / 'mix.wav'} is not used, because by its name it is the whole song; ")
    assert first.endswith("(nor are 2 more of that name)")
    assert second == (
        f"{tracks[2] / 'residual.wav'} is not used, because by its name it is what is left of a song; rename it if it "
        "is a stem"
    )


@pytest.mark.parametrize(("name", "expected"), [("a.wav", False), ("a.flac", False), ("a.mp3", True), ("a.m4a", True)])
def test_which_tracks_are_decoded_before_training(tmp_path: Path, name: str, expected: bool) -> None:
    assert files(tmp_path, name, "b.wav").to_decode == expected
