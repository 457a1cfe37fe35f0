"""From the pictures of one video to the rows of every rate, in the worker's slots.

Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from extract.decode import DecodeError, DecodePlan, Picture, Reason, Sound, SoundLost
from extract.messages import Segment, Wanted
from extract.pixels import Image, PixelFormat, rgb_image, yuv_image
from extract.sampling import FrameSampler, Shown
from extract.shared_frames import frames_per_segment

if TYPE_CHECKING:
    from extract.packet_index import Forecast
    from extract.worker_process import Link

LATE_SHARE = 0.01  # of the frames may come out of order before their times are not believed


class Lane:
    """The rows of one rate: fills a slot, sends it when it is full."""

    def __init__(self, index: int, fps: float | None, link: Link) -> None:
        self.sampler = FrameSampler(fps)
        self._index = index
        self._link = link
        self._slot: int | None = None
        self._images: NDArray[np.uint8] | None = None  # (T, *layout.frame_shape) in the slot
        self._layout: PixelFormat | None = None
        self._first = 0
        self._times: list[NDArray[np.float64]] = []
        self._wanted: NDArray[np.int64] | None = None

    def keep(self, wanted: NDArray[np.int64]) -> None:
        """From now on show only these rows, in ascending order; the first of them counts as row 0."""
        self._wanted = wanted

    @property
    def complete(self) -> bool:
        """Whether the last row that is wanted was shown."""
        return self._wanted is not None and (not len(self._wanted) or self.sampler.num_rows > int(self._wanted[-1]))

    def kept(self, shown: Shown) -> Shown:
        """What is shown of these rows, numbered anew where only some are wanted."""
        if self._wanted is None:
            return shown
        start, stop = (int(place) for place in np.searchsorted(self._wanted, (shown.rows.start, shown.rows.stop)))
        return Shown(range(start, stop), shown.times[self._wanted[start:stop] - shown.rows.start])

    def show(self, shown: Shown, image: Image) -> None:
        """Write `image` into each of the rows."""
        if image.format != self._layout:  # one segment has one
            self.flush()
        for row, times in zip(shown.rows, shown.times, strict=True):
            if self._images is None:
                self._slot, self._layout = self._link.slot(), image.format
                shape = image.format.frame_shape
                self._images = self._link.memory.slot(self._slot, (frames_per_segment(shape), *shape))
                self._first = row
            image.write(self._images[len(self._times)])
            self._times.append(times)
            self._link.beat()
            if len(self._times) == len(self._images):
                self.flush()

    def flush(self) -> None:
        """Send what is there."""
        if self._slot is None or self._layout is None:
            return
        segment = Segment(self._index, self._first, self._slot, self._layout, np.stack(self._times))
        self._slot, self._images, self._times = None, None, []
        self._link.send(segment)

    def drop(self) -> None:
        """Forget what was not sent."""
        if self._slot is not None:
            self._link.give_back(self._slot)
            self._slot, self._images, self._times = None, None, []


def seen(picture: Picture, plan: DecodePlan) -> Image:
    """The part of a picture that the plan looks at, as it wants it.

    Raises:
        DecodeError: the region of interest does not lie inside the frame.
    """
    planes = picture.yuv() if plan.planes else None
    pixels = planes.planes[0] if planes is not None else picture.rgb()
    if plan.roi is not None:
        x, y, width, height = plan.roi
        if x < 0 or y < 0 or width < 1 or height < 1 or x + width > pixels.shape[1] or y + height > pixels.shape[0]:
            size = f"{pixels.shape[1]} x {pixels.shape[0]}"
            raise DecodeError(
                Reason.DECODE_ERROR, f"has frames of {size}, which the region {x},{y},{width},{height} leaves"
            )
    image = yuv_image(planes, plan.roi) if planes is not None else None
    return image or rgb_image(pixels if planes is None else picture.rgb(), plan.roi)


class Reel:
    """Puts pictures into the rows of every rate; each is converted at most once, and only if a row shows it."""

    def __init__(self, plan: DecodePlan, link: Link) -> None:
        self.lanes = [Lane(index, fps, link) for index, fps in enumerate(plan.rates)]
        self.pictures = 0  # so far
        self._plan = plan
        self._pending: Picture | None = None  # on the screen until the next one
        self._late = 0
        self.sound_lost = False
        self._samples = 0  # so far
        self._wanted_samples = 0

    def keep(self, wanted: Wanted) -> None:
        """From now on show only what is wanted, and be complete with it."""
        for lane, rows in zip(self.lanes, wanted.rows, strict=True):
            lane.keep(rows)
        self._wanted_samples = wanted.samples

    def hear(self, sound: Sound | SoundLost) -> None:
        """The next piece of sound, which is not kept, or the news that there is none."""
        if isinstance(sound, SoundLost):
            self.sound_lost = True
        else:
            self._samples = sound.first + len(sound.samples)

    @property
    def seconds(self) -> float:
        """How far the pictures have come."""
        return self._pending.time if self._pending is not None else 0.0

    @property
    def num_frames(self) -> tuple[int, ...]:
        """Rows of every rate so far, shown or not."""
        return tuple(lane.sampler.num_rows for lane in self.lanes)

    @property
    def complete(self) -> bool:
        """Whether no later picture can be part of a row that is wanted, and all sound that is wanted was heard."""
        heard = self.sound_lost or self._samples >= self._wanted_samples
        return heard and all(lane.complete for lane in self.lanes)

    def push(self, picture: Picture) -> None:
        """The next picture; one that is earlier than the newest is left out and counted."""
        self.pictures += 1
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
        if self._late > LATE_SHARE * self.pictures:
            raise DecodeError(
                Reason.DECODE_ERROR, f"has times that run backwards at {self._late} of {self.pictures} frames"
            )
        self._show([lane.sampler.finish(end) for lane in self.lanes])
        self.send()

    def send(self) -> None:
        """Hand over what was shown."""
        for lane in self.lanes:
            lane.flush()

    def _show(self, shown: list[Shown]) -> None:
        shown = [lane.kept(one) for lane, one in zip(self.lanes, shown, strict=True)]
        if self._pending is None or not any(len(one.rows) for one in shown):
            return
        image = seen(self._pending, self._plan)
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
