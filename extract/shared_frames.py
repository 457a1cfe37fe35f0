"""Memory that a worker and its parent share: a sign of life, and a few slots for frames.

It is an anonymous file whose descriptor the worker inherits, so it has no name that could be left behind: however
the processes end, the kernel frees it. Pages take memory only once they are written.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEGMENT_BYTES = 32 << 20  # of frames in one slot, unless a single frame is larger
SEGMENT_FRAMES = 64
HEADER_BYTES = mmap.PAGESIZE


class State(IntEnum):
    """What a worker is doing; only while STARTING and WORKING must its count of beats grow."""

    STARTING = 0
    WAITING = 1  # for the parent: for a video, for a free slot, or for its message to be taken
    WORKING = 2


class SharedFrames:
    """One worker's shared memory; both sides map the same file."""

    def __init__(self, descriptor: int, slots: int, slot_bytes: int) -> None:
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._memory = mmap.mmap(descriptor, HEADER_BYTES + slots * slot_bytes)
        self._header: NDArray[np.int64] = np.frombuffer(self._memory, np.int64, count=2)

    @staticmethod
    def file(slots: int, slot_bytes: int) -> int:
        """Descriptor of a new anonymous file of the right length."""
        if hasattr(os, "memfd_create"):  # not bounded by the size of /dev/shm, which containers set to 64 MB
            descriptor = os.memfd_create("vl-frames")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, HEADER_BYTES + slots * slot_bytes)
        return descriptor

    def beat(self) -> None:
        """Show that something went on; one worker alone calls this."""
        self._header[0] += 1

    @property
    def beats(self) -> int:
        """How often `beat` was called."""
        return int(self._header[0])

    @property
    def state(self) -> State:
        """What the worker is doing."""
        return State(int(self._header[1]))

    @state.setter
    def state(self, state: State) -> None:
        self._header[1] = state

    def slot(self, index: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The first bytes of slot `index` as an array of `shape`."""
        assert 0 <= index < self.slots, index
        start = HEADER_BYTES + index * self.slot_bytes
        flat: NDArray[Any] = np.frombuffer(self._memory, np.uint8, count=int(np.prod(shape)), offset=start)
        return flat.reshape(shape)


def slot_bytes(max_pixels: int) -> int:
    """Bytes of a slot that holds a segment, or at least one frame of `max_pixels`; whole pages."""
    wanted = max(SEGMENT_BYTES, 3 * max_pixels)
    return -(-wanted // mmap.PAGESIZE) * mmap.PAGESIZE


def frames_per_segment(frame_shape: tuple[int, ...]) -> int:
    """How many frames of that shape go into one segment."""
    return max(1, min(SEGMENT_FRAMES, SEGMENT_BYTES // math.prod(frame_shape)))
