"""When each frame of a stream is shown, also where the container does not say so."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol

import av
from av.video.stream import VideoStream

from extract.decode import DecodeError, Reason

SINGLE_FRAME_S = 0.04  # that a frame lasts if nothing at all says how long, such as a picture in a GIF


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
