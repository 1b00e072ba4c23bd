"""What is irregular about a file that can still be read."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Hole:
    """Audio that cannot be decoded and is silent: its first sample and its number of samples."""

    start: int
    length: int


@dataclass
class Irregularities:
    """What was found in a file while it was read.

    Args:
        holes: Audio that cannot be decoded.
        notes: What else a listener could wonder about, as phrases.
    """

    holes: list[Hole] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def describe_holes(holes: Sequence[Hole], sample_rate: int) -> str:
    """Returns a phrase with length and place in seconds of the first holes, and with the number of the others."""
    places = [f"{hole.length / sample_rate:.3g} s at {hole.start / sample_rate:.2f} s" for hole in holes[:3]]
    more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
    return f"{', '.join(places)}{more} cannot be decoded"
