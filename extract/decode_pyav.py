"""PyAV: the default decoder. One pass over the packets, errors counted packet by packet, pictures turned upright.

Times are those of the container (pts), counted from its start. A damaged packet costs its own frames alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.error import EOFError as AvEOFError
from av.error import FFmpegError, InvalidDataError
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from extract.containers import (
    DECLARES_LENGTH,
    declared_end,
    explained,
    is_hidden,
    open_container,
    time_zero,
    video_stream,
)
from extract.decode import (
    COMPLETE,
    DecodeError,
    DecodePlan,
    Limits,
    Picture,
    Probe,
    Reason,
    Sound,
    SoundLost,
    Summary,
    missing_end,
)
from extract.decode_sound import SoundTrack, first_audio
from extract.fragments import cut_fragments
from extract.frame_clock import FrameClock
from extract.upright import UNTURNED, UprightFrame, orientation

PACKET_S = 0.1  # seconds; no codec has longer packets of sound than about this
MAX_READ_ERRORS = 1000  # in a row, without a packet between them


class PyAvDecoder:
    """One video through PyAV; see `extract.decode.Decoder`."""

    def __init__(self, path: str, plan: DecodePlan, limits: Limits, beat: Callable[[], None]) -> None:
        """Open the file and decode the first frame, unless the plan wants no pictures: then none is decoded."""
        self._plan, self._limits, self._beat = plan, limits, beat
        self._container, self._family = open_container(path)
        self._cut = cut_fragments(path) if self._family == "mov" else ""
        try:
            self._set_up()
        except FFmpegError as error:
            self.close()
            raise explained(error) from error
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        container, plan = self._container, self._plan
        self._video = video_stream(container)
        self._video.codec_context.thread_count = 1
        # Inside FFmpeg too, so that nothing huge is ever allocated; it counts the codec's own margins.
        self._video.codec_context.options = {"max_pixels": str(2 * self._limits.max_pixels + (1 << 16))}
        self._audio = first_audio(container) if plan.audio_rate else None
        self._zero = time_zero(container, self._video)
        counted = self._family == "avi" and bool(self._video.codec_context.has_b_frames)
        self._clock = FrameClock(self._video, self._zero, counted)
        self._converter = VideoReformatter()
        self._decoded = self._damaged = self._failed = 0
        self._offered = 0  # packets that should each give a frame
        self._discarded = 0  # those that an edit list leaves out
        self._sound_packets = self._silent_packets = 0
        self._track: SoundTrack | None = None
        if plan.audio_rate and self._audio is not None and self._audio.codec_context is not None:
            self._track = SoundTrack(plan.audio_rate, self._zero, self._limits.max_duration_s)
        self._lost = self._why_no_sound()
        self._check_size(self._video.width, self._video.height)
        if (duration := self._declared()) is not None and duration > self._limits.max_duration_s:
            raise DecodeError(Reason.TOO_LARGE, f"lasts {duration:.0f} s, over {self._limits.max_duration_s:.0f}")
        self._packets = self._read(bool(plan.rates))
        self._held: list[av.Packet[Any]] = []  # sound that lies before the first frame
        self._first = self._first_frames() if plan.rates else []
        self.probe = self._probe()

    def __iter__(self) -> Iterator[Picture | Sound | SoundLost]:
        if self._lost is not None:
            yield self._lost
        yield from self._pictures(self._first)
        self._first = []
        for packet in itertools.chain(self._held, self._packets):
            if packet.stream is self._video:
                yield from self._pictures(self._decode(packet))
            else:
                yield from self._sound(packet)
        if self._track is not None:
            yield from self._track.flush()
            if (missing := self._missing_sound()) and not self._limits.allow_partial:
                yield SoundLost(Reason.PARTIAL, missing)

    def summary(self) -> Summary:
        """Where the video ends, and whether all of it could be decoded."""
        expected = self._video.frames - self._discarded if self._video.frames else None
        if not self._plan.rates:
            return Summary(self.probe.duration or (self._track.end if self._track else 0.0), 0, expected)
        return Summary(self._clock.end, self._decoded, expected, self._missing())

    def close(self) -> None:
        self._container.close()

    def _why_no_sound(self) -> SoundLost | None:
        if self._plan.audio_rate is None or self._track is not None:
            return None
        if self._audio is None:
            return SoundLost(Reason.NO_AUDIO, "has no sound track")
        return SoundLost(Reason.DECODE_ERROR, "has an audio codec that this FFmpeg cannot decode")

    def _first_frames(self) -> list[VideoFrame]:
        """The frames of the first packet that gives any; sound before it is held back undecoded."""
        for packet in self._packets:
            if packet.stream is not self._video:
                self._held.append(packet)
            elif frames := self._decode(packet):
                return frames
        raise DecodeError(
            Reason.DECODE_ERROR, f"has no frame that can be decoded; {self._failed} packets are damaged or unreadable"
        )

    def _probe(self) -> Probe:
        stream = self._video
        rows = orientation(self._first[0]) if self._first else UNTURNED
        size = (self._first[0].width, self._first[0].height) if self._first else (stream.width, stream.height)
        self._size = size
        self._check_size(*size)
        width, height = size if rows[0][0] else reversed(size)
        aspect = stream.sample_aspect_ratio
        rate = stream.average_rate or stream.guessed_rate
        return Probe(
            container=self._family,
            codec=stream.codec_context.name,
            width=width,
            height=height,
            rotation={(1, 0): 0, (0, -1): 90, (-1, 0): 180, (0, 1): 270}[rows[0]],
            sample_aspect=float(aspect) if aspect else 1.0,
            fps=float(rate) if rate else None,
            duration=self._declared(),
            num_frames=stream.frames or None,
            has_audio=bool(self._container.streams.audio),
        )

    def _read(self, pictures: bool) -> Iterator[av.Packet[Any]]:
        """Packets of the wanted streams; a place that cannot be read is counted and passed by."""
        streams: list[VideoStream | AudioStream] = [self._video] if pictures else []
        if self._audio is not None:
            streams.append(self._audio)
        errors = 0
        while streams and errors < MAX_READ_ERRORS:
            try:
                for packet in self._container.demux(*streams):
                    self._beat()
                    errors = 0
                    yield packet
            except InvalidDataError:
                errors += 1
                self._failed += 1
            except FFmpegError as error:
                raise explained(error) from error
            except IndexError:  # PyAV looks for streams that came up on the way, once ours are at their end
                return
            else:
                return

    def _decode(self, packet: av.Packet[Any]) -> list[VideoFrame]:
        """The frames that come out when `packet` goes in; a bad packet is counted and gives none."""
        self._beat()
        self._discarded += packet.is_discard
        self._offered += packet.size > 0 and not packet.is_discard and not is_hidden(packet)
        try:
            frames: list[VideoFrame] = packet.decode()
        except AvEOFError:
            return []
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            self._failed += 1
            return self._decode(packet) if packet.size == 0 and self._failed < MAX_READ_ERRORS else []
        self._decoded += len(frames)
        self._damaged += sum(frame.is_corrupt for frame in frames)
        return frames

    def _pictures(self, frames: list[VideoFrame]) -> Iterator[Picture]:
        for frame in frames:
            self._check_size(frame.width, frame.height)
            time = self._clock.time(frame)
            if time > self._limits.max_duration_s:
                raise DecodeError(Reason.TOO_LARGE, f"goes on past {self._limits.max_duration_s:.0f} s")
            self._beat()
            yield UprightFrame(time, frame, self._size, self._converter)

    def _sound(self, packet: av.Packet[Any]) -> Iterator[Sound | SoundLost]:
        """The sound of `packet`; one that cannot be decoded is counted and leaves a gap."""
        if self._track is None:
            return
        self._sound_packets += 1
        try:
            for frame in cast("list[AudioFrame]", packet.decode()):
                yield from self._track.push(frame)
        except AvEOFError:
            return
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            self._silent_packets += 1
        except DecodeError as error:
            self._track = None
            yield SoundLost(error.reason, error.detail)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.max_pixels:
            raise DecodeError(
                Reason.TOO_LARGE, f"has frames of {width} x {height}, over {self._limits.max_pixels} pixels"
            )

    def _declared(self) -> float | None:
        """Seconds that the container says the pictures last, from time 0."""
        end = declared_end(self._video, self._zero)
        if end is None and self._container.duration is not None:
            end = self._container.duration / av.time_base
            if self._family in DECLARES_LENGTH:  # a header's duration counts from the file's own 0
                end -= float(self._zero)
        return end

    def _missing(self) -> str:
        """What keeps the video from counting as complete, in words; empty if nothing does."""
        if self._cut:
            return self._cut
        bad = self._damaged + self._failed
        wanted = self._decoded + self._failed
        if self._family in DECLARES_LENGTH:  # and stores a frame as one packet; elsewhere it may be two fields
            wanted = max(wanted, self._offered)
        whole = self._decoded - self._damaged
        if whole < COMPLETE * wanted and wanted - whole > (not bad):  # a decoder may keep one frame to itself
            return f"{wanted - whole} of {wanted} frames cannot be decoded"
        declared = self._declared() if self._family in DECLARES_LENGTH else None
        return missing_end(self._clock.end, declared, self._clock.tick)

    def _missing_sound(self) -> str:
        """What is missing of the sound track, in words; empty if nothing is."""
        if self._silent_packets > (1 - COMPLETE) * self._sound_packets:
            return f"{self._silent_packets} of {self._sound_packets} packets of sound are damaged"
        if self._track is None or self._audio is None or self._family not in DECLARES_LENGTH:
            return ""
        return missing_end(self._track.end, declared_end(self._audio, self._zero), PACKET_S)
