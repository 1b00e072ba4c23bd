import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.activity import index_tracks
from bsmamba2.data.checking import check_folder
from bsmamba2.data.command import check_data
from bsmamba2.data.musdb import SAMPLE_RATE, STREAMS
from bsmamba2.data.track_files import STEM_FILE
from bsmamba2.data.tracks import Track, find_tracks
from bsmamba2.errors import InputError
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS

WINDOW = 20_000
LENGTH = 30_000
FIRST, SECOND, THIRD = "train/A - 1", "train/B - 2", "train/C - 3"

Found = set[tuple[str, str, str]]


@pytest.fixture(scope="module")
def good_root(tmp_path_factory: pytest.TempPathFactory, song_stems: dict[str, Tensor]) -> Path:
    """Returns a folder of three short tracks to train, of different real audio, and one to test: nothing is wrong."""
    root = tmp_path_factory.mktemp("good")
    for number, place in enumerate((FIRST, SECOND, THIRD, "test/D - 4")):
        start = 15_000 * number
        stems = {stem: song_stems[stem][:, start : start + LENGTH] / 4 for stem in MUSDB_STEMS}
        for name, audio in {**stems, MIXTURE: sum(stems.values())}.items():
            write_audio(root / place / f"{name}.wav", torch.as_tensor(audio), SAMPLE_RATE)
    return root


@pytest.fixture
def root(tmp_path: Path, good_root: Path) -> Path:
    """Returns the same in files that the test may change."""
    return shutil.copytree(good_root, tmp_path / "root")


def problems(root: Path) -> Found:
    """Returns severity, place and sentence of all problems except those that any small dataset has."""
    found = {(problem.severity, problem.place, problem.text) for problem in check_folder(root, WINDOW).problems}
    return {problem for problem in found if "MUSDB18-HQ has" not in problem[2] and problem[1] != "valid"}


def test_a_good_folder_has_no_problem(root: Path) -> None:
    report = check_folder(root, WINDOW)
    assert report.healthy
    assert problems(root) == set()
    assert [(track.split, track.name) for track in report.tracks] == [
        ("train", "A - 1"), ("train", "B - 2"), ("train", "C - 3"), ("test", "D - 4"),
    ]  # fmt: skip
    for track in report.tracks:
        level = track.mixture_minus_sum_db
        assert level is not None
        assert level < -50
        assert track.samples == LENGTH


def test_shares_are_those_of_the_active_windows(root: Path) -> None:
    noise = torch.randn(2, LENGTH, generator=torch.Generator().manual_seed(0)) / 8
    noise[:, :20_000] = 0
    write_audio(root / FIRST / "bass.wav", noise, SAMPLE_RATE)
    first, second, *_ = check_folder(root, 5000).tracks
    # Of the windows from 0, 2500, ... 25000, those from 17500 on contain sound for at least half of their length.
    assert first.active_shares["bass"] == 3 / 11
    assert set(first.active_shares) == set(second.active_shares) == set(MUSDB_STEMS)
    write_audio(root / SECOND / "bass.wav", noise[:, :4999], SAMPLE_RATE)
    (root / SECOND / "mixture.wav").unlink()
    assert set(check_folder(root, 5000).tracks[1].active_shares.values()) == {None}


def rewritten(name: str, change: Callable[[Tensor], Tensor], **options: Any) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = root / FIRST / name
        write_audio(path, change(read_audio(path)), options.get("rate", SAMPLE_RATE), depth=options.get("depth", "16"))

    return damage


def truncated(root: Path) -> None:
    path = root / FIRST / "bass.wav"
    path.write_bytes(path.read_bytes()[:-999])


def with_nan(audio: Tensor) -> Tensor:
    audio[0, -1] = torch.nan
    return audio


def moved(old: str, new: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        (root / old).rename(root / new)

    return damage


def copied(old: str, new: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        path = root / old
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, root / new)

    return damage


def converted(old: str, new: str, format: Any) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        write_audio(root / new, read_audio(root / old) / 2, SAMPLE_RATE, format, "16" if format == "flac" else None)

    return damage


@pytest.mark.parametrize(
    ("damage", "severity", "place", "text"),
    [
        (lambda root: (root / FIRST / "bass.wav").unlink(), "error", FIRST, "lacks the stem bass"),
        (lambda root: (root / FIRST / "mixture.wav").unlink(), "note", FIRST, "has no file of the mixture"),
        (rewritten("bass.wav", lambda audio: audio[:, :-1]), "error", f"{FIRST}/bass.wav",
         "has 29999 samples but its mixture 30000"),
        (rewritten("bass.wav", lambda audio: torch.cat([audio, audio], -1)), "note", f"{FIRST}/bass.wav",
         "has 60000 samples but its mixture 30000; the rest is not used"),
        (rewritten("bass.wav", lambda audio: audio * 0), "note", f"{FIRST}/bass.wav", "is silent"),
        (rewritten("bass.wav", lambda audio: audio, rate=48000), "error", f"{FIRST}/bass.wav",
         "has 48000 Hz and 2 channels instead of 44100 Hz and 2"),
        (rewritten("bass.wav", lambda audio: audio[:1]), "error", f"{FIRST}/bass.wav",
         "has 44100 Hz and 1 channels instead of 44100 Hz and 2"),
        (rewritten("bass.wav", with_nan, depth="float"), "error", f"{FIRST}/bass.wav", "has samples that are not"),
        (truncated, "error", f"{FIRST}/bass.wav", "is truncated"),
        (lambda root: (root / FIRST / "bass.wav").write_bytes(b""), "error", f"{FIRST}/bass.wav", "is an empty file"),
        (rewritten("bass.wav", lambda audio: audio.flip(-1)), "error", FIRST, "mixture minus sum of the stems is"),
        (rewritten("mixture.wav", lambda audio: 0.98 * audio), "note", FIRST, "in 1 tracks, as in files that were"),
        (rewritten("mixture.wav", lambda audio: 0.85 * audio), "error", FIRST, "is -15.1 dB of the mixture"),
        (moved(f"{FIRST}/vocals.wav", f"{FIRST}/vocal.wav"), "error", f"{FIRST}/vocal.wav",
         "is called 'vocal' instead of 'vocals'; rename it"),
        (converted(f"{FIRST}/bass.wav", f"{FIRST}/guitar.flac", "flac"), "error", f"{FIRST}/guitar.flac",
         "is a stem that most tracks lack"),
        (converted(f"{FIRST}/bass.wav", f"{FIRST}/bass.mp3", "mp3"), "note", f"{FIRST}/bass.mp3",
         "is not used, because bass.wav is"),
        (converted(f"{FIRST}/bass.wav", f"{FIRST}/bass.flac", "flac"), "error", FIRST, "the stem 'bass' is in"),
        *[(converted(f"{FIRST}/mixture.wav", f"{FIRST}/{name}.wav", "wav"), "note", f"{FIRST}/{name}.wav",
           "is not used, because")
          for name in ("mix", "MASTER", "residual", "instrumental", "Accompaniment", "no_vocals")],
        (copied(f"{FIRST}/bass.wav", f"{FIRST}/clip.mp4"), "note", f"{FIRST}/clip.mp4", "is not used, .* is a video"),
        (copied(FIRST, f"{FIRST}/takes"), "note", f"{FIRST}/takes/bass.wav", "is not used, .* is in a folder inside"),
        (copied(f"{FIRST}/bass.wav", "train/Loose.wav"), "error", "train/Loose.wav", "is not read; a track is a"),
        (copied(f"{FIRST}/bass.wav", "Loose.wav"), "error", "Loose.wav", "is not read; tracks belong in train/"),
        (copied(f"{FIRST}/bass.wav", "train/E - 5.mp4"), "error", "train/E - 5.mp4", r"rename it to E - 5\.stem\.mp4"),
        (copied(f"{FIRST}/bass.wav", "train/E - 5.stem.mp4"), "error", "train/E - 5.stem.mp4", "has 1 audio streams"),
        (moved("test", "Test"), "error", "Test", "is not read; rename it to test"),
        (lambda root: (root / "train/E - 5").mkdir(), "error", "train/E - 5", "has no stem"),
        (lambda root: (root / "train/E - 5").symlink_to("nowhere"), "error", "train/E - 5", "is a broken link"),
        (moved("test/D - 4", "D - 4"), "error", "test", "has no track"),
        (moved("train", "rest"), "error", "train", "does not exist, so there is nothing to train on"),
        (copied(f"{FIRST}/bass.wav", f"{FIRST}/other.wav"), "error", f"{FIRST}/other.wav",
         "is the same audio as its stem bass"),
        (moved("test/D - 4", "test/A - 1"), "error", "test/A - 1", "has the same name as the track train/A - 1"),
        (moved("test/D - 4", "test/a - 1"), "error", "test/a - 1", "has the same name as the track train/A - 1"),
        (copied(FIRST, "test/E - 5"), "error", "test/E - 5",
         r"has the same audio as train/A - 1 \(mixture, drums, bass, other, vocals\)"),
        (converted(f"{FIRST}/bass.wav", f"{SECOND}/bass.wav", "flac"), "error", SECOND, "mixture minus sum"),
    ],
)  # fmt: skip
def test_every_damage_is_reported_and_other_checks_continue(
    root: Path, damage: Callable[[Path], None], severity: str, place: str, text: str
) -> None:
    damage(root)
    # A second problem, in the last track, is also found.
    (root / THIRD / "drums.wav").unlink(missing_ok=True)
    found = problems(root)
    expected = [p for p in found if p[:2] == (severity, place) and re.search(text, p[2])]
    assert len(expected) == 1, found
    if (root / THIRD).exists():
        assert ("error", THIRD, "lacks the stem drums, which others have") in found
    others = {p for p in found if p not in expected and p[1] != THIRD and p[1] != "train" and p[0] == "error"}
    consequences = {"mixture minus sum of the stems", "same name", "same audio", "lacks the stem bass"}
    assert all(any(words in p[2] for words in consequences) for p in others), others


def test_silence_is_not_repeated_audio(good_root: Path, tmp_path: Path) -> None:
    for place in (FIRST, SECOND):
        for stem in MUSDB_STEMS:
            audio = read_audio(good_root / place / f"{stem}.wav") * (stem != "bass")
            write_audio(tmp_path / place / f"{stem}.wav", audio, SAMPLE_RATE)
    silent = {("note", f"{place}/bass.wav", "is silent") for place in (FIRST, SECOND)}
    nowhere = f"has no window of {WINDOW} samples in which the stem bass is active; use a shorter --segment-seconds"
    assert problems(tmp_path) == {*silent, ("error", "train", nowhere)}


def test_a_stem_only_dataset_of_other_names_is_fine(tmp_path: Path, song_stems: dict[str, Tensor]) -> None:
    for number in range(2):
        for new, old in (("guitar", "other"), ("voice", "vocals")):
            audio = song_stems[old][:, 9000 * number : LENGTH]
            write_audio(tmp_path / "train" / f"A - {number}" / f"{new}.flac", audio, SAMPLE_RATE, "flac")
    assert problems(tmp_path) == set()
    assert check_folder(tmp_path, WINDOW).kind == "folders of stems"
    write_audio(tmp_path / "train" / "A - 0" / "voice.flac", song_stems["vocals"][:, :20_000], SAMPLE_RATE, "flac")
    assert problems(tmp_path) == {
        ("note", "train/A - 0/voice.flac", "has 20000 samples but the longest stem 30000"),
    }


def test_a_misspelling_in_all_tracks_is_found(root: Path) -> None:
    for place in (FIRST, SECOND, THIRD, "test/D - 4"):
        (root / place / "vocals.wav").rename(root / place / "Vocal.wav")
    assert {text for _, _, text in problems(root)} == {"is called 'Vocal' instead of 'vocals'; rename it"}


def test_capital_letters_do_not_matter(root: Path) -> None:
    for number, place in enumerate((FIRST, SECOND, THIRD)):
        for name in ("vocals", "mixture"):
            (root / place / f"{name}.wav").rename(root / place / f"{(name.title(), name.upper(), name)[number]}.WAV")
    assert problems(root) == set()
    assert check_folder(root, WINDOW).healthy


def test_missing_official_tracks_are_reported(root: Path, musdb_root: Path, tmp_path: Path) -> None:
    texts = {(problem.place, problem.text) for problem in check_folder(musdb_root, WINDOW).problems}
    assert ("train", "has 3 tracks; MUSDB18-HQ has 100") in texts
    assert ("test", "has 1 tracks; MUSDB18-HQ has 50") in texts
    lacking = {text for place, text in texts if place == "train" and "validation" in text}
    assert len(lacking) == 13
    assert "lacks the official validation track 'Actions - One Minute Smile'" in lacking
    assert any(
        p.place == "valid" and "lacks official validation tracks" in p.text for p in check_folder(root, WINDOW).problems
    )
    shutil.move(root / THIRD, root / "valid" / "C - 3")
    assert problems(root) == set()
    assert not any("validation" in problem.text for problem in check_folder(root, WINDOW).problems)


def test_the_known_error_of_musdb_is_a_note(root: Path) -> None:
    (root / FIRST).rename(root / "train/PR - Oh No")
    mixture = root / "train/PR - Oh No/mixture.wav"
    write_audio(mixture, read_audio(mixture) * torch.tensor([[0.5], [1.0]]), SAMPLE_RATE)
    ((severity, place, _),) = problems(root)
    assert (severity, place) == ("note", "train/PR - Oh No")


@pytest.fixture(scope="module")
def stem_root(song: Track, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a stem file to train on and half of one to test."""
    root = tmp_path_factory.mktemp("musdb18")
    for split in ("train", "test"):
        (root / split).mkdir()
    shutil.copyfile(song.path, root / "train" / f"A - 1{STEM_FILE}")
    content = song.path.read_bytes()
    (root / "test" / f"B - 2{STEM_FILE}").write_bytes(content[: len(content) // 2])
    return root


def test_stem_files_are_checked_stream_by_stream(stem_root: Path) -> None:
    report = check_folder(stem_root, WINDOW)
    assert report.kind == "MUSDB18"
    whole, half = report.tracks
    assert list(whole.activities) == list(STREAMS)
    assert report.problems_of(half)
    assert half.activities == {}
    # The mixture of this song was limited, so it differs from the sum by more than compression.
    assert [problem.severity for problem in report.problems_of(whole)] == ["error"]
    assert whole.mixture_minus_sum_db == pytest.approx(-15.4, abs=0.5)


def test_whole_stem_files_are_decoded_and_damaged_ones_left_out(stem_root: Path, tmp_path: Path) -> None:
    text, healthy = check_data(stem_root, decoded=tmp_path / "decoded", depth="16")
    assert not healthy
    assert f"decoded: 1 of 2 tracks to {tmp_path / 'decoded'} (5 files written, 0 kept, " in text
    assert sorted(path.name for path in (tmp_path / "decoded").rglob("*.wav")) == [
        "bass.wav", "drums.wav", "mixture.wav", "other.wav", "vocals.wav",
    ]  # fmt: skip
    with pytest.raises(InputError, match="is the folder to decode"):
        check_data(stem_root, decoded=stem_root / "train" / "..")


def test_the_index_is_the_same_as_that_of_a_training_run(root: Path, tmp_path: Path) -> None:
    index, made = tmp_path / "index.json", tmp_path / "made.json"
    text, healthy = check_data(root, index=index, segment_seconds=WINDOW / SAMPLE_RATE)
    assert healthy
    assert f"index: 3 tracks in {index}" in text
    tracks = find_tracks(root, "train", validation_artists=["B"])
    assert [track.name for track in tracks] == ["A - 1", "C - 3"]
    all_tracks = sorted([*tracks, *find_tracks(root, "valid", validation_artists=["B"])], key=lambda track: track.name)
    index_tracks(all_tracks, WINDOW, tmp_path, made)
    assert json.loads(index.read_text()) == json.loads(made.read_text())
    before = index.read_bytes()
    assert index_tracks(tracks, WINDOW, tmp_path, index).windows["drums"]
    (root / FIRST / "bass.wav").unlink()
    text, healthy = check_data(root, index=index, segment_seconds=WINDOW / SAMPLE_RATE)
    assert not healthy
    assert "is not written, because there are errors in train/" in text
    assert index.read_bytes() == before


def test_the_report_is_a_table_and_json(root: Path) -> None:
    (root / FIRST / "bass.wav").unlink()
    text, healthy = check_data(root, segment_seconds=0.5)
    assert not healthy
    lines = text.splitlines()
    assert lines[0].split()[-6:] == ["other", "vocals", "bass", "mix-sum", "dB", "problems"]
    assert lines[1].startswith("train  A - 1 ")
    assert lines[1].endswith("2 errors")
    assert f"error: {FIRST}: lacks the stem bass, which others have" in lines
    assert "train: 3 tracks, 0.0 minutes (MUSDB18-HQ)" in lines
    assert lines[-1].startswith("2 errors, ")
    assert lines[-1].endswith("fix the errors before training")
    content = json.loads(check_data(root, segment_seconds=0.5, json=True)[0])
    assert content["healthy"] is False
    assert [track["name"] for track in content["tracks"]] == ["A - 1", "B - 2", "C - 3", "D - 4"]
    assert content["tracks"][1]["seconds"] == LENGTH / SAMPLE_RATE
    assert content["tracks"][0]["problems"][0] == {
        "severity": "error", "place": FIRST, "text": "lacks the stem bass, which others have",
    }  # fmt: skip


@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (16000, 1), (SAMPLE_RATE, 1)])
@pytest.mark.parametrize("given", [True, False])
def test_data_of_any_rate_and_channels_is_checked_and_indexed(
    tmp_path: Path, song_stems: dict[str, Tensor], rate: int, channels: int, given: bool
) -> None:
    """By default, the format is that of most tracks."""
    for number in range(3):
        for name in ("dialog", "music"):
            audio = song_stems["vocals" if name == "dialog" else "other"][:channels, 9000 * number :]
            write_audio(tmp_path / "train" / f"A - {number}" / f"{name}.wav", audio, rate)
    index, seconds = tmp_path / "index.json", WINDOW / rate
    options = {"sample_rate": rate, "channels": channels} if given else {}
    text, healthy = check_data(tmp_path, index=index, segment_seconds=seconds, **options)  # type: ignore[arg-type]
    assert healthy, text
    minutes = sum(88200 - 9000 * number for number in range(3)) / rate / 60
    assert f"train: 3 tracks, {minutes:.1f} minutes" in text
    tracks = find_tracks(
        tmp_path, "train", validation_tracks=["A - 0"], shared_artists=True, sample_rate=rate, channels=channels
    )
    assert index_tracks(tracks, WINDOW, tmp_path, index).windows["music"]
    write_audio(tmp_path / "train" / "A - 1" / "music.wav", song_stems["other"], 22050)
    text, healthy = check_data(tmp_path, segment_seconds=seconds, **options)  # type: ignore[arg-type]
    assert f"A - 1/music.wav: has 22050 Hz and 2 channels instead of {rate} Hz and {channels}" in text
    assert not healthy


def test_a_rate_that_does_not_exist_is_an_error(root: Path) -> None:
    with pytest.raises(InputError, match="sample_rate=0 is not allowed"):
        check_data(root, sample_rate=0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_segment_of_no_length_is_an_error(root: Path, seconds: float) -> None:
    with pytest.raises(InputError, match=r"segment_seconds=.* is not allowed"):
        check_data(root, segment_seconds=seconds)


def test_a_folder_without_splits_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains none of the folders train/, valid/ and test/"):
        check_data(root / "train")
    with pytest.raises(InputError, match=r"there is no folder .*nothing"):
        check_data(tmp_path / "nothing")
