"""Random changes to the stems of an excerpt before they are summed; switching one on changes no draw of the others."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.errors import InputError
from bsmamba2.stem_names import SPEECH, VOCALS

# Octaves; below the first and above the last the gain stays constant.
BANDS_HZ = (62.5, 125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0)


@dataclass(frozen=True)
class Change:
    """Changes to one stem.

    Args:
        gain: Linear factor; 0 silences the stem, a negative one inverts its polarity.
        swapped: Whether left and right are swapped.
        semitones: Pitch shift.
        speed: Seconds of the song per second of the excerpt.
        decibels: Gains of the equaliser at BANDS_HZ in dB.
    """

    gain: float = 1.0
    swapped: bool = False
    semitones: float = 0.0
    speed: float = 1.0
    decibels: tuple[float, ...] = (0.0,) * len(BANDS_HZ)

    def apply(self, audio: Tensor, length: int, sample_rate: int) -> Tensor:
        """Returns audio (c, n) changed, as (c, length); n / length is the speed."""
        if self.semitones or audio.shape[-1] != length:
            audio = stretched(audio, length, self.semitones, sample_rate)
        if any(self.decibels):
            audio = equalised(audio, self.decibels, sample_rate)
        return (audio.flip(0) if self.swapped else audio) * self.gain


@dataclass(frozen=True)
class Augmentation:
    """How often and how much the stems of an excerpt are changed. The defaults are the published ones (section 4.1).

    Args:
        gains: Lowest and highest linear factor that a stem is multiplied by.
        silence: Probability that a stem is silenced, from 0 to below 1.
        silent_vocals: Share of excerpts whose vocals are silenced, in addition to `silence`.
        polarity: Probability that a stem's polarity is inverted.
        channel_swap: Probability that left and right of a stem are swapped.
        remix: Share of excerpts whose stems each come from a window of any song. In the others all stems come from the
            same window of one song and get the same pitch and tempo.
        pitch: Probability that the pitch of a stem is shifted; needs the package python-stretch.
        pitch_semitones: Largest pitch shift in semitones, up or down.
        tempo: Probability that a stem is made faster or slower; needs the package python-stretch.
        tempo_change: Largest change of speed: 0.1 is 0.9 to 1.1 times as fast.
        equaliser: Probability that a stem is equalised with a random gain per octave.
        equaliser_decibels: Largest gain of the equaliser in decibels, up or down.
        snr_db: Lowest and highest ratio in dB of the energy of the stem speech to that of all others together, which
            are scaled to it after all other changes; by default levels are left as they are.

    Raises:
        InputError: A value is not allowed, or the package is not installed.
    """

    gains: tuple[float, float] = (0.5, 1.5)
    silence: float = 0.1
    silent_vocals: float = 0.0
    polarity: float = 0.0
    channel_swap: float = 0.0
    remix: float = 1.0
    pitch: float = 0.0
    pitch_semitones: float = 2.0
    tempo: float = 0.0
    tempo_change: float = 0.1
    equaliser: float = 0.0
    equaliser_decibels: float = 6.0
    snr_db: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        shares = ("silent_vocals", "polarity", "channel_swap", "remix", "pitch", "tempo", "equaliser")
        lowest, highest = self.gains
        allowed = {
            "gains": (0 <= lowest <= highest < math.inf, "two numbers of at least 0, the lower first"),
            "silence": (0 <= self.silence < 1, "from 0 to below 1"),
            **{name: (0 <= getattr(self, name) <= 1, "from 0 to 1") for name in shares},
            "pitch_semitones": (0 < self.pitch_semitones <= 12, "above 0, at most 12"),
            "tempo_change": (0 < self.tempo_change <= 0.5, "above 0, at most 0.5"),
            "equaliser_decibels": (0 < self.equaliser_decibels <= 24, "above 0, at most 24"),
        }
        if self.snr_db is not None:
            fine = -100 <= self.snr_db[0] <= self.snr_db[1] <= 100
            allowed["snr_db"] = (fine, "two ratios from -100 to 100 dB, the lower first")
        for name, (fine, rule) in allowed.items():
            if not fine:
                raise InputError(f"augmentation.{name}={getattr(self, name)} is not allowed; give {rule}")
        if (self.pitch or self.tempo) and find_spec("python_stretch") is None:
            raise InputError(
                "augmentation.pitch and augmentation.tempo need the package python-stretch, which is not installed; "
                "run `pip install python-stretch`, or leave both at 0"
            )

    def check_stems(self, stems: Iterable[str]) -> None:
        """Checks that the data has the stems that are changed.

        Raises:
            InputError: Vocals are to be silenced, or noise scaled to speech, and there are none.
        """
        if self.silent_vocals and VOCALS not in stems:
            raise InputError(
                f"augmentation.silent_vocals={self.silent_vocals} needs a stem {VOCALS!r}, and the data has only "
                f"{', '.join(stems)}; leave it at 0"
            )

        if self.snr_db is not None and (SPEECH not in stems or len(set(stems)) < 2):
            raise InputError(
                f"augmentation.snr_db={list(self.snr_db)} needs a stem {SPEECH!r} and at least one more, and the data "
                f"has {', '.join(stems)}; leave it out"
            )

    def levelled(self, stems: dict[str, Tensor], share: float) -> dict[str, Tensor]:
        """Returns stems (c, n), all but speech scaled to a ratio in snr_db if it is given.

        Args:
            stems: The stems; if speech or all others are silent, they are left as they are.
            share: Place of the ratio in the range, from 0 to 1.
        """
        if self.snr_db is None:
            return stems
        noise = torch.stack([audio for stem, audio in stems.items() if stem != SPEECH]).sum(0)
        energy, noise_energy = (float(audio.double().square().sum()) for audio in (stems[SPEECH], noise))
        if not energy or not noise_energy:
            return stems
        lowest, highest = self.snr_db
        ratio = 10 ** ((lowest + (highest - lowest) * share) / 10)
        factor = math.sqrt(energy / (ratio * noise_energy))
        return {stem: audio if stem == SPEECH else audio * factor for stem, audio in stems.items()}

    def draw(self, generator: torch.Generator) -> Change:
        """Returns the changes to one stem; the number of random draws does not depend on the settings."""
        numbers = torch.rand(9 + len(BANDS_HZ), generator=generator, dtype=torch.float64).tolist()
        silence, polarity, swap, pitch, tempo, equaliser, gain, semitones, speed, *bands = numbers
        lowest, highest = self.gains
        sign = -1 if polarity < self.polarity else 1
        return Change(
            gain=0 if silence < self.silence else sign * (lowest + (highest - lowest) * gain),
            swapped=swap < self.channel_swap,
            semitones=self.pitch_semitones * (2 * semitones - 1) if pitch < self.pitch else 0,
            speed=1 + self.tempo_change * (2 * speed - 1) if tempo < self.tempo else 1,
            decibels=tuple(
                self.equaliser_decibels * (2 * band - 1) if equaliser < self.equaliser else 0 for band in bands
            ),
        )


def stretched(audio: Tensor, length: int, semitones: float, sample_rate: int) -> Tensor:
    """Returns audio (c, n) of one or two channels stretched to (c, length), its pitch shifted by semitones only."""
    from python_stretch.Signalsmith import Stretch  # An optional dependency.

    # A fixed seed: strong stretching uses random phases.
    stretch = Stretch(0)
    stretch.preset(len(audio), sample_rate)
    stretch.setTransposeSemitones(semitones)
    stretch.setTimeFactor(audio.shape[-1] / length)
    result = torch.from_numpy(stretch.process(audio.contiguous().numpy()))
    # In single precision the length of a very long excerpt can be off by a sample.
    return F.pad(result, (0, length - result.shape[-1]))


def equalised(audio: Tensor, decibels: Iterable[float], sample_rate: int) -> Tensor:
    """Returns audio (c, n) equalised without delay: gains in dB at BANDS_HZ, linear in octaves between them."""
    # The padding takes up the ringing before the first sample and after the last.
    padded = audio.shape[-1] + sample_rate // 10
    octaves = np.log2(np.fft.rfftfreq(padded, 1 / sample_rate).clip(min=1))
    gains = 10 ** (np.interp(octaves, np.log2(BANDS_HZ), list(decibels)) / 20)
    spectrum = torch.fft.rfft(audio, padded) * torch.from_numpy(gains).to(audio.dtype)
    return torch.fft.irfft(spectrum, padded)[:, : audio.shape[-1]]
