"""A figure of sounds: spectrograms one above the other, with titles and axes."""

from collections.abc import Mapping
from pathlib import Path

import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from torch import Tensor

from bsmamba2.audio.spectrograms import COLOURS, SHOWN_RANGE_DB, frequency_ticks, single_spectrograms
from bsmamba2.report.style import drawing
from bsmamba2.system.files import complete_file

WIDTH, PANEL_HEIGHT, FRAME_HEIGHT = 1200, 280, 130
DOTS_PER_INCH = 100
HINT = "Bright is loud. A voice appears as wavy parallel lines, a drum as a vertical stroke."


def write_spectrogram_figure(path: Path, title: str, sounds: Mapping[str, Tensor], sample_rate: int) -> None:
    """Writes a PNG with the spectrogram of each sound, 1200 pixels wide.

    Colours span the 80 dB below the peak of the first sound in all spectrograms.

    Args:
        path: The file.
        title: Title of the figure.
        sounds: Audio (c, n) of equal lengths, by the title of its spectrogram.
        sample_rate: Sampling rate in Hz.

    Raises:
        OutputError: The file cannot be written.
    """
    audio = torch.stack([sound.mean(0) for sound in sounds.values()])
    seconds = audio.shape[-1] / sample_rate
    ticks = frequency_ticks(sample_rate)
    height = FRAME_HEIGHT + PANEL_HEIGHT * len(sounds)
    with drawing({"font.size": 12}):
        figure = Figure((WIDTH / DOTS_PER_INCH, height / DOTS_PER_INCH), DOTS_PER_INCH, layout="constrained")
        panels = figure.subplots(len(sounds), sharex=True, squeeze=False)[:, 0]
        for axes, name, pixels in zip(panels, sounds, single_spectrograms(audio, sample_rate), strict=True):
            axes.imshow(pixels.movedim(0, -1).numpy(), aspect="auto", extent=(0, seconds, 1, 0))
            axes.set_title(name, loc="left")
            axes.set_yticks(list(ticks.values()), list(ticks))
            axes.set_ylabel("frequency in Hz")
        panels[-1].xaxis.set_major_locator(MultipleLocator(max(1, round(seconds / 10))))
        panels[-1].set_xlabel("time in seconds")
        colours = LinearSegmentedColormap.from_list("", [tuple(part / 255 for part in colour) for colour in COLOURS])
        levels = ScalarMappable(Normalize(-SHOWN_RANGE_DB, 0), colours)
        label = "level in dB, 0 at the loudest point of the top spectrogram"
        figure.colorbar(levels, ax=list(panels), label=label, pad=0.02)
        figure.suptitle(f"{title}\n{HINT}", fontsize=13)
        with complete_file(path) as temporary:
            figure.savefig(temporary, format="png")
