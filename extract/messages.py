"""What a worker and its parent tell each other; pixels go through shared memory, and a message says where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from extract.decode import DecodePlan, Limits, Probe, Reason, Sound, SoundLost
from extract.pixels import PixelFormat


@dataclass(frozen=True)
class Settings:
    """The first message to a worker."""

    plan: DecodePlan
    limits: Limits
    slots: int
    slot_bytes: int
    probe_only: bool


class Wanted(NamedTuple):
    """What alone is wanted of a video, which ends where all of it was handed over."""

    rows: tuple[NDArray[np.int64], ...]  # of every rate, ascending
    samples: int = 0  # of the sound, from the first one on


class Task(NamedTuple):
    """To the worker: decode this file."""

    path: str
    wanted: Wanted | None = None  # None: everything


class Free(NamedTuple):
    """To the worker: the frames in this slot are not needed any more."""

    slot: int


class Counted(NamedTuple):
    """From the worker, before the first segment, where only some frames are wanted: what the video gives."""

    num_frames: tuple[int, ...]  # of every rate


class Segment(NamedTuple):
    """From the worker: rows `first`, ... of one rate (where only some are wanted: of those) lie in a slot."""

    rate_index: int
    first: int
    slot: int
    layout: PixelFormat
    times: NDArray[np.float64]  # (T, 2)


class Again(NamedTuple):
    """From the worker: what came of the video so far is void; it begins anew."""


class Done(NamedTuple):
    """From the worker: the video is complete."""

    duration: float
    frames_decoded: int
    frames_expected: int | None
    partial: bool
    has_audio: bool


class Refused(NamedTuple):
    """From the worker: the video failed in an orderly way."""

    reason: Reason
    detail: str


Message = Probe | Counted | Again | Segment | Sound | SoundLost | Done | Refused
