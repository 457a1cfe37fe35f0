"""What a pool of decode workers says, as one stream: each event names its video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from extract.decode import Probe, Reason
from extract.pixels import PixelFormat


@dataclass(frozen=True)
class Started:
    """The first event of a video."""

    video: str
    probe: Probe


@dataclass(frozen=True)
class Counted:
    """How many rows each rate has; comes after Started and before Frames where a plan wants some of them alone."""

    video: str
    num_frames: tuple[int, ...]  # by the index in DecodePlan.rates


@dataclass(frozen=True)
class Frames:
    """Rows `first`, `first + 1`, ... of one rate, or of those that are wanted; in order within a video and rate."""

    video: str
    rate_index: int  # in DecodePlan.rates
    first: int
    images: NDArray[np.uint8]  # (T, *layout.frame_shape), in shared memory: not to be looked at after `release`
    layout: PixelFormat
    times: NDArray[np.float64]  # (T, 2) seconds [start, end)
    _free: Callable[[], None] = field(repr=False, compare=False)

    def release(self) -> None:
        """Let the worker write here again; to be called once, from any thread. A worker stops without it."""
        self._free()


@dataclass(frozen=True)
class Audio:
    """Samples of the mono sound track from `first_sample` on; sample s is heard at s / DecodePlan.audio_rate."""

    video: str
    first_sample: int
    samples: NDArray[np.float32]  # (S,)


@dataclass(frozen=True)
class AudioFailed:
    """The video has no sound that can be used; its pictures are not affected."""

    video: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Finished:
    """The last event of a video that was decoded."""

    video: str
    duration: float  # seconds at which the last frame ends
    frames_decoded: int
    frames_expected: int | None  # as the container declares
    partial: bool
    has_audio: bool


@dataclass(frozen=True)
class Failed:
    """The last event of a video that was not."""

    video: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class Restarted:
    """The video begins anew, now or later: what came of it so far is void."""

    video: str


Event = Started | Counted | Frames | Audio | AudioFailed | Finished | Failed | Restarted
