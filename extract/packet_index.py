"""When the frames of a video are shown, from its packets alone: nothing is decoded, so it takes hardly any time.

A container can be wrong about its frames, so this is a forecast: whoever relies on it compares it with what came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from av.error import FFmpegError

from extract.containers import is_hidden, open_container, time_zero, video_stream
from extract.frame_clock import FrameClock


class _Shown(NamedTuple):
    """What a `FrameClock` wants of a frame."""

    pts: int
    dts: int | None
    duration: int


class Forecast(NamedTuple):
    """The times of the frames that a container announces, in order of showing."""

    times: list[float]  # seconds
    end: float  # seconds at which the last one ends


def forecast(path: str, beat: Callable[[], None]) -> Forecast | None:
    """What the packets of `path` announce; None where one cannot be read or has no time."""
    container, family = open_container(path)
    with container:
        stream = video_stream(container)
        counted = family == "avi" and bool(stream.codec_context.has_b_frames)
        clock = FrameClock(stream, time_zero(container, stream), counted)
        frames = []
        try:
            for packet in container.demux(stream):
                beat()
                if packet.size == 0 or packet.is_discard or is_hidden(packet):
                    continue
                if packet.pts is None and not counted:
                    return None
                frames.append(_Shown(packet.pts or 0, packet.dts, packet.duration or 0))
        except FFmpegError:
            return None
    times = [clock.time(frame) for frame in sorted(frames, key=lambda frame: frame.pts)]
    return Forecast(times, clock.end)
