"""Pieces of music rendered to audio by fluidsynth with a SoundFont."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from bsmamba2.audio.reading import read_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.errors import InputError
from default_model.composing import Piece, midi

# Where Debian's fluid-soundfont-gm installs it.
SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
# Low enough for no render to clip; the level is set afterwards.
GAIN = 0.3


def check_renderer(sound_font: Path) -> None:
    """Checks that pieces can be rendered.

    Raises:
        InputError: fluidsynth or the SoundFont is missing.
    """
    if shutil.which("fluidsynth") is None or not sound_font.is_file():
        raise InputError(
            f"the program fluidsynth or the SoundFont {sound_font} is missing; run `apt install fluidsynth "
            "fluid-soundfont-gm`, or give --sound_font"
        )
    # Without a valid file fluidsynth would render with the system's default SoundFont.
    with sound_font.open("rb") as file:
        head = file.read(12)
    if (head[:4], head[8:]) != (b"RIFF", b"sfbk"):
        raise InputError(f"{sound_font} is not a SoundFont; give an .sf2 file with --sound_font")


def render(piece: Piece, stem: str, length: int, sound_font: Path) -> Tensor:
    """Returns the first samples (2, length) of a stem of a piece, at the sampling rate of MUSDB18.

    Raises:
        InputError: fluidsynth failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        score, sound, settings = (Path(folder) / name for name in ("piece.mid", "piece.wav", "settings"))
        midi(piece, stem).save(score)
        # An empty file instead of the user's settings.
        settings.touch()
        command = ["fluidsynth", *f"-ni -q -g {GAIN} -r {SAMPLE_RATE} -O float -f".split(), str(settings)]
        command += ["-F", str(sound), str(sound_font), str(score)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode or not sound.is_file():
            raise InputError(f"fluidsynth failed with status {ended.returncode}: {ended.stderr.strip()[-300:]}")
        audio = read_audio(sound)
    return F.pad(audio, (0, max(0, length - audio.shape[1])))[:, :length]
