"""The data of a song that the program of the player reads: JSON in an element of the page."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bsmamba2.audio.spectrograms import COLOURS, SHOWN_RANGE_DB, frequency_ticks
from bsmamba2.player.drawing import DARKEST_DB, IMAGE_COLUMNS
from bsmamba2.player.recording import Recording

# Web Audio promises these rates in Hz; a sound of a different one is resampled by the browser.
WEB_AUDIO_RATES = (8000, 96000)
FALLBACK_RATE = 48000


@dataclass(frozen=True, eq=False)
class PlayerSound:
    """A sound of a song in the player.

    Args:
        name: Its name.
        recording: What is drawn, and played if it has a compressed sound.
        file: Address of the sound file that is played, relative to the page; None if the sound is inside the page.
        is_mixture: Whether it is the song as a whole, which is compared with the sum of the others.
        badge: A letter before the name, and the class of its colour.
    """

    name: str
    recording: Recording
    file: str | None = None
    is_mixture: bool = False
    badge: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False)
class PlayerSong:
    """A song in the player.

    Args:
        name: Its name.
        sounds: Its sounds, all of one length and sampling rate.
        mode: Whether the sounds are mixed, or one is played at a time.
        start_seconds: Where the sounds begin in the song.
    """

    name: str
    sounds: Sequence[PlayerSound]
    mode: Literal["mix", "one"] = "mix"
    start_seconds: float = 0.0

    def json(self) -> Iterator[str]:
        """Yields the song as JSON, in parts, for an element that is no program; all recordings are finished."""
        recordings = [sound.recording for sound in self.sounds]
        first = next((sound.recording for sound in self.sounds if sound.is_mixture), None)
        # That of the files, if there are any: these are then played as they are.
        played = next((sound for sound in self.sounds if sound.file), self.sounds[0])
        rate = played.recording.sample_rate if played.file else played.recording.sound_rate
        lowest, highest = WEB_AUDIO_RATES
        song = {
            "name": self.name,
            "mode": self.mode,
            "start": self.start_seconds,
            "seconds": recordings[0].length / recordings[0].sample_rate,
            "rate": rate if lowest <= rate <= highest else FALLBACK_RATE,
            **recordings[0].rates,
            "imageSeconds": IMAGE_COLUMNS / recordings[0].rates["columnRate"],
            "frequencies": frequency_ticks(recordings[0].sample_rate),
            "colours": COLOURS,
            # Colours span the range below the loudest point of the mixture, or of all sounds.
            "brightest": first.loudest if first else max(recording.loudest for recording in recordings),
            "range": SHOWN_RANGE_DB * 255 / -DARKEST_DB,
        }
        yield f'{_text(song)[:-1]},"sounds":['
        for number, sound in enumerate(self.sounds):
            about = {"name": sound.name, "file": sound.file, "mixture": sound.is_mixture, "badge": sound.badge}
            yield f"{',' if number else ''}{_text(about)[:-1]},"
            yield from sound.recording.json()
            yield "}"
        yield "]}"


def _text(value: object) -> str:
    """Returns JSON that cannot end the element that it is in."""
    return json.dumps(value).replace("<", "\\u003c")
