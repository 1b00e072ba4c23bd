"""A separated song in memory, as the Python API returns it."""

import base64
import html
import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import torch
from torch import Tensor

from bsmamba2.audio.formats import check_rate
from bsmamba2.audio.spectrograms import single_spectrograms
from bsmamba2.audio.writing import write_audio
from bsmamba2.errors import InputError
from bsmamba2.system.files import make_folder

PLAYER = """<div style="margin: 0.5em 0"><b>{name}</b><br>
<img src="data:image/png;base64,{image}" style="width: 100%; height: 8em" alt="spectrogram of {name}"><br>
<audio controls preload="none" src="data:audio/{kind};base64,{sound}" style="width: 100%"></audio></div>"""


@dataclass(frozen=True, eq=False, repr=False)
class SeparatedSong:
    """The stems of a song, which are attributes too: `song.vocals`.

    In a notebook it is shown as spectrograms and players.

    Args:
        name: Name of the song.
        stems: Audio (c, n) of each stem by name.
        sample_rate: Sampling rate in Hz.
    """

    name: str
    stems: Mapping[str, Tensor]
    sample_rate: int

    def __getattr__(self, name: str) -> Tensor:
        stems = {stem.replace("-", "_"): audio for stem, audio in self.__dict__.get("stems", {}).items()}
        if name not in stems:
            raise AttributeError(f"there is no {name!r} here; there are {', '.join(stems)}")
        return stems[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(stem.replace("-", "_") for stem in self.stems)]

    def save(self, folder: str | Path) -> list[Path]:
        """Writes each stem to {stem}.wav in a folder, in 32-bit float samples, and returns the files.

        Raises:
            InputError: The folder or a file cannot be written.
        """
        folder = Path(folder)
        make_folder(folder)
        files = []
        for stem, audio in self.stems.items():
            files.append(folder / f"{stem}.wav")
            write_audio(files[-1], audio, self.sample_rate, "wav", "float")
        return files

    def __repr__(self) -> str:
        channels, samples = next(iter(self.stems.values())).shape
        seconds = samples / self.sample_rate
        shown = {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")
        return f"<{self.name}: {', '.join(self.stems)}; {seconds:.1f} s, {shown}, {self.sample_rate} Hz>"

    def _repr_html_(self) -> str:
        mono = torch.stack([audio.float().mean(0) for audio in self.stems.values()])
        images = single_spectrograms(mono, self.sample_rate)
        players = []
        for (stem, audio), image in zip(self.stems.items(), images, strict=True):
            kind, sound = _sound(audio, self.sample_rate)
            named = {"name": html.escape(stem), "kind": kind}
            players.append(PLAYER.format(**named, image=_base64(_png(image)), sound=_base64(sound)))
        return f"<p>{html.escape(self.name)}</p>" + "".join(players)


def _sound(audio: Tensor, sample_rate: int) -> tuple[str, bytes]:
    """Returns a media type and a file of it: MP3, which every browser plays, or WAV at other sampling rates."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "sound")
        try:
            check_rate("mp3", sample_rate)
        except InputError:
            write_audio(file, audio, sample_rate, "wav", "16")
            return "wav", file.read_bytes()
        write_audio(file, audio, sample_rate, "mp3", None)
        return "mpeg", file.read_bytes()


def _png(image: Tensor) -> bytes:
    """Returns a PNG file of an 8-bit image (3, height, width)."""
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = image.shape[1:]
    codec.pix_fmt, codec.time_base = "rgb24", Fraction(1)
    written = io.BytesIO()
    frame = av.VideoFrame.from_ndarray(image.movedim(0, -1).contiguous().numpy(), "rgb24")
    for packet in [*codec.encode(frame), *codec.encode(None)]:
        written.write(bytes(packet))
    return written.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
