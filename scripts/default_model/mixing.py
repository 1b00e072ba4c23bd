"""Random mixes of a bank, made on the device that trains. Every excerpt is a pure function of (seed, number)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bsmamba2.data.augment import BANDS_HZ
from bsmamba2.data.excerpts import Stems
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.errors import InputError
from bsmamba2.stem_names import VOCALS
from default_model.bank import FULL_SCALE, Bank, Entry
from default_model.sources import ACCOMPANIMENT, INSTRUMENTS, Kind

# Samples that a resampled one is made of.
TAPS = 16
ROOMS = 64
ROOM_SECONDS = 1.0
# Second voices are this much quieter at most.
SECOND_VOICE_DB = 10.0
# Parts below this level are not brought to a level relative to each other: they are pauses.
SILENT_DB = -60.0
# Share of the accompaniments of other songs that come from whole songs, not from bands: they are of one artist.
WHOLE_SONGS = 0.2


@dataclass(frozen=True)
class Sampling:
    """How recordings are drawn, levelled and changed.

    Args:
        singing: Share of the voices that are solo singing.
        songs: Share of the voices that are from whole songs; the rest are from bands.
        own: Share of the voices of bands and songs that keep their own accompaniment.
        instrumental: Share of the other excerpts that are accompanied by a finished instrumental.
        whole: Share of them that are accompanied by the accompaniment of one other song; in the rest, every instrument
            comes from its own band.
        second_voice: Share of the excerpts without their own accompaniment that have two voices.
        silent_voice: Share of the excerpts without a voice.
        level_db: Mean and standard deviation of the level of the voice over its accompaniment, unless it is its own.
        own_level_db: Standard deviation of the change of that level, if it is its own.
        gain_db: Largest change of the level of an instrument.
        mixture_db: Mean and standard deviation of the level of the mixture in dB of full scale.
        voice_speed: Share of the voices that are played at another speed, which changes pitch and formants.
        voice_speed_range: Lowest and highest speed of voices.
        speed: Share of the accompaniments that are played at another speed.
        speed_range: Lowest and highest speed of accompaniments.
        equaliser: Share of the parts with a random gain per octave.
        equaliser_db: Largest gain of the equaliser.
        room: Share of the solo singing that is put into a room.

    Raises:
        InputError: A share is not from 0 to 1, or shares of one thing sum to more.
    """

    singing: float = 0.2
    songs: float = 0.08
    own: float = 0.4
    instrumental: float = 0.2
    whole: float = 0.25
    second_voice: float = 0.2
    silent_voice: float = 0.06
    level_db: tuple[float, float] = (-4.0, 3.5)
    own_level_db: float = 2.0
    gain_db: float = 5.0
    mixture_db: tuple[float, float] = (-18.0, 2.0)
    voice_speed: float = 0.6
    voice_speed_range: tuple[float, float] = (0.8, 1.25)
    speed: float = 0.3
    speed_range: tuple[float, float] = (0.9, 1.1)
    equaliser: float = 0.4
    equaliser_db: float = 6.0
    room: float = 0.7

    def __post_init__(self) -> None:
        shares = {
            name: getattr(self, name)
            for name in ("own", "second_voice", "silent_voice", "voice_speed", "speed", "equaliser", "room")
        }
        shares |= {
            "singing + songs": self.singing + self.songs,
            "instrumental + whole": self.instrumental + self.whole,
        }
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"sampling: {name}={share} is not allowed; give shares from 0 to 1")


class Part(NamedTuple):
    """A stem of a recording in an excerpt.

    Args:
        excerpt: Number of the excerpt in its batch.
        voice: Whether it is a voice.
        start: First sample in the bank.
        length: Samples of the stem from there on.
        speed: Seconds of the recording per second of the excerpt.
        gain: Linear factor; a negative one inverts the polarity.
        swapped: Whether left and right are swapped.
        dry: Whether it is solo singing, which is compressed.
        room: Number of the room; -1 is none.
        decibels: Gains of the equaliser, by octave.
    """

    excerpt: int
    voice: bool
    start: int
    length: int
    speed: float
    gain: float
    swapped: bool
    dry: bool
    room: int
    decibels: tuple[float, ...]


class Balance(NamedTuple):
    """The levels of an excerpt.

    Args:
        level_db: Level of the voice over the accompaniment; NaN leaves it as it is.
        change_db: Change of that level.
        mixture_db: Level of the mixture in dB of full scale.
        silent: Whether the voice is silenced.
    """

    level_db: float
    change_db: float
    mixture_db: float
    silent: bool


# An entry, the sample in it where the excerpt starts, and the speed.
Place = tuple[Entry, int, float]


class Pool:
    """Entries to draw from: first an artist, then a recording, then where it starts.

    Args:
        entries: The entries; those in which nothing sounds are left out.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.artists: dict[str, list[Entry]] = {}
        for entry in entries:
            if entry.starts:
                self.artists.setdefault(entry.artist, []).append(entry)
        self.order = sorted(self.artists)

    def draw(self, random: np.random.Generator) -> tuple[Entry, int]:
        """Returns an entry and a start in it."""
        entries = self.artists[self.order[random.integers(len(self.order))]]
        entry = entries[random.integers(len(entries))]
        return entry, entry.starts[random.integers(len(entry.starts))]


class RecordingMixer:
    """Draws and mixes excerpts.

    Args:
        bank: The recordings.
        sampling: How they are drawn.
        samples: Length of an excerpt.
        seed: Start of all randomness.
    """

    def __init__(self, bank: Bank, sampling: Sampling, samples: int, seed: int) -> None:
        self.bank, self.sampling, self.samples, self.seed = bank, sampling, samples, seed
        kinds: tuple[Kind, ...] = ("singing", "songs", "train")
        self.voices = {kind: Pool(bank.of_kind(kind, VOCALS)) for kind in kinds}
        self.instruments = {stem: Pool(bank.of_kind("train", stem)) for stem in INSTRUMENTS}
        self.instrumentals = Pool(bank.of_kind("instrumentals", ACCOMPANIMENT))
        self.song_accompaniments = Pool(bank.of_kind("songs", ACCOMPANIMENT))
        self.entries = {(entry.name, entry.stem): entry for entry in bank.entries}
        # Long enough for the reflections in a room not to wrap around.
        self.padded = 2 ** math.ceil(math.log2(samples + round(ROOM_SECONDS * SAMPLE_RATE)))
        self.room_spectra: Tensor | None = None

    def draw(self, numbers: Sequence[int]) -> tuple[list[Part], list[Balance]]:
        """Returns the parts and the levels of the excerpts of these numbers."""
        parts: list[Part] = []
        balances = []
        for excerpt, number in enumerate(numbers):
            random = np.random.default_rng((self.seed, number))
            drawn, balance = self._drawn(random, excerpt)
            parts += drawn
            balances.append(balance)
        return parts, balances

    def _drawn(self, random: np.random.Generator, excerpt: int) -> tuple[list[Part], Balance]:
        sampling = self.sampling
        shares = [sampling.singing, sampling.songs, 1 - sampling.singing - sampling.songs]
        kind = list(self.voices)[random.choice(3, p=shares)]
        voice = (*self.voices[kind].draw(random), self._voice_speed(random))
        own = kind != "singing" and random.random() < sampling.own
        voices = [voice]
        if not own and random.random() < sampling.second_voice:
            second: Kind = "singing" if random.random() < 0.5 else "train"
            voices.append((*self.voices[second].draw(random), self._voice_speed(random)))
        accompaniment = self._of_song(*voice) if own else self._accompaniment(random)
        swapped, polarity = random.random(2) < 0.5
        parts = []
        for number, place in enumerate([*voices, *accompaniment]):
            if not own:
                swapped, polarity = random.random(2) < 0.5
            gain_db = 0.0
            if number == 1 and len(voices) == 2:
                gain_db = -random.uniform(0, SECOND_VOICE_DB)
            elif number >= len(voices) and not own:
                gain_db = random.uniform(-sampling.gain_db, sampling.gain_db)
            gain = (-1 if polarity else 1) * 10 ** (gain_db / 20)
            parts.append(self._part(random, excerpt, number < len(voices), place, gain, bool(swapped)))
        level_db, change_db = random.normal(*sampling.level_db), random.normal(0, sampling.own_level_db)
        return parts, Balance(
            level_db=math.nan if own else level_db,
            change_db=change_db if own else 0.0,
            mixture_db=random.normal(*sampling.mixture_db),
            silent=random.random() < sampling.silent_voice,
        )

    def _part(
        self, random: np.random.Generator, excerpt: int, voice: bool, place: Place, gain: float, swapped: bool
    ) -> Part:
        entry, start, speed = place
        # An excerpt that would reach beyond the end starts earlier.
        start = min(start, max(0, int(entry.length - self.samples * speed)))
        decibels = np.zeros(len(BANDS_HZ))
        if random.random() < self.sampling.equaliser:
            decibels = random.uniform(-self.sampling.equaliser_db, self.sampling.equaliser_db, len(BANDS_HZ))
        dry = entry.kind == "singing"
        room = int(random.integers(ROOMS)) if dry and random.random() < self.sampling.room else -1
        return Part(
            excerpt,
            voice,
            entry.start + start,
            entry.length - start,
            speed,
            gain,
            swapped,
            dry,
            room,
            tuple(decibels.tolist()),
        )

    def _accompaniment(self, random: np.random.Generator) -> list[Place]:
        sampling = self.sampling
        choice = random.random()
        if choice < sampling.instrumental:
            return [(*self.instrumentals.draw(random), self._speed(random))]
        if choice < sampling.instrumental + sampling.whole:
            if random.random() < WHOLE_SONGS:
                return [(*self.song_accompaniments.draw(random), self._speed(random))]
            entry, start = self.instruments[INSTRUMENTS[random.integers(len(INSTRUMENTS))]].draw(random)
            return self._of_song(entry, start, self._speed(random))
        return [(*self.instruments[stem].draw(random), self._speed(random)) for stem in INSTRUMENTS]

    def _of_song(self, entry: Entry, start: int, speed: float) -> list[Place]:
        """Returns what accompanies a voice, or another instrument, in its own song."""
        whole = self.entries.get((entry.name, ACCOMPANIMENT))
        stems = [whole] if whole else [self.entries[entry.name, stem] for stem in INSTRUMENTS]
        return [(stem, start, speed) for stem in stems]

    def _voice_speed(self, random: np.random.Generator) -> float:
        return _speed(random, self.sampling.voice_speed, self.sampling.voice_speed_range)

    def _speed(self, random: np.random.Generator) -> float:
        return _speed(random, self.sampling.speed, self.sampling.speed_range)

    def mix(self, parts: Sequence[Part], balances: Sequence[Balance], device: torch.device) -> Stems:
        """Returns the vocals and the accompaniment (b, 2, n) of drawn excerpts, computed on a device."""
        self.bank.audio = self.bank.audio.to(device)
        columns = {name: torch.tensor([getattr(p, name) for p in parts], device=device) for name in Part._fields}
        audio = self._read(columns["start"], columns["length"], columns["speed"].double())  # (parts, 2, n)
        dry = _places(part.dry for part in parts)
        audio[dry] = compressed(audio[dry])
        self._filter(audio, parts, columns)
        swapped = _places(part.swapped for part in parts)
        audio[swapped] = audio[swapped].flip(1)
        audio *= columns["gain"][:, None, None]
        stems = {}
        for stem, sung in ((VOCALS, True), (ACCOMPANIMENT, False)):
            which = _places(part.voice == sung for part in parts)
            total = audio.new_zeros(len(balances), *audio.shape[1:])
            stems[stem] = total.index_add_(0, columns["excerpt"][which], audio[which])
        return _balanced(stems, balances)

    def _read(self, start: Tensor, length: Tensor, speed: Tensor) -> Tensor:
        """Returns the audio (parts, 2, n) from starts on, at a speed, zero after the end of the stems."""
        steps = torch.arange(self.samples, device=start.device)
        audio = self._taken(steps.expand(len(start), -1), start, length)
        faster = torch.nonzero(speed != 1)[:, 0]
        start, length, speed = start[faster], length[faster], speed[faster]
        position = steps * speed[:, None]
        first = position.floor().long()
        fraction = (position - first).float()
        # Faster than recorded, what would be above half the sampling rate is left out.
        cutoff = (1 / speed.float()).clamp(max=1)[:, None]
        resampled = torch.zeros_like(audio[faster])
        for tap in range(1 - TAPS // 2, TAPS // 2 + 1):
            distance = tap - fraction
            window = torch.cos(math.pi / TAPS * distance).square()
            weight = torch.sinc(cutoff * distance) * cutoff * window
            resampled += weight[..., None] * self._taken(first + tap, start, length)
        audio[faster] = resampled
        return audio.mT.contiguous()

    def _taken(self, index: Tensor, start: Tensor, length: Tensor) -> Tensor:
        """Returns the samples (parts, n, 2) at an index (parts, n) counted from starts (parts,)."""
        inside = (index >= 0) & (index < length[:, None])
        place = torch.where(inside, index + start[:, None], start[:, None])
        return self.bank.audio[place].float() / FULL_SCALE * inside[..., None]

    def _filter(self, audio: Tensor, parts: Sequence[Part], columns: dict[str, Tensor]) -> None:
        """Applies equaliser and room to audio (parts, 2, n), in place, where a part has one."""
        which = _places(part.room >= 0 or any(part.decibels) for part in parts)
        if not which:
            return
        if self.room_spectra is None:
            self.room_spectra = torch.fft.rfft(rooms(self.seed), self.padded).to(audio.device)
        spectrum = torch.fft.rfft(audio[which], self.padded)
        spectrum *= equaliser(columns["decibels"][which].float(), self.padded)[:, None]
        placed = _places(parts[part].room >= 0 for part in which)
        spectrum[placed] *= self.room_spectra[columns["room"][which][placed]]
        audio[which] = torch.fft.irfft(spectrum, self.padded)[..., : self.samples]


def compressed(audio: Tensor) -> Tensor:
    """Returns audio (b, 2, n) in which loud and quiet passages are half as far apart in dB."""
    hop = SAMPLE_RATE // 100
    power = F.avg_pool1d(audio.square().mean(1, keepdim=True), 4 * hop, hop, 2 * hop, ceil_mode=True)
    envelope = power.sqrt()
    floor = 0.1 * envelope.amax(-1, keepdim=True) + 1e-5
    gain = F.interpolate(torch.maximum(envelope, floor).rsqrt(), audio.shape[-1], mode="linear")
    return audio * gain * floor.sqrt()


def rooms(seed: int) -> Tensor:
    """Returns impulse responses (rooms, 2, n): the sound itself, then decaying noise that differs left and right."""
    random = torch.Generator().manual_seed(seed)
    samples = round(ROOM_SECONDS * SAMPLE_RATE)
    seconds = torch.arange(samples) / SAMPLE_RATE
    noise = torch.randn(ROOMS, 2, samples, generator=random)
    length, delay, wet = torch.rand(3, ROOMS, 1, 1, generator=random)
    # 60 dB in 0.15 to 0.9 s; the first reflection after 2 to 32 ms; reflections 22 to 4 dB below the sound.
    tail = noise * torch.exp(-6.9 * seconds / (0.15 + 0.75 * length)) * (seconds > 0.002 + 0.03 * delay)
    # Reflections lose their treble.
    tail = F.avg_pool1d(tail, 5, 1, 2)
    tail = tail / tail.square().sum(-1, keepdim=True).sqrt() * 10 ** ((-22 + 18 * wet) / 20)
    tail[..., 0] += 1
    return tail


def equaliser(decibels: Tensor, padded: int) -> Tensor:
    """Returns the gains (b, frequencies) of gains in dB (b, octaves), linear in octaves between them."""
    hertz = torch.fft.rfftfreq(padded, 1 / SAMPLE_RATE, device=decibels.device).clamp(min=1)
    octave = torch.log2(hertz / BANDS_HZ[0]).clamp(0, len(BANDS_HZ) - 1)
    below = octave.floor().long().clamp(max=len(BANDS_HZ) - 2)
    return 10 ** (torch.lerp(decibels[:, below], decibels[:, below + 1], octave - below) / 20)


def _balanced(stems: Stems, balances: Sequence[Balance]) -> Stems:
    """Returns vocals and accompaniment (b, 2, n) at the levels of their excerpts."""
    voice, accompaniment = stems[VOCALS], stems[ACCOMPANIMENT]
    columns = {name: voice.new_tensor([getattr(b, name) for b in balances]) for name in Balance._fields}
    voice_db, accompaniment_db = _level_db(voice), _level_db(accompaniment)
    relative = columns["level_db"] - (voice_db - accompaniment_db)
    change = torch.where(relative.isnan(), columns["change_db"], relative)
    heard = (voice_db > SILENT_DB) & (accompaniment_db > SILENT_DB)
    voice = voice * _factor(torch.where(heard, change, 0)) * (1 - columns["silent"])[:, None, None]
    mixture_db = _level_db(voice + accompaniment)
    gain = _factor(torch.where(mixture_db > SILENT_DB, columns["mixture_db"] - mixture_db, 0))
    return {VOCALS: voice * gain, ACCOMPANIMENT: accompaniment * gain}


def _level_db(audio: Tensor) -> Tensor:
    """Returns the level (b,) of audio (b, 2, n) in dB of full scale."""
    return 10 * torch.log10(audio.square().mean((1, 2)) + 1e-12)


def _factor(decibels: Tensor) -> Tensor:
    return 10 ** (decibels / 20)[:, None, None]


def _places(chosen: Iterable[bool]) -> list[int]:
    """Returns the places at which an iterable is true."""
    return [place for place, true in enumerate(chosen) if true]


def _speed(random: np.random.Generator, share: float, limits: tuple[float, float]) -> float:
    speed = math.exp(random.uniform(math.log(limits[0]), math.log(limits[1])))
    return speed if random.random() < share else 1.0
