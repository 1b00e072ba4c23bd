"""Short pieces of music composed from a seed: drums, bass and other, as MIDI."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import mido

TICKS_PER_BEAT = 480
BEATS_PER_BAR = 4
BARS_PER_SECTION = 4
DRUM_CHANNEL = 9
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
# Degrees of the scale, one chord per bar.
PROGRESSIONS = (
    (0, 4, 5, 3),
    (0, 5, 3, 4),
    (5, 3, 0, 4),
    (0, 3, 4, 3),
    (0, 3, 0, 4),
    (1, 4, 0, 0),
    (0, 6, 5, 6),
    (3, 4, 2, 5),
    (0, 2, 3, 4),
    (0, 0, 3, 4),
)
KITS = (0, 0, 8, 16, 24, 25, 32, 40)
BASSES = tuple(range(32, 40))
# Programs of General MIDI without its voices: 52 to 54, 85 and 91.
PADS = (16, 17, 18, 19, 20, 21, 48, 49, 50, 51, 88, 89, 90, 92, 93, 94, 95)
CHORDS = (0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 24, 25, 26, 27, 28, 29, 30, 62, 63)
ARPEGGIOS = (0, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 24, 25, 26, 27, 45, 46, 80, 81, 98, 104, 106, 107)
LEADS = (21, 22, 29, 30, 40, 41, 42, *range(56, 62), *range(64, 80), 80, 81, 82, 83, 84, 86, 87, 110, 111)
KICK, SNARE, CLAP, CLOSED_HAT, OPEN_HAT, RIDE, CRASH = 36, 38, 39, 42, 46, 51, 49
TOMS = (50, 48, 45, 43)
PERCUSSION = (54, 56, 62, 63, 64, 69, 70, 75, 76)


@dataclass(frozen=True)
class Note:
    """A note: start and length in beats, and its MIDI pitch and velocity."""

    start: float
    beats: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Part:
    """What one instrument plays.

    Args:
        program: Program of General MIDI, or of a kit for drums.
        channel: MIDI channel.
        pan: Position from 0, left, to 127, right.
        vibrato: Depth of the modulation, up to 127.
        notes: All notes.
    """

    program: int
    channel: int
    pan: int = 64
    vibrato: int = 0
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True)
class Piece:
    """A piece of music: its tempo in beats per minute, and the parts of each stem."""

    tempo: float
    stems: dict[str, list[Part]]


def compose(seed: int, seconds: float) -> Piece:
    """Returns a piece of at least some seconds; the same seed gives the same piece."""
    generator = random.Random(seed)
    tempo = generator.uniform(72, 150)
    bars = int(seconds * tempo / 60 / BEATS_PER_BAR) + 1
    chords = _chords(generator, bars)
    other = [_pad, _comping, _arpeggio, _lead]
    chosen = generator.sample(other, generator.randint(2, 4))
    return Piece(
        tempo,
        {
            "drums": [_drums(generator, bars)],
            "bass": [_bass(generator, chords)],
            "other": [write(generator, chords, channel) for channel, write in enumerate(chosen)],
        },
    )


def midi(piece: Piece, stem: str) -> mido.MidiFile:
    """Returns a stem of a piece as a MIDI file."""
    file = mido.MidiFile(ticks_per_beat=TICKS_PER_BEAT)
    track = mido.MidiTrack()
    file.tracks.append(track)
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(piece.tempo)))
    events: list[tuple[int, mido.Message]] = []
    for part in piece.stems[stem]:
        track.append(mido.Message("program_change", channel=part.channel, program=part.program))
        track.append(mido.Message("control_change", channel=part.channel, control=10, value=part.pan))
        track.append(mido.Message("control_change", channel=part.channel, control=1, value=part.vibrato))
        for pitch in sorted({note.pitch for note in part.notes}):
            for start, stop, velocity in _struck([note for note in part.notes if note.pitch == pitch]):
                note = {"channel": part.channel, "note": pitch}
                events.append((start, mido.Message("note_on", velocity=velocity, **note)))
                events.append((stop, mido.Message("note_off", **note)))
    now = 0
    # Where a note ends and the same pitch begins again, the end comes first.
    for tick, message in sorted(events, key=lambda event: (event[0], event[1].type == "note_on")):
        track.append(message.copy(time=tick - now))
        now = tick
    return file


def _struck(notes: Sequence[Note]) -> Iterator[tuple[int, int, int]]:
    """Yields start and stop in ticks and velocity of notes of one pitch; each ends before the next begins."""
    loudest: dict[int, Note] = {}
    for note in sorted(notes, key=lambda note: note.velocity):
        loudest[round(note.start * TICKS_PER_BEAT)] = note
    starts = sorted(loudest)
    for start, next_start in zip(starts, [*starts[1:], None], strict=True):
        note = loudest[start]
        stop = max(start + 1, round((note.start + note.beats) * TICKS_PER_BEAT))
        yield start, stop if next_start is None else min(stop, next_start), note.velocity


def _chords(generator: random.Random, bars: int) -> list[tuple[int, ...]]:
    """Returns the pitches of a seventh chord for each bar, root first."""
    key, scale = generator.randrange(12), generator.choice(list(SCALES.values()))
    sections = generator.sample(PROGRESSIONS, 2)
    form = [sections[0], sections[0], sections[1], sections[1]]
    chords = []
    for bar in range(bars):
        degree = form[bar // BARS_PER_SECTION % len(form)][bar % BARS_PER_SECTION]
        steps = [degree + 2 * third for third in range(4)]
        chords.append(tuple(48 + key + scale[step % 7] + 12 * (step // 7) for step in steps))
    return chords


def _played(generator: random.Random, start: float, beats: float, pitch: int, loud: int) -> Note:
    """Returns a note as a human plays it: slightly off the beat, with varying loudness."""
    velocity = min(127, max(20, loud + generator.randint(-14, 14)))
    return Note(max(0.0, start + generator.gauss(0, 0.012)), beats * generator.uniform(0.8, 1.0), pitch, velocity)


def _within(pitch: int, lowest: int) -> int:
    """Returns a pitch moved by octaves into the octave that begins at the lowest."""
    return lowest + (pitch - lowest) % 12


def _rhythm(generator: random.Random, onsets: tuple[int, int]) -> list[tuple[float, float]]:
    """Returns starts and lengths in beats of some of the sixteenths of a bar, those on the beat more often."""
    steps = sorted(
        {0 if generator.random() < 0.7 else 2}
        | set(generator.choices(range(16), [4, 1, 3, 1] * 4, k=generator.randint(*onsets)))
    )
    ends = [*steps[1:], 16]
    return [(step / 4, (end - step) / 4) for step, end in zip(steps, ends, strict=True)]


def _drums(generator: random.Random, bars: int) -> Part:
    part = Part(generator.choice(KITS), DRUM_CHANNEL)
    straight = generator.random() < 0.25
    kicks = [0, 4, 8, 12] if straight else sorted({0, 8} | set(generator.choices(range(16), k=generator.randint(0, 3))))
    snares = [8] if generator.random() < 0.15 else [4, 12]
    snare = generator.choice((SNARE, SNARE, SNARE, CLAP, 37, 40))
    cymbal, every = generator.choice((CLOSED_HAT, CLOSED_HAT, RIDE)), generator.choice((1, 2, 2, 4))
    shaken = generator.choice((*PERCUSSION, None, None, None))
    shakes = [step for step in range(16) if generator.random() < 0.4]
    for bar in range(bars):
        beat = bar * BEATS_PER_BAR
        is_fill = bar % BARS_PER_SECTION == BARS_PER_SECTION - 1 and generator.random() < 0.6
        struck = [(step, KICK, 105) for step in kicks] + [(step, snare, 104) for step in snares]
        struck += [(step, OPEN_HAT if step == 14 and bar % 2 else cymbal, 78) for step in range(0, 16, every)]
        struck += [(step, shaken, 70) for step in shakes if shaken]
        struck += [(step, SNARE, 45) for step in range(16) if generator.random() < 0.05]
        if is_fill:
            struck = [hit for hit in struck if hit[0] < 12]
            fill = [step for step in range(12, 16) if generator.random() < 0.8]
            struck += [(step, generator.choice((*TOMS, SNARE)), 98) for step in fill]
        if bar % BARS_PER_SECTION == 0 and generator.random() < 0.7:
            struck.append((0, CRASH, 95))
        part.notes.extend(_played(generator, beat + step / 4, 0.25, drum, loud) for step, drum, loud in struck)
    return part


def _bass(generator: random.Random, chords: list[tuple[int, ...]]) -> Part:
    part = Part(generator.choice(BASSES), 0)
    style = generator.choice(("eighths", "long", "rhythm", "walking", "octaves"))
    rhythm = _rhythm(generator, (2, 6))
    for bar, chord in enumerate(chords):
        root = _within(chord[0], 28)
        if style == "eighths":
            line = [(step / 2, 0.5, root) for step in range(8)]
        elif style == "octaves":
            line = [(step / 2, 0.5, root + 12 * (step % 2)) for step in range(8)]
        elif style == "walking":
            line = [(float(step), 1.0, _within(pitch, 28)) for step, pitch in enumerate(chord)]
        elif style == "long":
            line = [(0.0, 4.0, root)]
        else:
            fifth = _within(chord[2], 28)
            line = [(start, beats, generator.choice((root, root, fifth))) for start, beats in rhythm]
        part.notes.extend(_played(generator, bar * BEATS_PER_BAR + s, b, p, 98) for s, b, p in line)
    return part


def _pad(generator: random.Random, chords: list[tuple[int, ...]], channel: int) -> Part:
    part = Part(generator.choice(PADS), channel, generator.randint(40, 88))
    lowest, voices = generator.choice((48, 55, 60)), generator.choice((3, 3, 4))
    for bar, chord in enumerate(chords):
        pitches = [_within(pitch, lowest) for pitch in chord[:voices]]
        part.notes.extend(_played(generator, bar * BEATS_PER_BAR, BEATS_PER_BAR, pitch, 72) for pitch in pitches)
    return part


def _comping(generator: random.Random, chords: list[tuple[int, ...]], channel: int) -> Part:
    part = Part(generator.choice(CHORDS), channel, generator.choice((20, 40, 64, 88, 108)))
    rhythm, lowest = _rhythm(generator, (2, 8)), generator.choice((50, 55, 60))
    is_power_chord = part.program in (29, 30)
    for bar, chord in enumerate(chords):
        pitches = (chord[0] - 12, chord[2] - 12, chord[0]) if is_power_chord else chord[: generator.choice((3, 4))]
        voiced = sorted(pitches if is_power_chord else (_within(pitch, lowest) for pitch in pitches))
        for start, beats in rhythm:
            strum = generator.uniform(0, 0.04)
            part.notes.extend(
                _played(generator, bar * BEATS_PER_BAR + start + number * strum, beats, pitch, 82)
                for number, pitch in enumerate(voiced)
            )
    return part


def _arpeggio(generator: random.Random, chords: list[tuple[int, ...]], channel: int) -> Part:
    part = Part(generator.choice(ARPEGGIOS), channel, generator.choice((16, 36, 64, 92, 112)))
    steps, lowest = generator.choice((8, 16)), generator.choice((55, 60, 67))
    order = generator.sample(range(4), 4)
    for bar, chord in enumerate(chords):
        pitches = sorted(_within(pitch, lowest) for pitch in chord)
        part.notes.extend(
            _played(generator, bar * BEATS_PER_BAR + step * 4 / steps, 4 / steps, pitches[order[step % 4]], 80)
            for step in range(steps)
        )
    return part


def _lead(generator: random.Random, chords: list[tuple[int, ...]], channel: int) -> Part:
    part = Part(generator.choice(LEADS), channel, generator.randint(44, 84), generator.choice((0, 20, 50)))
    lowest = generator.choice((57, 62, 67))
    phrases = [_rhythm(generator, (2, 7)) for _ in range(2)]
    pitch = lowest + 12
    for bar, chord in enumerate(chords):
        if generator.random() < 0.15:
            continue
        for start, beats in phrases[bar % 2]:
            pitch = _next_pitch(generator, chord, lowest, pitch)
            part.notes.append(_played(generator, bar * BEATS_PER_BAR + start, beats, pitch, 92))
    return part


def _next_pitch(generator: random.Random, chord: tuple[int, ...], lowest: int, pitch: int) -> int:
    """Returns a note of the chord near a pitch, within the two octaves above the lowest pitch."""
    pitches = sorted(_within(tone, lowest) + octave for tone in chord for octave in (0, 12))
    nearest = min(range(len(pitches)), key=lambda place: abs(pitches[place] - pitch))
    return pitches[min(len(pitches) - 1, max(0, nearest + generator.choice((-2, -1, -1, 0, 1, 1, 2))))]
