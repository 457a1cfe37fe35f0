"""Optical flow of the frames that a network sees: three methods behind one interface.

Flow frame k is the motion, in pixels a frame, from frame k to frame k + 1 at the network's rate; the last one repeats
the one before it, and a video of one frame has no motion. So a video has as many flow frames as frames, and the rows
of both streams stand for the same seconds. It is computed at the size to which the network resizes frames, before the
crop.

As I3D was trained: clipped to +-20 pixels, then spread over the levels 0 to 255 by floor((f + 20) * 255 / 40 + 1/2).
A level is 40/255 of a pixel, so none is off by more than 20/255 = 0.078 pixel; no motion is level 128, that is +0.078.

Source: clipping, scale and the order x, y are those of Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR
2017, who computed TV-L1 (Zach, Pock and Bischof, 2007) on grey frames. DIS is Kroeger et al., "Fast Optical Flow using
Dense Inverse Search", ECCV 2016, in OpenCV; it needs no weights and is the default. RAFT is in `extract.flow_raft`.

Shape letters: T frames, H height, W width, n flow frames that are ready.
"""

from __future__ import annotations

import functools
import importlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.backbone import BackboneError
from extract.flow_images import FlowFolder
from extract.transform import resize_short
from stores.names import printable

BOUND = 20.0  # pixels
METHODS = "dis, tvl1, raft=PATH or raft_small=PATH"
MOST_THREADS = 16
# Pixels: at 34 x 40 to 45 a DIS object that has computed before gives a pair another flow (OpenCV 5.0); at 64 or more
# none of 1,086 sizes does. A new object for each pair costs 1.3 times as much at 256 x 455.
LEAST_REUSED = 64
PENDING_PAIRS = (
    64  # of a video: a segment of frames; while they are computed, the next segment goes through the networks
)
PENDING_BYTES = 64 << 20  # of a video, where frames are so wide that fewer pairs have as much

Grey = NDArray[np.uint8]  # (H, W)
Pair = Callable[[Grey, Grey], NDArray[np.float32]]  # to (H, W, 2)


class Motion(Protocol):
    """Takes the frames of one video in order and gives its flow in order, one flow frame for each frame."""

    def push(self, frames: Tensor) -> Iterator[Tensor]:
        """(T, H, W, 3) uint8 frames; gives the flow that is ready, (n, h, w, 2) uint8. The memory is not kept."""
        ...

    def finish(self) -> Iterator[Tensor]:
        """The flow that is still under way, the last one twice."""
        ...


class FlowMethod(Protocol):
    """One way to compute flow."""

    settings: Mapping[str, Any]  # what defines the numbers, for the spec
    origin: str  # library and version, for the provenance
    random: bool  # whether its weights were never trained
    by_pairs: bool  # whether the flow of a pair of frames has the same bits whatever it is computed beside

    def start(self, resize: int) -> Motion:
        """For one video, whose frames are brought to a short side of `resize` pixels."""
        ...


@dataclass(frozen=True)
class FlowStage:
    """What stands between frames and a network that sees flow."""

    method: FlowMethod
    images: FlowFolder | None = None  # where the flow is written to, too


def flow_method(choice: str, device: torch.device) -> FlowMethod:
    """The method of a choice: dis, tvl1, raft=PATH or raft_small=PATH.

    Raises:
        BackboneError: there is no such method, or what it needs is not installed.
        WeightsError: the weights cannot be used.
    """
    name, _, weights = choice.partition("=")
    if name in ("dis", "tvl1") and choice == name:
        return OpenCvFlow(name)
    if name in ("raft", "raft_small"):
        if not weights:
            raise BackboneError(f"--flow {name} needs its weights: give --flow {name}=PATH, torchvision's file.")
        from extract.flow_raft import RaftFlow

        return RaftFlow(name, weights, device)
    raise BackboneError(f"there is no flow '{printable(choice)}'; --flow takes {METHODS}.")


def whole_flow(method: FlowMethod, frames: Tensor, resize: int) -> Tensor:
    """(T, H, W, 3) uint8 frames of a whole video, at least one, to its flow (T, h, w, 2) uint8."""
    motion = method.start(resize)
    return torch.cat([*motion.push(frames), *motion.finish()])


def quantised(flow: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pixels to levels.

    >>> quantised(np.array([-25, -20, 0, 0.08, 20, 99], np.float32)).tolist()
    [0, 0, 128, 128, 255, 255]
    """
    levels: NDArray[np.uint8] = np.floor((np.clip(flow, -BOUND, BOUND) + BOUND) * (255 / (2 * BOUND)) + 0.5).astype(
        "u1"
    )
    return levels


def flow_threads() -> int:
    """One for each processor of this process."""
    return min(len(os.sched_getaffinity(0)), MOST_THREADS)


@functools.cache
def flow_pool() -> ThreadPoolExecutor:
    """The threads that all videos share: OpenCV computes without Python's lock."""
    return ThreadPoolExecutor(flow_threads(), thread_name_prefix="flow")


def cancel_flow() -> None:
    """Let nothing that waits for the threads begin any more: nobody will take it."""
    if flow_pool.cache_info().currsize:
        flow_pool().shutdown(wait=False, cancel_futures=True)
        flow_pool.cache_clear()


def opencv(option: str) -> ModuleType:
    """The module cv2, or an error that says which extra has it."""
    try:
        module = importlib.import_module("cv2")
    except ImportError as error:
        raise BackboneError(
            f"{option} cannot be used: {error}. Install opencv-python-headless, which is in the extra 'flow': "
            "pip install 'vl[flow]'."
        ) from error
    module.setNumThreads(1)  # a call: there are as many calls at once as processors
    return module


class OpenCvFlow:
    """DIS or TV-L1 on grey frames, pair by pair, in the threads of `flow_pool`."""

    PRESETS: ClassVar[Mapping[str, str]] = {"dis": "medium", "tvl1": "default"}
    random = False
    by_pairs = True

    def __init__(self, name: str) -> None:
        self.cv2 = opencv(f"--flow {name}")
        if name == "tvl1" and not hasattr(self.cv2, "optflow"):
            raise BackboneError(
                "--flow tvl1 is in opencv-contrib-python-headless alone: install that instead of "
                "opencv-python-headless, or take --flow dis."
            )
        self.name = name
        self.settings: Mapping[str, Any] = {
            "flow": name,
            "flow_preset": self.PRESETS[name],
            "flow_bound": BOUND,
            "flow_input": "grey, resized, before the crop",
        }
        self.origin = f"OpenCV {self.cv2.__version__}"
        self._threads = threading.local()  # these objects keep buffers: each thread has its own

    def start(self, resize: int) -> PairMotion:
        """For one video, whose frames are brought to a short side of `resize` pixels."""
        return PairMotion(self.pair, resize, self.cv2)

    def pair(self, first: Grey, second: Grey) -> NDArray[np.float32]:
        """(H, W, 2) pixels from one frame to the next."""
        if min(first.shape) < LEAST_REUSED or not hasattr(self._threads, "made"):
            self._threads.made = (
                self.cv2.DISOpticalFlow_create(self.cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
                if self.name == "dis"
                else self.cv2.optflow.DualTVL1OpticalFlow_create()
            )
        flow: NDArray[np.float32] = self._threads.made.calc(first, second, None)
        return flow


class PairMotion:
    """Flow of one video, each pair of frames by itself: several at a time, and handed out in order."""

    def __init__(self, pair: Pair, resize: int, cv2: ModuleType) -> None:
        self.pair, self.resize, self.cv2 = pair, resize, cv2
        self.before: Grey | None = None
        self.pending: deque[Future[NDArray[np.uint8]]] = deque()
        self.last: Tensor | None = None

    def push(self, frames: Tensor) -> Iterator[Tensor]:
        """(T, H, W, 3) uint8 frames on the CPU; gives the flow that is ready, (n, h, w, 2) uint8."""
        small = resize_short(frames[:1], self.resize)
        at_once = max(1, min(PENDING_PAIRS, PENDING_BYTES // small[0].numel()))
        for start in range(0, len(frames), at_once):
            for image in resize_short(frames[start : start + at_once], self.resize).numpy():
                grey: Grey = self.cv2.cvtColor(image, self.cv2.COLOR_RGB2GRAY)  # memory of its own
                if self.before is not None:
                    self.pending.append(flow_pool().submit(self.levels, self.before, grey))
                self.before = grey
            yield from self._ready(keep=at_once)

    def finish(self) -> Iterator[Tensor]:
        """The flow that is still under way, the last one twice; a single frame does not move."""
        yield from self._ready(keep=0)
        if self.last is not None:
            yield self.last
        elif self.before is not None:
            yield torch.from_numpy(quantised(np.zeros((1, *self.before.shape, 2), np.float32)))

    def levels(self, first: Grey, second: Grey) -> NDArray[np.uint8]:
        return quantised(self.pair(first, second))

    def _ready(self, keep: int) -> Iterator[Tensor]:
        """What is finished; waits where more than `keep` are not."""
        ready = []
        while self.pending and (len(self.pending) > keep or self.pending[0].done()):
            ready.append(torch.from_numpy(self.pending.popleft().result()))
        if ready:
            self.last = ready[-1][None]
            yield torch.stack(ready)
