"""Containers through PyAV: which are opened, their stream of pictures, where its time begins and ends.

Only files of a few containers are opened, and nothing but the file itself is read.
"""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import Any, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from extract.decode import DecodeError, Reason, sniff

FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,ivf,yuv4mpegpipe,mxf,nut,rm"
DECLARES_LENGTH = frozenset({"mov", "matroska", "avi", "flv", "asf"})  # the others' is guessed from what is there


def open_container(path: str) -> tuple[InputContainer, str]:
    """The container of a video file, and its family; DecodeError where FFmpeg cannot read it."""
    family = sniff(path)
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        # The prefix keeps a name with a colon from being taken for a protocol.
        container = av.open(f"file:{path}", format=family, container_options=options, metadata_errors="replace")
    except FFmpegError as error:
        raise explained(error) from error
    return container, family


def explained(error: FFmpegError) -> Exception:
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


def is_hidden(packet: av.Packet[Any]) -> bool:
    """Whether a packet holds a frame that is never shown, for others to refer to: VP8 alone has these by themselves."""
    return packet.stream.codec_context.name == "vp8" and not cast("memoryview[int]", memoryview(packet))[0] & 0x10
