"""The file manager of this machine."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

# What opens a folder, by system.
PROGRAMS = {"linux": "xdg-open", "darwin": "open", "win32": "explorer"}


def can_show_folders() -> bool:
    """Returns whether there is a desktop, and what opens a folder on it."""
    return has_desktop() and shutil.which(PROGRAMS.get(sys.platform, "")) is not None


def has_desktop() -> bool:
    """Returns whether windows can be opened here."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def show_folder(folder: Path) -> None:
    """Opens a folder in a window of its own."""
    process = subprocess.Popen(
        [PROGRAMS[sys.platform], str(folder.absolute())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    # It may last as long as the window; the system keeps what has ended until somebody has waited for it.
    threading.Thread(target=process.wait, daemon=True).start()
