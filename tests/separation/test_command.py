import contextlib
import dataclasses
import logging
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor

from bsmamba2.audio.formats import Format
from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.options import grouped
from bsmamba2.separation.command import Outcome, separate_files
from bsmamba2.separation.models import load_models
from bsmamba2.separation.separator import Separator
from bsmamba2.separation.settings import StemSettings
from bsmamba2.stem_names import MIXTURE
from bsmamba2.weights.checkpoint import load_model
from bsmamba2.weights.registry import ModelNames
from tests import programs

RATE = 44100
# Programs in the background of a shell, or below nohup, ignore some signals, and so do tests run there.
CODE = """
import signal, sys
from bsmamba2.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.platform != "win32":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.exit(main())
"""
COMMAND = [sys.executable, "-c", CODE, "separate", "--model", "model.ckpt"]
FOUR = ("drums", "bass", "other", "vocals")


def noise(channels: int = 2, length: int = 4410, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(channels, length, generator=torch.Generator().manual_seed(seed)).clamp(-4, 4)


def save(network: BSMamba2, path: Path) -> Path:
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {"network": dataclasses.asdict(network.config)}}, path)
    return path


def songs(*names: str | Path, seconds: float = 0.1) -> list[Path]:
    """Writes songs, each with its own noise."""
    for seed, name in enumerate(names):
        format: Format = "flac" if str(name).endswith(".flac") else "wav"
        write_audio(Path(name), noise(length=round(RATE * seconds), seed=seed), RATE, format)
    return [Path(name) for name in names]


def files(folder: str | Path = "stems") -> list[str]:
    """Returns all files in a folder, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if not path.is_dir())


def both(*tracks: str) -> list[str]:
    return sorted(f"{track}/{stem}.wav" for track in tracks for stem in ("vocals", "instrumental"))


def separate(inputs: Sequence[str | Path], model: ModelNames = "model.ckpt", **options: Any) -> list[Outcome]:
    """Separates with the options of the command line, each by its name."""
    return separate_files(**grouped(separate_files, {"inputs": inputs, "model": model, **options}))


def refused(*inputs: str | Path, **options: Any) -> str:
    with pytest.raises(InputError) as failure:
        separate(inputs, **options)
    return str(failure.value)


def failures(*inputs: str | Path, **options: Any) -> list[str]:
    """Returns the remarks on the songs that fail."""
    return [outcome.remark for outcome in separate(inputs, **options) if outcome.state == "failed"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, tiny_network: BSMamba2, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a folder with a model of random weights the current one."""
    monkeypatch.chdir(tmp_path)
    save(tiny_network, Path("model.ckpt"))
    return tmp_path


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", "bsmamba2")
    return caplog


@pytest.fixture
def four_stems(tiny_config: ModelConfig) -> Path:
    torch.manual_seed(0)
    return save(BSMamba2(dataclasses.replace(tiny_config, stems=FOUR)).eval(), Path("four.ckpt"))


def test_songs_of_files_folders_and_patterns(tiny_network: BSMamba2) -> None:
    songs("one.wav", "songs/two.flac", "songs/in/three.wav", "more/four.wav")
    outcomes = separate(["one.wav", "songs", "mo*/*.wav", "songs/in/three.wav"])
    assert outcomes == [
        Outcome(Path(name), "done") for name in ("one.wav", "songs/two.flac", "songs/in/three.wav", "more/four.wav")
    ]
    assert files() == both("one", "two", "in/three", "more/four")
    vocals = Separator(tiny_network)(read_audio(Path("songs/two.flac")), RATE)["vocals"]
    torch.testing.assert_close(read_audio(Path("stems/two/vocals.wav")), vocals, rtol=0, atol=2**-15)


def test_the_mixture_of_a_stem_file_is_separated(song: Track) -> None:
    separate([song.path], duration=0.2, bit_depth="float")
    assert files() == both(song.name)
    stems = [read_audio(Path("stems", song.name, f"{stem}.wav")) for stem in ("vocals", "instrumental")]
    torch.testing.assert_close(sum(stems), song.read(MIXTURE, 0, 8820), rtol=0, atol=1e-6)


def test_a_song_is_separated_offline_with_the_default_model(
    folder: Path, song: Track, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("there is no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    assert main(["separate", str(song.path), "--duration", "2", "--bit-depth", "float"]) == 0
    assert files() == both(song.name)
    stems = [read_audio(Path("stems", song.name, f"{stem}.wav")) for stem in ("vocals", "instrumental")]
    torch.testing.assert_close(sum(stems), song.read(MIXTURE, 0, 2 * RATE), rtol=0, atol=1e-6)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "small-vocals" in line]
    assert "non-commercial" in line
    assert "`bsmamba2 models` lists larger ones" in line
    assert not (folder / "cache").exists()


def test_the_output_of_one_run_is_not_an_input_of_the_next() -> None:
    songs("one.wav", "in/two.wav")
    separate(["."])
    before = files(".")
    assert [outcome.state for outcome in separate(["."], skip_existing=True)] == ["skipped"] * 2
    assert files(".") == before


@pytest.mark.parametrize(
    "name", ["two words", 'it\'s "q"', "new\nline", "ñandú 音楽", "[x]", "-x", "{a}%s", "..._", " x"]
)
def test_a_song_of_any_name(name: str, logged: pytest.LogCaptureFixture) -> None:
    songs(f"{name}.wav")
    separate([f"{name}.wav"])
    assert files() == both(name)
    assert f"done: {name}.wav -> stems/" in logged.text


def test_a_song_whose_name_is_not_unicode(caplog: pytest.LogCaptureFixture) -> None:
    name = os.fsdecode(b"\xff\xe9")
    try:
        Path(name).touch()
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    songs(f"{name}.wav")
    # pytest-xdist cannot send such a name between processes.
    with caplog.at_level(logging.ERROR, "bsmamba2"):
        separate([f"{name}.wav"])
    assert files() == both(name)


@pytest.mark.parametrize("skip_existing", [False, True])
def test_wrong_options_are_reported_before_any_work(skip_existing: bool) -> None:
    songs("a/song.wav", "b/song.flac", "c.wav")
    assert "would both write" in refused("c.wav", "a/song.wav", "b/song.flac", skip_existing=skip_existing)
    assert "is an input" in refused("c.wav", "a/song.wav", output=Path("."), template="a/song.{ext}", stems=["vocals"])
    assert "its fields are" in refused("c.wav", template="{title}/{stem}.{ext}")
    assert "contains no audio file" in refused("c.wav", str(Path(__file__).parents[1] / "model"))
    assert "overlap=2" in refused("c.wav", overlap=2.0)
    assert "give at least 1 of each" in refused("c.wav", devices=0)
    assert not Path("stems").exists()


def test_an_output_folder_that_cannot_be_made() -> None:
    songs("song.wav")
    assert refused("song.wav", output=Path("song.wav")).startswith("the output folder song.wav cannot be made")


def test_existing_stems_are_kept_before_any_work() -> None:
    songs("first.wav", "second.wav")
    taken = Path("stems/second/instrumental.wav")
    taken.parent.mkdir(parents=True)
    taken.write_text("precious")
    message = refused("first.wav", "second.wav")
    assert message == f"{taken} already exists; give another --output, or --overwrite or --skip-existing"
    assert taken.read_text() == "precious"
    assert files() == ["second/instrumental.wav"]


def test_existing_stems_are_replaced_with_overwrite() -> None:
    songs("song.wav")
    separate(["song.wav"])
    Path("stems/song/vocals.wav").write_text("not precious")
    separate(["song.wav"], overwrite=True)
    assert audio_info(Path("stems/song/vocals.wav")).length == 4410
    assert files() == both("song")


def test_only_missing_stems_are_written(logged: pytest.LogCaptureFixture) -> None:
    songs("full.wav", "half.wav", "new.wav")
    separate(["full.wav", "half.wav"])
    expected = Path("stems/half/vocals.wav").read_bytes()
    Path("stems/half/vocals.wav").unlink()
    Path("stems/half/instrumental.wav").write_text("precious")
    before = Path("stems/full/vocals.wav").stat().st_mtime_ns
    logged.clear()
    outcomes = separate(["full.wav", "half.wav", "new.wav"], skip_existing=True)
    assert [outcome.state for outcome in outcomes] == ["skipped", "done", "done"]
    assert Path("stems/half/instrumental.wav").read_text() == "precious"
    assert Path("stems/half/vocals.wav").read_bytes() == expected
    assert Path("stems/full/vocals.wav").stat().st_mtime_ns == before
    assert files() == both("full", "half", "new")
    assert "done: half.wav -> stems/half/vocals.wav in" in logged.text
    assert "done 2, skipped 1, failed 0" in logged.text
    assert "  skipped: full.wav (all its stems exist)" in logged.text


def test_overwriting_and_skipping_contradict_each_other() -> None:
    songs("song.wav")
    assert "contradict each other" in refused("song.wav", overwrite=True, skip_existing=True)
    assert not Path("stems").exists()


def broken_songs() -> dict[str, str]:
    """Writes files that cannot be separated, and returns the expected reason for each."""
    songs("whole.flac")
    Path("cut.flac").write_bytes(Path("whole.flac").read_bytes()[:9000])
    Path("whole.flac").unlink()
    Path("text.mp3").write_text("no audio, just text\n" * 99)
    Path("empty.wav").touch()
    soundfile.write("silent.wav", torch.zeros(0, 2).numpy(), RATE)
    samples = noise().T.numpy()
    samples[999] = float("nan")
    soundfile.write("nan.wav", samples, RATE, "FLOAT")
    write_audio(Path("wide.wav"), noise(3), RATE)
    Path("loop.wav").symlink_to("loop.wav")
    return {
        "cut.flac": "",
        "text.mp3": "is damaged or not audio that can be read",
        "empty.wav": "is an empty file",
        "silent.wav": "has no samples",
        "nan.wav": "has samples that are not finite",
        "wide.wav": "has 3 channels and the model takes 1 or 2; give --downmix",
        "missing.wav": "does not exist",
        "loop.wav": "does not exist",
    }


def test_broken_songs_do_not_stop_the_rest(logged: pytest.LogCaptureFixture) -> None:
    expected = broken_songs()
    first, last = songs("first.wav", "last.wav")
    remarks = failures(first, *expected, last)
    assert [remark.split()[0] for remark in remarks] == list(expected)
    assert files() == both("first", "last")
    summary = logged.messages[logged.messages.index("done 2, skipped 0, failed 8") :]
    assert summary[1:3] == ["  done: first.wav", "  done: last.wav"]
    for line, (name, reason) in zip(summary[3:], expected.items(), strict=True):
        assert line.startswith(f"  failed: {name} ")
        assert reason in line
        assert sum(f": failed: {name} " in message for message in logged.messages) == 1
    assert "Traceback" not in logged.text


@pytest.mark.usefixtures("permissions_matter")
def test_a_song_that_may_not_be_read() -> None:
    songs("closed.wav", "open.wav")
    Path("closed.wav").chmod(0)
    (remark,) = failures("closed.wav", "open.wav")
    assert "closed.wav cannot be read" in remark
    assert files() == both("open")


def test_a_rate_that_the_format_cannot_hold() -> None:
    write_audio(Path("high.wav"), noise(), 96000)
    songs("song.wav")
    (remark,) = failures("high.wav", "song.wav", format="mp3")
    assert remark.startswith("the stems of high.wav cannot be written")
    assert "96000 Hz" in remark
    assert files() == ["song/instrumental.mp3", "song/vocals.mp3"]


def test_only_a_song_with_an_impossible_name_fails(logged: pytest.LogCaptureFixture) -> None:
    songs("song.wav")
    name = 300 * "a" + ".wav"
    (remark,) = failures(name, "song.wav")
    assert remark.startswith(f"{name} ")
    assert "File name too long" in remark
    assert files() == both("song")
    assert "done 1, skipped 0, failed 1" in logged.text


def test_stems_of_a_long_name_are_shortened() -> None:
    long = 250 * "b"
    songs(f"{long}.wav", "song.wav")
    assert failures(f"{long}.wav", "song.wav", template="{track} {stem}.{ext}") == []
    assert len(files()) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="Windows makes no such folders")
def test_only_a_song_with_too_long_a_path_fails() -> None:
    songs("song.wav")
    deep = Path(*[100 * "d"] * 37)
    deep.mkdir(parents=True)
    songs(deep / "song.wav")
    output = Path(200 * "o", 200 * "o")
    (remark,) = failures(".", output=output)
    assert "File name too long" in remark
    assert files(output) == both("song")


@pytest.mark.parametrize(
    ("stems", "expected"),
    [
        (None, ["vocals", "instrumental"]),
        (["vocals"], ["vocals"]),
        (["instrumental"], ["instrumental"]),
        (["residual", "vocals"], ["residual", "vocals"]),
        (["vocals", "instrumental", "residual"], ["vocals", "instrumental", "residual"]),
    ],
)
def test_stems_of_a_model_of_vocals(stems: list[str] | None, expected: list[str]) -> None:
    songs("song.wav")
    separate(["song.wav"], stems=stems)
    assert files("stems/song") == sorted(f"{stem}.wav" for stem in expected)


@pytest.mark.parametrize(
    ("stems", "expected", "residual_without"),
    [
        (None, FOUR, ()),
        (["bass"], ["bass"], ()),
        (["instrumental", "drums"], ["instrumental", "drums"], ()),
        (["residual", "bass", "vocals"], ["residual", "bass", "vocals"], ("bass", "vocals")),
    ],
)
def test_stems_of_a_model_of_four(
    four_stems: Path, stems: list[str] | None, expected: Sequence[str], residual_without: tuple[str, ...]
) -> None:
    mixture = read_audio(songs("song.wav")[0])
    separate(["song.wav"], four_stems, stems=stems, bit_depth="float")
    assert files("stems/song") == sorted(f"{stem}.wav" for stem in expected)
    written = {stem: read_audio(Path("stems/song", f"{stem}.wav")) for stem in expected}
    if residual_without:
        rest = mixture - sum(written[stem] for stem in residual_without)
        torch.testing.assert_close(written["residual"], rest, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("stems", "reason"),
    [
        (["voice"], "the stem 'voice' cannot be written; with this model choose vocals, instrumental, residual"),
        (["drums"], "choose vocals, instrumental, residual"),
        ([""], "the stem '' cannot be written"),
        ([], r"stems=\[\] is not allowed; give at least one"),
        (["vocals", "vocals"], "each only once"),
        (["residual"], "residual is the song without the other stems; choose one of vocals too"),
        (["residual", "instrumental"], "choose one of vocals too"),
    ],
)
def test_stems_that_cannot_be_written(stems: list[str], reason: str) -> None:
    songs("song.wav")
    with pytest.raises(InputError, match=reason):
        separate(["song.wav"], stems=stems)
    assert not Path("stems").exists()


def test_a_wrong_stem_of_a_model_without_vocals(tiny_config: ModelConfig) -> None:
    songs("song.wav")
    model = save(BSMamba2(dataclasses.replace(tiny_config, stems=("drums", "bass"))), Path("two.ckpt"))
    with pytest.raises(InputError, match=r"with this model choose drums, bass, residual$"):
        separate(["song.wav"], model, stems=["instrumental"])


@pytest.fixture
def instrumental(tiny_config: ModelConfig) -> Path:
    torch.manual_seed(1)
    config = dataclasses.replace(tiny_config, stems=("instrumental",), residual="vocals", sample_rate=22050)
    return save(BSMamba2(config).eval(), Path("instrumental.ckpt"))


def test_several_models_separate_together(
    tiny_network: BSMamba2, instrumental: Path, logged: pytest.LogCaptureFixture
) -> None:
    songs("song.wav")
    mixture = read_audio(Path("song.wav"))
    first, second = Separator(tiny_network), Separator(load_model(instrumental))
    expected = (first(mixture, RATE)["vocals"] + mixture - second(mixture, RATE)["instrumental"]) / 2
    separate(["song.wav"], ["model.ckpt", instrumental])
    assert files() == both("song")
    torch.testing.assert_close(read_audio(Path("stems/song/vocals.wav")), expected, rtol=0, atol=2**-15)
    assert "mean of 2 models" in logged.messages
    assert len([message for message in logged.messages if message.startswith("float32 · segments 0.1 s")]) == 2
    written = [soundfile.read(f"stems/song/{stem}.wav", dtype="int32")[0] for stem in ("vocals", "instrumental")]
    assert (sum(written) == soundfile.read("song.wav", dtype="int32")[0]).all()
    separate(["song.wav"], "model.ckpt, instrumental.ckpt", output=Path("again"))
    assert Path("again/song/vocals.wav").read_bytes() == Path("stems/song/vocals.wav").read_bytes()


def test_the_combination_of_several_models(instrumental: Path) -> None:
    songs("song.wav")
    energies = {}
    for ensemble in ("max", "mean", "min"):
        separate(["song.wav"], ["model.ckpt", instrumental], output=Path(ensemble), ensemble=ensemble, stems=["vocals"])
        energies[ensemble] = read_audio(Path(ensemble, "song", "vocals.wav")).square().mean()
    assert energies["max"] > energies["mean"] > energies["min"]


def test_a_file_with_a_comma_in_its_name_is_one_model(tiny_network: BSMamba2) -> None:
    songs("song.wav")
    save(tiny_network, Path("a,b.ckpt"))
    separate(["song.wav"], "a,b.ckpt")
    assert files() == both("song")
    assert "is neither a file nor a published model" in refused("song.wav", model="a,c.ckpt")


def test_only_the_mask_heads_of_common_stems_are_loaded(
    tiny_config: ModelConfig, four_stems: Path, logged: pytest.LogCaptureFixture
) -> None:
    save(BSMamba2(dataclasses.replace(tiny_config, stems=("piano", "bass", "drums"))), Path("three.ckpt"))
    models = load_models(["four.ckpt", "three.ckpt"])
    assert [network.config.stems for network in models.networks] == [("drums", "bass"), ("bass", "drums")]
    bass = load_models("four.ckpt,three.ckpt", estimated=StemSettings(["bass", "residual"]).estimated)
    assert [network.config.stems for network in bass.networks] == [("bass",), ("bass",)]


def test_assumptions_about_plain_weights_are_printed_once(
    tiny_network: BSMamba2, logged: pytest.LogCaptureFixture
) -> None:
    torch.save(BSMamba2(ModelConfig(dim=8, depth=1, headdim=8, d_state=4)).state_dict(), "plain.ckpt")
    load_models(["plain.ckpt", "model.ckpt"])
    assert [message for message in logged.messages if "published values" in message] == [
        "plain.ckpt does not contain these; they have the published values: stems=vocals; hop_length=441; "
        "segment_seconds=8.0"
    ]


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        (
            "model.ckpt,dry.ckpt",
            {},
            "the models have no stem in common: model.ckpt gives vocals, instrumental, and dry.ckpt gives dry, reverb; "
            "choose others",
        ),
        (
            "model.ckpt,four.ckpt",
            {"stems": ["drums"]},
            "the stem 'drums' is not common to the models: model.ckpt gives vocals, instrumental, and four.ckpt gives "
            "drums, bass, other, vocals, instrumental; choose vocals, instrumental, residual, or other models",
        ),
        (
            "model.ckpt",
            {"ensemble": "max"},
            "--ensemble max combines several models, but model.ckpt is one; give --model once more, or leave "
            "--ensemble out",
        ),
        ("model.ckpt,", {}, "'model.ckpt,' has an empty name; give --model A,B"),
        ("model.ckpt,four.ckpt", {"hop_length": 32}, "model.ckpt contains hop_length=64, not 32"),
    ],
)
def test_models_that_cannot_be_combined(
    models: str, options: dict[str, Any], message: str, tiny_config: ModelConfig, four_stems: Path
) -> None:
    songs("song.wav")
    save(BSMamba2(dataclasses.replace(tiny_config, stems=("dry",), residual="reverb")), Path("dry.ckpt"))
    assert message in refused("song.wav", model=models, **options)
    assert not Path("stems").exists()


def run(
    *arguments: str | Path, input: bytes | None = None, limit_bytes: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Runs the command in its own process."""
    limited = ""
    if limit_bytes:
        limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes})); "
    command = [COMMAND[0], "-c", limited + COMMAND[2], *COMMAND[3:], *arguments]
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
    return programs.run(command, capture_output=True, check=False, timeout=600, **given)


def test_compiling_without_a_compiler_is_one_sentence(
    tiny_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mixer that is traced in the shortest time."""
    songs("song.wav")
    config = dataclasses.replace(
        tiny_config, time_mixer="roformer", attention_heads=1, attention_headdim=4, attention_depth=1
    )
    save(BSMamba2(config), Path("model.ckpt"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(Path("compiled").absolute()))
    ended = run("song.wav", "--compile", "--device", "cpu")
    assert ended.returncode == 1
    assert b"torch.compile finds no compiler for cpu; install one" in ended.stderr.splitlines()[-1]
    assert b"Traceback" not in ended.stderr
    assert files() == []


@pytest.mark.parametrize("format", ["wav", "m4a"])
def test_a_song_through_a_pipe(format: Format) -> None:
    songs("song.wav")
    if format != "wav":
        made = subprocess.run(["ffmpeg", "-v", "error", "-i", "song.wav", f"piped.{format}"], check=False)
        if made.returncode:
            pytest.skip("this ffmpeg program writes no such file")
    piped = Path("song.wav" if format == "wav" else f"piped.{format}")
    result = run("-", input=piped.read_bytes())
    assert result.returncode == 0, result.stderr
    assert files() == both("stdin")
    # Without a terminal there is no bar.
    assert b"%|" not in result.stderr
    assert b"\r" not in result.stderr
    expected = separate([piped], output=Path("expected"))
    assert [outcome.state for outcome in expected] == ["done"]
    for stem in ("vocals", "instrumental"):
        written, direct = Path(f"stems/stdin/{stem}.wav"), Path(f"expected/{piped.stem}/{stem}.wav")
        torch.testing.assert_close(read_audio(written), read_audio(direct), rtol=0, atol=0)


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="only Unix has it")
def test_the_standard_input_by_its_path() -> None:
    songs("song.wav")
    result = run("/dev/stdin", input=Path("song.wav").read_bytes())
    assert result.returncode == 0, result.stderr
    assert files() == both("stdin")


def damaged_song(path: Path) -> int:
    """Writes a song in M4A of which a few packets cannot be decoded, and returns its length."""
    write_audio(path, 0.3 * torch.randn(2, 132_300, generator=torch.Generator().manual_seed(0)), 44100, "m4a", None)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    return audio_info(path).length


def test_a_hole_in_a_song_is_silent_and_the_status_shows_it() -> None:
    length = damaged_song(Path("hole.m4a"))
    result = run("hole.m4a")
    assert result.returncode == 1
    reason = rb"1 of 1 files are damaged, and their stems are silent there; the first: hole.m4a: 0\.\d+ s at 1\.\d+ s"
    assert re.search(reason, result.stderr.splitlines()[-1])
    assert b"incomplete: hole.m4a -> " in result.stderr
    stems = [read_audio(Path(f"stems/hole/{stem}.wav")) for stem in ("vocals", "instrumental")]
    assert all(stem.shape == (2, length) for stem in stems)
    silent = (stems[0] + stems[1]).abs().amax(0) < 1e-6
    assert 1000 < silent.sum() < 20_000


def test_a_hole_outside_the_part_that_is_separated_is_not_reported() -> None:
    damaged_song(Path("hole.m4a"))
    [outcome] = separate(["hole.m4a"], start=2.0)
    assert (outcome.state, outcome.remark) == ("done", "")
    [outcome] = separate(["hole.m4a"], duration=0.5, overwrite=True)
    assert (outcome.state, outcome.remark) == ("done", "")
    [outcome] = separate(["hole.m4a"], start=1.0, duration=1.5, overwrite=True)
    assert outcome.state == "incomplete"


def test_a_full_disk_fails_one_song_only() -> None:
    pytest.importorskip("resource", reason="only Unix limits the size of files")
    songs("a.wav", "z.wav")
    songs("long.wav", seconds=2)
    result = run("a.wav", "long.wav", "z.wav", limit_bytes=100_000)
    stderr = result.stderr.decode()
    assert result.returncode == 1
    assert files() == both("a", "z")
    assert "failed: stems/long/" in stderr
    assert "done 2, skipped 0, failed 1" in stderr
    assert "Traceback" not in stderr


# Stops when the first stem of a song called long has been written and is about to get its name.
STOPPING = """
import os, signal, sys

def stop(event, arguments):
    if event == "os.rename" and "/long/" in os.fspath(arguments[1]) and not stopped:
        stopped.append(True)
        os.kill(os.getpid(), signal.SIGSTOP)

stopped = []
sys.addaudithook(stop)
"""


@contextlib.contextmanager
def written(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Gives a process of the command that has written a song called long, and is stopped before that appears."""
    command = [*COMMAND[:2], STOPPING + CODE, *COMMAND[3:], *arguments]
    with programs.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            change = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            assert change is not None
            assert change.si_code == os.CLD_STOPPED
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def begun(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Gives a process of the command once it has begun to write a song called long."""
    with programs.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 600
            while not any(path.stat().st_size > 10_000 for path in Path("stems").glob("long/**/*")):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(
    ("number", "status", "options"), [(2, 130, []), (15, 143, ["--peak", "rescale"]), (1, 129, [])]
)
def test_a_stopped_program_keeps_whole_songs(number: int, status: int, options: list[str]) -> None:
    songs("first.wav", "last.wav")
    songs("long.wav", seconds=180)
    with begun("first.wav", "long.wav", "last.wav", *options) as process:
        process.send_signal(number)
        stderr = process.communicate(timeout=600)[1].decode()
    assert process.returncode == status
    assert files() == both("first")
    assert audio_info(Path("stems/first/vocals.wav")).length == 4410
    assert "Traceback" not in stderr
    assert "last.wav" not in stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
@pytest.mark.parametrize("options", [["--skip-existing"], [], ["--peak", "rescale"]])
def test_a_new_run_removes_what_a_killed_one_left(options: list[str]) -> None:
    songs("long.wav", seconds=180)
    with begun("long.wav", *options) as process:
        # Of a living process nothing is removed.
        if "--skip-existing" in options:
            assert "being written by another process" in separate(["long.wav"], skip_existing=True)[0].remark
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [name for name in files() if "/." in name]
    shutil.copy(songs("short.wav")[0], "long.wav")
    assert run("long.wav", *options).returncode == 0
    assert files() == both("long")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_a_run_that_skips_removes_what_a_killed_one_left() -> None:
    songs("long.wav", seconds=180)
    with begun("long.wav", "--overwrite") as process:
        process.kill()
    for stem in ("vocals", "instrumental"):
        shutil.copy("long.wav", f"stems/long/{stem}.wav")
    assert len(files()) > 2
    assert [outcome.state for outcome in separate(["long.wav"], skip_existing=True)] == ["skipped"]
    assert files() == both("long")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("option", [None, "--skip-existing", "--overwrite"])
def test_of_two_processes_that_write_one_song_one_says_that_it_does_not(option: str | None) -> None:
    songs("long.wav")
    options = [option] if option else []
    with written("long.wav", *options) as process:
        second = run("long.wav", *options)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=600)[1]
    assert process.returncode == 0
    assert second.returncode == (0 if option == "--skip-existing" else 1)
    assert b"stems/long/instrumental.wav is being written by another process" in second.stderr
    assert files() == both("long")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_stems_that_appear_meanwhile_are_kept() -> None:
    songs("b.wav", "long.wav")
    stem = Path("stems/b/vocals.wav")
    with written("long.wav", "b.wav") as process:
        stem.parent.mkdir()
        stem.write_bytes(b"of another process")
        process.send_signal(signal.SIGCONT)
        stderr = process.communicate(timeout=600)[1].decode()
    assert process.returncode == 1
    assert "failed: stems/b/vocals.wav already exists" in stderr
    assert files() == ["b/vocals.wav", *both("long")]
    assert stem.read_bytes() == b"of another process"


def test_a_terminal_gets_a_bar_with_the_place_in_the_album_and_the_time_left() -> None:
    pty = pytest.importorskip("pty", reason="only Unix has pseudo-terminals")
    songs("first.wav", "second.wav", seconds=2)
    import fcntl
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    with programs.Popen([*COMMAND, "first.wav", "second.wav"], stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        # Linux raises an error at the end.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    lines = [line for line in shown.decode().split("\r") if "%" in line and line.startswith("song ")]
    first, second = (
        [line for line in lines if line.startswith(f"song {place} of 2: {name} ")]
        for place, name in enumerate(("first", "second"), 1)
    )
    assert lines == first + second
    assert first[0].split()[5] == "0%"
    for last in (first[-1], second[-1]):
        assert re.search(r"100%, \d:\d\d elapsed, \d:\d\d left, [\d.]+ × real time ", last)


def test_stems_that_are_scaled_are_made_together() -> None:
    songs("song.wav")
    separate(["song.wav"], stems=["vocals"])
    with pytest.raises(InputError, match="with --peak rescale all are made together, so give --overwrite"):
        separate(["song.wav"], skip_existing=True, peak="rescale")
    separate(["song.wav"], skip_existing=True)
    outcomes = separate(["song.wav"], skip_existing=True, peak="rescale")
    assert [outcome.state for outcome in outcomes] == ["skipped"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "ddp"}, "--strategy ddp is for several processes; give --devices or --num-nodes too"),
        ({"device": "cuda:1", "devices": 2}, "the device 'cuda:1' is a single one; with several processes give 'cuda'"),
        ({"device": "abacus"}, "there is no device 'abacus'"),
    ],
)
def test_devices_that_cannot_be_used_leave_no_folder(options: dict[str, Any], message: str) -> None:
    songs("song.wav")
    with pytest.raises(InputError, match=message):
        separate(["song.wav"], **options)
    assert options.get("devices") or not Path("stems").exists()


def test_an_output_that_is_a_folder_is_an_error_before_any_work() -> None:
    songs("song.wav")
    Path("stems/song/vocals.wav").mkdir(parents=True)
    with pytest.raises(InputError, match=r"vocals\.wav is a folder; remove it"):
        separate(["song.wav"], overwrite=True)
    assert files() == []
