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
        self._last: av.Packet | None = None
        # Bytes since the last frame that are no whole packets one by one, though they may be together.
        self._unexplained = 0
        self.samples = 0

    def add(self, packet: av.Packet) -> int:
        """Returns the samples of what a packet that can be decoded has behind it, -1 if that is not audio."""
        size = packet.size
        if self._format != "aac":
            behind = size - self._frame_bytes(packet)
            if behind > 3:
                # Its decoder ignores bytes that it does not need.
                count = round(behind / self.mean) if self._sizes else 0
                whole = self._format not in CONSTANT_SIZES or abs(behind - count * self.mean) <= 3
                return count * self.samples if whole else -1
        self._sizes.append(size)
        self._last = packet
        return 0

    def _frame_bytes(self, packet: av.Packet) -> float:
        """Returns the size of the frame that a packet begins with."""
        head = bytes(memoryview(packet)[:10])
        if self._format == "mp3":
            frame = mpeg_frame(head[:4])
            return packet.size if frame is None else frame.size
        if head.startswith(DTS_CORE):
            size = dts_core_bytes(head)
            return packet.size if bytes(memoryview(packet)[size : size + 4]) == DTS_EXTENSION else size
        return self.mean if self._format in CONSTANT_SIZES and self._is_constant() else packet.size

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
        return self._last is not None and bytes(memoryview(packet)[:2]) == bytes(memoryview(self._last)[:2])

    def is_tag(self, packet: av.Packet) -> bool:
        """Whether a packet is a tag between frames."""
        return bytes(memoryview(packet)[:16]).startswith(TAGS)

    def lost_between(self, size: int) -> int:
        """Returns the samples of so many bytes between packets that are known by their bytes alone."""
        return round(size / self.mean) * self.samples if self._holes == "bytes" and self._sizes else 0

    def explained(self) -> int:
        """Returns the samples of what could not be decoded before a frame, if only all of it is whole packets."""
        size, self._unexplained = self._unexplained, 0
        count = round(size / self.mean) if size else 0
        return count * self.samples if count and abs(size - count * self.mean) <= 3 else 0

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
            if begins and not first_decoded:
                return self.samples
            self._unexplained += size
            return 0
        return self.samples * (max(1, count) if begins and not first_decoded else count)
