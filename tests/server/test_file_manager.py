"""The folder of a song is shown by the program of the desktop, where there is one."""

import sys
from pathlib import Path

import pytest

from bsmamba2.server.file_manager import can_show_folders, show_folder
from tests.server.running import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="desktops of Linux")


def test_a_folder_is_shown_on_a_desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, shown, folder = tmp_path / "xdg-open", tmp_path / "shown", tmp_path / "a; touch b"
    folder.mkdir()
    program.write_text(f'#!/bin/sh\nprintf %s "$1" > "{shown}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("DISPLAY", ":0")
    assert can_show_folders()
    show_folder(folder)
    wait_for(lambda: shown.exists() and shown.read_text() == str(folder))


def test_there_is_nothing_to_show_it_without_a_desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not can_show_folders()


def test_without_a_desktop_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not can_show_folders()
