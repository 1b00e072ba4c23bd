"""Where the song of the demo is, and where the demo writes."""

from importlib.util import find_spec
from pathlib import Path

from bsmamba2.errors import InputError
from bsmamba2.system.files import check_can_be_made

DEMO_FOLDER = Path("demo")
# Only a demo writes it, so that a different folder of this name is never emptied.
MARKER = DEMO_FOLDER / ".bsmamba2-demo"


def song_file() -> Path:
    """Returns the song in the data of the package stempeg.

    The package is not imported, which would fail on a machine without an ffmpeg program.

    Raises:
        InputError: It is not installed.
    """
    spec = find_spec("stempeg")
    files = sorted(Path(spec.origin or "").parent.glob("data/*.stem.mp4")) if spec else []
    if not files:
        raise InputError('the package stempeg, whose song this is, is not installed; run pip install "bsmamba2[all]"')
    return files[0]


def check_demo_folder() -> None:
    """Checks that the demo may write to its folder, without making it.

    Raises:
        InputError: It exists and no demo made it, or it cannot be written to.
    """
    if DEMO_FOLDER.exists() and not MARKER.exists():
        raise InputError("the folder demo/ was not made by a demo; run the demo in another folder")
    check_can_be_made(DEMO_FOLDER)
