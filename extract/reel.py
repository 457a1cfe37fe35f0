"""From the pictures of one video to the rows of every rate, in the worker's slots.

Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from extract.decode import DecodeError, DecodePlan, Picture, Reason
from extract.messages import Segment
from extract.sampling import FrameSampler, Shown
from extract.shared_frames import frames_per_segment

if TYPE_CHECKING:
    from extract.packet_index import Forecast
    from extract.worker_process import Link

LATE_SHARE = 0.01  # of the frames may come out of order before their times are not believed


class Lane:
    """The rows of one rate: fills a slot, sends it when it is full."""

    def __init__(self, index: int, fps: float | None, link: Link, roi: tuple[int, int, int, int] | None) -> None:
        self.sampler = FrameSampler(fps)
        self._index = index
        self._link = link
        self._roi = roi
        self._slot: int | None = None
        self._images: NDArray[np.uint8] | None = None  # (T, H, W, 3) in the slot
        self._first = 0
        self._times: list[NDArray[np.float64]] = []
        self._wanted: NDArray[np.int64] | None = None

    def keep(self, wanted: NDArray[np.int64]) -> None:
        """From now on show only these rows, in ascending order; the first of them counts as row 0."""
        self._wanted = wanted

    def kept(self, shown: Shown) -> Shown:
        """What is shown of these rows, numbered anew where only some are wanted."""
        if self._wanted is None:
            return shown
        start, stop = (int(place) for place in np.searchsorted(self._wanted, (shown.rows.start, shown.rows.stop)))
        return Shown(range(start, stop), shown.times[self._wanted[start:stop] - shown.rows.start])

    def show(self, shown: Shown, image: NDArray[np.uint8]) -> None:
        """Write `image` (H, W, 3) into each of the rows."""
        image = cropped(image, self._roi)
        for row, times in zip(shown.rows, shown.times, strict=True):
            if self._images is None:
                self._slot = self._link.slot()
                height, width, _ = image.shape
                shape = (frames_per_segment(height, width), height, width, 3)
                self._images = self._link.memory.slot(self._slot, shape)
                self._first = row
            self._images[len(self._times)] = image
            self._times.append(times)
            self._link.beat()
            if len(self._times) == len(self._images):
                self.flush()

    def flush(self) -> None:
        """Send what is there."""
        if self._slot is None or self._images is None:
            return
        shape = (len(self._times), *self._images.shape[1:])
        segment = Segment(self._index, self._first, self._slot, shape, np.stack(self._times))
        self._slot, self._images, self._times = None, None, []
        self._link.send(segment)

    def drop(self) -> None:
        """Forget what was not sent."""
        if self._slot is not None:
            self._link.give_back(self._slot)
            self._slot, self._images, self._times = None, None, []


def cropped(image: NDArray[np.uint8], roi: tuple[int, int, int, int] | None) -> NDArray[np.uint8]:
    """The region of interest of `image` (H, W, 3), a view.

    Raises:
        DecodeError: the region does not lie inside the frame.
    """
    if roi is None:
        return image
    x, y, width, height = roi
    if x < 0 or y < 0 or width < 1 or height < 1 or x + width > image.shape[1] or y + height > image.shape[0]:
        raise DecodeError(
            Reason.DECODE_ERROR,
            f"has frames of {image.shape[1]} x {image.shape[0]}, which the region {x},{y},{width},{height} leaves",
        )
    return image[y : y + height, x : x + width]


class Reel:
    """Puts pictures into the rows of every rate; each is converted at most once, and only if a row shows it."""

    def __init__(self, plan: DecodePlan, link: Link) -> None:
        self.lanes = [Lane(index, fps, link, plan.roi) for index, fps in enumerate(plan.rates)]
        self._pending: Picture | None = None  # on the screen until the next one
        self._pictures = self._late = 0
        self.sound_lost = False

    @property
    def num_frames(self) -> tuple[int, ...]:
        """Rows of every rate so far, shown or not."""
        return tuple(lane.sampler.num_rows for lane in self.lanes)

    def push(self, picture: Picture) -> None:
        """The next picture; one that is earlier than the newest is left out and counted."""
        self._pictures += 1
        if self._pending is not None and picture.time < self._pending.time:
            self._late += 1
            return
        self._show([lane.sampler.push(picture.time) for lane in self.lanes])
        self._pending = picture

    def finish(self, end: float) -> None:
        """No more pictures: the last one is shown until `end` seconds.

        Raises:
            DecodeError: too many pictures were out of order for the times to be believed.
        """
        if self._late > LATE_SHARE * self._pictures:
            raise DecodeError(
                Reason.DECODE_ERROR, f"has times that run backwards at {self._late} of {self._pictures} frames"
            )
        self._show([lane.sampler.finish(end) for lane in self.lanes])
        for lane in self.lanes:
            lane.flush()

    def _show(self, shown: list[Shown]) -> None:
        shown = [lane.kept(one) for lane, one in zip(self.lanes, shown, strict=True)]
        if self._pending is None or not any(len(one.rows) for one in shown):
            return
        image = self._pending.rgb()
        for lane, one in zip(self.lanes, shown, strict=True):
            lane.show(one, image)


def count_rows(forecast: Forecast, rates: Sequence[float | None]) -> tuple[int, ...]:
    """How many rows each rate will have of a video whose frames come as forecast."""
    samplers = [FrameSampler(fps) for fps in rates]
    newest = -math.inf
    for time in forecast.times:
        if time >= newest:  # as `Reel.push` leaves out what is earlier
            newest = time
            for sampler in samplers:
                sampler.push(time)
    for sampler in samplers:
        sampler.finish(forecast.end)
    return tuple(sampler.num_rows for sampler in samplers)
