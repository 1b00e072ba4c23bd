from pathlib import Path

from bsmamba2.data.activity import StemActivity
from bsmamba2.data.duplicate_checks import repeated_audio, repeated_names
from bsmamba2.data.findings import CheckedTrack, Problem
from bsmamba2.stem_names import MIXTURE

ROOT = Path("data")


def track(place: str, hashes: dict[str, str] | None = None, silent: tuple[str, ...] = ()) -> CheckedTrack:
    path = ROOT / place
    hashes = hashes or {}
    return CheckedTrack(
        path,
        {name: (path / f"{name}.wav", None) for name in hashes},
        activities={name: StemActivity(f"{name}.wav", 1, 1, 1, digest, []) for name, digest in hashes.items()},
        silent=frozenset(silent),
    )


def test_names_differ_by_more_than_case_and_unicode_form() -> None:
    names = ["train/Zoë - Ä", "test/Zoe\u0308 - a\u0308", "test/Zoe - A", "valid/STRASSE", "valid/straße"]
    assert list(repeated_names([track(name) for name in names])) == [
        Problem("error", names[1], f"has the same name as the track {names[0]}; keep one"),
        Problem("error", names[4], f"has the same name as the track {names[3]}; keep one"),
    ]


def test_audio_of_an_earlier_track_is_one_problem_per_pair() -> None:
    first = track("train/A", {MIXTURE: "1", "bass": "2", "drums": "3"})
    second = track("train/B", {"bass": "4"})
    third = track("test/C", {MIXTURE: "5", "bass": "2", "drums": "3", "vocals": "4"})
    assert list(repeated_audio([first, second, third])) == [
        Problem("error", "test/C", "has the same audio as train/A (bass, drums); keep one"),
        Problem("error", "test/C", "has the same audio as train/B (vocals); keep one"),
    ]


def test_audio_of_another_stem_of_the_track_is_a_problem_of_the_stem() -> None:
    found = track("train/A", {MIXTURE: "1", "bass": "2", "drums": "2"})
    assert list(repeated_audio([found])) == [
        Problem("error", "train/A/drums.wav", "is the same audio as its stem bass"),
    ]


def test_silence_and_a_mixture_of_one_stem_are_not_repeated() -> None:
    single = track("train/A", {MIXTURE: "1", "bass": "1"})
    silent = track("train/B", {"bass": "0", "drums": "0"}, silent=("bass", "drums"))
    assert list(repeated_audio([single, silent, silent])) == []
