"""The program and the style of the player, as they are put into pages; they are read without torch."""

import base64
import hashlib
from pathlib import Path

from bsmamba2.player.palette import scheme_css

# Each uses what is in those before it.
SCRIPTS = ("elements", "mixer", "drawing", "controls", "tracks", "player")
# Makes a player of each song in a page.
START = "start"


def player_script() -> str:
    """Returns the program of a page with players: the scripts of this folder in a scope of their own."""
    return in_one_scope(*(source(f"{name}.js") for name in (*SCRIPTS, START)))


def player_classes() -> list[str]:
    """Returns the scripts of the player without what starts it, for a page that makes its players later."""
    return [source(f"{name}.js") for name in SCRIPTS]


def in_one_scope(*scripts: str) -> str:
    """Returns a program of scripts, whose names are visible to each other and to nothing else."""
    return '"use strict";\n{\n' + "\n".join(scripts) + "}\n"


def player_style() -> str:
    """Returns the style of a page with players."""
    return scheme_css() + source("player.css")


def source_hash(text: str) -> str:
    """Returns a script or style as a Content-Security-Policy allows it alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def source(name: str) -> str:
    """Returns a file of this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
