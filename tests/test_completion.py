"""Completion of command lines, in a real shell where there is one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bsmamba2.cli import main
from bsmamba2.completion import SHELLS
from tests.conftest import PATIENCE_SECONDS

# As bash calls the function: with the words, and the place of the one to complete.
ASKING = r"""source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_shtab_bsmamba2 bsmamba2 "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the program for bash; the current folder has a song and a folder."""
    monkeypatch.chdir(tmp_path)
    Path("song.wav").touch()
    Path("songs").mkdir()
    assert main(["--print-completion", "bash"]) == 0
    path = tmp_path / "completion.bash"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("se", ["separate"]),
        ("check", ["check-data"]),
        ("separate --form", ["--format"]),
        ("separate --format m", ["mp3", "m4a"]),
        ("separate -f fl", ["flac"]),
        ("separate song.wav --preset ka", ["karaoke"]),
        ("separate song.wav --model small-v", ["small-vocals"]),
        ("separate song.wav --model so", ["song.wav", "songs"]),
        ("separate so", ["song.wav", "songs"]),
        ("models mel-k", ["mel-karaoke-aufr33"]),
        ("models download mel-k", ["mel-karaoke-aufr33"]),
        ("train --config ti", ["tiny"]),
        ("train --model.sched", ["--model.schedule"]),
        ("train --model.schedule c", ["constant", "cosine"]),
        ("train --data.root so", ["songs"]),
        ("evaluate --protocol p", ["pair"]),
        ("convert so", ["song.wav", "songs"]),
    ],
)
def test_bash_completes_a_word(words: str, completed: list[str], script: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    asked = subprocess.run(
        [bash, "--norc", "-c", ASKING, "bash", str(script), "bsmamba2", *words.split()],
        capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
    assert sorted(asked.stdout.split()) == sorted(completed), asked.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_a_program_that_knows_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", shell]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("check-data", "bit-depth", "mel-karaoke-aufr33", "model.network.depth"))


def test_fish_offers_names_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", "fish"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for command, option, name in (("separate", "model", "mel-karaoke-aufr33"), ("train", "config", "rwkv6-tiny")):
        (line,) = (line for line in lines if f"_using {command}'" in line and f"-l {option} " in line)
        offered = re.search('-xka "(.*)\\(__fish_complete_path', line)
        assert offered is not None
        assert name in offered[1].split()
