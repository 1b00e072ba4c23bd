"""What the server and the process that computes send each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from bsmamba2.audio.formats import Format
from bsmamba2.errors import InputError
from bsmamba2.separation.settings import BitDepth, Peak, SeparationSettings, StemSettings
from bsmamba2.weights.registry import model_names

# Which part of a song is separated: first perhaps its loudest seconds, then all of it.
Stage = Literal["preview", "song"]
# What a request may choose from, by field.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "format": get_args(Format),
    "bit_depth": get_args(BitDepth),
    "peak": get_args(Peak),
}
NUMBERS = ("start", "duration", "overlap")
SWITCHES = {"true": True, "false": False}


@dataclass(frozen=True)
class SongSettings:
    """How a song is separated.

    Args:
        models: Names of published models, or the files that were given on the command line.
        stem_settings: Which stems are written, and how.
        settings: How to separate.
        preview: Whether its loudest seconds are separated first; None to do so with a large model on a CPU.
    """

    models: tuple[str, ...]
    stem_settings: StemSettings = StemSettings()
    settings: SeparationSettings = SeparationSettings()
    preview: bool | None = None

    def replaced(self, given: Mapping[str, str]) -> "SongSettings":
        """Returns settings with the values of a request in place of these.

        Args:
            given: Values by the names of the options with underscores: model, stems, format, bit_depth, peak, start,
                duration, downmix, overlap, preview.

        Raises:
            InputError: A name or a value is not allowed.
        """
        values: dict[str, Any] = {}
        for name, text in given.items():
            values[name] = _value(name, text)
        models = tuple(values.pop("model", self.models))
        preview = values.pop("preview", self.preview)
        settings = replace(self.settings, **{name: values.pop(name) for name in ("overlap",) if name in values})
        return SongSettings(models, replace(self.stem_settings, **values), settings, preview)


def _value(name: str, text: str) -> Any:
    """Returns the value of a setting from its text in a request."""
    if name == "model":
        return model_names([text])
    if name == "stems":
        return tuple(stem.strip() for stem in text.split(","))
    if name in CHOICES:
        return _chosen(name, text, CHOICES[name])
    if name in ("downmix", "preview"):
        return SWITCHES[_chosen(name, text, tuple(SWITCHES))]
    if name in NUMBERS:
        try:
            return float(text)
        except ValueError:
            raise InputError(f"{name}={text} is not a number; give one") from None
    known = ("model", "stems", *CHOICES, *NUMBERS, "downmix", "preview")
    raise InputError(f"there is no setting {name!r}; choose from {', '.join(known)}")


def _chosen(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise InputError(f"{name}={text} is not allowed; choose {', '.join(allowed)}")
    return text


@dataclass(frozen=True)
class Separate:
    """Separates a song.

    Args:
        song: Its id.
        source: Its file.
        folder: Where the results are written: one folder of this for each stage.
        title: Its name.
        file_name: What errors have in place of the path, which the user may not know.
        settings: How.
    """

    song: str
    source: Path
    folder: Path
    title: str
    file_name: str
    settings: SongSettings


@dataclass(frozen=True)
class Cancel:
    """Stops a song that is separated."""

    song: str


@dataclass(frozen=True)
class Mix:
    """Writes the sum of stems, in the format and sample format that they have.

    Args:
        key: Its id.
        gains: The factor of each stem file.
        seconds: Where the part to write begins and ends in the stems; None for all.
        path: The file to write.
        stem_settings: How the stems were written.
    """

    key: str
    gains: Mapping[Path, float]
    seconds: tuple[float, float] | None
    path: Path
    stem_settings: StemSettings


@dataclass(frozen=True)
class Ready:
    """The process can separate.

    Args:
        device: The kind of device that it computes on.
        problem: Why it cannot: an error for the user; may be empty.
    """

    device: str
    problem: str = ""


@dataclass(frozen=True)
class Progressed:
    """How far a song is.

    Args:
        song: Its id.
        stage: Which part of it.
        share: Share done, from 0 to 1.
        seconds: Seconds since this stage began.
        peaks: The waveform of each stem so far: for each of `columns` of the song two signed bytes.
        columns: How many columns the whole song has.
    """

    song: str
    stage: Stage
    share: float
    seconds: float
    peaks: Mapping[str, bytes] = field(default_factory=dict)
    columns: int = 0


@dataclass(frozen=True)
class Written:
    """A stage of a song is complete.

    Args:
        song: Its id.
        stage: Which part of it.
        stems: Names of the stems.
        remark: A note about them; may be empty.
        damaged: Whether a part of the song could not be decoded and is silent.
    """

    song: str
    stage: Stage
    stems: tuple[str, ...]
    remark: str = ""
    damaged: bool = False


@dataclass(frozen=True)
class Failed:
    """A song could not be separated.

    Args:
        song: Its id.
        reason: An error for the user; empty if it was cancelled.
    """

    song: str
    reason: str


@dataclass(frozen=True)
class Mixed:
    """A mix is written.

    Args:
        key: Its id.
        remark: A note about it; may be empty.
        reason: Why it could not be written: an error for the user; may be empty.
    """

    key: str
    remark: str = ""
    reason: str = ""


Command = Separate | Cancel | Mix
WorkerReport = Ready | Progressed | Written | Failed | Mixed
