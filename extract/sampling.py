"""Which frame is on the screen at each wanted instant, from the frames' own times.

Row k stands for `[k, k + 1) / fps` and shows the last frame whose time is at most k / fps + 1 ms, or the first
frame where none is that early. So clips of 25, 29.97 and 60 frames a second, and of a changing rate, give rows at
the same seconds. The millisecond takes up containers that round their times to one.

Shape letters: N rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-3  # seconds; Matroska stores times in milliseconds


class Shown(NamedTuple):
    """The rows that one frame is shown in."""

    rows: range
    times: NDArray[np.float64]  # (N, 2) seconds [start, end), one pair a row


NOTHING = Shown(range(0), np.zeros((0, 2)))


class FrameSampler:
    """Gives the rows of each frame as soon as the next one is known; keeps nothing but one time.

    A frame that is not later than the newest one never gets rows of its own: with an equal time it takes the other
    one's place (the caller shows it instead), with an earlier time the caller leaves it out.

    >>> sampler = FrameSampler(fps=10)
    >>> sampler.push(0.0).rows, sampler.push(0.25).rows, sampler.finish(0.5).rows
    (range(0, 0), range(0, 3), range(3, 5))
    """

    def __init__(self, fps: float | None) -> None:
        """`fps` None: every frame is one row, from its time to that of the next."""
        assert fps is None or fps > 0, fps
        self.fps = fps
        self._next_row = 0
        self._time: float | None = None  # of the newest frame

    @property
    def num_rows(self) -> int:
        """Rows that were given so far."""
        return self._next_row

    def push(self, time: float) -> Shown:
        """Rows of the frame before, now that one follows at `time` seconds."""
        if self._time is None:
            self._time = time
            return NOTHING
        if time <= self._time:
            return NOTHING
        return self._show_until(time, first_after=time - TOLERANCE)

    def finish(self, end: float) -> Shown:
        """Rows of the last frame, which is shown until `end` seconds; at least one row if there was any frame."""
        if self._time is None:
            return NOTHING
        shown = self._show_until(end, first_after=end - TOLERANCE)
        if self._next_row:
            return shown
        self._next_row = 1
        return Shown(range(1), self._grid(range(1)) if self.fps else np.array([[self._time, end]]))

    def _show_until(self, time: float, first_after: float) -> Shown:
        """Rows of the frame at `self._time`: up to the first one that starts at `first_after` or later."""
        started, self._time = self._time, time
        if self.fps is None:
            rows = range(self._next_row, self._next_row + 1)
            times = np.array([[started, time]])
        else:
            stop = math.ceil(first_after * self.fps - 1e-6)
            rows = range(self._next_row, max(stop, self._next_row))
            times = self._grid(rows)
        self._next_row = rows.stop
        return Shown(rows, times)

    def _grid(self, rows: range) -> NDArray[np.float64]:
        assert self.fps is not None
        edges = np.arange(rows.start, rows.stop + 1, dtype=np.float64) / self.fps
        return np.stack([edges[:-1], edges[1:]], axis=1)
