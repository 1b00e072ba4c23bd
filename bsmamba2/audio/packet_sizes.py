"""How much audio was in bytes that cannot be decoded, by the sizes of the packets around them."""

from collections import deque

import av

from bsmamba2.audio.kinds import Holes
from bsmamba2.audio.mpeg import DTS_CORE, DTS_EXTENSION, dts_core_bytes, mpeg_frame

# Containers whose packets have one size.
CONSTANT_SIZES = ("ac3",)
# First bytes of tags between the packets.
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")


class PacketSizes:
    """The sizes of packets that could be decoded, to estimate how much audio was in bytes that cannot be.

    Args:
        format: FFmpeg's name of the container.
        holes: How the length of a hole is found in it.
        samples_per_tick: Samples in a unit of the packets' durations.

    Attributes:
        samples: Samples of the last frame that was decoded, which its reader sets.
    """

    def __init__(self, format: str, holes: Holes, samples_per_tick: float) -> None:
        self._format, self._holes, self._samples_per_tick = format, holes, samples_per_tick
        self._sizes: deque[int] = deque(maxlen=16)
        self._mark = b""
        self.samples = 0

    def add(self, packet: av.Packet) -> int:
        """Returns the samples of what a packet that can be decoded has behind it, -1 if that is not audio."""
        head = bytes(memoryview(packet)[:10])
        frame = mpeg_frame(head[:4]) if self._format == "mp3" else None
        constant = self._format in CONSTANT_SIZES and self._is_constant()
        size = frame.size if frame is not None else self.mean if constant else packet.size
        if head.startswith(DTS_CORE):
            size = dts_core_bytes(head)
            size = packet.size if bytes(memoryview(packet)[size : size + 4]) == DTS_EXTENSION else size
        if packet.size - size > 3:
            # Its decoder ignores bytes that it does not need.
            count = round((packet.size - size) / self.mean) if self._sizes else 0
            return count * self.samples if abs(packet.size - size - count * self.mean) <= 3 or not constant else -1
        self._sizes.append(packet.size)
        self._mark = bytes(memoryview(packet)[:2])
        return 0

    def _is_constant(self) -> bool:
        return len(self._sizes) == self._sizes.maxlen and max(self._sizes) - min(self._sizes) <= 2

    @property
    def mean(self) -> float:
        """Mean size of the last packets in bytes; 0 before the first."""
        return sum(self._sizes) / len(self._sizes) if self._sizes else 0.0

    @property
    def last(self) -> int:
        """Size of the last packet in bytes; 0 before the first."""
        return self._sizes[-1] if self._sizes else 0

    def begins(self, packet: av.Packet) -> bool:
        """Whether a packet begins as the last one did."""
        return bytes(memoryview(packet)[:2]) == self._mark

    def is_tag(self, packet: av.Packet) -> bool:
        """Whether a packet is a tag between frames."""
        return bytes(memoryview(packet)[:16]).startswith(TAGS)

    def lost_between(self, size: int) -> int:
        """Returns the samples of so many bytes between packets that are known by their bytes alone."""
        return round(size / self.mean) * self.samples if self._holes == "bytes" and self._sizes else 0

    def lost_samples(self, packet: av.Packet, first_decoded: bool) -> int:
        """Returns the samples of a packet that cannot be decoded, or of what follows its first frame."""
        if self._holes.startswith("packets"):
            return round((packet.duration or 0) * self._samples_per_tick) or self.samples
        if self._holes != "bytes" or not self._sizes:
            return self.samples if self._holes == "bytes" else 0
        begins, size = self.begins(packet), packet.size - (self.last if first_decoded else 0)
        if self.is_tag(packet):
            return 0
        count = round(size / self.mean)
        # Packets of one size leave a hole of whole packets; other bytes were put between them.
        if self._is_constant() and abs(size - count * self.mean) > 3:
            return self.samples if begins and not first_decoded else 0
        return self.samples * (max(1, count) if begins and not first_decoded else count)
