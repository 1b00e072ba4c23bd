"""One audio stream of a file that FFmpeg's libraries read: its packets, its clock, and what is missing."""

import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import av
import av.logging
import numpy as np
import torch
from av.codec.context import Flags2
from av.stream import Disposition
from torch import Tensor

from bsmamba2.audio import BLOCK
from bsmamba2.audio.containers import Mp4Track, mp4_track
from bsmamba2.audio.frames import FrameReader, skipped_samples
from bsmamba2.audio.irregularities import Irregularities
from bsmamba2.audio.kinds import MP4_FILES, file_kind
from bsmamba2.audio.lossless_depth import lossless_depth
from bsmamba2.audio.mpeg import first_mpeg_frame, lost_aac_frames, mp3_length
from bsmamba2.audio.ogg import OggPages
from bsmamba2.audio.packet_sizes import TAGS, PacketSizes
from bsmamba2.audio.probing import reason
from bsmamba2.audio.sample_files import TRUNCATED, id3_bytes
from bsmamba2.audio.time_line import TimeLine
from bsmamba2.errors import InputError

# How much shorter a stream may be than its container states, because containers round to their own clock. A smaller
# jump of the time stamps is no pause either.
CLOCK_SECONDS = 0.1
# A smaller difference between time stamps and samples is rounding.
LAG_SECONDS = 0.005
# Sound that begins less than this after the video begins with it.
SYNCHRONOUS_SECONDS = 0.002
# A longer pause is a broken clock, if the file does not state that it is so long.
LONGEST_PAUSE_SECONDS = 60
# Ways to find holes by time stamps.
STAMPS = ("stamps", "stamps and bytes", "pages")
# Bytes of headers between two packets, at most.
PACKET_HEADER_BYTES = 64
# Bytes before the first packet of a transport stream of sound alone, at most.
TRANSPORT_HEADER_BYTES = 2000
# Codecs whose decoders compare checksums only if asked to.
CHECKED_CODECS = ("flac", "tta")
# Time stamps of Vorbis are early or late by up to a quarter of its longest blocks; those of other codecs are exact.
VORBIS_STAMP_SAMPLES = 2048


class DecodedStream:
    """One audio stream of a file open in FFmpeg's libraries; its blocks can be read once.

    Attributes:
        length: Its number of samples; None if only decoding shows it.
        sample_rate: Its sampling rate in Hz.
        channels: Its number of channels.
        depth: Its sample format; None for lossy audio.

    Args:
        path: The file, for messages.
        container: The file, open.
        number: Number of the audio stream.
        file: Its bytes, opened apart from the container.
        pages: The pages of an Ogg file.

    Raises:
        InputError: The stream cannot be decoded, or the file is truncated.
    """

    def __init__(
        self, path: Path, container: av.container.InputContainer, number: int, file: BinaryIO, pages: OggPages | None
    ) -> None:
        self._path, self._container, self._file, self._pages = path, container, file, pages
        self._source = source = container.streams.audio[number]
        # Only part of a file, or an unknown codec.
        if source.codec_context is None or not source.sample_rate or not source.channels:
            raise InputError(
                f"{path} is damaged or not audio that can be read; get the whole file or convert it to WAV"
            )
        self.sample_rate, self.channels = source.sample_rate, source.channels
        self._frame_reader = FrameReader(path, self.sample_rate, self.channels)
        self._format, self._codec = container.format.name, source.codec_context.name
        self._tick_seconds = float(source.time_base or 0)
        self._kind = file_kind(self._format, self._codec, file, self.sample_rate)
        if not self._kind.whole(file):
            raise InputError(f"{path} {TRUNCATED}")
        self._track = mp4_track(file, source.id) if self._format == MP4_FILES else Mp4Track()
        self._lost_frames = lost_aac_frames(file) if self._format == "aac" else {}
        self.depth = lossless_depth(container, source)
        # FFmpeg cuts too much off the end if all audio is on one Ogg page, so `blocks` does the cutting; and where an
        # MP3 counts fewer frames than it has, FFmpeg cuts behind those that are counted, in the middle of the song.
        skips = (self._format, self._codec) == ("ogg", "vorbis")
        skips |= (self._format, self._kind.length) == ("mp3", "decoding")
        if skips:
            source.codec_context.flags2 |= Flags2.skip_manual
        if self._codec in CHECKED_CODECS:
            source.codec_context.options = {"err_detect": "crccheck+explode"}
        # The first time stamp and the latest end of the packets, an error that ended reading, whether nothing behind
        # the last frame could be decoded, and whether the last packet was cut.
        self._first_stamp: int | None = None
        self._end = 0.0
        self._error: av.FFmpegError | None = None
        self._damaged_end = self._is_cut = False
        self._lost_end = 0
        # Positions of the first packet, and behind the last one that could be decoded.
        self._first_byte: int | None = None
        self._last_byte = 0
        self._frames = self._decoded()
        self._first = next(self._frames, None)
        # Samples to skip at the beginning, if the decoder is set not to do so.
        self._skipped = skipped_samples(self._first.frame) if skips and self._first is not None else 0
        self._zero = self._zero_seconds()
        self._stated_end = None if self._kind.length in ("decoding", "doubtful") else self._stated_end_seconds()
        self.length = None
        if (self._format, self._kind.length) == ("mp3", "samples"):
            self.length = mp3_length(file)
        elif self._stated_end is not None:
            self.length = max(0, round((self._stated_end - self._zero) * self.sample_rate))
        self._slack = 0 if self._kind.length == "samples" else round(CLOCK_SECONDS * self.sample_rate)

    def blocks(self, start: int, length: int | None, found: Irregularities | None) -> Iterator[Tensor]:
        """Yields audio (c, n) from sample start on.

        Args:
            start: First sample.
            length: Number of samples; None to read to the end.
            found: Where holes and notes are added; None if a hole is an error.

        Raises:
            InputError: The file ends before its stated end, or has a hole and found is None.
        """
        stop = None if length is None else start + length
        if self.length is not None and self._kind.cut:
            stop = self.length if stop is None else min(stop, self.length)
        waiting: list[np.ndarray] = []
        ready = 0
        for position, samples in self._pieces(start, stop, found):
            piece = samples[:, max(0, start - position) : None if stop is None else max(0, stop - position)]
            # An empty piece would keep its whole frame in memory.
            if piece.shape[1]:
                waiting.append(piece)
                ready += piece.shape[1]
            if ready >= BLOCK:
                yield torch.from_numpy(np.concatenate(waiting, axis=1))
                waiting, ready = [], 0
        if waiting:
            yield torch.from_numpy(np.concatenate(waiting, axis=1))

    def _pieces(self, start: int, stop: int | None, found: Irregularities | None) -> Iterator[tuple[int, np.ndarray]]:
        """Yields position and samples (c, n) of what follows one another, from sample start or earlier up to stop."""
        line = TimeLine(self._path, self.sample_rate, start, stop, found)
        is_part = stop is not None and stop != self.length
        if self._pages is not None and not self._pages.intact:
            line.add_note("some of its pages are missing or damaged")
        if self._pages is not None and not self._pages.marked and stop == self.length:
            line.add_note("its last page is not marked as the last, so that it may have been longer")
        if start == 0 and (late := self._late_seconds()) > CLOCK_SECONDS:
            line.add_note(f"its first {late:.3g} s cannot be decoded and are left out")
        skipped = 0
        for decoded in self._from(start, is_part):
            samples = self._frame_reader.samples(decoded.frame)
            if decoded is self._first:
                skipped = self._skipped
            # A frame can be shorter than what is skipped.
            samples, skipped = samples[:, skipped:], max(0, skipped - samples.shape[1])
            if silence := self._silence_before(decoded, line):
                yield from self._silence(silence, line)
                if line.is_over():
                    break
            yield line.position, samples
            line.advance(samples.shape[1])
            if line.is_over():
                break
        else:
            yield from self._silence(self._silence_at_the_end(line), line)

    def _late_seconds(self) -> float:
        """Returns how much of the beginning no frame was decoded from; the edits of an MP4 file leave some out."""
        first = None if self._first is None else self._first.stamp
        if first is None or self._first_stamp is None or self._is_film or self._kind.holes not in STAMPS:
            return 0.0
        return 0.0 if self._format == MP4_FILES else first - self._first_stamp * self._tick_seconds

    def _from(self, start: int, is_part: bool) -> Iterator["_Decoded"]:
        """Yields frames from before sample start, or from the first.

        In other codecs positions after a seek are wrong (ADPCM), or decoding needs more context (Opus). In AAC the
        samples are the same except for noise that the encoder left to the decoder, so only parts of it are sought,
        which training reads at random.
        """
        # AAC frames overlap: the first frame decoded after a seek is incomplete, so start a few frames earlier.
        runway = 4 * (self._source.codec_context.frame_size or 1024)
        exact = self._track.even_packets and self._source.time_base == Fraction(1, self.sample_rate)
        seekable = exact and (self._codec == "alac" or (self._codec == "aac" and is_part))
        if not seekable or start <= runway:
            frames = itertools.chain([] if self._first is None else [self._first], self._frames)
            return frames if self._pages is None or self._pages.intact else self._stamped(frames)
        self._container.seek(round(self._zero * self.sample_rate) + start - runway, stream=self._source)
        return self._decoded()

    def _stamped(self, frames: Iterator["_Decoded"]) -> Iterator["_Decoded"]:
        """Gives frames without a time, as are those between a hole and the end of an Ogg page, that of what follows."""
        waiting: list[_Decoded] = []
        for decoded in frames:
            waiting.append(decoded)
            if decoded.stamp is not None:
                yield from self._backwards(waiting, decoded.stamp + decoded.frame.samples / self.sample_rate)
                waiting = []
        yield from self._backwards(waiting, self._stated_end)

    def _backwards(self, waiting: list["_Decoded"], end: float | None) -> Iterator["_Decoded"]:
        left = sum(decoded.frame.samples for decoded in waiting)
        for decoded in waiting:
            yield decoded if end is None else decoded._replace(stamp=end - left / self.sample_rate)
            left -= decoded.frame.samples

    def _silence_before(self, decoded: "_Decoded", line: TimeLine) -> int:
        """Returns the samples that are missing before a frame, and notes why."""
        if self._kind.holes not in STAMPS:
            return self._lost_before(decoded, line)
        length = decoded.frame.samples
        if decoded.stamp is None:
            line.expected = None if line.expected is None else line.expected + length
            return 0
        at = (decoded.stamp - self._zero) * self.sample_rate
        first, jump = line.expected is None, at - (line.expected or 0)
        line.expected = at + length
        if first and line.start > 0 and decoded is not self._first:
            # After a seek; before the first frame of a film it is silent.
            line.position = min(round(at), line.start)
            return round(at) - line.position
        if self._pages is not None:
            return self._lost_pages_before(decoded, at, line)
        if decoded.damaged:
            return self._damage_before(decoded, at, jump, line)
        return self._pause_before(at, jump, first, line)

    def _lost_before(self, decoded: "_Decoded", line: TimeLine) -> int:
        """Returns the samples missing before a frame, where packets or bytes show them."""
        if decoded.lost:
            line.add_hole(decoded.lost)
        elif decoded.skipped and not line.has_skipped:
            line.has_skipped = True
            line.add_note(f"bytes that are not audio are skipped, first at {line.position / self.sample_rate:.2f} s")
        return decoded.lost

    def _lost_pages_before(self, decoded: "_Decoded", at: float, line: TimeLine) -> int:
        """Returns the samples missing before a frame that is at a sample by the stamps of the pages."""
        missing = round(at) - line.left_out - line.position
        least = VORBIS_STAMP_SAMPLES if self._codec == "vorbis" else decoded.frame.samples / 2
        if (self._pages is not None and self._pages.intact) or missing < least or not self._is_believed(at, missing):
            return 0
        line.add_hole(missing)
        return missing

    def _damage_before(self, decoded: "_Decoded", at: float, jump: float, line: TimeLine) -> int:
        """Returns the samples missing before a frame behind something that cannot be decoded."""
        length = decoded.frame.samples
        missing = round(at) - line.left_out - line.position
        if abs(jump) < length / 2:
            line.lag = missing
            return 0
        if jump < 0 or missing <= 0 or not self._is_believed(at, missing):
            # The clock jumps, and time is counted from here.
            line.left_out += missing - length
            missing = length
        line.add_hole(missing)
        return missing

    def _pause_before(self, at: float, jump: float, first: bool, line: TimeLine) -> int:
        """Returns the samples of a pause before a frame: in a film it is silent, in sound alone it is left out."""
        missing = round(at) - line.left_out - line.position
        least = SYNCHRONOUS_SECONDS if first and self._is_film else CLOCK_SECONDS
        if abs(jump) < least * self.sample_rate:
            line.lag = missing
            return 0
        # Otherwise the clock jumps, and time is counted from here.
        is_pause = jump > 0 and missing > 0 and self._is_believed(at, missing)
        if is_pause and self._is_film:
            return missing
        if is_pause:
            pause, place = missing / self.sample_rate, line.position / self.sample_rate
            line.add_note(f"a pause of {pause:.3g} s at {place:.2f} s is left out, as in players")
        line.left_out += missing
        return 0

    def _is_believed(self, at: float, missing: int) -> bool:
        """Whether a jump of the time stamps can be true: it leads to no place behind the stated end, nor very far."""
        seconds = self._zero + at / self.sample_rate
        if self._stated_end is not None:
            return seconds <= self._stated_end + CLOCK_SECONDS
        return missing <= LONGEST_PAUSE_SECONDS * self.sample_rate

    def _silence_at_the_end(self, line: TimeLine) -> int:
        """Returns the samples that the packets behind the last frame lack.

        Raises:
            InputError: The file ends before its stated end.
        """
        filled = self._lost_at_the_end(line)
        missing = self._missing_at_the_end(line) - filled
        frame_samples = 0 if self._first is None else self._first.frame.samples
        if line.lag > max(frame_samples / 2, LAG_SECONDS * self.sample_rate):
            line.add_note(f"it is {line.lag / self.sample_rate:.3g} s shorter than its time stamps")
        # A packet that is cut is the end of a truncated file.
        if missing > self._slack or (self._is_cut and self.length is not None and filled > 0):
            end = (self.length or 0) - self._slack
            raise InputError(f"{self._path} ends before its sample {end}; it is truncated or empty")
        supposed = self._supposed_end()
        early = supposed is None or self._end < supposed - CLOCK_SECONDS
        if self._error is not None and self.length is None and early:
            raise InputError(f"{self._path} is damaged and cannot be read to its end ({reason(self._error)})")
        if filled > 0:
            line.add_hole(filled)
        self._note_the_end(line)
        return filled

    def _missing_at_the_end(self, line: TimeLine) -> int:
        """Returns the samples that the file states and that no packet holds."""
        timed = self._pages is None and self._kind.holes in STAMPS and self._stated_end is not None
        if self.length is None or (timed and self._end + self._slack / self.sample_rate >= (self._stated_end or 0)):
            return 0
        return self.length - line.position

    def _lost_at_the_end(self, line: TimeLine) -> int:
        """Returns the samples of the packets behind the last frame that cannot be decoded.

        Raises:
            InputError: They may have been cut.
        """
        missing = 0 if self.length is None else self.length - line.position
        if self._pages is not None:
            # The library lets the last packet before a hole last until the end.
            lost = 0 if self._pages.intact or missing <= self._slack else missing
        elif self._kind.holes in STAMPS:
            behind = round((self._end - self._zero) * self.sample_rate) - line.left_out - line.position
            lost = behind if self._damaged_end and self._is_believed(line.position + behind, behind) else 0
        elif self.length is None and self._kind.holes.startswith("packets"):
            # The bytes of these kinds are known to be there; in others the last packet may have been cut.
            if self._damaged_end and self._kind.length == "clock":
                raise InputError(f"{self._path} is damaged or truncated at its end; get the whole file")
            lost = self._lost_end
        else:
            lost = missing if self._damaged_end or (line.has_holes and missing > self._slack) else 0
        return max(0, lost)

    def _note_the_end(self, line: TimeLine) -> None:
        """Notes an end that is early, though it may be right, and bytes of no known kind at both ends."""
        stated = self._supposed_end() if self._kind.length == "doubtful" else self._stated_end
        rounding = self._tick_seconds if self._tick_seconds * self.sample_rate > 500 else CLOCK_SECONDS
        if self._kind.length == "clock":
            frame_samples = 0 if self._first is None else self._first.frame.samples
            rounding = max(LAG_SECONDS, 0.75 * frame_samples / self.sample_rate)
        if stated is not None and self._kind.length != "samples" and self._end < stated - 0.99 * rounding:
            line.add_note(f"its header states {stated:.2f} s of sound, of which {self._end:.2f} s were found")
        if (self._kind.holes == "bytes" or self._format == "mpegts") and self._has_unknown_bytes():
            line.add_note("bytes before its first or behind its last frame are not audio")

    def _has_unknown_bytes(self) -> bool:
        """Whether bytes at the beginning or the end of a file without a container are neither frames nor tags."""
        first = self._first_byte or 0
        if self._format == "mpegts":
            return first > TRANSPORT_HEADER_BYTES and not self._is_film
        if self._format == "mp3":
            # A header of the number of frames is no packet.
            first = first_mpeg_frame(self._file) or 0
        if first > id3_bytes(self._file):
            return True
        self._file.seek(self._last_byte)
        rest = self._file.read(PACKET_HEADER_BYTES)
        return self.length is None and len(rest) > 1 and not rest.startswith(TAGS)

    def _supposed_end(self) -> float | None:
        """Returns the time stamp of the end as FFmpeg supposes it, which also looks at the end of the file."""
        source, container = self._source, self._container
        if source.duration is not None:
            return ((source.start_time or 0) + source.duration) * self._tick_seconds
        if container.duration is not None and not self._is_film:
            return ((container.start_time or 0) + container.duration) / av.time_base
        return None

    def _silence(self, count: int, line: TimeLine) -> Iterator[tuple[int, np.ndarray]]:
        while count > 0 and not line.is_over():
            size = min(count, BLOCK)
            yield line.position, np.zeros((self.channels, size), np.float32)
            line.advance(size)
            count -= size

    def _decoded(self) -> Iterator["_Decoded"]:
        """Yields the frames of the stream; a packet that cannot be decoded does not end it."""
        damaged, skipped, lost, number = False, False, 0, 0
        holes, index, tick_seconds = self._kind.holes, self._source.index, self._tick_seconds
        sizes = PacketSizes(self._format, holes, tick_seconds * self.sample_rate)
        behind: int | None = None
        checks_places = holes not in ("stamps", "pages") or self._format == "mpegts"
        checks_lengths = self._track.even_packets and self._codec == "opus"
        for packet in self._packets():
            size = packet.size
            if size and checks_places:
                place = packet.pos
                if place is not None:
                    if behind is not None and place - behind > PACKET_HEADER_BYTES:
                        # Between the packets there is nothing but headers.
                        damaged |= holes == "stamps and bytes"
                        skipped |= holes in ("packets and bytes", "bytes")
                        lost += sizes.lost_between(place - behind) if self._format != "aac" else 0
                    behind = place + size
                    if self._first_byte is None:
                        self._first_byte = place
            if packet.stream_index != index:
                continue
            if size:
                self._is_cut = packet.is_corrupt
                damaged |= self._is_cut
                if self._lost_frames:
                    lost += self._lost_frames.get(number, 0) * sizes.samples
                    number += 1
                ticks = packet.pts
                if ticks is not None:
                    if self._first_stamp is None:
                        self._first_stamp = ticks
                    self._end = max(self._end, (ticks + (packet.duration or 0)) * tick_seconds)
            try:
                frames, missing = cast(list[av.AudioFrame], packet.decode()), 0
                if size and holes == "bytes":
                    missing = sizes.add(packet)
                    skipped |= missing < 0
                    missing = max(0, missing)
            except av.FFmpegError:
                # Bytes behind the last packet are not part of it, but the library takes them for one.
                frames = self._beginning(packet, sizes)
                missing = sizes.lost_samples(packet, len(frames) > 0)
                damaged |= not frames
                skipped |= holes == "bytes" and missing == 0 and not sizes.is_tag(packet)
            # Without a delay, each packet gives samples.
            if size and not frames and not missing and self.depth is not None and not packet.is_discard:
                missing, damaged = sizes.lost_samples(packet, False), True
            lost += sizes.explained() if frames and holes == "bytes" else 0
            if not frames:
                lost += missing
            elif size and behind is not None:
                # Only the first frame of such a packet could be decoded.
                self._last_byte = behind - size + sizes.last if missing and holes == "bytes" else behind
            for frame in frames:
                sizes.samples = frame.samples
                ticks = frame.pts
                yield _Decoded(frame, None if ticks is None else ticks * tick_seconds, damaged, lost, skipped)
                damaged, lost, skipped = False, missing, False
            if checks_lengths and frames and self._is_short(packet, frames):
                damaged = True
            self._damaged_end, self._lost_end = damaged or lost > 0, lost

    def _is_short(self, packet: av.Packet, frames: list[av.AudioFrame]) -> bool:
        """Whether a packet gives fewer samples than it states, as damaged Opus does."""
        stated = (packet.duration or 0) * self._tick_seconds * self.sample_rate
        return sum(frame.samples for frame in frames) < 0.75 * stated and not packet.has_sidedata("skip_samples")

    def _packets(self) -> Iterator[av.Packet]:
        """Yields the packets; an error of the container ends them, and is kept."""
        try:
            yield from self._container.demux(*([] if self._kind.holes.endswith("and bytes") else [self._source]))
        except av.FFmpegError as error:
            self._error = error

    def _beginning(self, packet: av.Packet, sizes: PacketSizes) -> list[av.AudioFrame]:
        """Returns the frames of a packet without what follows its first bytes, as many as other packets have."""
        if self._kind.holes != "bytes" or not sizes.mean or packet.size <= sizes.last or not sizes.begins(packet):
            return []
        try:
            return list(self._source.codec_context.decode(av.Packet(bytes(packet)[: sizes.last])))
        except av.FFmpegError:
            return []

    def _zero_seconds(self) -> float:
        """Returns the time stamp of sample 0: where a film begins, or else where the sound begins."""
        videos = [
            video.start_time * float(video.time_base or 0)
            for video in self._container.streams.video
            if not video.disposition & Disposition.attached_pic and video.start_time is not None
        ]
        self._is_film = bool(videos)
        first = None if self._first is None else self._first.stamp
        first = None if first is None else first + self._skipped / self.sample_rate
        if self._pages is not None and not self._source.start_time:
            # FFmpeg's time stamps are late by the encoder's delay if all audio is on one Ogg page.
            first = 0.0
        begin = first or 0.0
        if (first is None or (self._first and self._first.damaged)) and self._source.start_time is not None:
            begin = min(begin, self._source.start_time * self._tick_seconds)
        return min([begin, *videos])

    def _stated_end_seconds(self) -> float | None:
        """Returns the time stamp of the end that the container states; None if it states none."""
        source = self._source
        if self._format == "matroska,webm":
            clock = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", source.metadata.get("DURATION", ""))
            if clock is not None:
                return 3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3])
            whole = None if self._is_film else self._container.duration
            return None if whole is None else whole / av.time_base
        if not source.duration:
            return None
        begin = source.start_time or 0
        if self._format == MP4_FILES and self._first_stamp is not None and source.duration >= self._track.media_ticks:
            # The duration of the media includes the encoder's delay, that of an edit list does not.
            begin = self._first_stamp
        if (self._format, self._codec) == ("ogg", "opus"):
            # Its duration is the position of its end, with the encoder's delay (RFC 7845, section 4.2).
            begin = -int.from_bytes((source.codec_context.extradata or b"")[10:12], "little")
        return (begin + source.duration) * self._tick_seconds


class _Decoded(NamedTuple):
    """A frame with its time; and what is before it: what cannot be decoded, its samples, and bytes of no audio."""

    frame: av.AudioFrame
    stamp: float | None
    damaged: bool
    lost: int
    skipped: bool
