"""PyAV: the default decoder. One pass over the packets, errors counted packet by packet, pictures turned upright.

Times are those of the container (pts), counted from its start. Only files of a few containers are opened, nothing
but the file itself is read, and a damaged packet costs its own frames alone.

Shape letters: H height, W width.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, Protocol, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import EOFError as AvEOFError
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

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
    sniff,
)
from extract.decode_sound import SoundTrack, first_audio
from extract.fragments import cut_fragments
from extract.pixels import Matrix, Yuv

FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,ivf,yuv4mpegpipe,mxf,nut,rm"
DECLARES_LENGTH = frozenset({"mov", "matroska", "avi", "flv", "asf"})  # the others' is guessed from what is there
PACKET_S = 0.1  # seconds; no codec has longer packets of sound than about this
SINGLE_FRAME_S = 0.04  # that a frame lasts if nothing at all says how long, such as a picture in a GIF
UNTURNED = (1, 0), (0, 1)
PLANAR = frozenset({"yuv420p", "yuvj420p"})
# Shares of red and blue by FFmpeg's AVColorSpace; a stream that names none counts as BT.601, as FFmpeg does.
MATRICES = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
FULL_RANGE = 2  # AVCOL_RANGE_JPEG
MAX_READ_ERRORS = 1000  # in a row, without a packet between them


def open_container(path: str) -> tuple[InputContainer, str]:
    """The container of a video file, and its family; DecodeError where FFmpeg cannot read it."""
    family = sniff(path)
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        # The prefix keeps a name with a colon from being taken for a protocol.
        container = av.open(f"file:{path}", format=family, container_options=options, metadata_errors="replace")
    except FFmpegError as error:
        raise _explained(error) from error
    return container, family


def _explained(error: FFmpegError) -> Exception:
    """A DecodeError for what FFmpeg says; the error itself where memory ran out."""
    if isinstance(error, MemoryError):
        return error
    if isinstance(error, FileNotFoundError):
        return DecodeError(Reason.VANISHED, "is not there any more")
    if isinstance(error, OSError):
        return DecodeError(Reason.UNREADABLE, f"cannot be read: {error.strerror}")
    return DecodeError(Reason.DECODE_ERROR, f"is damaged or not what its first bytes say: {error.strerror}")


def video_stream(container: InputContainer) -> VideoStream:
    """The stream of moving pictures that FFmpeg takes for the best, as players do; cover art is none."""
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        raise DecodeError(Reason.NO_VIDEO_STREAM, "has no stream of moving pictures")
    best = container.streams.best("video")
    stream = next((stream for stream in moving if stream is best), moving[0])
    if stream.codec_context is None:
        raise DecodeError(Reason.DECODE_ERROR, "has a video codec that this FFmpeg cannot decode")
    return stream


def time_zero(container: InputContainer, stream: VideoStream) -> Fraction:
    """The container's time (seconds) that counts as 0: its start.

    Sound that starts before 0 is priming of its codec, which players drop, so it does not move the pictures.
    """
    container_start = Fraction(container.start_time or 0, av.time_base)
    if stream.start_time is None or stream.time_base is None:
        return container_start
    return min(stream.start_time * stream.time_base, max(container_start, Fraction(0)))


class UprightFrame:
    """A decoded frame, turned upright when its pixels are asked for."""

    def __init__(self, time: float, frame: VideoFrame, size: tuple[int, int], converter: VideoReformatter) -> None:
        """`size` is the width and height that stored frames are brought to."""
        self.time = time
        self._frame = frame
        self._size = size
        self._converter = converter

    def rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3); the stream's colour matrix and range are honoured, BT.601 where it names none."""
        width, height = self._size
        try:
            converted = self._converter.reformat(self._frame, width=width, height=height, format="rgb24", threads=1)
        except FFmpegError as error:
            raise _explained(error) from error
        plane = converted.planes[0]
        image_HW3: NDArray[np.uint8] = np.ndarray(
            (height, width, 3), np.uint8, cast("memoryview[int]", plane), strides=(plane.line_size, 3, 1)
        )
        return upright(image_HW3, orientation(self._frame))

    def yuv(self) -> Yuv | None:
        """The planes, upright; None where they are not 8-bit 4:2:0, or not of a known matrix."""
        frame, rows = self._frame, orientation(self._frame)
        matrix = MATRICES.get(frame.colorspace)
        even = frame.width % 2 == frame.height % 2 == 0  # else a turn would shift the squares of four
        same = (frame.width, frame.height) == self._size
        if frame.format.name not in PLANAR or matrix is None or not same or not (even or rows == UNTURNED):
            return None
        full = frame.color_range == FULL_RANGE or frame.format.name == "yuvj420p"
        luma, first, second = (upright(plane_pixels(plane), rows) for plane in frame.planes)
        return Yuv((luma, first, second), Matrix(*matrix, full_range=full))


def plane_pixels(plane: VideoPlane) -> NDArray[np.uint8]:
    """(H, W) of one plane of a frame, a view."""
    return np.ndarray(
        (plane.height, plane.width), np.uint8, cast("memoryview[int]", plane), strides=(plane.line_size, 1)
    )


def orientation(frame: VideoFrame) -> tuple[tuple[int, int], tuple[int, int]]:
    """How a stored frame is to be shown: (x, y) on the screen from (x, y) in the frame, as two rows of a matrix.

    Raises:
        DecodeError: the frame is to be turned by something else than quarter turns and mirrors.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UNTURNED
    # FFmpeg, libavutil/display.h: x' = (a x + c y + tx) / w, y' = (b x + d y + ty) / w; 16.16 fixed point.
    a, b, _, c, d = (float(entry) for entry in np.frombuffer(bytes(cast("memoryview[int]", data)), np.int32)[:5])
    scale = max(abs(a), abs(b), abs(c), abs(d), 1.0)
    rows = (round(a / scale), round(c / scale)), (round(b / scale), round(d / scale))
    if sorted(map(abs, rows[0])) != [0, 1] or sorted(map(abs, rows[1])) != [0, 1] or (rows[0][0] and rows[1][0]):
        raise DecodeError(Reason.DECODE_ERROR, "is to be shown turned by something else than quarter turns")
    return rows


def upright(image: NDArray[np.uint8], rows: tuple[tuple[int, int], tuple[int, int]]) -> NDArray[np.uint8]:
    """`image` (H, W, 3) or (H, W) as it is to be shown, a view."""
    (x_from_x, x_from_y), (y_from_x, y_from_y) = rows
    if x_from_y:
        image = image.swapaxes(0, 1)
    if x_from_x + x_from_y < 0:
        image = image[:, ::-1]
    if y_from_x + y_from_y < 0:
        image = image[::-1]
    return image


class Timed(Protocol):
    """A frame, or a packet that holds one, as far as its time goes; in units of the stream's time base."""

    @property
    def pts(self) -> int | None: ...
    @property
    def dts(self) -> int | None: ...
    @property
    def duration(self) -> int | None: ...


class FrameClock:
    """Seconds of each frame from time 0, with repairs where the container has no usable ones.

    AVI stores no times: a frame is one tick of the rate. With frames out of order (B-frames) FFmpeg's guesses are
    wrong, so frames are counted there. Elsewhere a frame without a time follows the one before by its length.
    """

    def __init__(self, stream: VideoStream, zero: Fraction, counted: bool) -> None:
        base = stream.time_base or Fraction(1, av.time_base)
        # Whole numbers with one division at the end: exact, and a frame of small video takes 0.1 ms in all.
        self._scale, self._offset = base.numerator * zero.denominator, zero.numerator * base.denominator
        self._unit = base.denominator * zero.denominator
        self._base = float(base)
        self._rate = stream.average_rate
        self._counted = counted and bool(self._rate)
        self._count = 0
        self._newest: float | None = None
        self._step = 0.0  # between the newest two frames
        self.tick = float(1 / self._rate) if self._rate else 0.0  # seconds of a frame, on average; 0: unknown
        self.end = 0.0

    def time(self, frame: Timed) -> float:
        """The time of `frame`, the next in order of showing; moves `end` to where it ends."""
        time = self._place(frame)
        if self._newest is not None and time > self._newest:
            self._step = time - self._newest
        length = (frame.duration or 0) * self._base or self._step or self.tick
        if length <= 0:
            length = SINGLE_FRAME_S
        self._newest = time
        self._count += 1
        self.end = max(self.end, time + length)
        return time

    def _place(self, frame: Timed) -> float:
        if self._counted and self._rate is not None:
            return self._count * self._rate.denominator / self._rate.numerator
        ticks = frame.pts if frame.pts is not None else frame.dts  # in order of output, dts is a time of showing
        if ticks is not None:
            return (ticks * self._scale - self._offset) / self._unit
        if self._newest is None:
            return 0.0
        if not (step := self._step or self.tick):
            raise DecodeError(Reason.DECODE_ERROR, f"frame {self._count} has no time, and the stream has no rate")
        return self._newest + step


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
            raise _explained(error) from error
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
        rows = orientation(self._first[0]) if self._first else ((1, 0), (0, 1))
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
                raise _explained(error) from error
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


def is_hidden(packet: av.Packet[Any]) -> bool:
    """Whether a packet holds a frame that is never shown, for others to refer to: VP8 alone has these by themselves."""
    return packet.stream.codec_context.name == "vp8" and not cast("memoryview[int]", memoryview(packet))[0] & 0x10


def declared_end(stream: VideoStream | AudioStream, zero: Fraction) -> float | None:
    """Seconds from `zero` at which a stream ends, if the container says so of this stream."""
    if stream.duration is not None and stream.time_base is not None:
        start = (stream.start_time or 0) * stream.time_base - zero
        return float(max(start, Fraction(0)) + stream.duration * stream.time_base)
    if tag := stream.metadata.get("DURATION"):  # Matroska writes hours:minutes:seconds
        parts = tag.split(":")
        with contextlib.suppress(ValueError):
            return sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True)) - float(zero)
    return None
