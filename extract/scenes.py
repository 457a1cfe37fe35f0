"""Cuts of a video, found while its frames go by, and the scenes between them.

Source: Fish et al., "Two-Stream Transformer Architecture for Long Form Video Understanding" (STAN), section 3: scenes
are split where the frames' average intensity changes, against a running average, in all three colours.
Beyond it: means over a grid of blocks, as two shots may be equally bright in all; flashes and fades through black.

Shape letters: T frames, H height, W width, G blocks along one side.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from extract.backbone import BackboneError

DETECTORS: Mapping[str, str] = {
    "intensity": "extract.scenes:IntensityCuts",
    "scenedetect": "extract.scene_detectors:PySceneDetectCuts",
    "transnetv2": "extract.scene_detectors:TransNetCuts",
}


class CutDetector(Protocol):
    """Takes the frames of one video in order, in pieces of any length, and gives the seconds at which scenes begin.

    Its memory does not grow with the video, and what it finds does not depend on the pieces.
    """

    parameters: ClassVar[Mapping[str, Any]]  # what defines its cuts, as JSON types
    origin: str  # whose code it is, with the version
    delay: int  # a cut is given with the frame that comes so many frames after it, at the latest

    def __init__(self, device: torch.device) -> None: ...

    def push(self, frames: NDArray[np.uint8], times: NDArray[np.float64]) -> list[float]:
        """Cuts that the next frames (T, H, W, 3), shown from `times` (T,) seconds on, make certain; each once."""
        ...

    def finish(self) -> list[float]:
        """Cuts that were still open at the end."""
        ...


@dataclass(frozen=True)
class SceneCutting:
    """How videos are cut into scenes."""

    detector: str = "intensity"  # a name in DETECTORS
    min_scene: float = 0.5  # seconds; a cut that follows another one faster is passed over
    max_scene: float = 60.0  # seconds; a longer scene is cut there

    def __post_init__(self) -> None:
        if self.detector not in DETECTORS:
            raise BackboneError(f"there is no scene detector '{self.detector}'. There are: {', '.join(DETECTORS)}.")
        if not 0 <= self.min_scene < self.max_scene < float("inf"):
            raise BackboneError(
                f"--min-scene {self.min_scene:g} and --max-scene {self.max_scene:g}: scenes last from 0 seconds on, "
                "and the most is more than the least."
            )

    def settings(self) -> dict[str, Any]:
        """What defines the cuts, for the spec."""
        parameters = detector_class(self.detector).parameters
        return {
            "detector": self.detector,
            **{f"detector_{name}": value for name, value in parameters.items()},
            "min_scene": self.min_scene,
            "max_scene": self.max_scene,
        }


def detector_class(name: str) -> type[CutDetector]:
    """The class that `name` stands for; an optional one is looked for when it is made, not here."""
    module, _, attribute = DETECTORS[name].partition(":")
    found: type[CutDetector] = getattr(importlib.import_module(module), attribute)
    return found


class SceneBounds:
    """Decides, frame by frame, whether a scene begins: at a cut that is not too early, or where one grows too long.

    The first scene begins at 0 seconds. A cut less than `min_scene` seconds after a scene began is passed over, so
    only the last scene, which the video's end cuts off, may be shorter. No scene is longer than `max_scene`, but for
    one of a single frame.

    >>> bounds = SceneBounds(SceneCutting(min_scene=0.5, max_scene=2))
    >>> [bounds.begins(t, t + 0.4, t in (0.4, 1.2)) for t in (0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 2.8, 3.2)]
    [False, False, False, True, False, False, False, False, True]
    """

    TOLERANCE = 1e-6  # seconds: sums of frame lengths are not exact

    def __init__(self, cutting: SceneCutting) -> None:
        self.cutting = cutting
        self.start = 0.0  # of the scene under way
        self._empty = True

    def begins(self, start: float, end: float, cut: bool) -> bool:
        """Whether the next frame, shown from `start` to `end` seconds, is the first of a new scene."""
        long_enough = start - self.start >= self.cutting.min_scene - self.TOLERANCE
        too_long = end - self.start > self.cutting.max_scene + self.TOLERANCE
        begins = not self._empty and ((cut and long_enough) or too_long)
        if begins:
            self.start = start
        self._empty = False
        return begins


class SceneCutter:
    """Says of every frame of one video, in order, whether a scene begins with it; holds a few times and no pictures."""

    def __init__(self, cutting: SceneCutting, device: torch.device) -> None:
        self.detector = detector_class(cutting.detector)(device)
        self._bounds = SceneBounds(cutting)
        self._cuts: deque[float] = deque()  # seconds of those that were found and not reached
        self._open: deque[tuple[float, float]] = deque()  # frames that may yet turn out to begin a scene

    def push(self, frames: NDArray[np.uint8], times: NDArray[np.float64]) -> Iterator[tuple[float, float, bool]]:
        """Start, end and whether a scene begins, of each frame that is certain now, in order.

        Args:
            frames: (T, H, W, 3) the next ones, upright.
            times: (T, 2) seconds that they are shown.
        """
        self._cuts += self.detector.push(frames, times[:, 0])
        self._open += [(start, end) for start, end in times.tolist()]
        while len(self._open) > self.detector.delay:
            yield self._settle()

    def finish(self) -> Iterator[tuple[float, float, bool]]:
        """The same of the frames that are left."""
        self._cuts += self.detector.finish()
        while self._open:
            yield self._settle()

    def _settle(self) -> tuple[float, float, bool]:
        start, end = self._open.popleft()
        cut = bool(self._cuts) and self._cuts[0] <= start
        if cut:
            self._cuts.popleft()
        return start, end, self._bounds.begins(start, end, cut)


@dataclass(frozen=True)
class _Seen:
    """What the detector keeps of a frame."""

    time: float
    blocks: NDArray[np.float64]  # (G, G, 3) mean levels
    change: float | None  # mean difference from the blocks of the frame before; None for the first


class IntensityCuts:
    """Cuts where the intensity jumps: by much, by far more than around it, and for good.

    A frame begins a scene if the mean difference of its blocks from those of the frame before is at least `least`
    levels of 255, and `ratio` times the running average of that difference over the frames around it; and if each of
    these before it differs from each after it by `least`, too: a flash does not change the picture for good.
    It also begins one if it is the first that is lit again after the picture went black: a fade through black is one
    cut, where the picture comes back. Other slow transitions are no cuts to this detector.
    """

    GRID: ClassVar[int] = 4  # blocks along each side
    AROUND: ClassVar[int] = 4  # frames on each side that the running average goes over
    RATIO: ClassVar[float] = 3.0
    LEAST: ClassVar[float] = 15.0
    BLACK: ClassVar[float] = 10.0  # no block is brighter in any colour; the picture is lit again above twice that
    parameters: ClassVar[Mapping[str, Any]] = {
        "grid": GRID,
        "around": AROUND,
        "ratio": RATIO,
        "least": LEAST,
        "black": BLACK,
    }
    delay = AROUND
    origin = "vl"

    def __init__(self, device: torch.device | None = None) -> None:
        """`device` is for other detectors; this one is not worth the way to an accelerator."""
        self._seen: deque[_Seen] = deque(maxlen=2 * self.AROUND + 2)  # enough for a frame, those around, one before
        self._ahead = 0  # frames at the end of `_seen` that are not decided
        self._lit = False  # whether the picture was lit at any time
        self._black = False  # whether it went black since

    def push(self, frames: NDArray[np.uint8], times: NDArray[np.float64]) -> list[float]:
        cuts = []
        for blocks, time in zip(block_means(frames, self.GRID), times, strict=True):
            change = difference(blocks, self._seen[-1].blocks) if self._seen else None
            self._seen.append(_Seen(float(time), blocks, change))
            self._ahead += 1
            if self._ahead > self.AROUND:
                cuts += self._decide()
        return cuts

    def finish(self) -> list[float]:
        cuts = []
        while self._ahead:
            cuts += self._decide()
        return cuts

    def _decide(self) -> list[float]:
        """The time of the oldest open frame if a scene begins with it."""
        index = len(self._seen) - self._ahead
        self._ahead -= 1
        back = self._comes_back(self._seen[index].blocks)
        return [self._seen[index].time] if back or self._jumps(index) else []

    def _jumps(self, index: int) -> bool:
        seen = list(self._seen)
        change = seen[index].change
        if change is None or change < self.LEAST:
            return False
        before, after = seen[max(0, index - self.AROUND) : index], seen[index + 1 : index + 1 + self.AROUND]
        changes = [one.change for one in (*before, *after) if one.change is not None]
        if changes and change < self.RATIO * sum(changes) / len(changes):
            return False
        return all(difference(a.blocks, b.blocks) >= self.LEAST for b in before for a in (seen[index], *after))

    def _comes_back(self, blocks: NDArray[np.float64]) -> bool:
        """Whether the picture is lit with this frame, after it was lit and went black."""
        brightest = blocks.max()
        if brightest <= self.BLACK:
            self._black = True
        elif brightest > 2 * self.BLACK:
            back = self._lit and self._black
            self._lit, self._black = True, False
            return back
        return False


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Mean absolute difference."""
    return float(np.abs(one - other).mean())


def block_means(frames: NDArray[np.uint8], grid: int) -> NDArray[np.float64]:
    """(T, H, W, 3) to (T, grid, grid, 3): mean levels of equal blocks, from every so many pixels of a large frame.

    Sums of whole numbers: the same on every machine, however the frames arrive.
    """
    step = max(1, min(frames.shape[1:3]) // 128)
    sums_TGGC: NDArray[Any] = frames[:, step // 2 :: step, step // 2 :: step]
    counts_GG = np.ones((1, 1), np.int64)
    for axis in (1, 2):
        size = sums_TGGC.shape[axis]
        first = np.arange(grid) * size // grid
        sums_TGGC = np.add.reduceat(sums_TGGC, first, axis=axis, dtype=np.int32)
        # A picture of fewer pixels than blocks shows some of them twice: reduceat gives one element there.
        counts_GG = counts_GG[..., None] * np.maximum(np.diff(first, append=size), 1)
    means: NDArray[np.float64] = sums_TGGC / counts_GG.reshape(grid, grid, 1)
    return means
